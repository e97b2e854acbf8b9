"""Miners choose what the loops choose; draws follow their stated chances."""

import keras
import numpy as np
import pytest
import reference
from autodiff import step_by_step

from keras_metric import distances, losses, mining, pairs
from keras_metric.layers import TripletMiner


def chosen(miner, x, y):
    negative, weight = (
        np.asarray(keras.ops.convert_to_numpy(m)) for m in step_by_step(miner)(x, y)
    )
    assert set(np.unique(weight)) <= {0.0, 1.0}
    return {(i, j, int(negative[i, j])) for i, j in zip(*np.nonzero(weight))}


@pytest.mark.parametrize("strategy", ["semi-hard", "hard", "easy-positive"])
@pytest.mark.parametrize("seed", range(6))
def test_the_choice_equals_the_loops(strategy, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, 17)
    x = rng.normal(size=(17, 3)).astype("float32")
    d = reference.matrix(x)
    ours = chosen(TripletMiner(strategy), x, y)
    assert ours == set(reference.triplets(d, y, strategy))


@pytest.mark.parametrize("strategy", ["semi-hard", "hard", "easy-positive"])
def test_ties_go_to_the_lowest_column(strategy):
    x = np.array([[0.0], [1.0], [2.0], [-2.0], [2.0], [-2.0]], "float32")
    y = np.array([0, 0, 1, 1, 2, 2])
    d = reference.matrix(x)
    assert chosen(TripletMiner(strategy), x, y) == set(reference.triplets(d, y, strategy))


def shares_of_draws(strategy, x, y, anchor, draws=2000, **settings):
    """How often each (positive, negative) is drawn for one anchor, in `draws` rows at once."""
    distance = distances.pairwise(np.repeat(x[anchor : anchor + 1], draws, axis=0), x)
    labels = keras.ops.convert_to_tensor(np.repeat(y[anchor : anchor + 1], draws))
    own = keras.ops.full((draws,), anchor, dtype="int32")
    partners = pairs.from_labels(labels, keras.ops.convert_to_tensor(y), own=own)
    noise = mining.draw_noise(draws, len(y), keras.random.SeedGenerator(1))
    negative, weight = step_by_step(mining.triplets)(
        strategy, distance, partners, noise, dim=x.shape[1], **settings
    )
    negative, weight = (np.asarray(keras.ops.convert_to_numpy(m)) for m in (negative, weight))
    shares = {}
    for i, j in zip(*np.nonzero(weight)):
        key = int(j), int(negative[i, j])
        shares[key] = shares.get(key, 0) + 1 / draws
    return shares


LINE = np.array([[0.0], [1.0], [0.8], [1.1], [1.15], [3.0], [3.1]], "float32")
LINE_LABELS = np.array([0, 0, 0, 1, 1, 2, 2])


def test_random_negatives_are_equally_likely():
    for a, p in [(0, 1), (0, 2), (1, 0), (3, 4)]:
        shares = shares_of_draws("random", LINE, LINE_LABELS, a)
        negatives = reference.negatives(LINE_LABELS, a)
        drawn = [shares.get((p, n), 0) for n in negatives]
        np.testing.assert_allclose(drawn, 1 / len(negatives), atol=0.05)


def test_semi_hard_random_draws_inside_the_band():
    d = reference.matrix(LINE)
    band = reference.triplets(d, LINE_LABELS, "semi-hard-all", 0.2)
    for a in range(len(LINE)):
        shares = shares_of_draws("semi-hard-random", LINE, LINE_LABELS, a, margin=0.2)
        assert set(shares) == {t[1:] for t in band if t[0] == a}
    # Anchor 0 with positive 1 at 1.0 has 1.1 and 1.15 in its band.
    shares = shares_of_draws("semi-hard-random", LINE, LINE_LABELS, 0, margin=0.2)
    assert shares[1, 3] == pytest.approx(0.5, abs=0.05)
    assert shares[1, 4] == pytest.approx(0.5, abs=0.05)


def test_soft_hard_draws_among_the_hard_ones():
    d = reference.matrix(LINE)
    for a in range(len(LINE)):
        P, N = reference.positives(LINE_LABELS, a), reference.negatives(LINE_LABELS, a)
        nearest, farthest = min(d[a, n] for n in N), max(d[a, p] for p in P)
        hard_p = {p for p in P if d[a, p] > nearest} or set(P)
        hard_n = {n for n in N if d[a, n] < farthest} or set(N)
        shares = shares_of_draws("soft-hard", LINE, LINE_LABELS, a)
        assert set(shares) == {(p, n) for p in hard_p for n in hard_n}


def test_distance_weighted_draws_with_the_published_chances():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    y = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    d = reference.matrix(x)
    for a in (0, 3):
        p = reference.positives(y, a)[0]
        negatives = reference.negatives(y, a)
        chance = np.zeros(len(negatives))
        for k, n in enumerate(negatives):
            if d[a, n] < 1.4:
                near = max(d[a, n], 0.5)
                # 1 / q(d) with q the density of distances on the sphere in 4 dimensions.
                chance[k] = 1 / (near**2 * (1 - near**2 / 4) ** 0.5)
        shares = shares_of_draws("distance-weighted", x, y, a)
        drawn = [shares.get((p, n), 0) for n in negatives]
        np.testing.assert_allclose(drawn, chance / chance.sum(), atol=0.04)


def test_a_seed_repeats_the_draws_and_another_changes_them():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)).astype("float32"), np.repeat(np.arange(5), 4)
    first = chosen(TripletMiner("random", seed=3), x, y)
    assert chosen(TripletMiner("random", seed=3), x, y) == first
    assert chosen(TripletMiner("random", seed=4), x, y) != first
    miner = TripletMiner("random", seed=3)
    assert chosen(miner, x, y) != chosen(miner, x, y)


def test_positives_of_one_anchor_draw_apart():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype("float32"), np.repeat(np.arange(4), 10)
    triplets = chosen(TripletMiner("random", seed=0), x, y)
    per_anchor = [len({t[2] for t in triplets if t[0] == a}) for a in range(40)]
    # Nine draws among 30 negatives: about eight differ.
    assert np.mean(per_anchor) > 6


@pytest.mark.parametrize("strategy", ["random", "soft-hard", "semi-hard-random"])
def test_random_strategies_inside_a_loss_are_some_triplets_of_the_batch(strategy):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype("float32"), np.repeat(np.arange(3), 4)
    loss = losses.TripletLoss(mining=TripletMiner(strategy, seed=5, margin=0.2), margin=0.2)
    triplets = chosen(TripletMiner(strategy, seed=5), x, y)
    expected = reference.triplet_loss(x, y, 0.2, chosen=triplets)
    assert float(loss(y, x)) == pytest.approx(expected, rel=1e-4)


def test_the_stage_decides_the_strategy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype("float32"), np.repeat(np.arange(3), 4)
    miner = TripletMiner(("all", "semi-hard", "hard"))
    loss = losses.TripletLoss(mining=miner)
    for name in ("hard", "all", "semi-hard"):
        miner.use(name)
        assert float(loss(y, x)) == pytest.approx(float(losses.TripletLoss(mining=name)(y, x)))
    with pytest.raises(ValueError, match="must be one of"):
        miner.use("random")


def test_miner_errors():
    with pytest.raises(ValueError, match="must be one of"):
        TripletMiner("banana")
    with pytest.raises(ValueError, match="at least one"):
        TripletMiner(())
    with pytest.raises(ValueError, match="closed form"):
        TripletMiner("all")(np.ones((2, 2), "float32"), np.array([0, 1]))
    with pytest.raises(ValueError, match="unit sphere"):
        losses.TripletLoss(mining="distance-weighted", distance="manhattan")(
            np.array([0, 0, 1]), np.eye(3, dtype="float32")
        )


def test_miner_config_round_trip():
    miner = TripletMiner(("random", "hard"), margin=0.4, distance="cosine", seed=3)
    again = TripletMiner.from_config(miner.get_config())
    assert again.get_config() == miner.get_config()


def test_pairs_among_references_keep_the_anchor_apart():
    y, references = np.array([2, 5, 9]), np.array([5, 2, 2, 7, 5, 5])
    found = pairs.from_labels(
        keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(references)
    )
    np.testing.assert_array_equal(found.positive, y[:, None] == references)
    np.testing.assert_array_equal(found.negative, y[:, None] != references)
    np.testing.assert_array_equal(found.num_positives, [2, 3, 0])
    columns = [[], [], []]
    for rank in range(3):
        column, exists = (np.asarray(keras.ops.convert_to_numpy(v)) for v in found.column(rank))
        for i in range(3):
            columns[i] += [int(column[i])] if exists[i] else []
    assert columns == [[1, 2], [0, 4, 5], []]


def test_strategies_are_complete():
    assert set(mining.STRATEGIES) == {
        "all", "semi-hard", "semi-hard-all", "semi-hard-random", "hard", "soft-hard",
        "easy-positive", "random", "distance-weighted",
    }  # fmt: skip
    assert tuple(sorted(distances.METRICS)) == distances.METRICS
