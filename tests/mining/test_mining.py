"""Miners choose what the loops choose; draws follow their stated chances."""

import engine
import keras
import numpy as np
import pytest
import reference
from autodiff import DTYPE, agrees, step_by_step, value_and_gradient

from keras_metric import distances, losses
from keras_metric.layers import PairMiner, TripletMiner
from keras_metric.losses.step_reports import IGNORED
from keras_metric.mining import triplet_rules
from keras_metric.mining.miner import uniform_noise
from keras_metric.pairwise import class_pairs


def chosen(miner, x, y):
    negative, weight = (
        np.asarray(keras.ops.convert_to_numpy(m)) for m in step_by_step(miner)(x, y)
    )
    assert set(np.unique(weight)) <= {0.0, 1.0}
    return {(i, j, int(negative[i, j])) for i, j in zip(*np.nonzero(weight))}


def test_noise_is_the_hash_it_is_said_to_be(monkeypatch):
    """Whole numbers of Python, cut to 32 bits after each step, on every backend."""
    drawn = [0, 1, 2**31 - 2, 123456789, 987654321, 2**30 + 7, 5]
    integers = keras.ops.convert_to_tensor(np.array(drawn, "int32"))
    monkeypatch.setattr(keras.random, "randint", lambda *args, **kwargs: integers)
    found = keras.ops.convert_to_numpy(uniform_noise(3, 4, seed=None))
    for i, first in enumerate(drawn[:3]):
        for j, second in enumerate(drawn[3:]):
            mixed = (first + second) % 2**32
            for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
                mixed = (mixed ^ mixed >> shift) * factor % 2**32
            assert found[i, j] == np.float32((mixed % 2**23 + 0.5) / 2**23)


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
    partners = class_pairs.from_labels(labels, keras.ops.convert_to_tensor(y), own=own)
    noise = uniform_noise(draws, len(y), keras.random.SeedGenerator(1))
    listed = step_by_step(TripletMiner(strategy, **settings)._listed)
    negative, weight = listed(strategy, distance, partners, noise, x.shape[1], "euclidean")
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


def test_nobody_is_drawn_where_there_is_nobody():
    x = LINE[:4]
    assert not shares_of_draws("random", x, np.zeros(4, int), 1, draws=3)
    # On a line, at distances of 1 and 2 from the anchor: the end belongs to those never drawn.
    x, y = np.array([[0.0], [0.5], [1.0], [2.0]], "float32"), np.array([0, 0, 1, 1])
    settings = {"cutoff": 0.5, "nonzero_loss_cutoff": 1.0}
    assert not shares_of_draws("distance-weighted", x, y, 0, draws=50, **settings)
    settings["nonzero_loss_cutoff"] = 1.5
    assert set(shares_of_draws("distance-weighted", x, y, 0, draws=50, **settings)) == {(1, 2)}


@pytest.mark.parametrize("cutoffs", [(0.5, 1.4), (0.9, 1.2), (0.2, 2.5)])
def test_distance_weighted_draws_with_the_published_chances(cutoffs):
    cutoff, never = cutoffs
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
            if d[a, n] < never:
                near = max(d[a, n], cutoff)
                # 1 / q(d) with q the density of distances on the sphere in 4 dimensions.
                chance[k] = 1 / (near**2 * (1 - near**2 / 4) ** 0.5)
        settings = dict(zip(("cutoff", "nonzero_loss_cutoff"), cutoffs))
        shares = shares_of_draws("distance-weighted", x, y, a, **settings)
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
    loss = losses.TripletLoss(mining=TripletMiner(strategy, seed=5), margin=0.2)
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


def wide_angles(x, y, angle, others=None, labels=None):
    """Triplets by the angle at the negative, from the vectors themselves."""
    references = x if others is None else others
    chosen = []
    for a in range(len(y)):
        for p in reference.positives(y, a, labels):
            for n in reference.negatives(y, a, labels):
                middle = (x[a] + references[p]) / 2
                to_middle = np.linalg.norm(references[n] - middle)
                at_n = np.arctan2(np.linalg.norm(x[a] - references[p]), 2 * to_middle)
                if at_n > np.radians(angle):
                    chosen.append((a, p, n))
    return chosen


def unequal_batch(seed, size=21):
    """Classes of up to nine, and singletons, in no order."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 3)), rng.choice([3, 3, 3, 3, 0, 0, 7, 1], size)


# Bands narrower and wider than the margin of the loss, which is 0.3.
EVERY = [("hard-all", None), ("easy-all", 0.1), ("easy-all", 0.6), ("semi-hard-all", 0.6)]


class TestEveryTripletOfAKind:
    @pytest.mark.parametrize(
        ("form", "swap"), [("hinge", False), ("squared_hinge", True), ("soft_margin", False)]
    )
    @pytest.mark.parametrize(("strategy", "band"), EVERY)
    def test_by_distance(self, strategy, band, swap, form):
        x, y = unequal_batch(0)
        miner = TripletMiner(strategy, margin=band)
        loss = losses.TripletLoss(0.3, mining=miner, form=form, swap=swap, dtype=DTYPE)
        chosen = reference.triplets(reference.matrix(x), y, strategy, band)

        def loop(z):
            return reference.triplet_loss(z, y, 0.3, form=form, swap=swap, chosen=chosen)

        agrees(lambda z: loss(y, z), loop, x, jit=False)

    @pytest.mark.parametrize("form", ["hinge", "squared_hinge"])
    @pytest.mark.parametrize("margin", [0.3, 0.0, -0.2])
    @pytest.mark.parametrize(("strategy", "band"), EVERY)
    def test_by_distance_in_sorted_rows(self, strategy, band, margin, form):
        x, y = unequal_batch(1)
        miner = TripletMiner(strategy, margin=band)
        chosen = reference.triplets(reference.matrix(x), y, strategy, band)
        for reduction in ("mean_active", "mean_valid"):
            loss = losses.TripletLoss(margin, mining=miner, form=form, reduction=reduction)
            expected = reference.triplet_loss(
                x, y, margin, form=form, chosen=chosen, reduction=reduction
            )
            sorting = engine.triplets(loss, sort_above=0)
            value = float(step_by_step(sorting)(y, x.astype("float32")))
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)

    def test_three_kinds_share_all_triplets_out(self):
        x, y = unequal_batch(2)
        x = np.round(x.astype("float32"))

        def number(mining):
            loss = losses.TripletLoss(50.0, "manhattan", mining, reduction="none")
            return sum(
                np.asarray(keras.ops.convert_to_numpy(part.valid)).sum()
                for part in step_by_step(loss.batch_parts)(
                    IGNORED, keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(x)
                )
            )

        kinds = ("semi-hard-all", "easy-all")
        parts = [TripletMiner(kind, margin=1.0) for kind in kinds] + ["hard-all"]
        assert sum(map(number, parts)) == number("all")

    @pytest.mark.parametrize(
        ("metric", "angle", "swap"),
        [
            ("euclidean", 20.0, False),
            ("euclidean", 40.0, True),
            ("squared_euclidean", 40.0, False),
            ("cosine", 20.0, True),
            ("dot", 30.0, False),
        ],
    )
    def test_by_angle(self, metric, angle, swap):
        x, y = unequal_batch(3)
        others, labels = unequal_batch(4, 27)
        if metric in ("cosine", "dot"):
            x, others = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, others))
        miner = TripletMiner("angular", angle=angle)
        loss = losses.TripletLoss(0.3, metric, miner, swap=swap, dtype=DTYPE)
        triplets = wide_angles(x, y, angle)
        assert 0 < len(triplets) < len(reference.triplets(reference.matrix(x), y, "all"))

        def loop(z, chosen, **references):
            return reference.triplet_loss(z, y, 0.3, metric, swap=swap, chosen=chosen, **references)

        agrees(lambda z: loss(y, z), lambda z: loop(z, triplets), x, jit=False)
        among = wide_angles(x, y, angle, others, labels)
        agrees(
            lambda z: loss.against(y, z, labels, others.astype(DTYPE)),
            lambda z: loop(z, among, references=(others, labels)),
            x,
            jit=False,
        )

    def test_the_angle_knows_no_scale(self):
        x, y = unequal_batch(3)
        loss = losses.TripletLoss(0.0, mining="angular", reduction="mean_valid")
        once, thrice = (float(step_by_step(loss)(y, (k * x).astype("float32"))) for k in (1, 3))
        assert thrice == pytest.approx(3 * once, rel=1e-4)

    def test_by_angle_in_a_pair_loss_and_a_quadruplet_loss(self):
        x, y = unequal_batch(3)
        others, labels = unequal_batch(4, 27)
        chosen = wide_angles(x, y, 20), wide_angles(x, y, 20, others, labels)
        for triplets, references in zip(chosen, ((None, None), (others, labels))):
            d = reference.matrix(x, references=references[0])
            near, far = {t[:2] for t in triplets}, {(t[0], t[2]) for t in triplets}
            expected = np.mean([d[p] for p in near]) + np.mean([5 - d[n] for n in far if d[n] < 5])
            loss = losses.ContrastiveLoss(5.0, mining=TripletMiner("angular"))
            value = self.value(loss, x, y, *references)
            assert value == pytest.approx(expected, rel=1e-4)
            loss = losses.QuadrupletLoss(1.0, distance="euclidean", mining="angular")
            first = losses.TripletLoss(1.0, mining="angular")
            rest = losses.QuadrupletLoss(1.0, distance="euclidean", mining="all")
            every = losses.TripletLoss(1.0, mining="all")
            found, first, rest, every = (
                self.value(one, x, y, *references) for one in (loss, first, rest, every)
            )
            assert found - first == pytest.approx(rest - every, rel=1e-3)

    def value(self, loss, x, y, others, labels):
        x = x.astype("float32")
        if others is None:
            return float(step_by_step(loss)(y, x))
        return float(step_by_step(loss.against)(y, x, labels, others.astype("float32")))

    @pytest.mark.parametrize("strategy", ["hard-all", "easy-all", "angular"])
    def test_blocks_of_rows_change_nothing(self, strategy):
        x, y = unequal_batch(5)
        loss = losses.TripletLoss(0.3, mining=strategy, form="soft_margin")
        whole = value_and_gradient(lambda z: loss(y, z), x.astype("float32"))
        run = engine.triplets(loss, size=4)
        blocks = value_and_gradient(lambda z: run(y, z), x.astype("float32"))
        for once, again in zip(whole, blocks):
            np.testing.assert_allclose(again, once, rtol=1e-4, atol=1e-6)


def test_both_kinds_of_miners_keep_the_same_promises():
    for miner in (TripletMiner(("hard", "all")), PairMiner(("hdc", "all"))):
        assert miner.strategies[1] == "all" and miner.stage is not None
        miner.use("all")
        assert int(keras.ops.convert_to_numpy(miner.stage)) == 1
        assert miner.compute_output_shape((7, 3), (7,)) == ((7, 7), (7, 7))


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("banana", {}, "must be one of"),
        ((), {}, "at least one"),
        (("all", "hard"), {"margin": 0.3}, "`margin` is a setting of"),
        ("all", {"angle": 30}, "`angle` is a setting of"),
        *(("angular", {"angle": angle}, "`angle` must be") for angle in (0, 91)),
        *(
            ("distance-weighted", wrong, "cutoff` must be")
            for wrong in ({"cutoff": 0}, {"cutoff": 1.5}, {"nonzero_loss_cutoff": 0.4})
        ),
    ],
)
def test_miner_errors(strategy, settings, message):
    with pytest.raises(ValueError, match=message):
        TripletMiner(strategy, **settings)


def test_errors_of_a_miner_in_use():
    x, y = np.eye(3, dtype="float32"), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="closed form"):
        TripletMiner("all")(x, y)
    for mining, message in (
        ("angular", "angles between embeddings"),
        ("distance-weighted", "unit sphere"),
        ("easy-all", "must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.TripletLoss(mining=mining, distance="manhattan")(y, x)


def test_miner_config_round_trip():
    miner = TripletMiner(
        ("random", "angular", "easy-all"), margin=0.4, angle=30.0, distance="cosine", seed=3
    )
    again = TripletMiner.from_config(miner.get_config())
    assert again.get_config() == miner.get_config()


def test_pairs_among_references_keep_the_anchor_apart():
    y, references = np.array([2, 5, 9]), np.array([5, 2, 2, 7, 5, 5])
    found = class_pairs.from_labels(
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
    assert set(triplet_rules.STRATEGIES) == {
        "all", "semi-hard", "semi-hard-all", "semi-hard-random", "hard", "soft-hard",
        "easy-positive", "random", "distance-weighted", "hard-all", "easy-all", "angular",
    }  # fmt: skip
    assert tuple(sorted(distances.METRICS)) == distances.METRICS
