"""Hostile input for every public name: a correct result, or an error that names the argument.

Every name of `__all__` needs a recipe below. Hypothesis samples the changes of a recipe's inputs
from `hostile.cases`; `make fuzz` takes many more samples. Past failures stand in FOUND.
"""

import inspect
import os
import random
import zlib

import hostile
import keras
import loss_arguments
import numpy as np
import pytest
from hostile import Recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_architecture import public_modules

import keras_metric
from keras_metric import (
    addons,
    callbacks,
    data,
    datasets,
    distances,
    evaluation,
    layers,
    losses,
    metrics,
    models,
    search,
    viz,
)
from keras_metric.mining.miner import Miner

BACKEND = keras.backend.backend()
EXAMPLES = int(os.environ.get("KERAS_METRIC_FUZZ", 0))
DIM, ROWS = 4, 8

VECTORS = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype("float32")
OTHERS = np.random.default_rng(2).normal(size=(ROWS, DIM)).astype("float32")
LABELS = np.array([2, 0, 2, 3, 0, 2, 1, 1], "int32")
SCORES = np.array([0.1, 0.3, 0.4, 0.2, 0.6, 0.8, 0.9, 1.0], "float32")
SAME = np.array([1, 1, 1, 0, 1, 0, 0, 0], "int32")
IMAGES = np.random.default_rng(3).random((ROWS, 8, 8, 1), dtype="float32")
PAIRED = np.arange(ROWS) // 2
BATCHES = data.BalancedBatches(VECTORS, np.arange(ROWS) // 4, 2, 2, seed=0)
# TensorFlow's tensors of strings pass through Keras into the first layer.
NO_STRINGS = ("strings of letters",)

# --- Arguments of the constructors -----------------------------------------------------------

_XY = {"x": VECTORS, "y": PAIRED}
_GROUPS = {"classes_per_batch": 2, "samples_per_class": 2}
_ARGUMENTS = {
    "callbacks.HardExampleMining": {"batches": BATCHES},
    "callbacks.MiningSchedule": {"schedule": {0: "semi-hard"}},
    "callbacks.RetrievalEvaluator": _XY,
    "data.BalancedBatches": {**_XY, **_GROUPS},
    "data.ImageLoader": {"image_size": (8, 8)},
    "data.PairBatches": {**_XY, "batch_size": 4},
    "data.QuadrupletBatches": {**_XY, "batch_size": 4},
    "data.RandomResizedCrop": {"height": 4, "width": 4, "seed": 0},
    "data.StreamBatches": {
        "source": [(row, 0) for row in VECTORS],
        "batches_per_epoch": 1,
        **_GROUPS,
    },
    "data.TripletBatches": {**_XY, "batch_size": 4},
    "data.ViewBatches": {"x": VECTORS, "batch_size": 1, "augment": lambda x: x},
    "layers.CrossBatchMemory": {"size": 8},
    "layers.EmbeddingHead": {"embedding_dim": 3},
    "search.Index": {"dim": DIM},
}


def public(name):
    module, _, key = name.partition(".")
    return getattr(getattr(keras_metric, module), key)


def arguments_of(name):
    """Arguments with which a public class can be built."""
    module, _, key = name.partition(".")
    if module == "losses":
        return loss_arguments.arguments_of(key, num_classes=4)
    if module == "models":
        backbones = [keras.layers.Dense(DIM, name=f"dense_{i}") for i in range(2)]
        two = key == "TwoTowerModel"
        return dict(zip(("first", "second") if two else ("backbone",), backbones, strict=False))
    return _ARGUMENTS.get(name, {})


def built(name, **arguments):
    keras.utils.set_random_seed(0)
    return public(name)(**{**arguments_of(name), **arguments})


# --- Recipes ---------------------------------------------------------------------------------

_IDS = {"y_true": ("ids", LABELS), "y_pred": ("vectors", VECTORS)}
_SQUARE = {"y_true": ("ids", LABELS), "y_pred": ("vectors", VECTORS @ VECTORS.T)}
_ONE_HOT = {**_SQUARE, "y_true": ("vectors", np.eye(4, dtype="float32")[LABELS])}
_DISTANCES = {"y_true": ("flags", SAME), "y_pred": ("scores", SCORES)}
# Inputs of the functions of other modules, by the names of their arguments.
_INPUTS = {
    "a": ("vectors", VECTORS),
    "b": ("vectors", OTHERS),
    "embeddings": ("vectors", VECTORS),
    "gallery_embeddings": ("vectors", OTHERS),
    "gallery_labels": ("any labels", LABELS),
    "images": ("images", IMAGES),
    "labels": ("any labels", LABELS),
    "same": ("flags", SAME),
    "scores": ("scores", SCORES),
}
_ROWS = {name: _INPUTS[name] for name in ("embeddings", "labels")}
# Other arguments of these functions, and settings of their recipes.
_SETTINGS = {
    "evaluation.few_shot_accuracy": {"ways": 2, "shots": 1, "queries": 1, "episodes": 5},
    "evaluation.geometry_metrics": {"k": 2, "nan": True},
    "evaluation.identification_metrics": {"nan": True, "exact": False},
    "evaluation.k_reciprocal_distances": {"k1": 3, "k2": 2},
    "evaluation.query_expansion": {"k": 3},
    "evaluation.retrieval_metrics": {"nan": True, "exact": False},
    "evaluation.verification_metrics": {"nan": True},
    "viz.write_projector": {"log_dir": "projector"},
}


def by_row(call, inputs, **settings):
    """A recipe whose inputs all have a value for each row."""
    return Recipe(call, inputs, tuple(inputs), **settings)


def of_loss(name):
    key = name.partition(".")[2]

    def call(y_true, y_pred):
        return loss_arguments.seeded(public(name), DIM, **arguments_of(name))(y_true, y_pred)

    inputs = dict(_IDS)
    if name.startswith("losses.") and key in loss_arguments.CLASSIFICATION:
        inputs["y_true"] = ("labels", LABELS)
    if name.startswith("losses.") and key in loss_arguments.TWO_BRANCHES:
        inputs["y_pred"] = ("views", np.stack([VECTORS, OTHERS], axis=1))
    if key == "CosineRegressionLoss":
        inputs["y_true"] = ("scores", SCORES)
    return by_row(call, inputs, also=("memory",))


def of_addon(name):
    """The recipe of a loss of tensorflow-addons, as a class or as a function."""
    key = name.partition(".")[2]
    thing = public(name)

    def call(y_true, y_pred):
        return (thing() if inspect.isclass(thing) else thing)(y_true, y_pred)

    if "ontrastive" in key:
        return by_row(call, _DISTANCES)
    if "ultilabel" in key:
        return Recipe(call, _ONE_HOT, also=("labels",), nan=True)
    if "pairs" in key:
        return Recipe(call, _SQUARE)
    if key == "lifted_struct_loss":
        inputs = {"labels": _IDS["y_true"], "embeddings": _IDS["y_pred"]}
        return by_row(thing, inputs, also=("y_true", "y_pred"))
    return of_loss(name) if inspect.isclass(thing) else by_row(thing, _IDS)


def of_batches(name):
    def call(x, y):
        return built(name, x=x, y=y, seed=0)[0]

    return by_row(call, {"x": ("samples", VECTORS), "y": ("any labels", LABELS)})


def of_folder(name, **arguments):
    """The recipe of a reader, whose folder does not exist."""
    argument = next(iter(inspect.signature(public(name)).parameters))

    def call(**inputs):
        try:
            return public(name)(**{**arguments, **inputs})
        except ValueError:
            if inputs[argument] == "nowhere":
                return None
            raise

    return Recipe(call, {argument: ("text", "nowhere")})


def of_layer(name, kind="vectors", values=VECTORS):
    inputs = {"inputs": (kind, values)}
    if issubclass(public(name), Miner):
        inputs = {"embeddings": _IDS["y_pred"], "labels": _IDS["y_true"]}

    def call(**values):
        return built(name)(*values.values())

    return by_row(call, inputs, keras=True, exact=False, skip=NO_STRINGS)


def of_model(name, branches=(), labels=LABELS):
    """One training step of a new model, and the embeddings of one without branches."""

    def call(x, y):
        model = built(name, embedding_dim=3)
        model.compile("sgd", loss=model.loss, run_eagerly=True)
        if branches:
            return model.train_on_batch({branch: x for branch in branches}, y)
        return model(x), model.train_on_batch(x, y)

    inputs = {"x": ("vectors", VECTORS), "y": ("ids", labels)}
    also = ("y_true", "y_pred", "labels")
    # TensorFlow aborts on a product with no columns, inside the user's backbone.
    skip = ("no width",)
    return by_row(call, inputs, keras=True, exact=False, jax=False, also=also, skip=skip)


def of_metric(name):
    def call(y_true, y_pred):
        metric = built(name)
        metric.update_state(y_true, y_pred)
        return metric.result()

    return by_row(call, _IDS, also=("labels", "embeddings"))


def of_function(name, nan=False, exact=True, **arguments):
    function = public(name)
    inputs = {key: _INPUTS[key] for key in inspect.signature(function).parameters if key in _INPUTS}
    return by_row(lambda **rows: function(**rows, **arguments), inputs, nan=nan, exact=exact)


def evaluate(x, y):
    evaluator = callbacks.RetrievalEvaluator(x, y, k=(1, 2))
    model = keras.Sequential([keras.layers.Dense(3, kernel_initializer="ones")])
    model.compile(run_eagerly=True)
    evaluator.set_model(model)
    logs = {}
    evaluator.set_params({})
    evaluator.on_epoch_end(0, logs)
    return logs


def search_an_index(queries, embeddings, labels):
    index = search.Index(DIM, metric="euclidean")
    index.add(embeddings, labels)
    found = index.search(queries, k=2)
    index.calibrate(embeddings, labels, false_accept_rate=0.5)
    index.identify(queries, rule="vote", threshold=1.0)
    return [[match.distance for match in matches] for matches in found]


def names_of(module):
    return [f"{module.__name__.partition('.')[2]}.{name}" for name in module.__all__]


RECIPES = {
    # Other classes of this module, such as bases, have no input: the losses test them.
    **{name: Recipe(lambda: None) for name in names_of(losses)},
    **{f"losses.{name}": of_loss(f"losses.{name}") for name in loss_arguments.LOSSES},
    **{name: of_addon(name) for name in names_of(addons)},
    **{name: of_metric(name) for name in names_of(metrics)},
    # Streams and files: their own tests damage them; changes of arrays do not apply.
    **{
        f"data.{name}": Recipe(lambda: None)
        for name in ("StreamBatches", "parse_example", "path_table", "tfrecord_items")
    },
    **{
        f"data.{name}": of_batches(f"data.{name}")
        for name in (
            *("BalancedBatches", "PairBatches", "QuadrupletBatches", "TripletBatches"),
            "ViewBatches",
        )
    },
    **{name: of_folder(name) for name in names_of(datasets)},
    "datasets.read_lfw_pairs": of_folder("datasets.read_lfw_pairs", root="nowhere"),
    **{name: of_layer(name) for name in names_of(layers)},
    **{
        name: of_function(name, **_SETTINGS.get(name, {}))
        for module in (distances, evaluation, viz)
        for name in names_of(module)
    },
    **{
        name: Recipe(lambda name=name: public(name)(*range(len(public(name)._fields))))
        for name in names_of(search)
        if issubclass(public(name), tuple)
    },
    "callbacks.RetrievalEvaluator": by_row(
        evaluate,
        {"x": ("vectors", VECTORS), "y": ("any labels", LABELS)},
        keras=True,
        nan=True,
        exact=False,
        also=("embeddings", "labels"),
    ),
    "callbacks.MiningSchedule": Recipe(
        lambda schedule: callbacks.MiningSchedule(schedule).schedule,
        {"schedule": ("setting", {0: "semi-hard", 3: "hard"})},
    ),
    "callbacks.HardExampleMining": Recipe(
        callbacks.HardExampleMining, {"batches": ("setting", BATCHES)}
    ),
    "data.ImageLoader": Recipe(
        lambda image_size: data.ImageLoader(image_size).image_size,
        {"image_size": ("setting", (8, 8))},
    ),
    "data.RandomResizedCrop": of_layer("data.RandomResizedCrop", "images", IMAGES),
    "data.check_no_leak": Recipe(
        lambda parts, y: data.check_no_leak(parts, np.array([4, 6]), y=y),
        {
            "parts": ("rows", np.array([0, 2])),
            "y": ("any labels", np.array([1, 1, 1, 1, 2, 2, 3, 3])),
        },
        also=("class", "group"),
    ),
    "data.image_folder": of_folder("data.image_folder", image_size=(8, 8)),
    "data.image_paths": of_folder("data.image_paths"),
    "data.split_by_class": Recipe(data.split_by_class, {"y": ("any labels", LABELS)}),
    "evaluation.pca_whitening": Recipe(
        lambda embeddings: evaluation.pca_whitening(embeddings)[0].explained_variance_,
        {"embeddings": ("vectors", VECTORS)},
        nan=True,
    ),
    "evaluation.roc_curve": by_row(
        lambda scores, same: evaluation.roc_curve(scores, same)[1:],
        {name: _INPUTS[name] for name in ("scores", "same")},
    ),
    "layers.CrossBatchMemory": Recipe(
        lambda size: layers.CrossBatchMemory(size).size, {"size": ("setting", 8)}
    ),
    "layers.GeneralizedMeanPooling": of_layer("layers.GeneralizedMeanPooling", "images", IMAGES),
    "models.EmbeddingModel": of_model("models.EmbeddingModel"),
    "models.TripletModel": of_model("models.TripletModel"),
    "models.SiameseModel": of_model("models.SiameseModel", ("first", "second"), SAME),
    "models.QuadrupletModel": of_model(
        "models.QuadrupletModel", ("anchor", "positive", "negative", "second_negative")
    ),
    "models.TwoTowerModel": of_model("models.TwoTowerModel", ("first", "second")),
    "models.Encoder": by_row(
        lambda x: models.Encoder(keras.layers.Dense(3), 3)(x),
        {"x": ("vectors", VECTORS)},
        keras=True,
        exact=False,
        skip=("no width",),
    ),
    "search.Index": Recipe(
        search_an_index, {"queries": ("vectors", OTHERS), **_ROWS}, ("embeddings", "labels")
    ),
    "viz.plot_distance_history": by_row(
        lambda embeddings, labels: viz.plot_distance_history({1: embeddings}, labels), _ROWS
    ),
}

# --- Tests -----------------------------------------------------------------------------------

# Past failures that the samples need not contain: (name, argument, change).
FOUND = [
    ("addons.NpairsMultilabelLoss", "y_true", "a generator"),
    ("callbacks.RetrievalEvaluator", "x", "no width"),
    ("callbacks.RetrievalEvaluator", "x", "a number"),
    ("data.RandomResizedCrop", "inputs", "an empty list"),
    ("data.ViewBatches", "x", "an empty list"),
    ("data.check_no_leak", "parts", "rank 0"),
    ("data.check_no_leak", "parts", "huge"),
    ("data.image_paths", "path", "very long"),
    ("datasets.read_omniglot", "root", "a number"),
    ("distances.elementwise", "a", "a row less"),
    ("distances.elementwise", "b", "rank 0"),
    ("distances.pairwise", "a", "= float64"),
    ("distances.pairwise", "b", "no rows"),
    ("metrics.PositiveDistance", "y_true", "a row less"),
    ("metrics.TripletAccuracy", "rows", 0),
    ("evaluation.few_shot_accuracy", "labels", "one class"),
    ("evaluation.geometry_metrics", "embeddings", "tiny"),
    ("evaluation.k_reciprocal_distances", "rows", 0),
    ("evaluation.pca_whitening", "embeddings", "all equal"),
    ("evaluation.pca_whitening", "embeddings", "no rows"),
    ("evaluation.retrieval_metrics", "embeddings", "complex"),
    ("evaluation.retrieval_metrics", "labels", "objects without order"),
    ("evaluation.retrieval_metrics", "rows", 0),
    ("evaluation.roc_curve", "scores", "records"),
    ("layers.EmbeddingHead", "rows", 0),
    ("losses.ArcFaceLoss", "y_pred", "one wide"),
    ("losses.ClipLoss", "y_true", "a row less"),
    ("losses.ContrastiveLoss", "rows", 0),
    ("losses.TripletLoss", "rows", 0),
    ("losses.TripletLoss", "y_pred", "a generator"),
    ("losses.TripletLoss", "y_pred", "no width"),
    ("losses.TripletLoss", "y_true", "a ragged list"),
    ("models.TripletModel", "y", "a string"),
    ("models.TwoTowerModel", "y", "a set"),
    ("viz.plot_distances", "labels", "objects without order"),
]
CLASSES = [
    name
    for name in sorted(RECIPES)
    if inspect.isclass(public(name)) and not issubclass(public(name), tuple)
]
_baselines = {}


def baseline(name):
    """The result of the valid inputs."""
    if name not in _baselines:
        recipe = RECIPES[name]
        result, error = hostile.run(recipe, hostile.valid_inputs(recipe))
        if error is not None:
            raise error
        assert recipe.nan or hostile.numbers_are_finite(result), result
        _baselines[name] = result
    return _baselines[name]


def check(name, argument, change):
    fault = hostile.fault_of_case(RECIPES[name], argument, change, baseline(name))
    assert not fault, f"keras_metric.{name} with {argument}: {change}: {fault}"


def test_every_public_name_has_a_recipe():
    names = {name for module in public_modules() for name in names_of(module)}
    assert names - set(RECIPES) == set(), "Add a recipe for each of these to RECIPES."
    assert set(RECIPES) - names == set(), "These names are not public any more."


def examples_of(name):
    """The number of sampled changes: losses and plots have common checks, and are slow."""
    if EXAMPLES:
        return EXAMPLES
    slow = name.split(".")[0] in ("losses", "models", "layers", "callbacks", "viz")
    return {"tensorflow": (3, 12), "torch": (3, 8), "jax": (1, 2)}[BACKEND][0 if slow else 1]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_hostile_input(name):
    if BACKEND == "jax" and not RECIPES[name].jax:
        pytest.skip("JAX compiles each training step again; the losses have tests of their own")
    baseline(name)
    changes = list(hostile.cases(RECIPES[name]))
    if not changes:
        return

    # The order depends on the name, so that the samples differ between names.
    @settings(
        max_examples=examples_of(name),
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(random.Random(zlib.crc32(name.encode())).sample(changes, len(changes))))
    def sampled(change):
        check(name, *change)

    sampled()


@pytest.mark.parametrize(("name", "argument", "change"), FOUND)
def test_past_failures(name, argument, change):
    if BACKEND == "jax" and name.split(".")[0] in ("losses", "callbacks"):
        pytest.skip("TensorFlow and torch check it; JAX takes a second for each")
    check(name, argument, change)


def fault_of_setting(build, argument, what):
    """The fault of a constructor that gets an unusual value, empty if there is none."""
    try:
        build(**{argument: hostile.SETTINGS[what]})
    except (TypeError, ValueError) as error:
        # Keras's own errors name the argument too.
        named = hostile.names_one_of([argument], str(error))
        return "" if named else f"{argument}={what}: the error does not name it: {error}"
    except Exception as error:
        return f"{argument}={what}: {error!r}"
    return f"{argument}={what} is accepted" if what in hostile.INVALID_EVERYWHERE else ""


@pytest.mark.parametrize("name", CLASSES)
def test_hostile_settings(name):
    if BACKEND != "tensorflow":
        pytest.skip("Python checks the arguments, the same on all backends")
    built(name)
    parameters = inspect.signature(public(name)).parameters.values()
    # Keras checks `name` and `dtype`.
    own = [
        p.name for p in parameters if "VAR" not in p.kind.name and p.name not in ("name", "dtype")
    ]
    # A model takes some milliseconds to build.
    values = hostile.INVALID_EVERYWHERE if name.startswith("models.") else hostile.SETTINGS

    def build(**setting):
        return public(name)(**{**arguments_of(name), **setting})

    faults = [fault_of_setting(build, argument, what) for argument in own for what in values]
    assert not any(faults), f"{name}: " + "\n".join(filter(None, faults))


class TestTheRulesFindFaults:
    """Planted faults are reported."""

    def fault(self, call, change="NaN", **settings):
        recipe = Recipe(call, {"x": ("vectors", VECTORS)}, ("x",), **settings)
        return hostile.fault_of_case(recipe, "x", change, call(VECTORS))

    @pytest.mark.parametrize(
        ("error", "fault"),
        [
            (lambda: [][0], "IndexError"),
            (lambda: int("no number"), "not ours"),
            (lambda: keras_metric._validation.check_matrix("other", IMAGES), "names none"),
        ],
    )
    def test_unsuitable_errors(self, error, fault):
        assert fault in self.fault(lambda x: error() if np.isnan(x).any() else 0.0)

    def test_settings_without_a_check(self):
        def careless(margin=1.0):
            if np.isscalar(margin) and margin != margin:
                raise ValueError("it must be finite")

        found = [fault_of_setting(careless, "margin", what) for what in ("NaN", "an object")]
        assert "does not name it" in found[0] and "is accepted" in found[1]

    def test_infinity_from_finite_numbers(self):
        assert "finite numbers give" in self.fault(lambda x: 1.0 if x[0, 0] else np.inf, "zeros")

    def test_another_result_of_the_same_values(self):
        assert "another form" in self.fault(
            lambda x: float(not isinstance(x, np.ndarray)), "= a list"
        )
