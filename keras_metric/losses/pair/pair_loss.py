"""PairLoss: base class of the losses on the pairs of a labelled batch."""

from keras import ops

from keras_metric import distances
from keras_metric._validation import check_choice, check_one_each
from keras_metric.layers.cross_batch_memory import CrossBatchMemory
from keras_metric.losses.metric_loss import MetricLoss, measured_pairs
from keras_metric.mining import pair_rules
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.mining.triplet_miner import TripletMiner
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows
from keras_metric.pairwise.blockwise import of_matrix

LABELS = ("ids", "multi_hot")


def as_pair_miner(mining):
    """The miner of a loss's `mining` argument; None for "all"."""
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
    """Raise unless `memory` is None, or a `CrossBatchMemory` and the labels are ids."""
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
    """The similarity of the literature: larger is closer, up to 1 for cosine and Pearson."""
    return 1 - distance if metric in ("cosine", "pearson") else -distance


def chosen_pairs(miner, distance, pairs, **context):
    """The `pairs` that `miner` chooses; all if it is None.

    `context`: further arguments of `TripletMiner.masks`.
    """
    if miner is None:
        return pairs
    if isinstance(miner, TripletMiner):
        return class_pairs.from_masks(*miner.masks(distance, pairs, **context))
    return class_pairs.from_masks(*miner.masks(distance, pairs))


class PairLoss(MetricLoss):
    """Base of the losses on the pairs of a labelled batch.

    A subclass defines `pair_parts(distance, pairs)`, a list of `Rows` from the distances (batch,
    references) and the `Pairs` that count.

    Ready-made tuples `(batch, views, dim)` are views of the same items: views of one item are
    positives, and so are those of two items with the same label in `y_true`.
    """

    rows_depend_on = "references"

    def __init__(self, distance, mining, labels, reduction, name, dtype=None, memory=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        distances.check_metric("distance", distance)
        check_choice("labels", labels, LABELS)
        check_memory(memory, labels)
        self.distance = distance
        self.mining = mining
        self.labels = labels
        self.memory = memory
        self.miner = as_pair_miner(mining)
        owned = (self.miner, *distances.layers_of(distance), memory)
        self.layers = tuple(layer for layer in owned if layer is not None)

    def pair_parts(self, distance, pairs):
        """Parts of a labelled batch; see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define pair_parts.")

    def batch_parts(self, reports, labels, embeddings, *references):
        return self.pair_parts(*self.chosen(reports, labels, embeddings, *references))

    def chosen(self, reports, labels, embeddings, *references):
        """The distances of a labelled batch, and the `Pairs` that count."""
        distance, pairs = measured_pairs(reports, labels, embeddings, self.distance, *references)
        context = self.context(distance, embeddings, *references)
        return distance, chosen_pairs(self.miner, distance, pairs, **context)

    def in_blocks(self, labels, embeddings, references=None, reference_labels=None):
        """The distances of a labelled batch for `rows_in_blocks`, and the `Pairs` that count."""
        pairs = class_pairs.from_labels(labels, reference_labels)
        if self.miner is None:
            others = embeddings if references is None else references
            return distances.in_blocks(self.distance)(embeddings, others), pairs
        distance = distances.pairwise(embeddings, references, self.distance)
        context = self.context(distance, embeddings, references)
        return of_matrix(distance), chosen_pairs(self.miner, distance, pairs, **context)

    def context(self, distance, embeddings, *references):
        """Further arguments of `TripletMiner.masks`."""
        context = {"dim": embeddings.shape[1], "metric": distances.name_of(self.distance)}
        if self.miner is not None and self.miner.needs_among:
            context["among"] = among_references(distance, self.distance, *references)
        return context

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, reports, y_true, branches):
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, branches[0], "y_true", "y_pred")
        labels = ops.concatenate([labels] * len(branches))
        parts = self.batch_parts(reports, labels, ops.concatenate(branches))
        return [folded(part, len(branches)) for part in parts]


def among_references(distance, metric, references=None, reference_labels=None):
    """Distances of the references to each other; without references, those of the batch."""
    return distance if references is None else distances.pairwise(references, metric=metric)


def folded(rows, views):
    """Rows of all views, one view after the other, as rows of the items they are views of."""
    return Rows(*(ops.sum(ops.reshape(counts, (views, -1)), axis=0) for counts in rows))
