"""Values and gradients of the losses, beside loops in NumPy and published numbers."""

import itertools

import engine
import keras
import numpy as np
import pytest
import reference
from autodiff import CLOSE, DTYPE, agrees, step_by_step, value_and_gradient

from keras_metric import distances, losses
from keras_metric.layers import TripletMiner

STRATEGIES = ["all", "semi-hard", "semi-hard-all", "hard", "easy-positive"]
FORMS = ["hinge", "squared_hinge", "soft_margin"]
REDUCTIONS = ["mean_active", "mean_valid", "sum", "sum_over_batch_size"]
LOOPS = {
    losses.ContrastiveLoss: reference.contrastive_loss,
    losses.LiftedStructureLoss: reference.lifted_structure_loss,
    losses.QuadrupletLoss: reference.quadruplet_loss,
    losses.TripletLoss: reference.triplet_loss,
}


def unequal_batch(seed, batch=15, dim=5):
    """Random rows, classes of 1 to 6 in no order: inputs that tell implementations apart."""
    rng = np.random.default_rng(seed)
    y = np.array([3, 0, 3, 7, 1, 1, 3, 0, 3, 9, 1, 3, 0, 3, 7])[:batch]
    return 0.7 * rng.normal(size=(batch, dim)) + 0.1, y


def double(loss_class, **settings):
    return loss_class(dtype=DTYPE, **settings)


def grid(loss, **choices):
    """A case for each combination of the values of the settings."""
    for values in itertools.product(*choices.values()):
        settings = dict(zip(choices, values))
        name = ",".join(f"{key}={value}" for key, value in settings.items())
        yield pytest.param(loss, settings, id=f"{loss.__name__}({name})")


def pair_of(loss, settings):
    """The loss, and its loop as a function of (embeddings, labels, ...)."""
    names = {"distance": "metric"}
    named = {names.get(key, key): value for key, value in settings.items()}
    return double(loss, **settings), lambda *args, **more: LOOPS[loss](*args, **named, **more)


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        *grid(losses.TripletLoss, margin=[0.3], mining=STRATEGIES, form=FORMS, swap=[False, True]),
        *grid(
            losses.TripletLoss,
            margin=[0.4],
            mining=["all", "semi-hard", "hard"],
            distance=distances.METRICS,
        ),
        *grid(losses.LiftedStructureLoss, margin=[0.8], positive_margin=[0.1],
              smooth=[True, False], reduction=REDUCTIONS),
        *grid(losses.QuadrupletLoss, margin=[0.7], second_margin=[0.3],
              second_pair=["hardest", "nearest"], mining=["all", "semi-hard"]),
        # The second pair is the closest of two other classes.
        *grid(losses.QuadrupletLoss, margin=[-50.0], second_margin=[2.0], mining=["hard"]),
        *grid(losses.QuadrupletLoss, margin=[0.7], second_margin=[0.3],
              form=["two_anchors"], reduction=REDUCTIONS),
    ],
)  # fmt: skip
def test_losses_equal_loops(loss, settings):
    loss, loop = pair_of(loss, settings)
    # Several batches, so that the second pair is of several classes.
    for seed in range(4) if settings.get("second_margin") and "mining" in settings else [1]:
        x, y = unequal_batch(seed)
        agrees(lambda z, y=y: loss(y, z), lambda z, y=y: loop(z, y), x, jit=False)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        *grid(losses.TripletLoss, mining=["all", "semi-hard", "hard"], reduction=REDUCTIONS),
        *grid(losses.TripletLoss, margin=[0.4], mining=STRATEGIES, swap=[True],
              reduction=["sum_over_batch_size"]),
        *grid(losses.ContrastiveLoss, margin=[1.2], positive_margin=[0.1], power=[1, 2],
              distance=["euclidean", "cosine", "squared_euclidean"], reduction=REDUCTIONS),
    ],
)  # fmt: skip
def test_reductions_and_weights_of_anchors_equal_loops(loss, settings, weighted):
    x, y = unequal_batch(3)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y)) if weighted else None
    loss, loop = pair_of(loss, settings)
    agrees(lambda z: loss(y, z, weights), lambda z: loop(z, y, weights=weights), x, jit=False)


@pytest.mark.parametrize("rows", [1, 4, 5, 15])
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all"])
def test_blocks_of_rows_change_nothing(rows, mining):
    # 15 anchors fill blocks of 4 with one row to spare, blocks of 5 exactly.
    x, y = unequal_batch(16)
    loss = engine.triplets(double(losses.TripletLoss, margin=0.3, mining=mining), size=rows)
    loop = reference.triplet_loss
    agrees(lambda z: loss(y, z), lambda z: loop(z, y, 0.3, mining=mining), x, jit=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all"])
@pytest.mark.parametrize("band", [0.3, 0.2, 0.5])
def test_sorting_rows_changes_nothing(form, mining, band):
    x, y = unequal_batch(17)
    miner = TripletMiner(mining, margin=band if mining == "semi-hard-all" else None)
    loss = double(losses.TripletLoss, margin=0.3, mining=miner, form=form)
    loss = engine.triplets(loss, sort_above=0)
    chosen = reference.triplets(reference.matrix(x), y, mining, band)
    loop = reference.triplet_loss
    agrees(lambda z: loss(y, z), lambda z: loop(z, y, 0.3, form=form, chosen=chosen), x, jit=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mining", ["all", "semi-hard", "semi-hard-all", "hard-all", "easy-all"])
def test_sorting_rows_keeps_equal_distances_apart(form, mining):
    # Whole numbers on a line, so that many distances are equal, and equal a distance + margin.
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (30, 1)).astype("float32"), rng.choice([2, 2, 2, 3, 9], 30)
    # A margin of half a unit would leave no such ties; products of whole numbers are exact.
    miner = TripletMiner(mining, margin=2.0 if mining in ("semi-hard-all", "easy-all") else None)
    loss = losses.TripletLoss(3.0, "manhattan", miner, form=form, reduction="mean_valid")
    settings = {"form": form, "reduction": "mean_valid"}
    settings["chosen"] = reference.triplets(reference.matrix(x, "manhattan"), y, mining, 2.0)
    expected = reference.triplet_loss(x, y, 3.0, "manhattan", **settings)
    for run in (loss, engine.triplets(loss, sort_above=0)):
        assert float(step_by_step(run)(y, x)) == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        *grid(losses.TripletLoss, mining=STRATEGIES, form=FORMS),
        *grid(losses.TripletLoss, mining=STRATEGIES, swap=[True]),
        *grid(losses.ContrastiveLoss, power=[2]),
        *grid(losses.LiftedStructureLoss, smooth=[True, False]),
        *grid(losses.QuadrupletLoss, second_pair=["hardest", "nearest"]),
    ],
)
def test_a_reference_set_equals_loops(loss, settings):
    x, y = unequal_batch(18)
    others, labels = reference_set(19)
    batch = len(y)
    weights = np.random.default_rng(2).uniform(0.2, 3, batch)
    loss, loop = pair_of(loss, {"margin": 0.6, **settings})
    # The anchors and the references are one tensor, so that the gradient has both.
    agrees(
        lambda z: loss.against(y, z[:batch], labels, z[batch:], weights),
        lambda z: loop(z[:batch], y, weights=weights, references=(z[batch:], labels)),
        np.concatenate([x, others]),
        jit=False,
    )


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
    batch = len(y)
    loss, loop = pair_of(losses.TripletLoss, {"margin": 0.6, "mining": "semi-hard"})
    run = engine.triplets(loss, size=rows)
    agrees(
        lambda z: run(y, z[:batch], None, labels, z[batch:]),
        lambda z: loop(z[:batch], y, references=(z[batch:], labels)),
        np.concatenate([x, others]),
        jit=False,
    )


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


def test_targets_and_statistics_of_ready_made_pairs_and_triplets():
    """The formulas on tuples are compared in test_formulas.py."""
    t = np.random.default_rng(9).normal(size=(9, 3, 3))
    near, far = (np.linalg.norm(t[:, 0] - t[:, i], axis=1) for i in (1, 2))
    loss = double(losses.ContrastiveLoss, margin=2.5, power=2, reduction="none")
    same, part = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0]), np.linspace(0, 1, 9)
    for y in (same, part):
        expected = y * near**2 + (1 - y) * np.maximum(2.5 - near, 0) ** 2
        np.testing.assert_allclose(loss(y, t[:, :2]), expected, **CLOSE)
    each = double(losses.TripletLoss, margin=0.5, reduction="none")
    for y in (None, np.zeros(9, "int32")):
        np.testing.assert_allclose(each(y, t), np.maximum(near - far + 0.5, 0), **CLOSE)
    for call, positive, negative in (
        (lambda: loss(same, t[:, :2]), near[same == 1], near[same == 0]),
        (lambda: each(None, t), near, far),
    ):
        with losses.StepReports() as reports:
            call()
        seen = {name: float(value) for name, value in reports.statistics.items()}
        assert seen["positive_distance"] == pytest.approx(positive.mean(), rel=1e-5)
        assert seen["negative_distance"] == pytest.approx(negative.mean(), rel=1e-5)
        assert (seen["positives"], seen["negatives"]) == (len(positive), len(negative))


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
