"""Miners compared with pytorch-metric-learning on random batches: mined pairs and losses."""

import itertools

import keras
import numpy as np
import pytest
from peers import SEED_HINT, batch, compare, plain, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.utils import loss_and_miner_utils as pml_utils

from keras_metric import distances, losses
from keras_metric.layers import PairMiner, TripletMiner
from keras_metric.pairwise import class_pairs

pytestmark = pytest.mark.parity


def masks(miner, x, y, references=None, **context):
    """Pairs of our miner, as two sets."""
    others, labels = references or (None, None)
    distance = distances.pairwise(x, others, metric=miner.distance)
    y, labels = (None if v is None else keras.ops.convert_to_tensor(v) for v in (y, labels))
    found = miner.masks(distance, class_pairs.from_labels(y, labels), **context)
    return tuple(as_set(*np.nonzero(np.asarray(mask))) for mask in found)


def as_set(*columns):
    return set(zip(*(np.asarray(column).tolist() for column in columns)))


def peer(miner, x, y, references=None):
    """Index lists of the peer."""
    sets = () if references is None else (torch.tensor(references[0]), torch.tensor(references[1]))
    return miner(torch.tensor(x), torch.tensor(y), *sets)


def peer_pairs(found):
    if len(found) == 3:
        found = (found[0], found[1], found[0], found[2])
    return as_set(*found[:2]), as_set(*found[2:])


def easy_hard(positive, negative, **ranges):
    ours = {key.replace("allowed_pos", "positive").replace("allowed_neg", "negative"): limits
            for key, limits in ranges.items()}  # fmt: skip
    return (
        lambda: PairMiner("easy-hard", positive=positive, negative=negative, **ours),
        lambda: pml_miners.BatchEasyHardMiner(
            positive.replace("-", ""), negative.replace("-", ""), distance=plain(), **ranges
        ),
    )


SEMI = "semi-hard"
# Typical distances of these batches are 3 to 7.
CASES = {
    **{
        f"{positive} positive, {negative} negative": easy_hard(positive, negative)
        for positive, negative in itertools.product(("easy", SEMI, "hard", "all"), repeat=2)
        if not (SEMI in (positive, negative) and {positive, negative} <= {SEMI, "all"})
    },
    "in ranges": easy_hard(
        "hard", "easy", allowed_pos_range=(3.0, 5.0), allowed_neg_range=(4.0, 6.0)
    ),
    "multi-similarity": (
        lambda: PairMiner(distance="cosine"),
        lambda: pml_miners.MultiSimilarityMiner(),
    ),
    "multi-similarity, Euclidean": (
        lambda: PairMiner(epsilon=0.5),
        lambda: pml_miners.MultiSimilarityMiner(0.5, distance=plain()),
    ),
    "pair margin": (
        lambda: PairMiner("pair-margin", positive_margin=4.0, negative_margin=5.0),
        lambda: pml_miners.PairMarginMiner(4.0, 5.0, distance=plain()),
    ),
    "all": (lambda: PairMiner("all"), lambda: every_pair),
    "n-pairs": (lambda: PairMiner("n-pairs"), lambda: one_pair_a_class),
}


def every_pair(x, y, ref_emb=None, ref_labels=None):
    return pml_utils.get_all_pairs_indices(y, ref_labels)


def one_pair_a_class(x, y, ref_emb=None, ref_labels=None):
    """The N-pairs loss of the peer mines inside; its negatives are the other positives."""
    every = pml_utils.get_all_pairs_indices(y, ref_labels)
    a, p = pml_utils.convert_to_pos_pairs_with_unique_labels(every, y)
    row, column = torch.where(~torch.eye(len(a), dtype=torch.bool))
    return a, p, a[row], p[column]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", range(3))
def test_the_pairs(case, extra):
    ours, theirs = CASES[case]
    x, y = batch(extra)
    assert masks(ours(), x, y) == peer_pairs(peer(theirs(), x, y)), SEED_HINT
    references = batch(extra + 50, 60)
    expected = peer_pairs(peer(theirs(), x, y, references))
    assert masks(ours(), x, y, references) == expected, SEED_HINT


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("fraction", [0.5, 0.25])
def test_the_hardest_fraction(fraction, extra):
    (x, y), references = batch(extra), batch(extra + 50, 60)

    def both(*references):
        ours = PairMiner("hdc", filter_percentage=fraction)
        # A miner of the peer keeps its first batch, so each batch needs a new miner.
        theirs = pml_miners.HDCMiner(fraction, distance=plain())
        return masks(ours, x, y, *references), peer_pairs(peer(theirs, x, y, *references))

    ours, theirs = both(references)
    assert ours == theirs, SEED_HINT
    for mine, other in zip(*both()):
        # (i, j) and (j, i) are equally hard, so the last pair of the list is undefined.
        assert len(mine) == len(other)
        assert {frozenset(p) for p in mine} == {frozenset(p) for p in other}, SEED_HINT


@pytest.mark.parametrize("extra", range(3))
def test_uniform_histogram_fills_the_same_intervals(extra):
    """The peer samples with replacement, so its pairs can repeat; ours are all different."""
    x, y = batch(extra)
    settings = {"num_bins": 20, "pos_per_bin": 3, "neg_per_bin": 4}
    ours = masks(PairMiner("uniform-histogram", **settings), x, y)
    theirs = peer(pml_miners.UniformHistogramMiner(20, 3, 4, distance=plain()), x, y)
    d = plain()(torch.tensor(x)).numpy().astype("float64")
    for number, mine, other, every in zip(
        (3, 4), ours, peer_pairs(theirs), peer_pairs(every_pair(None, torch.tensor(y)))
    ):
        values = [d[pair] for pair in every]
        edges = np.linspace(min(values), max(values), 21)

        def intervals(chosen, edges=edges):
            indices = np.searchsorted(edges, [d[pair] for pair in chosen], side="right") - 1
            return np.bincount(np.clip(indices, 0, 19), minlength=20)

        np.testing.assert_array_equal(
            intervals(mine), np.minimum(number, intervals(every)), SEED_HINT
        )
        np.testing.assert_array_equal(intervals(mine) > 0, intervals(other) > 0, SEED_HINT)


KINDS = {
    "hard-all": lambda: pml_miners.TripletMarginMiner(0.3, "hard", distance=plain()),
    "semi-hard-all": lambda: pml_miners.TripletMarginMiner(0.3, "semihard", distance=plain()),
    "easy-all": lambda: pml_miners.TripletMarginMiner(0.3, "easy", distance=plain()),
    # The peer documents normalised embeddings, but does not normalise them.
    "angular": lambda: pml_miners.AngularMiner(20),
    "hard": lambda: pml_miners.BatchHardMiner(distance=plain()),
    "easy-positive": lambda: pml_miners.BatchEasyHardMiner(distance=plain()),
}


def triplet_miner(strategy):
    return TripletMiner(strategy, margin=0.3 if strategy in ("semi-hard-all", "easy-all") else None)


@pytest.mark.parametrize("strategy", KINDS)
@pytest.mark.parametrize("extra", range(3))
def test_the_pairs_of_triplets(strategy, extra):
    (x, y), references = batch(extra), batch(extra + 50, 60)
    ours, theirs = triplet_miner(strategy), KINDS[strategy]()
    found = masks(ours, x, y, metric="euclidean", among=distances.pairwise(x))
    assert found == peer_pairs(peer(theirs, x, y)), SEED_HINT
    among = distances.pairwise(references[0])
    found = masks(ours, x, y, references, metric="euclidean", among=among)
    assert found == peer_pairs(peer(theirs, x, y, references)), SEED_HINT


@pytest.mark.parametrize("strategy", KINDS)
@pytest.mark.parametrize("smooth", [False, True])
def test_triplet_losses_of_each_kind(strategy, smooth):
    form = "soft_margin" if smooth else "hinge"
    ours = losses.TripletLoss(0.5, mining=triplet_miner(strategy), form=form)
    theirs = pml_losses.TripletMarginLoss(0.5, smooth_loss=smooth, distance=plain())
    compare(ours, theirs, *batch(11), miner=KINDS[strategy]())
    compare(ours, theirs, *batch(12), references=batch(13), miner=KINDS[strategy]())


@pytest.mark.parametrize("case", [case for case in CASES if case != "multi-similarity"])
def test_a_pair_loss_of_the_pairs(case):
    ours, theirs = CASES[case]
    loss = losses.ContrastiveLoss(5.0, 1.0, mining=ours())
    peer_loss = pml_losses.ContrastiveLoss(1.0, 5.0, distance=plain())
    compare(loss, peer_loss, *batch(21), miner=repeated_single_pairs(theirs()))
    compare(
        loss, peer_loss, *batch(22), references=batch(23), miner=repeated_single_pairs(theirs())
    )


def repeated_single_pairs(miner):
    """The pair losses of the peer are zero if the miner returns a single pair of either kind.

    Repeating the pair has the same mean.
    """

    def pairs(*args, **kwargs):
        found = miner(*args, **kwargs)
        return tuple(torch.cat([i, i]) if all(len(j) <= 1 for j in found) else i for i in found)

    return pairs


def test_a_triplet_loss_of_the_pairs():
    """All triplets of the pairs, as the peer joins pairs."""
    for case in ("multi-similarity, Euclidean", "pair margin"):
        ours, theirs = CASES[case]
        loss = losses.TripletLoss(0.5, mining=ours())
        peer_loss = pml_losses.TripletMarginLoss(0.5, distance=plain())
        compare(loss, peer_loss, *batch(31), miner=theirs())


def test_a_multi_similarity_miner_before_a_loss_of_cosines():
    ours = losses.SupConLoss(0.3, mining="multi-similarity")
    compare(ours, pml_losses.SupConLoss(0.3), *batch(41), miner=pml_miners.MultiSimilarityMiner())


def test_distance_weighted_frequencies():
    x, y = batch(51, 16, 6, 4)
    theirs = pml_miners.DistanceWeightedMiner(0.6, 1.3, distance=pml_distances.LpDistance())
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    ours = TripletMiner("distance-weighted", cutoff=0.6, nonzero_loss_cutoff=1.3, seed=0)
    counts, samples = np.zeros((2, 16, 16)), 200
    for _ in range(samples):
        a, _, n = peer(theirs, x, y)
        np.add.at(counts[1], (a.numpy(), n.numpy()), 1)
        negative, weight = (np.asarray(m) for m in ours(x, y))
        a, p = np.nonzero(weight)
        np.add.at(counts[0], (a, negative[a, p]), 1)
    # The peer has one sample more for each anchor than it has positives.
    frequencies = counts / np.maximum(counts.sum(2, keepdims=True), 1)
    # Each frequency is from at least 200 samples: five standard errors.
    np.testing.assert_allclose(
        *frequencies, atol=5 * (0.25 * 2 / samples) ** 0.5, err_msg=SEED_HINT
    )
