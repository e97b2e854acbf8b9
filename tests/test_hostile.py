"""Hostile input, for every public name: a right answer, or an error that says what to pass.

The names are found by looking, so a new one needs a recipe below. Hypothesis draws what is done to
a recipe's inputs from `hostile.cases`; `make fuzz` draws many more. What was found once stays as an
example of its own, in FOUND.
"""

import importlib
import inspect
import os
import random
import re
import zlib

import hostile
import keras
import numpy as np
import pytest
from hostile import Recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_metric
from keras_metric import (
    callbacks,
    data,
    datasets,
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

# --- Recipes ---------------------------------------------------------------------------------

LOSSES = [name for name in losses.__all__ if name not in ("MetricLoss", "StepReports")]
# Losses that compare with learned vectors of classes, of which ids are the numbers.
OF_CLASSES = [
    name
    for name in LOSSES
    if inspect.signature(getattr(losses, name)).parameters.get("num_classes", SAME) is not SAME
    and inspect.signature(getattr(losses, name)).parameters["num_classes"].default is inspect._empty
]
OF_TWO = (
    *("BarlowTwinsLoss", "ClipLoss", "CosineRegressionLoss"),
    *("SigLipLoss", "SimSiamLoss", "VICRegLoss"),
)


def loss_of(name):
    arguments = {"num_classes": 4} if name in OF_CLASSES else {}
    if name == "WeightedSum":
        arguments = {"terms": [(0.5, losses.TripletLoss()), (2.0, losses.ContrastiveLoss())]}
    if name == "ManifoldLoss":
        arguments = {"meta_classes": "labels", "K": 3}
    return arguments


def build(cls, arguments):
    """A loss whose layers are built and whose seeds never differ."""
    random.seed(0)
    keras.utils.set_random_seed(0)
    loss = cls(**arguments)
    for layer in getattr(loss, "layers", ()):
        if not layer.built:
            layer.build((None, DIM))
    return loss


def of_loss(cls, **arguments):
    two = cls.__module__.startswith("keras_metric.losses") and cls.__name__ in OF_TWO

    def call(y_true, y_pred, **more):
        return build(cls, {**loss_of(cls.__name__), **arguments, **more})(y_true, y_pred)

    kind = "labels" if cls.__name__ in OF_CLASSES else "ids"
    labels, vectors = (kind, LABELS), ("vectors", VECTORS)
    if two:
        vectors = ("views", np.stack([VECTORS, OTHERS], axis=1))
    if cls.__name__ == "CosineRegressionLoss":
        labels = ("scores", SCORES)
    return Recipe(
        call, {"y_true": labels, "y_pred": vectors}, ("y_true", "y_pred"), also=("memory",)
    )


def of_function(function, **inputs):
    by_row = tuple(inputs)
    return Recipe(function, inputs, by_row)


def of_pair_distances(function):
    def call(y_true, y_pred, **more):
        return function(y_true, y_pred, **more)

    return Recipe(
        call, {"y_true": ("flags", SAME), "y_pred": ("scores", SCORES)}, ("y_true", "y_pred")
    )


def of_batches(cls, **arguments):
    def call(x, y, **more):
        batches = cls(**{"x": x, "y": y, "seed": 0, **arguments, **more})
        return batches[0]

    inputs = {"x": ("samples", VECTORS), "y": ("any labels", LABELS)}
    return Recipe(call, inputs, ("x", "y"), exact=True)


def of_path(function, **arguments):
    """A reader of a folder: nothing is there, whatever the path says."""
    name = next(iter(inspect.signature(function).parameters))

    def call(**more):
        try:
            return function(**{**arguments, **more})
        except ValueError as error:
            if more[name] == "nowhere":
                return None
            raise error

    return Recipe(call, {name: ("text", "nowhere")})


def of_layer(cls, *, argument="inputs", values=VECTORS, **arguments):
    def call(more=None, **inputs):
        keras.utils.set_random_seed(0)
        return cls(**{**arguments, **(more or {})})(*inputs.values())

    inputs, skip = {argument: ("vectors", values)}, ("strings of letters",)
    if issubclass(cls, Miner):
        inputs = {"embeddings": ("vectors", VECTORS), "labels": ("ids", LABELS)}
    # TensorFlow's tensors of strings go through Keras into the layer.
    return Recipe(call, inputs, tuple(inputs), keras=True, exact=False, skip=skip)


def of_model(cls, names):
    """Embeddings, and one step of training, of a model that is built anew."""

    def call(x, y=None):
        keras.utils.set_random_seed(0)
        parts = [keras.layers.Dense(DIM, name=f"dense_{i}") for i in range(2)]
        model = cls(*parts[: 1 + (cls is models.TwoTowerModel)], embedding_dim=3)
        if names is None:
            model.compile("sgd", loss=model.loss, run_eagerly=True)
            return model(x), model.train_on_batch(x, y)
        model.compile("sgd", loss=model.loss, run_eagerly=True)
        return model.train_on_batch({name: x for name in names}, y)

    return call


def evaluated(x, y, **more):
    evaluator = callbacks.RetrievalEvaluator(x, y, **{"k": (1, 2), **more})
    model = keras.Sequential([keras.layers.Dense(3, kernel_initializer="ones")])
    model.compile(run_eagerly=True)
    evaluator.set_model(model)
    logs = {}
    evaluator.set_params({})
    evaluator.on_epoch_end(0, logs)
    return logs


def scheduled(schedule):
    return callbacks.MiningSchedule(schedule).schedule


BATCHES = data.BalancedBatches(VECTORS, np.arange(ROWS) // 4, 2, 2, seed=0)


def mined(batches):
    return callbacks.HardExampleMining(batches)


def searched(queries, embeddings, labels):
    index = search.Index(DIM, metric="euclidean")
    index.add(embeddings, labels)
    found = index.search(queries, k=2)
    index.calibrate(embeddings, labels, false_match_rate=0.5)
    index.identify(queries, rule="vote", threshold=1.0)
    return [[match.distance for match in line] for line in found]


def metric_of(cls):
    def call(y_true, y_pred, **more):
        metric = cls(**more)
        metric.update_state(y_true, y_pred)
        return metric.result()

    return Recipe(
        call,
        {"y_true": ("ids", LABELS), "y_pred": ("vectors", VECTORS)},
        ("y_true", "y_pred"),
        also=("labels", "embeddings"),
    )


def drawn(function, **inputs):
    def call(**values):
        function(**values)
        return None

    return Recipe(call, inputs, tuple(inputs))


def written(embeddings, labels, images):
    viz.write_projector("projector", embeddings, labels, images)


def record(cls):
    return Recipe(lambda: cls(*range(len(cls._fields))))


_PAIRED = {"embeddings": ("vectors", VECTORS), "labels": ("any labels", LABELS)}
_GALLERY = {
    **_PAIRED,
    "gallery_embeddings": ("vectors", OTHERS),
    "gallery_labels": ("any labels", LABELS),
}
_PICTURED = {"images": ("images", IMAGES), **{k: _PAIRED[k] for k in ("labels", "embeddings")}}
_SCORED = {"scores": ("scores", SCORES), "same": ("flags", SAME)}


def measured(function, inputs=_PAIRED, nan=False, **arguments):
    def call(**values):
        return function(**values, **arguments)

    return Recipe(call, inputs, tuple(inputs), nan=nan)


RECIPES = {
    **{f"losses.{name}": of_loss(getattr(losses, name)) for name in LOSSES},
    **{
        f"addons.{name}": of_loss(getattr(keras_metric.addons, name))
        for name in ("LiftedStructLoss", "TripletHardLoss", "TripletSemiHardLoss")
    },
    "addons.NpairsLoss": Recipe(
        lambda y_true, y_pred: keras_metric.addons.NpairsLoss()(y_true, y_pred),
        {"y_true": ("ids", LABELS), "y_pred": ("vectors", VECTORS @ VECTORS.T)},
    ),
    "addons.NpairsMultilabelLoss": Recipe(
        lambda y_true, y_pred: keras_metric.addons.NpairsMultilabelLoss()(y_true, y_pred),
        {
            "y_true": ("vectors", np.eye(4, dtype="float32")[LABELS]),
            "y_pred": ("vectors", VECTORS @ VECTORS.T),
        },
        also=("labels",),
        nan=True,
    ),
    "addons.ContrastiveLoss": of_pair_distances(
        lambda y_true, y_pred: keras_metric.addons.ContrastiveLoss()(y_true, y_pred)
    ),
    "addons.contrastive_loss": of_pair_distances(keras_metric.addons.contrastive_loss),
    "addons.lifted_struct_loss": of_function(
        keras_metric.addons.lifted_struct_loss,
        labels=("ids", LABELS),
        embeddings=("vectors", VECTORS),
    )._replace(also=("y_true", "y_pred")),
    "addons.npairs_loss": Recipe(
        keras_metric.addons.npairs_loss,
        {"y_true": ("ids", LABELS), "y_pred": ("vectors", VECTORS @ VECTORS.T)},
    ),
    "addons.npairs_multilabel_loss": Recipe(
        keras_metric.addons.npairs_multilabel_loss,
        {
            "y_true": ("vectors", np.eye(4, dtype="float32")[LABELS]),
            "y_pred": ("vectors", VECTORS @ VECTORS.T),
        },
        nan=True,
    ),
    **{
        f"addons.{name}": of_function(
            getattr(keras_metric.addons, name),
            y_true=("ids", LABELS),
            y_pred=("vectors", VECTORS),
        )
        for name in ("triplet_hard_loss", "triplet_semihard_loss")
    },
    "callbacks.RetrievalEvaluator": Recipe(
        evaluated,
        {"x": ("vectors", VECTORS), "y": ("any labels", LABELS)},
        ("x", "y"),
        keras=True,
        nan=True,
        exact=False,
        also=("embeddings", "labels"),
    ),  # fmt: skip
    "callbacks.MiningSchedule": Recipe(
        scheduled, {"schedule": ("setting", {0: "semi-hard", 3: "hard"})}
    ),
    "callbacks.HardExampleMining": Recipe(mined, {"batches": ("setting", BATCHES)}),
    "data.BalancedBatches": of_batches(
        data.BalancedBatches, classes_per_batch=2, samples_per_class=2
    ),
    "data.PairBatches": of_batches(data.PairBatches, batch_size=4),
    "data.TripletBatches": of_batches(data.TripletBatches, batch_size=4),
    "data.QuadrupletBatches": of_batches(data.QuadrupletBatches, batch_size=4),
    "data.ViewBatches": of_batches(data.ViewBatches, batch_size=1, augment=lambda x: x),
    "data.ImageLoader": Recipe(
        lambda image_size: data.ImageLoader(image_size).image_size,
        {"image_size": ("setting", (8, 8))},
    ),
    "data.RandomResizedCrop": of_layer(
        data.RandomResizedCrop,
        values=IMAGES,
        height=4,
        width=4,
        seed=0,
        # Keras hands strings through to the first layer.
    )._replace(inputs={"inputs": ("images", IMAGES)}, skip=("strings of letters",)),
    "data.check_no_leak": Recipe(
        lambda parts, y: data.check_no_leak(parts, np.array([4, 6]), y=y),
        {
            "parts": ("rows", np.array([0, 2])),
            "y": ("any labels", np.array([1, 1, 1, 1, 2, 2, 3, 3])),
        },
        also=("class", "group"),
    ),
    "data.image_folder": of_path(data.image_folder, image_size=(8, 8)),
    "data.image_paths": of_path(data.image_paths),
    # Streams and files: their own tests damage them; what is hostile about arrays says nothing.
    **{
        f"data.{name}": Recipe(lambda: None)
        for name in ("StreamBatches", "parse_example", "path_table", "tfrecord_items")
    },
    "datasets.read_lfw_pairs": of_path(datasets.read_lfw_pairs, root="nowhere"),
    **{
        f"datasets.{name}": of_path(getattr(datasets, name))
        for name in (
            "read_cars_196",
            "read_cub_200_2011",
            "read_in_shop",
            "read_market_1501",
            "read_omniglot",
            "read_stanford_online_products",
        )
    },
    "data.split_by_class": Recipe(data.split_by_class, {"y": ("any labels", LABELS)}),
    "distances.pairwise": Recipe(
        keras_metric.distances.pairwise, {"a": ("vectors", VECTORS), "b": ("vectors", OTHERS)}
    ),
    "distances.elementwise": of_function(
        keras_metric.distances.elementwise, a=("vectors", VECTORS), b=("vectors", OTHERS)
    ),
    **{
        f"metrics.{name}": metric_of(getattr(metrics, name))
        for name in ("NegativeDistance", "PositiveDistance", "TripletAccuracy")
    },
    "evaluation.clustering_metrics": measured(evaluation.clustering_metrics),
    "evaluation.few_shot_accuracy": measured(
        evaluation.few_shot_accuracy, ways=2, shots=1, queries=1, episodes=5
    ),
    "evaluation.geometry_metrics": measured(evaluation.geometry_metrics, k=2, nan=True),
    "evaluation.identification_metrics": measured(
        evaluation.identification_metrics, _GALLERY, nan=True
    )._replace(exact=False),
    "evaluation.k_reciprocal_distances": measured(
        evaluation.k_reciprocal_distances,
        {k: _GALLERY[k] for k in ("embeddings", "gallery_embeddings")},
        k1=3,
        k2=2,
    ),
    "evaluation.pair_distances": measured(evaluation.pair_distances),
    "evaluation.pca_whitening": Recipe(
        lambda embeddings: evaluation.pca_whitening(embeddings)[0].explained_variance_,
        {"embeddings": ("vectors", VECTORS)},
        nan=True,
    ),
    "evaluation.query_expansion": measured(
        evaluation.query_expansion,
        {k: _GALLERY[k] for k in ("embeddings", "gallery_embeddings")},
        k=3,
    ),
    "evaluation.retrieval_metrics": measured(
        evaluation.retrieval_metrics, _GALLERY, nan=True
    )._replace(exact=False),
    "evaluation.roc_curve": Recipe(
        lambda scores, same: evaluation.roc_curve(scores, same)[1:], _SCORED, ("scores", "same")
    ),
    "evaluation.verification_metrics": measured(evaluation.verification_metrics, _SCORED, nan=True),
    "layers.CrossBatchMemory": Recipe(
        lambda size: layers.CrossBatchMemory(size).size, {"size": ("setting", 8)}
    ),
    "layers.EmbeddingHead": of_layer(layers.EmbeddingHead, embedding_dim=3),
    "layers.GeneralizedMeanPooling": of_layer(
        layers.GeneralizedMeanPooling, values=IMAGES
    )._replace(inputs={"inputs": ("images", IMAGES)}),
    "layers.Mahalanobis": of_layer(layers.Mahalanobis),
    "layers.PairMiner": of_layer(layers.PairMiner),
    "layers.TripletMiner": of_layer(layers.TripletMiner),
    **{
        f"models.{name}": Recipe(
            of_model(getattr(models, name), names),
            {"x": ("vectors", VECTORS), "y": ("ids", LABELS if y is None else y)},
            ("x", "y"),
            keras=True,
            exact=False,
            jax=False,
            also=("y_true", "y_pred", "labels"),
            # TensorFlow ends the process on a product with no columns, inside the user's backbone.
            skip=("no width",),
        )
        for name, names, y in (
            ("EmbeddingModel", None, None),
            ("TripletModel", None, None),
            ("SiameseModel", ("first", "second"), SAME),
            (
                "QuadrupletModel",
                ("anchor", "positive", "negative", "second_negative"),
                None,
            ),
            ("TwoTowerModel", ("first", "second"), None),
        )
    },
    "models.Encoder": Recipe(
        lambda x: models.Encoder(keras.layers.Dense(3), 3)(x),
        {"x": ("vectors", VECTORS)},
        ("x",),
        keras=True,
        exact=False,
        skip=("no width",),
    ),
    "search.Index": Recipe(
        searched,
        {"queries": ("vectors", OTHERS), **_PAIRED},
        ("embeddings", "labels"),
    ),
    **{
        f"search.{name}": record(getattr(search, name))
        for name in ("Identity", "Item", "Match", "OperatingPoint", "StagedMatches", "Verification")
    },
    "viz.plot_confusions": drawn(viz.plot_confusions, **_PAIRED),
    "viz.plot_distance_history": Recipe(
        lambda embeddings, labels: viz.plot_distance_history({1: embeddings}, labels) and None,
        _PAIRED,
        ("embeddings", "labels"),
    ),
    "viz.plot_distances": drawn(viz.plot_distances, **_PAIRED),
    "viz.plot_embeddings": drawn(viz.plot_embeddings, **_PAIRED),
    "viz.plot_similarity": drawn(viz.plot_similarity, **_PAIRED),
    "viz.plot_hardest_pairs": drawn(viz.plot_hardest_pairs, **_PICTURED),
    "viz.plot_label_errors": drawn(viz.plot_label_errors, **_PICTURED),
    "viz.plot_neighbors": drawn(viz.plot_neighbors, **_PICTURED),
    "viz.plot_det": drawn(viz.plot_det, **_SCORED),
    "viz.plot_roc": drawn(viz.plot_roc, **_SCORED),
    "viz.write_projector": Recipe(
        written, {**_PAIRED, "images": _PICTURED["images"]}, ("embeddings", "labels", "images")
    ),
}

# --- Settings --------------------------------------------------------------------------------


def settings_of(cls):
    """The names of a class's own arguments; `name` and `dtype` are Keras's to look at."""
    named = [p for p in inspect.signature(cls).parameters.values() if "VAR" not in p.kind.name]
    return [parameter.name for parameter in named if parameter.name not in ("name", "dtype")]


def sound_settings(name, cls):
    """Arguments with which a public class can be made."""
    x, y = {"x": VECTORS}, {"y": np.arange(ROWS) // 2}
    per_row = {**x, **y, "batch_size": 4}
    groups = {"classes_per_batch": 2, "samples_per_class": 2}
    if name.startswith("losses."):
        return loss_of(cls.__name__)
    if name.startswith("models."):
        parts = [keras.layers.Dense(DIM, name=f"dense_{i}") for i in range(2)]
        two = cls is models.TwoTowerModel
        return dict(zip(("first", "second") if two else ("backbone",), parts, strict=False))
    return {
        "callbacks.HardExampleMining": {"batches": BATCHES},
        "callbacks.MiningSchedule": {"schedule": {0: "semi-hard"}},
        "callbacks.RetrievalEvaluator": {**x, **y},
        "data.BalancedBatches": {**x, **y, **groups},
        "data.ImageLoader": {"image_size": (8, 8)},
        "data.PairBatches": per_row,
        "data.QuadrupletBatches": per_row,
        "data.RandomResizedCrop": {"height": 4, "width": 4},
        "data.StreamBatches": {
            "source": [(row, 0) for row in VECTORS],
            "batches_per_epoch": 1,
            **groups,
        },
        "data.TripletBatches": per_row,
        "data.ViewBatches": {**x, "batch_size": 1, "augment": lambda x: x},
        "layers.CrossBatchMemory": {"size": 8},
        "search.Index": {"dim": DIM},
    }.get(name, {})


def fault_of_setting(name, cls, argument, what):
    """What is wrong with the answer to a strange value of an argument, or nothing."""
    value = hostile.SETTINGS[what]
    try:
        cls(**{**sound_settings(name, cls), argument: value})
    except (TypeError, ValueError) as error:
        # Keras's own errors name the argument too.
        if re.search(rf"(?<!\w){argument}(?!\w)", str(error)):
            return ""
        return f"{argument}={what}: the error does not name it: {error}"
    except Exception as error:
        return f"{argument}={what}: {error!r}"
    return f"{argument}={what} is taken without a word" if what in hostile.NOTHING_TAKES else ""


# --- Tests -----------------------------------------------------------------------------------

MODULES = [
    *("addons", "callbacks", "data", "distances", "evaluation", "layers", "losses"),
    *("models", "search", "viz"),
]
# What went wrong once, beyond the changes that every recipe meets: (name, argument, change).
FOUND = [
    ("addons.NpairsMultilabelLoss", "y_true", "a generator"),
    ("callbacks.RetrievalEvaluator", "x", "no width"),
    ("callbacks.RetrievalEvaluator", "x", "a number"),
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
    ("viz.plot_distances", "labels", "objects without order"),
]
_baselines = {}


def public_names():
    for module in MODULES:
        for name in importlib.import_module(f"keras_metric.{module}").__all__:
            yield f"{module}.{name}"


def baseline(name):
    """The answer to the sound inputs, which must be one."""
    if name not in _baselines:
        recipe = RECIPES[name]
        inputs = {key: value for key, (_, value) in recipe.inputs.items()}
        answer, error = hostile.run(recipe, inputs)
        if error is not None:
            raise error
        assert recipe.nan or hostile.numbers_are_finite(answer), answer
        _baselines[name] = answer
    return _baselines[name]


def check(name, argument, change):
    fault = hostile.fault_of_case(RECIPES[name], argument, change, baseline(name))
    assert not fault, f"keras_metric.{name} with {argument}: {change}: {fault}"


def test_every_public_name_has_a_recipe():
    found = set(public_names())
    assert found - set(RECIPES) == set(), "Add a recipe for each of these to RECIPES."
    assert set(RECIPES) - found == set(), "These are no public names any more."
    listed = {f"keras_metric.{name}" for name in MODULES}
    here = {f"keras_metric.{name}" for name in keras_metric.__all__ if name.islower()}
    assert here <= listed, "Add these modules to MODULES."


def examples_of(name):
    """How many changes are drawn: losses and pictures share their checks, and are slow."""
    if EXAMPLES:
        return EXAMPLES
    slow = name.split(".")[0] in ("losses", "models", "layers", "callbacks", "viz")
    return {"tensorflow": (3, 12), "torch": (3, 8), "jax": (1, 2)}[BACKEND][0 if slow else 1]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_hostile_input(name):
    if BACKEND == "jax" and not RECIPES[name].jax:
        pytest.skip("JAX compiles each step of training anew; the losses have tests of their own")
    baseline(name)
    changes = list(hostile.cases(RECIPES[name]))
    if not changes:
        return

    # Each name has draws of its own: the same number would give all of them the same changes.
    @settings(
        max_examples=examples_of(name),
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(random.Random(zlib.crc32(name.encode())).sample(changes, len(changes))))
    def draw(change):
        check(name, *change)

    draw()


@pytest.mark.parametrize(("name", "argument", "change"), FOUND)
def test_what_was_found_once(name, argument, change):
    if BACKEND == "jax" and name.split(".")[0] in ("losses", "callbacks"):
        pytest.skip("TensorFlow and torch check it; JAX takes a second for each")
    check(name, argument, change)


CLASSES = [
    name
    for name in sorted(RECIPES)
    if inspect.isclass(
        thing := getattr(getattr(keras_metric, name.split(".")[0]), name.split(".")[1])
    )
    and not issubclass(thing, tuple)
]


@pytest.mark.parametrize("name", CLASSES)
def test_hostile_settings(name):
    if BACKEND != "tensorflow":
        pytest.skip("Arguments are looked at in Python, alike on all backends")
    module, _, short = name.partition(".")
    cls = getattr(getattr(keras_metric, module), short)
    cls(**sound_settings(name, cls))
    # A model takes some milliseconds to build.
    values = hostile.NOTHING_TAKES if module == "models" else hostile.SETTINGS
    faults = [
        fault
        for argument in settings_of(cls)
        for what in values
        if (fault := fault_of_setting(name, cls, argument, what))
    ]
    assert not faults, f"{name}: " + "\n".join(faults)


class TestTheRulesCatchFaults:
    """Planted faults, so that no rule passes by being blind."""

    def fault(self, call, change="NaN", **settings):
        recipe = Recipe(call, {"x": ("vectors", VECTORS)}, ("x",), **settings)
        return hostile.fault_of_case(recipe, "x", change, call(VECTORS))

    def test_an_error_from_below(self):
        def broken(x):
            if np.isnan(x).any():
                raise IndexError("tuple index out of range")

        assert "IndexError" in self.fault(broken)

    def test_an_error_that_is_not_ours(self):
        def broken(x):
            if np.isnan(x).any():
                raise ValueError("`x` must be finite")

        assert "not ours" in self.fault(broken)

    def test_an_error_without_the_argument(self):
        def broken(x):
            keras_metric._validation.check_matrix("other", x)

        assert "names none" in self.fault(broken, "rank 3")

    def test_settings_without_a_check(self):
        class Careless:
            def __init__(self, margin=1.0):
                if np.isscalar(margin) and margin != margin:
                    raise ValueError("it must be finite")

        found = [fault_of_setting("", Careless, "margin", what) for what in ("NaN", "an object")]
        assert "does not name it" in found[0] and "without a word" in found[1]

    def test_infinity_out_of_finite_numbers(self):
        assert "out comes" in self.fault(lambda x: 1.0 if x[0, 0] else np.inf, "zeros")

    def test_another_answer_to_the_same(self):
        assert "another form" in self.fault(
            lambda x: float(not isinstance(x, np.ndarray)), "= a list"
        )
