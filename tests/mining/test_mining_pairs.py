"""Pair miners choose what slow loops choose; draws are uniform; losses learn from the choice."""

import itertools
import math

import keras
import numpy as np
import pytest
import reference
from autodiff import DTYPE, agrees, step_by_step

from keras_metric import distances, losses
from keras_metric.callbacks import MiningSchedule
from keras_metric.layers import PairMiner, TripletMiner
from keras_metric.mining import pair_rules
from keras_metric.mining.pair_rules import smallest
from keras_metric.models import EmbeddingModel
from keras_metric.pairwise import class_pairs


def positives_and_negatives(y, others=None):
    P = {(i, j) for i in range(len(y)) for j in reference.positives(y, i, others)}
    return P, {(i, j) for i in range(len(y)) for j in reference.negatives(y, i, others)}


def easy_hard(d, y, others, positive="easy", negative="semi-hard", inside=(None, None)):
    """Anchor by anchor, as the docstring has it."""
    least, most = (dict(zip(("positive", "negative"), limits)) for limits in zip(*LIMITS[inside]))
    chosen = set(), set()
    for a in range(len(y)):
        P = [j for j in reference.positives(y, a, others)
             if least["positive"] <= d[a, j] <= most["positive"]]  # fmt: skip
        N = [j for j in reference.negatives(y, a, others)
             if least["negative"] <= d[a, j] <= most["negative"]]  # fmt: skip
        key = d[a].__getitem__
        if positive == "semi-hard" and N:
            bound = (max if negative == "easy" else min)(map(key, N))
            P = [j for j in P if d[a, j] < bound]
        elif negative == "semi-hard" and P:
            bound = (min if positive == "easy" else max)(map(key, P))
            N = [j for j in N if d[a, j] > bound]
        if "all" not in (positive, negative) and not (P and N):
            continue
        if positive != "all" and P:
            P = [(min if positive == "easy" else max)(P, key=key)]
        if negative != "all" and N:
            N = [(max if negative == "easy" else min)(N, key=key)]
        chosen[0].update((a, j) for j in P)
        chosen[1].update((a, j) for j in N)
    return chosen


LIMITS = {
    (None, None): ((-math.inf, math.inf), (-math.inf, math.inf)),
    ((1.0, 2.0), (0.9, 2.2)): ((1.0, 2.0), (0.9, 2.2)),
}


def multi_similarity(d, y, others, epsilon=0.1):
    P, N = positives_and_negatives(y, others)
    chosen = set(), set()
    for a in range(len(y)):
        near = [d[a, j] for i, j in N if i == a]
        far = [d[a, j] for i, j in P if i == a]
        if near and far:
            chosen[0].update(p for p in P if p[0] == a and d[p] > min(near) - epsilon)
            chosen[1].update(n for n in N if n[0] == a and d[n] < max(far) + epsilon)
    return chosen


def pair_margin(d, y, others, positive_margin=0.2, negative_margin=0.8):
    P, N = positives_and_negatives(y, others)
    return {p for p in P if d[p] > positive_margin}, {n for n in N if d[n] < negative_margin}


def hdc(d, y, others, filter_percentage=0.5):
    P, N = positives_and_negatives(y, others)

    def hardest(all_of_them, key):
        count = math.ceil(filter_percentage * len(all_of_them))
        return set(sorted(sorted(all_of_them), key=key)[:count])

    return hardest(P, lambda p: -d[p]), hardest(N, lambda n: d[n])


def n_pairs(d, y, others):
    P, N = positives_and_negatives(y, others)
    first = {}
    for a, p in sorted(P):
        if a == min(i for i in range(len(y)) if y[i] == y[a]):
            first.setdefault(y[a], (a, p))
    mates = {p for _, p in first.values()}
    leads = {a for a, _ in first.values()}
    return set(first.values()), {(a, j) for a, j in N if a in leads and j in mates}


def everything(d, y, others):
    return positives_and_negatives(y, others)


SEMI = "semi-hard"
CHOICES = [
    (p, n) for p, n in itertools.product(("easy", SEMI, "hard", "all"), repeat=2)
    if not (SEMI in (p, n) and {p, n} <= {SEMI, "all"})
]  # fmt: skip
CASES = [
    ("all", everything, {}),
    *(("easy-hard", easy_hard, {"positive": p, "negative": n}) for p, n in CHOICES),
    *(
        ("easy-hard", easy_hard, {"positive": p, "negative": n, "inside": list(LIMITS)[1]})
        for p, n in (("easy", SEMI), (SEMI, "easy"), ("all", "hard"))
    ),
    ("multi-similarity", multi_similarity, {}),
    ("multi-similarity", multi_similarity, {"epsilon": 0.4}),
    ("pair-margin", pair_margin, {}),
    ("pair-margin", pair_margin, {"positive_margin": 1.5, "negative_margin": 1.7}),
    ("hdc", hdc, {}),
    ("hdc", hdc, {"filter_percentage": 0.25}),
    ("n-pairs", n_pairs, {}),
]


def build(strategy, settings, **more):
    settings = {**settings, **more}
    limits = settings.pop("inside", None)
    if limits:
        settings |= {"positive_range": limits[0], "negative_range": limits[1]}
    return PairMiner(strategy, **settings)


def as_set(mask):
    mask = np.asarray(keras.ops.convert_to_numpy(mask))
    assert set(np.unique(mask)) <= {0, 1}
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(mask))}


def chosen(miner, x, y, references=None, labels=None):
    """What the miner chooses, as two sets of pairs, and the distances that it saw."""
    distance = distances.pairwise(x, references)
    y, labels = (None if v is None else keras.ops.convert_to_tensor(v) for v in (y, labels))
    masks = step_by_step(miner.masks)(distance, class_pairs.from_labels(y, labels))
    return tuple(as_set(mask) for mask in masks), np.asarray(keras.ops.convert_to_numpy(distance))


def batch(seed, size=17):
    """Unequal classes and singletons, in no order."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 3)).astype("float32"), rng.choice(
        [4, 4, 4, 1, 1, 9, 2, 7], size
    ).astype("int32")


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("strategy", "loop", "settings"), CASES)
def test_the_choice_equals_the_loops(strategy, loop, settings, alone):
    for seed in range(4):
        (x, y), (others, labels) = batch(seed), batch(seed + 50, 23)
        others, labels = (None, None) if alone else (others, labels)
        found, d = chosen(build(strategy, settings), x, y, others, labels)
        # A matrix and its transpose differ in the last digits, which would decide between equals.
        assert found == loop(d, y, labels, **settings), seed


def test_the_call_measures_and_chooses():
    x, y = batch(7)
    for metric in ("euclidean", "cosine"):
        found = step_by_step(PairMiner("hdc", distance=metric))(x, y)
        assert tuple(map(as_set, found)) == hdc(reference.matrix(x, metric), y, None)


@pytest.mark.parametrize(("strategy", "loop", "settings"), CASES)
def test_odd_batches(strategy, loop, settings):
    x, _ = batch(3, 6)
    for y, z in (
        (np.zeros(6, "int32"), x),
        (np.arange(6), x),
        (np.array([0, 0, 1, 1, 2, 3]), np.ones_like(x)),
        (np.array([5]), x[:1]),
        (np.array([5, 5]), x[:2]),
        (np.array([5, 6]), x[:2]),
    ):
        found, d = chosen(build(strategy, settings), z, y)
        assert found == loop(d, y, None, **settings), y


LINE = np.arange(9, dtype="float32")[:, None]
LINE_LABELS = np.array([0, 0, 1, 1, 0, 2, 1, 1, 1])


@pytest.mark.parametrize(
    ("positive", "negative", "a", "p", "n"),
    [
        ("hard", "hard", [0, 1, 2, 3, 4, 6, 7, 8], [4, 4, 8, 8, 0, 2, 2, 2],
         [2, 2, 1, 4, 3, 5, 5, 5]),
        ("hard", SEMI, [0, 1, 6, 7, 8], [4, 4, 2, 2, 2], [5, 5, 1, 1, 1]),
        (SEMI, "hard", [0, 7, 8], [1, 6, 6], [2, 5, 5]),
        ("easy", "easy", [0, 1, 2, 3, 4, 6, 7, 8], None, [8, 8, 5, 0, 8, 0, 0, 0]),
    ],
)  # fmt: skip
def test_easy_and_hard_of_nine_points_on_a_line(positive, negative, a, p, n):
    """The numbers of pytorch-metric-learning's own tests; ties at the lowest column."""
    miner = PairMiner("easy-hard", positive=positive, negative=negative)
    (P, N), _ = chosen(miner, LINE, LINE_LABELS)
    assert sorted(N) == list(zip(a, n))
    assert [i for i, _ in sorted(P)] == a
    assert p is None or sorted(P) == list(zip(a, p))


def test_multi_similarity_and_pair_margin_of_five_angles():
    """As pytorch-metric-learning has them."""
    t, y = np.radians([0, 20, 40, 60, 80]), np.array([0, 0, 1, 1, 2])
    x = np.stack([2 * np.cos(t), 0.5 * np.sin(t)], 1)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    pairs_of_both = [(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1)]
    P, N = map(as_set, step_by_step(PairMiner(distance="cosine"))(x, y))
    assert sorted(P) == [(0, 1), (1, 0), (2, 3), (3, 2)]
    assert sorted(N) == pairs_of_both
    P, N = map(as_set, step_by_step(PairMiner("pair-margin"))(x, y))
    assert sorted(P) == [(2, 3), (3, 2)]
    assert sorted(N) == sorted([*pairs_of_both, (2, 4), (3, 4), (4, 2), (4, 3)])


def test_the_hardest_share_is_exact_where_distances_are_equal():
    x, y = np.ones((7, 2), "float32"), np.array([0, 0, 0, 1, 1, 2, 2])
    for share in (0.1, 0.5, 0.9, 1.0):
        (P, N), _ = chosen(PairMiner("hdc", filter_percentage=share), x, y)
        assert (len(P), len(N)) == (math.ceil(share * 10), math.ceil(share * 32))


@pytest.mark.parametrize("strategy", ["all", "multi-similarity", "easy-hard"])
@pytest.mark.parametrize("ratio", [1, 2])
def test_negatives_per_positive_keeps_the_nearest(strategy, ratio):
    for seed in range(4):
        x, y = batch(seed)
        (P, every), d = chosen(PairMiner(strategy), x, y)
        (same, N), _ = chosen(PairMiner(strategy, negatives_per_positive=ratio), x, y)
        assert same == P
        for a in range(len(y)):
            mine = sorted((d[a, j], j) for i, j in every if i == a)
            number = ratio * sum(i == a for i, _ in P)
            assert {j for i, j in N if i == a} == {j for _, j in mine[:number]}


VALUES = {
    "normal": lambda rng: rng.normal(size=(6, 40)),
    "equal": lambda rng: rng.integers(0, 3, (6, 40)).astype("float64"),
    "far apart": lambda rng: 10.0 ** rng.uniform(-30, 30, (6, 40)) * rng.choice([-1, 1], (6, 40)),
    "zero": lambda rng: np.zeros((6, 40)),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", VALUES)
def test_the_smallest_of_a_row_or_a_matrix(kind, whole, rng):
    values, mask = VALUES[kind](rng).astype("float32"), rng.random((6, 40)) < 0.6
    mask[2] = False
    counts = [0, 1, 7, 50, 300] if whole else [rng.integers(0, 30, 6) for _ in range(4)]
    for count in counts:
        wanted = count if whole else count[:, None].astype("int32")
        found = step_by_step(smallest)(
            *map(keras.ops.convert_to_tensor, (values, mask, wanted)), whole=whole
        )
        places = np.argwhere(mask)
        order = places[np.argsort(values[mask], kind="stable")]
        if whole:
            expected = order[:count]
        else:
            expected = [
                place
                for row in range(6)
                for place in [p for p in order.tolist() if p[0] == row][: count[row]]
            ]
        assert as_set(found) == {tuple(map(int, place)) for place in expected}


class TestUniformHistogram:
    def bins(self, d, pairs_of_a_kind, number):
        """Pairs of each interval."""
        values = np.array([d[pair] for pair in pairs_of_a_kind])
        edges = np.linspace(values.min(), values.max(), number + 1)
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, number - 1)
        return [{p for p, k in zip(pairs_of_a_kind, place) if k == b} for b in range(number)]

    @pytest.mark.parametrize(("pos", "neg"), [(2, 5), (4, 3), (100, 1)])
    def test_each_interval_gives_its_number(self, pos, neg):
        for seed in range(3):
            x, y = batch(seed, 30)
            miner = PairMiner(
                "uniform-histogram", num_bins=7, pos_per_bin=pos, neg_per_bin=neg, seed=seed
            )
            found, d = chosen(miner, x, y)
            for number, some, every in zip((pos, neg), found, positives_and_negatives(y)):
                assert some <= every
                for members in self.bins(d, sorted(every), 7):
                    assert len(some & members) == min(number, len(members))

    def test_each_pair_of_an_interval_is_equally_likely(self):
        x, y = batch(1, 14)
        miner = PairMiner("uniform-histogram", num_bins=3, pos_per_bin=2, neg_per_bin=4, seed=0)
        distance = distances.pairwise(x)
        partners = class_pairs.from_labels(keras.ops.convert_to_tensor(y))
        draws, counts = 60, 0
        for _ in range(draws):
            masks = step_by_step(miner.masks)(distance, partners)
            counts = counts + np.array([keras.ops.convert_to_numpy(m) for m in masks], "float64")
        d = np.asarray(keras.ops.convert_to_numpy(distance))
        wrong = []
        for number, share, every in zip((2, 4), counts / draws, positives_and_negatives(y)):
            for members in self.bins(d, sorted(every), 3):
                found = np.array([share[pair] for pair in members])
                chance = number / max(len(members), number)
                if chance == 1:
                    assert (found == 1).all()
                else:
                    # In units of the standard error.
                    wrong += list((found - chance) / np.sqrt(chance * (1 - chance) / draws))
        assert len(wrong) > 100
        assert 0.75 < np.sqrt(np.square(wrong).mean()) < 1.25

    def test_equal_distances_are_one_interval(self):
        x, y = np.ones((8, 2), "float32"), np.array([0, 0, 0, 0, 1, 1, 1, 1])
        miner = PairMiner("uniform-histogram", pos_per_bin=3, neg_per_bin=5, seed=0)
        (P, N), _ = chosen(miner, x, y)
        assert (len(P), len(N)) == (3, 5)

    def test_a_seed_repeats_the_draws_and_another_changes_them(self):
        x, y = batch(0, 30)
        settings = {"num_bins": 3, "pos_per_bin": 2, "neg_per_bin": 2}

        def draw(seed):
            miner = PairMiner("uniform-histogram", **settings, seed=seed)
            return chosen(miner, x, y)[0], chosen(miner, x, y)[0]

        assert draw(3) == draw(3)
        assert draw(3)[0] != draw(4)[0]
        assert draw(3)[0] != draw(3)[1]


def contrastive(d, chosen_pairs, margin):
    near = [d[p] for p in chosen_pairs[0] if d[p] > 0]
    far = [margin - d[n] for n in chosen_pairs[1] if margin > d[n]]
    return (np.mean(near) if near else 0) + (np.mean(far) if far else 0)


@pytest.mark.parametrize("strategy", pair_rules.STRATEGIES)
def test_a_loss_learns_from_the_chosen_pairs(strategy):
    x, y = batch(2)
    found, _ = chosen(PairMiner(strategy, seed=5), x, y)
    loss = losses.ContrastiveLoss(3.0, mining=PairMiner(strategy, seed=5), dtype=DTYPE)
    agrees(
        lambda z: loss(y, z), lambda z: contrastive(reference.matrix(z), found, 3.0), x, jit=False
    )


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("pair-margin", {"positive_margin": 1.0, "negative_margin": 1.9}), ("multi-similarity", {})],
)
def test_a_triplet_loss_learns_from_every_triplet_of_the_chosen_pairs(strategy, settings, swap):
    x, y = batch(2)
    (P, N), _ = chosen(PairMiner(strategy, **settings), x, y)
    triplets = [(a, p, n) for a, p in P for i, n in N if i == a]
    loss = losses.TripletLoss(0.5, mining=PairMiner(strategy, **settings), swap=swap)
    expected = reference.triplet_loss(x, y, 0.5, chosen=triplets, swap=swap)
    assert float(step_by_step(loss)(y, x)) == pytest.approx(expected, rel=1e-4)


class TestTripletMinersOfPairLosses:
    """A loss on pairs takes the pairs that occur in the triplets, each once."""

    def occurring(self, triplets):
        return {(a, p) for a, p, _ in triplets}, {(a, n) for a, _, n in triplets}

    def masks(self, miner, x, y, references=None, labels=None, **context):
        distance = distances.pairwise(x, references)
        y, labels = (None if v is None else keras.ops.convert_to_tensor(v) for v in (y, labels))
        found = step_by_step(miner.masks)(distance, class_pairs.from_labels(y, labels), **context)
        return tuple(map(as_set, found))

    @pytest.mark.parametrize(
        "strategy",
        ["all", "semi-hard", "semi-hard-all", "hard-all", "easy-all", "hard", "easy-positive"],
    )
    def test_the_pairs_of_the_triplets(self, strategy):
        for seed in range(4):
            (x, y), (others, labels) = batch(seed), batch(seed + 50, 23)
            expected = self.occurring(reference.triplets(reference.matrix(x), y, strategy))
            assert self.masks(TripletMiner(strategy), x, y) == expected
            d = reference.matrix(x, references=others)
            expected = self.occurring(reference.triplets(d, y, strategy, others=labels))
            assert self.masks(TripletMiner(strategy), x, y, others, labels) == expected

    @pytest.mark.parametrize(
        "strategy", ["random", "semi-hard-random", "soft-hard", "distance-weighted"]
    )
    def test_the_pairs_of_the_triplets_drawn(self, strategy):
        x, y = batch(0)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        miners = [TripletMiner(strategy, seed=3) for _ in range(2)]
        negative, weight = (keras.ops.convert_to_numpy(m) for m in step_by_step(miners[0])(x, y))
        triplets = [(i, j, int(negative[i, j])) for i, j in as_set(weight)]
        found = self.masks(miners[1], x, y, dim=3, metric="euclidean")
        assert found == self.occurring(triplets)

    @pytest.mark.parametrize("strategy", ["angular", "hard", "distance-weighted"])
    def test_losses_hand_over_what_the_miner_asks_for(self, strategy):
        (x, y), (others, labels) = batch(1), batch(51, 23)
        for metric in ("cosine", "euclidean"):
            loss = losses.ContrastiveLoss(1.0, distance=metric, mining=TripletMiner(strategy))
            value = step_by_step(loss)(y, x), step_by_step(loss.against)(y, x, labels, others)
            assert all(float(v) > 0 for v in value)

    def test_labels_of_several_classes(self):
        x, _ = batch(0, 6)
        y = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
        for mining_of in (*pair_rules.STRATEGIES, TripletMiner("semi-hard-all")):
            loss = losses.ContrastiveLoss(3.0, mining=mining_of, labels="multi_hot")
            if mining_of == "n-pairs":
                with pytest.raises(ValueError, match="one pair of each class"):
                    step_by_step(loss)(y, x)
            else:
                assert np.isfinite(float(step_by_step(loss)(y, x)))


class TestSchedule:
    def test_the_stage_decides_the_strategy(self):
        x, y = batch(0)
        names = ("all", "hdc", "easy-hard")
        miner = PairMiner(names, positive="hard", negative="hard")
        loss = losses.ContrastiveLoss(3.0, mining=miner)
        settings = {"easy-hard": {"positive": "hard", "negative": "hard"}}
        for name in ("hdc", "easy-hard", "all"):
            miner.use(name)
            alone = losses.ContrastiveLoss(3.0, mining=PairMiner(name, **settings.get(name, {})))
            expected = float(step_by_step(alone)(y, x))
            assert float(step_by_step(loss)(y, x)) == pytest.approx(expected)
        with pytest.raises(ValueError, match="must be one of"):
            miner.use("pair-margin")

    def test_a_callback_changes_it(self):
        x, y = batch(0)
        miner = PairMiner(("all", "hdc"))
        model = EmbeddingModel(keras.layers.Dense(3), embedding_dim=2)
        model.compile("sgd", losses.ContrastiveLoss(mining=miner), run_eagerly=True)
        schedule = MiningSchedule({0: "all", 2: "hdc"}, log=True)
        history = model.fit(x, y, epochs=3, callbacks=[schedule], verbose=0)
        assert history.history["mining_stage"] == [0, 0, 1]


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"strategy": "banana"}, "must be one of"),
            ({"strategy": ()}, "at least one"),
            ({"strategy": "hdc", "epsilon": 0.2}, "`epsilon` is a setting of"),
            ({"strategy": ("hdc", "all"), "num_bins": 3}, "`num_bins` is a setting of"),
            ({"positive": "easy"}, "`positive` is a setting of"),
            ({"strategy": "easy-hard", "positive": "soft"}, "must be one of"),
            ({"strategy": "easy-hard", "positive": SEMI}, "semi-hard"),
            ({"strategy": "easy-hard", "positive": "all"}, "semi-hard"),
            ({"strategy": "easy-hard", "positive_range": 2}, "least, most"),
            ({"strategy": "easy-hard", "negative_range": (2, 1)}, "at least 2"),
            ({"strategy": "hdc", "filter_percentage": 0}, "greater than 0"),
            ({"strategy": "hdc", "filter_percentage": 1.5}, "at most 1"),
            ({"strategy": "uniform-histogram", "num_bins": 0}, "at least 1"),
            ({"negatives_per_positive": 0}, "at least 1"),
            ({"distance": "l2"}, "must be one of"),
        ],
    )
    def test_wrong_ones_raise(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            PairMiner(**arguments)

    def test_a_setting_counts_if_one_strategy_reads_it(self):
        miner = PairMiner(("all", "hdc"), filter_percentage=0.2)
        assert miner.settings("hdc") == {"filter_percentage": 0.2}
        assert miner.settings("all") == {}
        assert PairMiner("hdc").settings("hdc") == {"filter_percentage": 0.5}

    def test_the_defaults_are_valid(self):
        for name in pair_rules.STRATEGIES:
            PairMiner(name, **pair_rules.SETTINGS[name])
        assert set(pair_rules.RULES) == set(pair_rules.SETTINGS)

    def test_config_round_trip(self):
        miner = PairMiner(
            ("easy-hard", "uniform-histogram"), positive="hard", negative_range=(0.1, 2.0),
            num_bins=5, negatives_per_positive=3, distance="cosine", seed=4,
        )  # fmt: skip
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner))
        assert again.get_config() == miner.get_config()
        assert again.settings("easy-hard") == miner.settings("easy-hard")

    def test_names_of_a_loss_are_the_strategies(self):
        for name in pair_rules.STRATEGIES:
            assert losses.ContrastiveLoss(mining=name).get_config()["mining"] == name
        with pytest.raises(ValueError, match="multi-similarity"):
            losses.ContrastiveLoss(mining="semi-hard")
        with pytest.raises(ValueError, match="PairMiner"):
            losses.SupConLoss(mining=3)
