"""Values and gradients of the losses, beside loops in NumPy and published numbers."""

import engine
import keras
import numpy as np
import pytest
import reference
from autodiff import step_by_step, value_and_gradient

from keras_metric import distances, losses
from keras_metric.layers import TripletMiner

METRICS = distances.METRICS
STRATEGIES = ["all", "semi-hard", "semi-hard-all", "hard", "easy-positive"]
FORMS = ["hinge", "squared_hinge", "soft_margin"]
REDUCTIONS = ["mean_active", "mean_valid", "sum", "sum_over_batch_size"]

# float64 stays float64 on TensorFlow alone: JAX truncates it, and keras.ops on torch do too.
DOUBLE = keras.backend.backend() == "tensorflow"
DTYPE = "float64" if DOUBLE else "float32"
CLOSE = {"rtol": 1e-9, "atol": 1e-9} if DOUBLE else {"rtol": 2e-4, "atol": 2e-4}
# Central differences of a float64 loop are good to about 1e-8.
CLOSE_SLOPE = {"rtol": 1e-5, "atol": 1e-6} if DOUBLE else {"rtol": 1e-3, "atol": 1e-3}


def unequal_batch(seed, batch=15, dim=5):
    """Random rows, classes of 1 to 6 in no order: inputs that tell implementations apart."""
    rng = np.random.default_rng(seed)
    y = np.array([3, 0, 3, 7, 1, 1, 3, 0, 3, 9, 1, 3, 0, 3, 7])[:batch]
    return 0.7 * rng.normal(size=(batch, dim)) + 0.1, y


def agrees(loss, oracle, x, y, weights=None):
    """Value and gradient of `loss` equal those of the loop `oracle(x)`."""

    def run(tensor):
        return loss(y, tensor, weights)

    value, slope = value_and_gradient(run, x.astype(DTYPE))
    np.testing.assert_allclose(value, oracle(x), **CLOSE)
    # Random directions: a wrong element of the gradient shows in each of them.
    directions = np.random.default_rng(0).normal(size=(3, *x.shape))
    along = (directions * slope).sum((1, 2))
    np.testing.assert_allclose(along, reference.slopes(oracle, x, directions), **CLOSE_SLOPE)


def double(loss_class, **settings):
    return loss_class(dtype=DTYPE, **settings)


@pytest.mark.parametrize("mining", STRATEGIES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("swap", [False, True])
def test_triplet_loss_equals_loops(mining, form, swap):
    x, y = unequal_batch(1)
    loss = double(losses.TripletLoss, margin=0.3, mining=mining, form=form, swap=swap)
    agrees(
        loss,
        lambda z: reference.triplet_loss(z, y, 0.3, mining=mining, form=form, swap=swap),
        x,
        y,
    )


@pytest.mark.parametrize("rows", [1, 4, 5, 15])
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all"])
def test_blocks_of_rows_change_nothing(rows, mining):
    # 15 anchors fill blocks of 4 with one row to spare, blocks of 5 exactly.
    x, y = unequal_batch(16)
    loss = engine.triplets(double(losses.TripletLoss, margin=0.3, mining=mining), size=rows)
    agrees(loss, lambda z: reference.triplet_loss(z, y, 0.3, mining=mining), x, y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all"])
@pytest.mark.parametrize("band", [0.3, 0.2, 0.5])
def test_sorting_rows_changes_nothing(form, mining, band):
    x, y = unequal_batch(17)
    miner = TripletMiner(mining, margin=band if mining == "semi-hard-all" else None)
    loss = double(losses.TripletLoss, margin=0.3, mining=miner, form=form)
    loss = engine.triplets(loss, sort_above=0)
    chosen = reference.triplets(reference.matrix(x), y, mining, band)
    agrees(loss, lambda z: reference.triplet_loss(z, y, 0.3, form=form, chosen=chosen), x, y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all"])
def test_sorting_rows_keeps_equal_distances_apart(form, mining):
    # Whole numbers on a line, so that many distances are equal, and equal a distance + margin.
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (30, 1)).astype("float32")
    y = rng.choice([2, 2, 2, 3, 9], 30)
    # A margin of half a unit would leave no such ties; products of whole numbers are exact.
    miner = TripletMiner(mining, margin=2.0 if mining == "semi-hard-all" else None)
    loss = losses.TripletLoss(1.0, "manhattan", miner, form=form, reduction="sum")
    loss.reduction = "none"
    looped = loss(y, x)
    np.testing.assert_allclose(engine.triplets(loss, sort_above=0)(y, x), looped, rtol=1e-6)


@pytest.mark.parametrize("mining", ["all", "semi-hard"])
def test_a_large_class_is_sorted(mining):
    """70 items of a class are above the default threshold; two loops of 35 are not."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 3)).astype("float32"), np.repeat([0, 1], [70, 20])
    loss = losses.TripletLoss(0.3, mining=mining, reduction="none")
    looped = engine.triplets(loss, sort_above=90)(y, x)
    np.testing.assert_allclose(loss(y, x), looped, rtol=1e-4, atol=1e-5)


def reference_set(seed, references=19, dim=5):
    rng = np.random.default_rng(seed)
    labels = rng.choice([3, 0, 7, 1, 8], references)
    return 0.7 * rng.normal(size=(references, dim)), labels


REFERENCE_CASES = [
    *(
        (losses.TripletLoss, reference.triplet_loss, {"mining": mining, "form": form})
        for mining in STRATEGIES
        for form in FORMS
    ),
    *(
        (losses.TripletLoss, reference.triplet_loss, {"mining": mining, "swap": True})
        for mining in STRATEGIES
    ),
    (losses.ContrastiveLoss, reference.contrastive_loss, {"power": 2}),
    (losses.LiftedStructureLoss, reference.lifted_structure_loss, {}),
    (losses.LiftedStructureLoss, reference.lifted_structure_loss, {"smooth": False}),
    (losses.QuadrupletLoss, reference.quadruplet_loss, {}),
    (losses.QuadrupletLoss, reference.quadruplet_loss, {"second_pair": "nearest"}),
]


@pytest.mark.parametrize(("loss_class", "oracle", "settings"), REFERENCE_CASES)
def test_a_reference_set_equals_loops(loss_class, oracle, settings):
    x, y = unequal_batch(18)
    others, labels = reference_set(19)
    weights = np.random.default_rng(2).uniform(0.2, 3, len(y))
    loss = double(loss_class, margin=0.6, **settings)
    both = np.concatenate([x, others])

    def expected(z):
        references = (z[len(x) :], labels)
        return oracle(z[: len(x)], y, 0.6, **settings, weights=weights, references=references)

    class Against:
        """The anchors and the references as one tensor, so that the gradient has both."""

        def __call__(self, y, z, weights):
            return loss.against(y, z[: len(x)], labels, z[len(x) :], weights)

    agrees(Against(), expected, both, y, weights)


def test_a_weighted_sum_against_references_adds():
    x, y = unequal_batch(18)
    batch = (y, x, *reversed(reference_set(19)))
    a, b = double(losses.TripletLoss), double(losses.ContrastiveLoss)
    both = losses.WeightedSum([(0.25, a), (3, b)])
    expected = 0.25 * float(a.against(*batch)) + 3 * float(b.against(*batch))
    assert float(both.against(*batch)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [4, 5])
def test_blocks_of_rows_against_references_change_nothing(rows):
    x, y = unequal_batch(18)
    others, labels = reference_set(19)
    loss = engine.triplets(double(losses.TripletLoss, margin=0.6), size=rows)

    def expected(z):
        references = (z[len(x) :], labels)
        return reference.triplet_loss(
            z[: len(x)], y, 0.6, mining="semi-hard", references=references
        )

    def run(y, z, weights):
        return loss(y, z[: len(x)], weights, labels, z[len(x) :])

    agrees(run, expected, np.concatenate([x, others]), y)


@pytest.mark.parametrize("loss", [losses.TripletLoss, losses.SupConLoss])
def test_ids_of_a_tensor_beside_those_of_numpy(loss):
    x, y = unequal_batch(18)
    others, z = reference_set(19)
    wanted = float(double(loss).against(y, x, z, others))
    wide = keras.ops.convert_to_tensor(y.astype("int64"))
    assert float(double(loss).against(wide, x, z, others)) == pytest.approx(wanted)


def test_wrong_reference_sets_say_the_way_out():
    x, y = np.ones((4, 2), "float32"), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="reference_labels.*integer class ids"):
        losses.TripletLoss().against(y, x, y + 0.5, x)
    with pytest.raises(ValueError, match=r"one label.*reference_labels.shape=\(4,\)"):
        losses.TripletLoss().against(y, x, y, x[:3])
    for loss in (losses.ContrastiveLoss(), losses.TripletLoss(), losses.TripletLoss(swap=True)):
        with pytest.raises(ValueError, match="same length"):
            loss.against(y, x, y, np.ones((4, 3), "float32"))
    with pytest.raises(ValueError, match="losses of keras_metric.*MeanSquaredError"):
        losses.WeightedSum([(1, keras.losses.MeanSquaredError())]).against(y, x, y, x)
    with pytest.raises(ValueError, match="no reference set"):
        losses.QuadrupletLoss(form="two_anchors").against(y, x, y, x)


@pytest.mark.parametrize("mining", STRATEGIES)
def test_weights_of_anchors_reach_the_rows_a_swap_pulls_at(mining):
    x, y = unequal_batch(20)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y))
    settings = {"mining": mining, "swap": True, "reduction": "sum_over_batch_size"}
    loss = double(losses.TripletLoss, margin=0.4, **settings)
    agrees(
        loss,
        lambda z: reference.triplet_loss(z, y, 0.4, weights=weights, **settings),
        x,
        y,
        weights,
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
def test_triplet_loss_takes_every_distance(metric, mining):
    x, y = unequal_batch(2)
    loss = double(losses.TripletLoss, margin=0.4, mining=mining, distance=metric)
    agrees(loss, lambda z: reference.triplet_loss(z, y, 0.4, metric, mining), x, y)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
@pytest.mark.parametrize("weighted", [False, True])
def test_triplet_loss_reductions_and_weights(reduction, mining, weighted):
    x, y = unequal_batch(3)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y)) if weighted else None
    loss = double(losses.TripletLoss, mining=mining, reduction=reduction)
    agrees(
        loss,
        lambda z: reference.triplet_loss(z, y, mining=mining, reduction=reduction, weights=weights),
        x,
        y,
        weights,
    )


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "squared_euclidean"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_contrastive_loss_equals_loops(power, metric, reduction):
    x, y = unequal_batch(4)
    settings = {"margin": 1.2, "positive_margin": 0.1, "power": power}
    loss = double(losses.ContrastiveLoss, distance=metric, reduction=reduction, **settings)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(y))
    agrees(
        loss,
        lambda z: reference.contrastive_loss(
            z, y, metric=metric, reduction=reduction, weights=weights, **settings
        ),
        x,
        y,
        weights,
    )


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_lifted_structure_loss_equals_loops(smooth, reduction):
    x, y = unequal_batch(5)
    settings = {"margin": 0.8, "positive_margin": 0.1, "smooth": smooth, "reduction": reduction}
    loss = double(losses.LiftedStructureLoss, **settings)
    agrees(loss, lambda z: reference.lifted_structure_loss(z, y, **settings), x, y)


@pytest.mark.parametrize("second_pair", ["hardest", "nearest"])
@pytest.mark.parametrize("mining", ["all", "semi-hard"])
@pytest.mark.parametrize("seed", [6, 7])
def test_quadruplets_with_a_second_negative_equal_loops(second_pair, mining, seed):
    x, y = unequal_batch(seed)
    settings = {"margin": 0.7, "second_margin": 0.3, "second_pair": second_pair, "mining": mining}
    loss = double(losses.QuadrupletLoss, **settings)
    agrees(loss, lambda z: reference.quadruplet_loss(z, y, **settings), x, y)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_quadruplets_with_two_anchors_equal_loops_over_all_of_them(reduction):
    x, y = unequal_batch(8)
    settings = {"form": "two_anchors", "margin": 0.7, "second_margin": 0.3}
    loss = double(losses.QuadrupletLoss, reduction=reduction, **settings)
    agrees(loss, lambda z: reference.quadruplet_loss(z, y, reduction=reduction, **settings), x, y)


@pytest.mark.parametrize("seed", range(4))
def test_second_pair_is_the_closest_of_two_other_classes(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 11)
    x = rng.normal(size=(11, 3))
    loss = double(losses.QuadrupletLoss, margin=-50.0, second_margin=2.0, mining="hard")
    agrees(
        loss,
        lambda z: reference.quadruplet_loss(z, y, margin=-50.0, second_margin=2.0, mining="hard"),
        x,
        y,
    )


def test_ready_made_triplets_pairs_and_quadruplets_equal_their_formulas():
    rng = np.random.default_rng(9)
    t = rng.normal(size=(9, 4, 3))

    def d(i, j, metric="euclidean"):
        return np.array([reference.distance(row[i], row[j], metric) for row in t])

    hinge = np.maximum(d(0, 1) - d(0, 2) + 0.5, 0)
    swapped = np.maximum(d(0, 1) - np.minimum(d(0, 2), d(1, 2)) + 0.5, 0)
    zeros = np.zeros(9, "int32")
    each = double(losses.TripletLoss, margin=0.5, reduction="none")
    np.testing.assert_allclose(each(zeros, t[:, :3]), hinge, **CLOSE)
    swap = double(losses.TripletLoss, margin=0.5, swap=True)
    np.testing.assert_allclose(swap(zeros, t[:, :3]), swapped.sum() / (swapped > 0).sum(), **CLOSE)

    same = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0])
    expected = same * d(0, 1) ** 2 + (1 - same) * np.maximum(2.5 - d(0, 1), 0) ** 2
    settings = {"margin": 2.5, "power": 2, "reduction": "none"}
    loss = double(losses.ContrastiveLoss, **settings)
    np.testing.assert_allclose(loss(same, t[:, :2]), expected, **CLOSE)
    hadsell = double(losses.ContrastiveLoss, positive_label=0, **settings)
    np.testing.assert_allclose(hadsell(1 - same, t[:, :2]), expected, **CLOSE)
    part = np.linspace(0, 1, 9)
    expected = part * d(0, 1) ** 2 + (1 - part) * np.maximum(2.5 - d(0, 1), 0) ** 2
    np.testing.assert_allclose(loss(part, t[:, :2]), expected, **CLOSE)
    with losses.StepReports() as reports:
        loss(same, t[:, :2])
    seen = reports.statistics
    assert float(seen["positive_distance"]) == pytest.approx(d(0, 1)[same == 1].mean(), rel=1e-5)
    assert float(seen["negative_distance"]) == pytest.approx(d(0, 1)[same == 0].mean(), rel=1e-5)
    assert (float(seen["positives"]), float(seen["negatives"])) == (4, 5)
    with losses.StepReports() as reports:
        each(None, t[:, :3])
    seen = reports.statistics
    assert float(seen["positive_distance"]) == pytest.approx(d(0, 1).mean(), rel=1e-5)
    assert float(seen["negative_distance"]) == pytest.approx(d(0, 2).mean(), rel=1e-5)
    assert (float(seen["positives"]), float(seen["negatives"])) == (9, 9)
    np.testing.assert_allclose(each(None, t[:, :3]), hinge, **CLOSE)

    square = "squared_euclidean"
    expected = np.maximum(d(0, 1, square) - d(0, 2, square) + 1, 0)
    expected = expected + np.maximum(d(0, 1, square) - d(2, 3, square) + 0.5, 0)
    loss = double(losses.QuadrupletLoss, reduction="none")
    np.testing.assert_allclose(loss(zeros, t), expected, **CLOSE)

    pulls, pushes = (d(0, 2), d(1, 2), d(0, 1), d(0, 1)), (d(0, 3), d(1, 3), d(0, 3), d(1, 3))
    expected = sum(
        np.maximum(near - far + m, 0) for near, far, m in zip(pulls, pushes, (1, 1, 0.5, 0.5))
    )
    loss = double(losses.QuadrupletLoss, form="two_anchors", distance="euclidean", reduction="none")
    np.testing.assert_allclose(loss(zeros, t), expected, **CLOSE)


# Five points at 0, 20, .., 80 degrees, labels 0, 0, 1, 1, 2: numbers of pytorch-metric-learning
# 2.9.0 (value, sum of the squared gradient).
ANGLES = np.radians([0, 20, 40, 60, 80])
ELLIPSE = np.stack([2 * np.cos(ANGLES), 0.5 * np.sin(ANGLES)], axis=1)
ELLIPSE_LABELS = np.array([0, 0, 1, 1, 2])
PUBLISHED = [
    (losses.TripletLoss(0.05, mining="all"), True, 0.0684676121, 1.7754096807),
    (losses.TripletLoss(0.2, mining="all"), True, 0.1649332709, 1.2062745729),
    (losses.TripletLoss(0.2, mining="all", reduction="mean_valid"), True, 0.0687221962, 0.20942267),
    (losses.TripletLoss(0.2, "cosine", "all"), True, 0.1611862612, 0.0303082968),
    (losses.TripletLoss(0.2, mining="all", form="soft_margin"), True, 0.6631253957, 0.1729267663),
    (losses.TripletLoss(0.2, mining="all", swap=True), True, 0.2184676121, 1.7754096807),
    (losses.TripletLoss(0.2, "squared_euclidean", "all"), True, 0.1441850609, 0.1104677073),
    (losses.TripletLoss(0.2, mining="all"), False, 0.1650761920, 3.7948963423),
    (losses.ContrastiveLoss(), True, 0.6364218785, 1.0774702246),
    (losses.LiftedStructureLoss(), True, 3.2379395060, 4.7749954441),
    (losses.LiftedStructureLoss(0.5), True, 2.0912477602, 3.0912813565),
]


@pytest.mark.parametrize(("loss", "normalised", "value", "slope"), PUBLISHED)
def test_published_numbers(loss, normalised, value, slope):
    def run(x):
        return loss(ELLIPSE_LABELS, distances.unit(x) if normalised else x)

    ours, gradient = value_and_gradient(run, ELLIPSE.astype(DTYPE))
    np.testing.assert_allclose(ours, value, rtol=1e-5)
    np.testing.assert_allclose((gradient**2).sum(), slope, rtol=1e-3)


# tensorflow-addons 0.23 on RandomState(s).rand(16, 6), randint(0, 4, 16): loss, gradient norm.
ADDONS = [
    (0, losses.TripletLoss(1.0, reduction="mean_valid"), 0.945079, 0.325241),
    (1, losses.TripletLoss(1.0, reduction="mean_valid"), 0.955948, 0.263403),
    (0, losses.TripletLoss(1.0, "squared_euclidean", reduction="mean_valid"), 0.899672, 0.639340),
    (2, losses.TripletLoss(1.0, "cosine", reduction="mean_valid"), 0.982404, 0.160682),
    (0, losses.TripletLoss(1.0, mining="hard", reduction="mean_valid"), 1.542357, 0.495741),
    (1, losses.TripletLoss(0, mining="hard", form="soft_margin"), 0.985937, 0.341579),
    (0, losses.LiftedStructureLoss(), 8.689094, 1.037104),
    (2, losses.LiftedStructureLoss(), 8.930204, 0.830452),
]


@pytest.mark.parametrize(("seed", "loss", "value", "slope"), ADDONS)
def test_numbers_of_tensorflow_addons(seed, loss, value, slope):
    random = np.random.RandomState(seed)
    x, y = random.rand(16, 6).astype("float32"), random.randint(0, 4, 16)
    ours, gradient = value_and_gradient(lambda z: loss(y, z), x)
    np.testing.assert_allclose(ours, value, rtol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(gradient), slope, rtol=2e-5)


def test_large_ids_stay_apart():
    # As float32 both are 16777216, and the loss would see one class of two.
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.2, 0.0], [3.0, 0.0]], "float32")
    for ids in ([2**24, 2**24, 2**24 + 1, 2**24 + 1], [2**31 - 1, 2**31 - 1, -(2**31), -(2**31)]):
        ours = losses.TripletLoss(mining="hard")(np.array(ids), x)
        small = losses.TripletLoss(mining="hard")(np.array([0, 0, 1, 1]), x)
        assert float(ours) == float(small) > 0
    tensor = keras.ops.convert_to_tensor(np.array([2**32 - 1, 2**32 - 1, 2**31, 2**31], "uint32"))
    assert float(losses.TripletLoss(mining="hard")(tensor, x)) == float(small)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_labels_of_any_integer_dtype_and_of_shape_batch_1(dtype):
    x, y = unequal_batch(13)
    x = x.astype("float32")
    loss = step_by_step(losses.TripletLoss())
    expected = float(loss(y, x))
    assert float(loss(y.astype(dtype), x)) == expected
    assert float(loss(y.astype(dtype)[:, None], x)) == expected
    tensor = keras.ops.convert_to_tensor(y.astype(dtype))
    assert float(loss(tensor, x)) == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 0.0, 1.0, 0.5]), "integer class ids.*with 0.5 in row 3.*return_inverse"),
        (np.array([0.0, 0.0, 1.0, 2.0**24]), "below 16777216.*with 16777216.0 in row 3.*astype"),
        (np.array([0, 0, 1, 2048], "float16"), "below 2048, up to which float16 is exact"),
        (np.ones((4, 2), "float32") / 3, "one class id.*loss.labels, embeddings.*3-tuple"),
        (np.array(["a", "a", "b", "b"]), "integer class ids"),
        (np.array([True, True, False, False]), "integer class ids"),
        (np.array([0, 0, 2**40, 2**40]), "32-bit"),
        (np.eye(4, dtype="int32"), "argmax"),
        (np.array([0, 0, 1]), "one label"),
    ],
)
def test_wrong_labels_say_the_way_out(labels, message):
    with pytest.raises(ValueError, match=message):
        losses.TripletLoss()(labels, np.ones((4, 2), "float32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.TripletLoss(mining="semihard"), "must be one of.*semi-hard"),
        (lambda: losses.TripletLoss(distance="l2"), "must be one of.*euclidean"),
        (lambda: losses.TripletLoss(reduction="average"), "must be one of.*mean_active"),
        (lambda: losses.TripletLoss(margin=float("nan")), "finite"),
        (lambda: losses.TripletLoss(mining=None), "name of a strategy"),
        (lambda: losses.ContrastiveLoss(power=3), "power=3"),
        (lambda: losses.QuadrupletLoss(form="three"), "must be one of"),
        (lambda: losses.WeightedSum([]), "at least one"),
    ],
)
def test_wrong_settings_raise_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_ranks_and_branches():
    with pytest.raises(ValueError, match="batch, dim"):
        losses.TripletLoss()(np.array([0, 1]), np.ones(2, "float32"))
    with pytest.raises(ValueError, match=r"\(batch, 3, dim\)"):
        losses.TripletLoss()(np.array([0, 1]), np.ones((2, 2, 4), "float32"))
    with pytest.raises(ValueError, match="floating point"):
        losses.TripletLoss()(np.array([0, 1]), np.ones((2, 4), "int32"))
    with pytest.raises(TypeError, match="Loss"):
        losses.WeightedSum([(1.0, "triplet")])


def test_a_batch_without_positives_warns_once():
    loss = losses.TripletLoss()
    with pytest.warns(UserWarning, match="share a label.*BalancedBatches"):
        loss(np.arange(4), np.eye(4, dtype="float32"))
    loss(np.arange(4), np.eye(4, dtype="float32"))


def test_a_weighted_sum_needs_labels_if_one_of_its_terms_does():
    free, bound = losses.ManifoldLoss(meta_classes="random"), losses.TripletLoss()
    keras_own = keras.losses.MeanSquaredError()
    assert losses.WeightedSum([(1, free), (1, free)]).label_free
    assert not losses.WeightedSum([(1, free), (1, bound)]).label_free
    assert not losses.WeightedSum([(1, free), (1, keras_own)]).label_free


def test_weighted_sum_adds_and_shares_layers():
    x, y = unequal_batch(14)
    x = x.astype("float32")
    a, b = losses.TripletLoss(), losses.ContrastiveLoss()
    both = losses.WeightedSum([(0.25, a), (3, b)])
    assert float(both(y, x)) == pytest.approx(0.25 * float(a(y, x)) + 3 * float(b(y, x)), rel=1e-6)
    assert both.layers == a.layers
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y))
    weighted = 0.25 * float(a(y, x, weights)) + 3 * float(b(y, x, weights))
    assert float(both(y, x, weights)) == pytest.approx(weighted, rel=1e-6)
