"""PairLoss: what the losses share that read the distances of a batch pair by pair."""

from keras import ops

from keras_metric import distances
from keras_metric._validation import check_choice, check_one_each
from keras_metric.layers.cross_batch_memory import CrossBatchMemory
from keras_metric.losses.metric_loss import MetricLoss, measured_pairs
from keras_metric.losses.reductions import Rows
from keras_metric.mining import pair_rules
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.mining.triplet_miner import TripletMiner
from keras_metric.pairwise import class_pairs

LABELS = ("ids", "multi_hot")


def as_pair_miner(mining):
    """The miner that a loss's `mining` argument stands for; None for "all"."""
    if isinstance(mining, (PairMiner, TripletMiner)):
        return mining
    if not isinstance(mining, str):
        raise ValueError(
            '`mining` must be "all", the name of a strategy of keras_metric.layers.PairMiner, a '
            f"PairMiner or a TripletMiner. Received: mining={mining!r}"
        )
    check_choice("mining", mining, pair_rules.STRATEGIES)
    return None if mining == "all" else PairMiner(mining)


def check_memory(memory, labels):
    """Raise unless `memory` is None or a `CrossBatchMemory` that can keep labels of this kind."""
    if memory is None:
        return
    if not isinstance(memory, CrossBatchMemory):
        raise TypeError(
            "`memory` must be a keras_metric.layers.CrossBatchMemory, such as "
            f"CrossBatchMemory(8192), or None. Received: memory={memory!r}"
        )
    if labels != "ids":
        raise ValueError(
            f'`memory` keeps class ids: it needs labels="ids". Received: labels={labels!r}'
        )


def similarity(distance, metric):
    """What the literature calls a similarity: larger is closer, up to 1 for cosine and Pearson."""
    return 1 - distance if metric in ("cosine", "pearson") else -distance


def chosen_pairs(miner, distance, partners, **context):
    """The partners that `miner` leaves, of an anchor's positives and negatives.

    `context`: what some triplet miners ask for, see `TripletMiner.masks`.
    """
    if miner is None:
        return partners
    if isinstance(miner, TripletMiner):
        return class_pairs.from_masks(*miner.masks(distance, partners, **context))
    return class_pairs.from_masks(*miner.masks(distance, partners))


class PairLoss(MetricLoss):
    """Base of the losses on the pairs of a labelled batch.

    A subclass defines `pair_parts(distance, partners)`, a list of `Rows` from the distances
    (batch, references) and the `Pairs` that count.

    Ready-made tuples `(batch, views, dim)` are views of the same items: views of one item are
    positives, as are those of two items with the same label where `y_true` has any.
    """

    rows_see = "references"

    def __init__(self, distance, mining, labels, reduction, name, dtype=None, memory=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        distances.check_metric("distance", distance)
        check_choice("labels", labels, LABELS)
        self.distance = distance
        self.mining = mining
        check_memory(memory, labels)
        self.labels = labels
        self.memory = memory
        self.miner = as_pair_miner(mining)

    @property
    def layers(self):
        miners = () if self.miner is None else (self.miner,)
        memory = () if self.memory is None else (self.memory,)
        return (*miners, *distances.layers_of(self.distance), *memory)

    def pair_parts(self, distance, partners):
        """Parts of a labelled batch, see `MetricLoss`."""
        raise NotImplementedError(f"{type(self).__name__} must define pair_parts.")

    def batch_parts(self, labels, embeddings, *references):
        return self.pair_parts(*self.chosen(labels, embeddings, *references))

    def chosen(self, labels, embeddings, *references):
        """The distances of a labelled batch, and the `Pairs` that count."""
        distance, partners = measured_pairs(labels, embeddings, self.distance, *references)
        context = self.context(distance, embeddings, *references)
        return distance, chosen_pairs(self.miner, distance, partners, **context)

    def context(self, distance, embeddings, *references):
        """What triplet miners may ask for beside the distances, see `TripletMiner.masks`."""
        context = {"dim": embeddings.shape[1], "metric": distances.name_of(self.distance)}
        if getattr(self.miner, "needs_among", False):
            context["among"] = among_references(distance, self.distance, *references)
        return context

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, y_true, branches):
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, branches[0], "y_true", "y_pred")
        labels = ops.concatenate([labels] * len(branches))
        parts = self.batch_parts(labels, ops.concatenate(branches))
        return [folded(part, len(branches)) for part in parts]


def among_references(distance, metric, references=None, reference_labels=None):
    """Distances of the references among themselves; of a batch alone those it has already."""
    return distance if references is None else distances.pairwise(references, metric=metric)


def folded(rows, views):
    """Rows of all views, one view after the other, as rows of the items they are views of."""
    return Rows(*(ops.sum(ops.reshape(counts, (views, -1)), axis=0) for counts in rows))
