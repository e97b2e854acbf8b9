"""Losses with other block sizes and sort thresholds than the defaults of the engine."""

from keras import ops

from keras_metric import distances
from keras_metric.losses.step_reports import IGNORED
from keras_metric.losses.triplet.triplet_loss import triplet_rows
from keras_metric.pairwise import class_pairs


def triplets(loss, **engine):
    """The `TripletLoss` as a function of (labels, embeddings, ...), with settings of the engine.

    `engine`: `size`, number of rows of a block; `kept`, number of distances up to which their
    derivatives are kept; `sort_above`, number of positives from which sorting replaces the loop.
    """

    def run(y, z, weights=None, labels=None, others=None):
        y, z = ops.convert_to_tensor(y), ops.convert_to_tensor(z)
        labels = None if labels is None else ops.convert_to_tensor(labels)
        references = z if others is None else ops.convert_to_tensor(others)
        among = distances.pairwise(references, metric=loss.distance)
        rows = triplet_rows(
            IGNORED,
            distances.in_blocks(loss.distance)(z, references),
            class_pairs.from_labels(y, labels),
            loss.miner,
            loss.margin,
            loss.form,
            loss.distance,
            z.shape[1],
            among,
            **engine,
        )
        return loss._reduced([rows], weights, loss.dtype)

    return run


def lists(loss, **engine):
    """A loss with rows in blocks as a function of (labels, embeddings, ...); `engine`: as above."""

    def run(y, z, labels=None, others=None):
        batch = [ops.convert_to_tensor(x) for x in (y, z, others, labels) if x is not None]
        return loss._reduced(loss.batch_parts(IGNORED, *batch, **engine), None, loss.dtype)

    return run
