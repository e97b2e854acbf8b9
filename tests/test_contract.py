"""Rules that every loss keeps, whatever its formula.

The losses are found by introspection, so a new one is covered as soon as it is public. So are its
settings: every flag at its other value, every name of a closed list, one at a time. Losses that
need arguments stand in loss_arguments.py, settings that act only together in a table below.

Losses that sample are seeded whenever they are built, so that two of them take equal samples. Tests
in which a second call or another order of the batch takes other samples leave them out (STEADY).
"""

import inspect
import json

import keras
import numpy as np
import pytest
import reference
from autodiff import differentiated, step_by_step
from keras import ops
from loss_arguments import LOSSES, TWO_BRANCHES, arguments_of, seeded

from keras_metric import distances, losses
from keras_metric.layers import CrossBatchMemory, PairMiner, TripletMiner
from keras_metric.losses.metric_loss import REDUCTIONS
from keras_metric.losses.pair.pair_loss import LABELS as LABEL_FORMS
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.step_reports import IGNORED
from keras_metric.mining import pair_rules, triplet_rules
from keras_metric.mining.miner import RANDOM
from keras_metric.models import EmbeddingModel
from keras_metric.pairwise import class_pairs

BACKEND = keras.backend.backend()
# float64 stays float64 on TensorFlow only: JAX and keras.ops on torch convert it to float32.
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"

DIM = 4

# Ids of the batches below are 0 to 8.
CLASSES = 9
# Settings that have a branch of their own in the code only together.
TOGETHER = {
    "ClipLoss": [{"learn_temperature": True}],
    "MarginLoss": [{"learn_beta": True, "num_classes": CLASSES, "nu": 0.3}],
    "SigLipLoss": [{"learn_temperature": True}],
    "SoftTripleLoss": [{"centers_per_class": 1}, {"regularization_weight": 0.2}],
    "TripletLoss": [
        {"mining": "all", "swap": True, "form": "soft_margin"},
        {"mining": "hard", "swap": True},
        {"mining": "easy-all", "form": "soft_margin"},
        {"mining": TripletMiner(("semi-hard", "hard", "all"))},
    ],
}
# Compiling takes seconds, so only the defaults and these settings are compiled.
COMPILED = {
    "QuadrupletLoss": [{"form": "two_anchors"}],
    "TripletLoss": [
        {"mining": "all", "swap": True},
        {"mining": "random"},
        {"mining": TripletMiner(("semi-hard", "hard", "all"))},
    ],
}
# The values of arguments that take one of a closed list; a name is that of a constant in the module
# of the loss. `choices` has the arguments of many losses.
CHOICES = {
    ("ContrastiveLoss", "positive_label"): (0, 1),
    ("ContrastiveLoss", "power"): (1, 2),
    ("FastAPLoss", "distance"): "MAX_DISTANCE",
    ("ManifoldLoss", "meta_classes"): "META_CLASSES",
    ("MarginLoss", "count"): "COUNTS",
    ("MarginLoss", "mining"): (*triplet_rules.STRATEGIES, *pair_rules.STRATEGIES),
    ("PNPLoss", "variant"): "VARIANTS",
    ("ProxyNCALoss", "denominator"): "DENOMINATORS",
    ("QuadrupletLoss", "form"): "QUADRUPLETS",
    ("QuadrupletLoss", "second_pair"): "SECOND_PAIRS",
    ("SignalToNoiseRatioLoss", "positive_label"): (0, 1),
    ("TripletLoss", "form"): "FORMS",
}
# Another value of each argument without a closed list whose default is no number.
OTHER_VALUES = {
    "alpha": 0.6,
    "delta": 0.5,
    "dtype": "float64",
    "embedding_dim": 7,
    "initializer": "ones",
    "k": (1, 3),
    "sample_rate": 0.5,
    "memory": CrossBatchMemory(5, warmup=1),
    "name": "mine",
    "num_bins": 50,
    "num_classes": 12,
    "predictor": keras.layers.Dense(DIM),
    "seed": 7,
    "shots": 2,
    "terms": [(2.0, losses.LiftedStructureLoss(margin=0.7)), (1, losses.TripletLoss())],
    "y_range": (-1.0, 2.0),
}
# Settings that act only together with another.
NEEDED = {
    ("ManifoldLoss", "seed"): {"meta_classes": "random"},
    ("MarginLoss", "nu"): {"learn_beta": True},
    ("MarginLoss", "num_classes"): {"learn_beta": True},
    ("PNPLoss", "alpha"): {"variant": "Dq"},
    ("PNPLoss", "saturation"): {"variant": "Ib"},
}
# The same code selects the triplets, and the pairs, of every loss: these two run every strategy,
# the others their default and "hard".
EVERY_STRATEGY = ("ContrastiveLoss", "TripletLoss")
# All of its terms are 0 in the default form of a triplet's term.
ALL_ZERO = ("easy-all",)
# The first two items of a class are its pair, so the order of the batch matters.
IN_ORDER = ("NPairsLoss",)
# The paper treats a part of the formula as a constant: the gradient is not that of the value.
HELD_CONSTANT = ("AdaFaceLoss", "CircleLoss", "DynamicSoftMarginLoss", "SimSiamLoss")
# A hundred bin edges between -1 and 1: any step that float32 resolves crosses some.
MANY_EDGES = ("HistogramLoss",)
# y_true of losses whose y_true is not class ids.
TARGETS = {"CosineRegressionLoss": lambda labels: (labels / 5).astype("float32")}
# Default reductions other than "mean_valid": hinges, which are 0 for solved pairs, and the losses
# for which pytorch-metric-learning averages non-zero terms; means over the batch size.
DEFAULT_REDUCTIONS = {
    "mean_active": (
        *("CircleLoss", "ContrastiveLoss", "MarginLoss", "QuadrupletLoss", "SupConLoss"),
        *("SignalToNoiseRatioLoss", "ThresholdConsistentMarginLoss", "TripletLoss"),
    ),
    "sum_over_batch_size": (
        *("GeneralizedLiftedStructureLoss", "MultiSimilarityLoss", "RankedListLoss"),
    ),
}
# Losses that are 0 for a batch in which no anchor has both a positive and a negative.
NEED_BOTH = ("LiftedStructureLoss", "MarginLoss", "NTXentLoss", "QuadrupletLoss", "TripletLoss")


def defaults(name):
    """Argument: default, of a loss's constructor."""
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def build(case):
    """The loss of (name, settings); its seeds and its weights are the same at every call."""
    name, settings = case
    return seeded(LOSSES[name], DIM, **{**arguments_of(name, CLASSES), **settings})


def choices(name, argument):
    """The values of an argument that takes one of a closed list; empty for other arguments."""
    values = {"reduction": REDUCTIONS, "labels": LABEL_FORMS, "distance": distances.METRICS}
    triplets = tuple(strategy for strategy in triplet_rules.STRATEGIES if strategy not in ALL_ZERO)
    pairs = issubclass(LOSSES[name], PairLoss)
    values["mining"] = pair_rules.STRATEGIES if pairs else triplets
    found = CHOICES.get((name, argument), values.get(argument, ()))
    return getattr(inspect.getmodule(LOSSES[name]), found) if isinstance(found, str) else found


def others(name, argument):
    """The values of a flag or of a closed list that are not the default."""
    default = defaults(name)[argument]
    if isinstance(default, bool):
        return [not default]
    return [value for value in choices(name, argument) if value != default]


def cases():
    for name in LOSSES:
        yield name, {}
        for argument in defaults(name):
            if argument == "distance":
                # Each metric has its own tests; here one that divides by the norm.
                yield name, {"distance": "cosine"}
            # Multi-hot labels have tests of their own.
            elif argument not in ("dtype", "labels", "name", "reduction"):
                values = others(name, argument)
                if argument == "mining" and name not in EVERY_STRATEGY:
                    values = [value for value in values if value == "hard"]
                yield from ((name, {argument: value}) for value in values)
        yield from ((name, settings) for settings in TOGETHER.get(name, ()))


def described(case):
    name, settings = case
    shown = (getattr(value, "strategies", value) for value in settings.values())
    settings = ",".join(f"{key}={value}" for key, value in zip(settings, shown))
    return f"{name}({settings})".replace(" ", "")


def samples(case):
    """Whether the loss takes random samples."""
    name, settings = case
    strategy = settings.get("mining", defaults(name).get("mining"))
    return "seed" in defaults(name) or strategy in RANDOM


def needs_both(case):
    """Whether an anchor has terms only with a positive and a negative."""
    return case[0] in NEED_BOTH and case[1].get("count") != "pairs"


def whole(case):
    """Whether the loss is one number for a batch, without rows that weights could apply to."""
    return LOSSES[case[0]].is_one_number


def each(cases):
    """A test of each case; those of settings other than the defaults are marked as thorough."""
    marks = ([pytest.mark.thorough] if case[1] else [] for case in cases)
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=described(c), marks=m) for c, m in zip(cases, marks)]
    )


# Classes of 4, 2 and 2 and a singleton, in no order: implementations differ on such a batch.
LABELS = np.array([2, 0, 2, 5, 1, 2, 0, 1, 2], "int32")
WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0, 0.0, 0.7, 1.6, 0.9, 2.5], "float32")
CASES = list(cases())
STEADY = [case for case in CASES if not samples(case)]
# Where the rows matter and the selected pairs do not, one strategy is enough.
PLAIN = [case for case in CASES if "mining" not in case[1]]
WEIGHTED = [case for case in CASES if not whole(case)]


def rows(case, seed=0, dtype="float32"):
    """Embeddings in the shape that the loss requires."""
    shape = (len(LABELS), 2, DIM) if case[0] in TWO_BRANCHES else (len(LABELS), DIM)
    return (0.7 * np.random.default_rng(seed).normal(size=shape) + 0.1).astype(dtype)


def targets(case, labels=LABELS):
    """y_true in the form that the loss requires."""
    return TARGETS.get(case[0], lambda labels: labels.astype("int32"))(labels)


def weights_of(case, weights=WEIGHTS):
    """Weights of the rows, if the loss has rows."""
    return None if whole(case) else weights


def scaled(x, factors):
    return x * np.reshape(factors, (-1,) + (1,) * (x.ndim - 1))


def applied(loss):
    """`loss` as a function of embeddings, labels and weights that may be compiled."""

    def function(x, y, weights=None):
        if BACKEND != "jax":
            return loss(y, x, weights)
        # JAX drops changes of variables inside a compiled function, such as seeds.
        with keras.StatelessScope():
            return loss(y, x, weights)

    return function


_runs = {}


def run_of(case):
    """`run(x, labels, weights)` returns value and gradient; all tests use the same function.

    On JAX it is compiled: eager code there compiles each loop again at every call.
    """
    key = described(case)
    if key not in _runs:
        loss = build(case)
        _runs[key] = differentiated(applied(loss), jit=BACKEND == "jax")

    def run(x, y=LABELS, weights=None):
        weights = np.ones(len(y), "float32") if weights is None else weights
        return _runs[key](x, targets(case, y), weights_of(case, weights))

    return run


@pytest.mark.parametrize("name", LOSSES)
def test_default_reduction(name):
    """The mean of all terms, unless the paper or its reference code divides by another number."""
    declared = (key for key, names in DEFAULT_REDUCTIONS.items() if name in names)
    expected = None if whole((name, {})) or name == "WeightedSum" else next(declared, "mean_valid")
    assert defaults(name).get("reduction") == expected


@pytest.mark.parametrize("name", LOSSES)
def test_can_be_built(name):
    try:
        build((name, {}))
    except Exception as error:
        raise AssertionError(
            f"losses.{name}() raises {error!r}. Add the arguments that it needs to "
            "loss_arguments.arguments_of."
        ) from error


def test_the_settings_are_found():
    """The introspection finds settings that certainly exist."""
    found = {described(case) for case in CASES}
    for name, every in zip(EVERY_STRATEGY, (pair_rules.STRATEGIES, triplet_rules.STRATEGIES)):
        strategies = set(every) - {defaults(name)["mining"], *ALL_ZERO}
        assert found >= {f"{name}(mining={strategy})" for strategy in strategies}
    assert found >= {
        "TripletLoss(form=soft_margin)",
        "TripletLoss(swap=True)",
        "ContrastiveLoss(power=2)",
        "QuadrupletLoss(mining=hard)",
        "QuadrupletLoss(second_pair=nearest)",
    }


def plain(config):
    """A config as a file stores it: tuples become lists."""
    return json.loads(json.dumps(config))


class TestConfig:
    @each(CASES)
    def test_round_trip(self, case):
        loss = build(case)
        config = loss.get_config()
        assert set(config) == set(defaults(case[0])), "get_config must return the arguments"
        assert plain(type(loss).from_config(config).get_config()) == plain(config)
        again = keras.saving.deserialize_keras_object(
            plain(keras.saving.serialize_keras_object(loss))
        )
        assert type(again) is type(loss)
        assert plain(again.get_config()) == plain(config)

    @pytest.mark.parametrize(
        ("name", "argument"), [(name, argument) for name in LOSSES for argument in defaults(name)]
    )
    def test_every_argument_is_restored(self, name, argument):
        """At values that are not the default, so that a lost argument is noticed."""
        values = self.other_values(name, argument)
        assert values, f"Add the values of `{argument}` to CHOICES or OTHER_VALUES of this file."
        for value in values:
            loss = build((name, {**NEEDED.get((name, argument), {}), argument: value}))
            again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
            assert again.get_config() == loss.get_config()
            if not isinstance(value, (list, tuple, keras.Layer)):
                assert again.get_config()[argument] == value != defaults(name)[argument]

    def other_values(self, name, argument):
        if argument in OTHER_VALUES:
            return [OTHER_VALUES[argument]]
        found = others(name, argument)
        default = defaults(name)[argument]
        if not found and isinstance(default, (int, float)):
            found = [default + (0.25 if isinstance(default, float) else 1)]
        return found


class TestInsideAModel:
    def model(self, case):
        keras.utils.set_random_seed(0)
        model = EmbeddingModel(keras.layers.Dense(5), embedding_dim=DIM)
        # Compiling a graph takes ten times as long as these few steps.
        model.compile(keras.optimizers.SGD(0.1), loss=build(case), run_eagerly=True)
        return model

    def inputs(self, case):
        x = rows(case)
        return x if x.ndim == 2 else {"first": x[:, 0], "second": x[:, 1]}

    # Keras warns about a model that is saved before its first step.
    @pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
    @each([*PLAIN, *((name, settings) for name in TOGETHER for settings in TOGETHER[name])])
    def test_is_restored_from_a_file(self, case):
        model, x = self.model(case), self.inputs(case)
        z = model(x)
        model.save("model.keras")
        again = keras.models.load_model("model.keras")
        assert type(again.loss) is type(model.loss)
        assert plain(again.loss.get_config()) == plain(model.loss.get_config())
        # Keras saves the state of no seed generator.
        if not samples(case):
            y = targets(case)
            values = again.loss(y, again(x)), model.loss(y, z)
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, values))

    @pytest.mark.thorough
    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
    @each([case for case in CASES if not case[1]])
    def test_trains_in_every_precision(self, case, policy):
        keras.config.set_dtype_policy(policy)
        model, x, y = self.model(case), self.inputs(case), targets(case)
        loss = model.compute_loss(x, keras.ops.convert_to_tensor(y), model(x))
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"
        before = [w + 0 for w in model.encoder.get_weights()]

        def moved():
            return any((a != b).any() for a, b in zip(before, model.encoder.get_weights()))

        # In float16 the first steps are skipped until the loss scale is found.
        for _ in range(1 if policy != "mixed_float16" else 16):
            logged = model.train_on_batch(x, y)
            assert np.isfinite(logged) and logged != 0
            if moved():
                break
        assert moved() and all(np.isfinite(w).all() for w in model.encoder.get_weights())


class TestSampleWeight:
    def value(self, case, weights, **settings):
        loss = build((case[0], {**case[1], **settings}))
        return keras.ops.convert_to_numpy(step_by_step(loss)(targets(case), rows(case), weights))

    @each([case for case in CASES if whole(case)])
    def test_is_refused_by_losses_without_rows(self, case):
        with pytest.raises(ValueError, match="one number for the whole batch"):
            build(case)(targets(case), rows(case), WEIGHTS)

    @each(WEIGHTED)
    def test_changes_value_or_gradient(self, case):
        run, x = run_of(case), rows(case)
        (value, gradient), (weighted, weighted_gradient) = run(x), run(x, weights=WEIGHTS)
        by_value = weighted != pytest.approx(value, rel=1e-3)
        assert by_value or not np.allclose(weighted_gradient, gradient, rtol=1e-2, atol=1e-6)

    @each([case for case in PLAIN if "reduction" in defaults(case[0])])
    def test_weighs_the_rows(self, case):
        """Each reduction of rows and weights equals its formula in NumPy."""
        each = self.value(case, None, reduction="none")
        assert each.shape == LABELS.shape
        # The weight 0 removes the terms of a row; terms of other rows with its item stay.
        assert 0 in WEIGHTS
        expected = {
            "none": WEIGHTS * each,
            "sum": (WEIGHTS * each).sum(),
            "sum_over_batch_size": (WEIGHTS * each).mean(),
            "mean_with_sample_weight": (WEIGHTS * each).sum() / WEIGHTS.sum(),
        }
        for reduction, value in expected.items():
            found = self.value(case, WEIGHTS, reduction=reduction)
            np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=reduction)
        column = self.value(case, WEIGHTS[:, None], reduction="sum")
        np.testing.assert_allclose(column, expected["sum"], rtol=1e-5)

    @each([case for case in PLAIN if "reduction" in defaults(case[0])])
    def test_weighs_terms_and_their_count(self, case):
        """A mean over terms equals the row's value for a single row, and ignores the scale."""
        each = self.value(case, None, reduction="none")
        for row in (0, 3, 6):
            single = np.zeros(len(LABELS))
            single[row] = 2.0
            found = self.value(case, single, reduction="mean_active")
            np.testing.assert_allclose(found, each[row], rtol=1e-5)
        once, thrice = (
            self.value(case, weights, reduction="mean_valid") for weights in (WEIGHTS, 3 * WEIGHTS)
        )
        np.testing.assert_allclose(once, thrice, rtol=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras does not use XLA on torch")
@pytest.mark.thorough
@each([(name, settings) for name in LOSSES for settings in ({}, *COMPILED.get(name, ()))])
def test_compiled_equals_eager(case):
    x, weights = rows(case, 1), weights_of(case)
    compiled, plain = (
        differentiated(applied(build(case)), jit)(x, targets(case), weights)
        for jit in (True, False)
    )
    if samples(case):
        # XLA generates other numbers from the same seed.
        assert np.isfinite(compiled[0]) and np.isfinite(compiled[1]).all()
        return
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-4, atol=1e-5)


PAIRED = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3])
ODD_BATCHES = {
    "one class": (np.zeros(9), lambda x: x),
    "all singletons": (np.arange(9), lambda x: x),
    "all equal": (PAIRED, np.ones_like),
    "all zero": (PAIRED, np.zeros_like),
    "a batch of one": (np.array([4]), lambda x: x[:1]),
    "a batch of two": (np.array([4, 4]), lambda x: x[:2]),
    "a zero vector": (PAIRED, lambda x: scaled(x, np.arange(9) > 0)),
    "a huge vector": (PAIRED, lambda x: scaled(x, np.where(np.arange(9) == 1, 1e20, 1))),
    "equal rows in two classes": (PAIRED, lambda x: x[np.arange(9) % 2]),
    "one pair among singletons": (np.array([0, 1, 2, 2, 3, 4, 5, 6, 7]), lambda x: x),
}


@pytest.mark.parametrize("batch", ODD_BATCHES)
@each(CASES)
def test_every_odd_batch_is_finite(case, batch):
    labels, change = ODD_BATCHES[batch]
    value, gradient = run_of(case)(change(rows(case, 3)).astype("float32"), labels)
    assert np.isfinite(value), value
    assert np.isfinite(gradient).all(), gradient
    if batch in ("one class", "all singletons", "a batch of one") and needs_both(case):
        assert value == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each(PLAIN)
def test_half_precision_embeddings_are_computed_in_float32(case, dtype):
    # 300 squared exceeds float16.
    x = keras.ops.cast(300 * rows(case), dtype)
    value = step_by_step(build(case))(targets(case), x)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    value = keras.ops.convert_to_numpy(value)
    assert np.isfinite(value)
    expected, _ = run_of(case)(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@each(CASES)
def test_nan_in_gives_nan_out(case):
    x = rows(case)
    x[2] = np.nan
    assert np.isnan(run_of(case)(x)[0])


@each([case for case in PLAIN if not case[1] and case[0] not in TARGETS])
def test_float_ids_in_a_compiled_step(case):
    """Whole floats are ids; others give NaN and no gradient, as compiled code cannot raise."""
    loss = build(case)
    run = differentiated(applied(loss), jit=True)
    x, weights = rows(case), weights_of(case)
    value, gradient = run_of(case)(x, weights=weights)
    found, found_gradient = run(x, LABELS.astype("float32"), weights)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    np.testing.assert_allclose(found_gradient, gradient, rtol=1e-4, atol=1e-5)
    if x.ndim == 3 and not loss.reads_ids(2):
        return
    for wrong in (0.5, np.nan, np.inf, -(2.0**24)):
        y = np.where(np.arange(9) == 3, wrong, LABELS).astype("float32")
        if BACKEND == "torch":
            with pytest.raises(
                ValueError, match=f"`y_true` must be integer.*with {wrong} in row 3"
            ):
                run(x, y, weights)
            continue
        found, found_gradient = run(x, y, weights)
        assert np.isnan(found) and not found_gradient.any()


MULTI_HOT = [case for case in PLAIN if "labels" in defaults(case[0]) and not case[1]]


@each(MULTI_HOT)
def test_one_label_each_is_a_class_id(case):
    """Multi-hot labels with one 1 in a row equal ids in value and gradient."""
    x, one_hot = rows(case, 4), (LABELS[:, None] == np.unique(LABELS)).astype("int32")
    value, gradient = run_of(case)(x, weights=weights_of(case))
    multi_hot = differentiated(applied(build((case[0], {"labels": "multi_hot"}))), BACKEND == "jax")
    found, found_gradient = multi_hot(x, one_hot, weights_of(case))
    np.testing.assert_allclose(found, value, rtol=1e-5)
    np.testing.assert_allclose(found_gradient, gradient, rtol=1e-4, atol=1e-5)


@each(MULTI_HOT)
def test_one_common_label_makes_a_positive(case):
    """A second label of two items adds positives, which changes the value."""
    x, y = rows(case, 4), np.eye(6, dtype="int32")[LABELS]
    both = y.copy()
    both[[0, 3], 4] = 1
    multi_hot = differentiated(applied(build((case[0], {"labels": "multi_hot"}))), BACKEND == "jax")
    ones = weights_of(case, np.ones(9, "float32"))
    values = [multi_hot(x, labels, ones)[0] for labels in (y, both)]
    assert values[0] != pytest.approx(values[1], rel=1e-4)


@each(
    [
        case
        for case in MULTI_HOT
        if issubclass(LOSSES[case[0]], PairLoss) and "mining" in defaults(case[0])
    ]
)
def test_a_miner_excludes_pairs(case):
    x = rows(case, 4)
    _, gradient = run_of(case)(x)
    miner = PairMiner("multi-similarity", epsilon=0.05)
    mined = differentiated(applied(build((case[0], {"mining": miner}))), BACKEND == "jax")
    found, found_gradient = mined(x, LABELS, weights_of(case, np.ones(9, "float32")))
    assert np.isfinite(found) and np.isfinite(found_gradient).all()
    assert np.abs(found_gradient - gradient).max() > 1e-4


@each([c for c in STEADY if c[0] not in IN_ORDER and c[1].get("mining") != "n-pairs"])
def test_the_order_of_the_batch_does_not_matter(case):
    x, run = rows(case, 1), run_of(case)
    turned = np.random.default_rng(0).permutation(len(LABELS))
    value, gradient = run(x, LABELS, WEIGHTS)
    again, moved = run(x[turned], LABELS[turned], WEIGHTS[turned])
    assert again == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(moved, gradient[turned], rtol=1e-3, atol=1e-5)


@each([case for case in STEADY if case[0] not in HELD_CONSTANT])
def test_gradients_equal_central_differences(case):
    """Of the loss itself, along random directions."""
    keras.config.set_floatx(DTYPE)
    double = DTYPE == "float64"
    if case[0] in MANY_EDGES and not double:
        pytest.skip("its bin edges are closer than a step that float32 resolves")
    loss = build(case)
    run = differentiated(applied(loss)) if double else run_of(case)
    x = rows(case, 2, "float64")
    y, weights = targets(case), weights_of(case, WEIGHTS.astype(DTYPE))

    def value(z):
        if double:
            return loss(y, z, weights)
        return run(z.astype(DTYPE), LABELS, weights)[0]

    gradient = run(x.astype(DTYPE), y if double else LABELS, weights)[1]
    assert gradient.any()
    directions = np.random.default_rng(0).normal(size=(2 if double else 9, *x.shape))
    along = (directions * gradient).reshape(len(directions), -1).sum(1)
    expected = reference.slopes(value, x, directions, 1e-6 if double else 1e-3)
    if double:
        np.testing.assert_allclose(along, expected, rtol=1e-5, atol=1e-6)
    else:
        # A step this large may cross the edge of a hinge, so half of the directions must agree.
        wrong = np.abs(along - expected) / np.abs(expected).max()
        assert np.median(wrong) < 1e-2, (along, expected)


BY_REPLICA = [c for c in STEADY if LOSSES[c[0]].rows_depend_on != "batch"]


@each(BY_REPLICA)
def test_rows_do_not_depend_on_the_replica_that_computes_them(case):
    """Rows of four and of five anchors, compared with the whole batch, equal those of the batch."""
    loss = build(case)
    if case[0] in TWO_BRANCHES or loss._depends_on_batch() or loss.memory is not None:
        pytest.skip("every replica computes all rows")
    y, z = ops.convert_to_tensor(LABELS), ops.convert_to_tensor(rows(case))
    expected = loss.batch_parts(IGNORED, y, z)
    found = []
    for anchors in (np.arange(4, dtype="int32"), np.arange(4, 9, dtype="int32")):
        mine = [ops.take(y, anchors, axis=0), ops.take(z, anchors, axis=0)]
        if loss.rows_depend_on == "references":
            mine += [z, class_pairs.Placed(y, ops.convert_to_tensor(anchors))]
        found.append(loss.batch_parts(IGNORED, *mine))
    assert len(expected) == len(found[0]) == len(found[1])
    for number, part in enumerate(expected):
        for field, values in zip(part._fields, part):
            values = ops.convert_to_numpy(values)
            here = [ops.convert_to_numpy(getattr(parts[number], field)) for parts in found]
            np.testing.assert_allclose(np.concatenate(here), values, rtol=1e-4, atol=1e-5)
