"""The house rules, as tests. Each message says what to do."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import keras
import pytest

import keras_metric

PACKAGE = Path(keras_metric.__file__).parent
EXAMPLES = PACKAGE.parent / "examples"

# Lowest first. A unit (a module, or a folder) may import only units on lower floors, so the
# neighbours on one floor never import each other.
FLOORS = [
    {"_export", "_text", "_validation", "version"},
    {"distributed", "pairwise"},
    {"distances"},
    {"mining"},
    {"data", "evaluation", "layers"},
    {"datasets", "losses", "metrics", "search", "viz"},
    {"addons", "models"},
    {"callbacks"},
    {"__init__", "__main__", "cli"},
]
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

# Every public name. A name that is new here belongs in CHANGELOG.md too.
PUBLIC = {
    "keras_metric.addons": [
        "ContrastiveLoss",
        "LiftedStructLoss",
        "NpairsLoss",
        "NpairsMultilabelLoss",
        "TripletHardLoss",
        "TripletSemiHardLoss",
        "contrastive_loss",
        "lifted_struct_loss",
        "npairs_loss",
        "npairs_multilabel_loss",
        "triplet_hard_loss",
        "triplet_semihard_loss",
    ],
    "keras_metric.callbacks": ["HardExampleMining", "MiningSchedule", "RetrievalEvaluator"],
    "keras_metric.data": [
        "BalancedBatches",
        "ImageLoader",
        "PairBatches",
        "QuadrupletBatches",
        "RandomResizedCrop",
        "StreamBatches",
        "TripletBatches",
        "ViewBatches",
        "check_no_leak",
        "image_folder",
        "image_paths",
        "parse_example",
        "path_table",
        "split_by_class",
        "tfrecord_items",
    ],
    "keras_metric.datasets": [
        "read_cars_196",
        "read_cub_200_2011",
        "read_in_shop",
        "read_lfw_pairs",
        "read_market_1501",
        "read_omniglot",
        "read_stanford_online_products",
    ],
    "keras_metric.distances": ["elementwise", "pairwise"],
    "keras_metric.evaluation": [
        "clustering_metrics",
        "few_shot_accuracy",
        "geometry_metrics",
        "identification_metrics",
        "k_reciprocal_distances",
        "pair_distances",
        "pca_whitening",
        "query_expansion",
        "retrieval_metrics",
        "roc_curve",
        "verification_metrics",
    ],
    "keras_metric.layers": [
        "CrossBatchMemory",
        "EmbeddingHead",
        "GeneralizedMeanPooling",
        "Mahalanobis",
        "PairMiner",
        "TripletMiner",
    ],
    "keras_metric.losses": [
        "AdaFaceLoss",
        "AngularLoss",
        "ArcFaceLoss",
        "BarlowTwinsLoss",
        "CenterLoss",
        "CircleLoss",
        "ClipLoss",
        "ContrastiveLoss",
        "CosFaceLoss",
        "CosineRegressionLoss",
        "DynamicSoftMarginLoss",
        "FastAPLoss",
        "GeneralizedLiftedStructureLoss",
        "HistogramLoss",
        "InstanceLoss",
        "IntraPairVarianceLoss",
        "LargeMarginSoftmaxLoss",
        "LiftedStructureLoss",
        "ManifoldLoss",
        "MarginLoss",
        "MetricLoss",
        "MultiSimilarityLoss",
        "NCALoss",
        "NPairsLoss",
        "NTXentLoss",
        "NormalizedSoftmaxLoss",
        "P2SGradLoss",
        "PNPLoss",
        "PrototypicalLoss",
        "ProxyAnchorLoss",
        "ProxyNCALoss",
        "QuadrupletLoss",
        "RankedListLoss",
        "RecallAtKSurrogateLoss",
        "SigLipLoss",
        "SignalToNoiseRatioLoss",
        "SimSiamLoss",
        "SmoothAPLoss",
        "SoftNearestNeighborLoss",
        "SoftTripleLoss",
        "SphereFaceLoss",
        "StepReports",
        "SubCenterArcFaceLoss",
        "SupConLoss",
        "ThresholdConsistentMarginLoss",
        "TripletLoss",
        "TupletMarginLoss",
        "VICRegLoss",
        "WeightedSum",
    ],
    "keras_metric.metrics": ["NegativeDistance", "PositiveDistance", "TripletAccuracy"],
    "keras_metric.models": [
        "EmbeddingModel",
        "Encoder",
        "QuadrupletModel",
        "SiameseModel",
        "TripletModel",
        "TwoTowerModel",
    ],
    "keras_metric.search": [
        "Identity",
        "Index",
        "Item",
        "Match",
        "OperatingPoint",
        "StagedMatches",
        "Verification",
    ],
    "keras_metric.viz": [
        "plot_confusions",
        "plot_det",
        "plot_distance_history",
        "plot_distances",
        "plot_embeddings",
        "plot_hardest_pairs",
        "plot_label_errors",
        "plot_neighbors",
        "plot_roc",
        "plot_similarity",
        "write_projector",
    ],
}
MODELS = ["EmbeddingModel", "QuadrupletModel", "SiameseModel", "TripletModel", "TwoTowerModel"]
# The models stand at the top themselves.
MODULES = sorted(name.removeprefix("keras_metric.") for name in PUBLIC if "models" not in name)

# The only units that may know which backend runs.
BACKEND_UNITS = {"data", "distributed", "models", "viz"}
BACKENDS = {"tensorflow", "torch", "jax", "jaxlib"}

BANNED_NAMES = {"utils", "util", "core", "common", "base", "helpers", "misc"}

FILES = sorted(PACKAGE.rglob("*.py"))
OBJECTS = [(module, name) for module, names in PUBLIC.items() for name in names] + [
    ("keras_metric", name) for name in MODELS
]


def by_path(path):
    return str(path.relative_to(PACKAGE.parent))


def unit_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path, root=PACKAGE):
    """The full name of every module that the file imports, at any depth."""
    here = ["keras_metric", *path.relative_to(root).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            # `from keras_metric import losses` imports the unit, not the package.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_units(path, root=PACKAGE):
    for name in imported_modules(path, root):
        parts = name.split(".")
        if parts[0] == "keras_metric":
            yield parts[1] if len(parts) > 1 else "__init__"


def floor_faults(path, root=PACKAGE):
    mine = path.relative_to(root).with_suffix("").parts[0]
    if mine not in FLOOR_OF:
        return [f"{mine} stands on no floor: add it to FLOORS in this test, and to the docs."]
    faults = []
    for theirs in imported_units(path, root):
        if theirs not in FLOOR_OF:
            faults.append(f"it imports {theirs}, which stands on no floor.")
        elif theirs != mine and FLOOR_OF[theirs] >= FLOOR_OF[mine]:
            faults.append(
                f"{mine} (floor {FLOOR_OF[mine]}) imports {theirs} (floor {FLOOR_OF[theirs]}), "
                "which is not below it. Move the shared piece to a lower floor, or pass it in "
                "as an argument."
            )
    return faults


def losses_faults(path, root=PACKAGE):
    """Imports of internal modules of `losses` from outside of it."""
    if path.relative_to(root).parts[0] == "losses":
        return []
    names = [
        name
        for name in imported_modules(path, root)
        if name.startswith("keras_metric.losses.")
        and (name.count(".") > 2 or name.split(".")[2] not in PUBLIC["keras_metric.losses"])
    ]
    return [
        f"it imports {name}, which is internal to losses. Use a public name of "
        "keras_metric.losses, or move the shared piece to pairwise."
        for name in names
    ]


def source_faults(text, unit):
    """What the rules about the text of one file find."""
    faults = []
    for node in ast.walk(ast.parse(text)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Assert):
            faults.append(f"line {line}: `assert` vanishes under -O. Raise ValueError instead.")
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
            faults.append(f"line {line}: a library returns, warns or logs; it does not print.")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        if any(name == "keras.src" or name.startswith("keras.src.") for name in names):
            faults.append(f"line {line}: keras.src is private to Keras. Use its public API.")
        if not isinstance(node, ast.Attribute) and unit not in BACKEND_UNITS:
            found = BACKENDS & {name.split(".")[0] for name in names}
            if found:
                faults.append(
                    f"line {line}: imports {found.pop()}. Only {sorted(BACKEND_UNITS)} may know "
                    "the backend; elsewhere use keras.ops."
                )
    return faults


def documented_arguments(docstring):
    """The argument names of the `Args:` section, in order."""
    lines = iter(inspect.cleandoc(docstring).splitlines())
    if not any(line.strip() == "Args:" for line in lines):
        return []
    names, indent = [], None
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if depth < indent or depth == 0:
            break
        if depth == indent:
            head = line.split(":")[0]
            names += [name.strip(" `") for name in head.split(",")]
    return names


def arguments(thing):
    parameters = inspect.signature(thing).parameters.values()
    return [
        {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name for p in parameters
    ]


def docstring_faults(thing):
    docstring = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not docstring:
        return ["has no docstring of its own."]
    faults = []
    if not re.search(r"^\s*Examples?:", docstring, re.M):
        faults.append("has no `Example:` section. Show the intended use; it is run as a test.")
    elif ">>>" not in docstring and "```python" not in docstring:
        faults.append("has an `Example:` without code that runs.")
    found = documented_arguments(docstring)
    wanted = [name for name in arguments(thing) if name != "**kwargs" or name in found]
    if found != wanted:
        faults.append(
            f"documents the arguments {found}; the signature has {wanted}. "
            "List the same names in the same order under `Args:`."
        )
    if inspect.isclass(thing):
        inherited = {name for base in thing.__mro__[1:] for name in vars(base)}
        faults += [
            f"has a public method `{name}` without a docstring."
            for name, value in vars(thing).items()
            if inspect.isfunction(value)
            and not name.startswith("_")
            and name not in inherited
            and not value.__doc__
        ]
    return faults


def export_faults(module, wanted):
    if not hasattr(module, "__all__"):
        return [f"{module.__name__} has no `__all__`: list its public names there, sorted."]
    faults, listed = [], list(module.__all__)
    if listed != sorted(listed):
        faults.append(f"`__all__` of {module.__name__} is not sorted.")
    if set(listed) != set(wanted):
        faults.append(
            f"{module.__name__} exports {sorted(set(listed) - set(wanted))} that this test's list "
            f"lacks, and lacks {sorted(set(wanted) - set(listed))}. Bring the two together."
        )
    # A folder's namespace holds what it shows; a single file may hold helpers for its neighbours.
    reachable = {
        name
        for name, value in vars(module).items()
        if hasattr(module, "__path__")
        and not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith(module.__name__)
    }
    if reachable - set(listed):
        faults.append(
            f"{sorted(reachable - set(listed))} can be reached from {module.__name__} but are not "
            "in `__all__`. Add them, or begin their names with an underscore."
        )
    return faults


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_imports_point_down(path):
    faults = floor_faults(path)
    assert not faults, f"{by_path(path)}: " + "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_internals_of_losses_stay_inside(path):
    faults = losses_faults(path)
    assert not faults, f"{by_path(path)}: " + "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_source_keeps_the_rules(path):
    faults = source_faults(path.read_text("utf-8"), unit_of(path))
    assert not faults, f"{by_path(path)}: " + "\n".join(faults)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=by_path)
def test_examples_use_public_keras_only(path):
    assert "keras.src" not in path.read_text("utf-8"), (
        f"{by_path(path)}: keras.src is private to Keras. Use its public API."
    )


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_modules_are_named_after_what_they_hold(path):
    parts = {part.strip("_") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not parts & BANNED_NAMES, (
        f"{by_path(path)}: `{(parts & BANNED_NAMES).pop()}` says nothing. Name the module after "
        "the one thing that it holds, and put helpers into the lowest file that needs them."
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_the_list(name):
    faults = export_faults(importlib.import_module(name), PUBLIC[name])
    assert not faults, "\n".join(faults)


def test_top_level_is_the_list():
    wanted = {*MODELS, *MODULES}
    listed = [name for name in keras_metric.__all__ if name != "__version__"]
    assert listed == sorted(listed), "`keras_metric.__all__` is not sorted."
    assert set(listed) == wanted, (
        f"keras_metric exports {sorted(set(listed) - wanted)} that this test's list lacks, and "
        f"lacks {sorted(wanted - set(listed))}. Bring the two together."
    )
    missing = [name for name in listed if not hasattr(keras_metric, name)]
    assert not missing, f"`keras_metric.__all__` names {missing}, which are not there."


@pytest.mark.parametrize(("module", "name"), OBJECTS, ids=lambda value: value)
def test_docstrings_agree_with_signatures(module, name):
    faults = docstring_faults(getattr(importlib.import_module(module), name))
    assert not faults, "\n".join(f"{module}.{name} {fault}" for fault in faults)


@pytest.mark.parametrize(("module", "name"), OBJECTS, ids=lambda value: value)
def test_saved_files_find_every_class_again(module, name):
    thing = getattr(importlib.import_module(module), name)
    saved = (keras.layers.Layer, keras.losses.Loss)
    # Two packages have a ContrastiveLoss; files that tensorflow-addons wrote name its own.
    package = "Addons" if module == "keras_metric.addons" else "keras_metric"
    if inspect.isclass(thing) and issubclass(thing, saved):
        assert keras.saving.get_registered_name(thing) == f"{package}>{name}", (
            f"{module}.{name} is not registered with Keras: decorate it with @export."
        )


class TestTheRulesCatchFaults:
    """Each rule meets a planted fault, so that none passes by being blind."""

    def plant(self, tmp_path, name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("distances.py", "from keras_metric.losses import TripletLoss"),
            ("distances.py", "from keras_metric import losses"),
            ("distances.py", "import keras_metric.losses.triplet.triplet_loss"),
            ("distances.py", "import keras_metric"),
            ("distances.py", "def f():\n    from keras_metric.mining import hard"),
            ("viz/neighbors.py", "from keras_metric.callbacks import RetrievalEvaluator"),
            ("viz/neighbors.py", "from ..callbacks import RetrievalEvaluator"),
            ("losses/triplet_loss.py", "from keras_metric.models import TripletModel"),
            ("models/siamese_model.py", "from keras_metric.addons import x"),
            ("trainers.py", ""),
        ],
    )
    def test_floors(self, tmp_path, name, text):
        assert floor_faults(self.plant(tmp_path, name, text), root=tmp_path)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("losses/triplet_loss.py", "from keras_metric.losses.reductions import RowLoss"),
            ("losses/triplet_loss.py", "from . import reductions"),
            ("losses/triplet_loss.py", "from keras_metric import distances\nimport numpy"),
            ("viz/neighbors.py", "from keras_metric.distances import pairwise"),
            ("viz/neighbors.py", "from ..evaluation import retrieval_metrics"),
        ],
    )
    def test_floors_let_good_imports_pass(self, tmp_path, name, text):
        assert not floor_faults(self.plant(tmp_path, name, text), root=tmp_path)

    @pytest.mark.parametrize(
        ("text", "is_fault"),
        [
            ("from keras_metric.losses.reductions import reduce_rows", True),
            ("from keras_metric.losses import reductions", True),
            ("import keras_metric.losses.metric_loss", True),
            ("from keras_metric.losses import MetricLoss", False),
            ("from keras_metric import losses", False),
        ],
    )
    def test_internals_of_losses(self, tmp_path, text, is_fault):
        path = self.plant(tmp_path, "models/metric_model.py", text)
        assert bool(losses_faults(path, root=tmp_path)) == is_fault
        assert not losses_faults(self.plant(tmp_path, "losses/a.py", text), root=tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "assert x > 0",
            "def f():\n    print('x')",
            "import keras.src",
            "from keras.src.losses import loss",
            "from keras import src",
            "import keras\nx = keras.src.losses",
            "import tensorflow as tf",
            "def f():\n    import torch.nn",
            "from jax import numpy",
        ],
    )
    def test_sources(self, text):
        assert source_faults(text, "losses")

    def test_sources_let_words_in_strings_pass(self):
        assert not source_faults('"""Do not print(x) or assert; see keras.src."""', "losses")
        assert not source_faults("import tensorflow as tf", "data")

    def test_docstrings(self):
        def bare(a):
            pass

        def no_example(a):
            """Args:
            a: a number.
            """

        def wrong_argument(a, b=1):
            """One line.

            Args:
                a: a number.
                c: another: this one does not exist.

            Example:

            >>> 1
            1
            """

        def right(a, *rest, b=1, c=2, **kwargs):
            """One line.

            Args:
                a: a number.
                    Its second line: indented.
                *rest: more.
                b, c: two numbers.

            Returns:
                Nothing.

            Example:

            >>> 1
            1
            """

        assert docstring_faults(bare)
        assert docstring_faults(no_example)
        assert len(docstring_faults(wrong_argument)) == 1
        assert docstring_faults(right) == []

    def test_exports(self):
        module = type(keras)("planted")
        assert "no `__all__`" in export_faults(module, [])[0]
        module.__path__ = []
        module.__all__ = ["b", "a"]
        assert "not sorted" in export_faults(module, ["a", "b"])[0]
        module.__all__ = ["a", "b"]
        assert "lacks" in export_faults(module, ["a"])[0]
        exec("def stray(): pass", vars(module) | {}, vars(module))
        module.stray.__module__ = "planted.inner"
        assert "can be reached" in export_faults(module, ["a", "b"])[0]
