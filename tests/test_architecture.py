"""Rules about the whole source, one test a rule. Each test lists all faults of all files."""

import ast
import functools
import inspect
import json
import re
import types
from collections import defaultdict
from pathlib import Path

import keras
import pytest
from conftest import SAME_ON_EVERY_BACKEND

import keras_metric

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_metric"

# The folders of the package, and what each holds. A file outside them is a fault.
LAYOUT = {
    ".": "distances, argument checks, registration, and what all folders use",
    "pairwise": "computations on all pairs or triplets of one batch",
    "mining": "strategies that select pairs and triplets",
    "losses": "the bases of losses, their reductions and statistics",
    "losses/pair": "losses on pairs",
    "losses/triplet": "losses on triplets and quadruplets",
    "losses/ranking": "losses on ranked lists",
    "losses/classification": "losses with a learned vector for each class",
    "losses/two_view": "losses on two views or two inputs of each item",
    "losses/graded": "losses on graded similarity",
    "layers": "Keras layers",
    "models": "Keras models",
    "data": "splits of data and tables of files",
    "data/batches": "sources of batches",
    "data/images": "reading and augmenting images",
    "data/records": "TFRecord files",
    "datasets": "readers of published data sets",
    "evaluation": "metrics of embeddings: arrays in, numbers out",
    "evaluation/postprocessing": "re-ranking, whitening and query expansion",
    "metrics": "keras.metrics.Metric classes",
    "search": "the index of embeddings",
    "search/stores": "how an index holds vectors and searches them",
    "search/storage": "how an index is saved to a folder",
    "viz": "plots",
    "callbacks": "Keras callbacks",
    "cli": "the command line",
    "addons": "the interface of tensorflow-addons",
    "addons/losses": "the losses of tensorflow-addons",
}
# Lowest first. A unit (a module or a folder at the top of the package) imports only units of lower
# levels, so units of one level never import each other.
IMPORT_LEVELS = [
    {"_export", "_text", "_validation", "version"},
    {"_block_loops", "distributed", "pairwise"},
    {"distances", "neighbors"},
    {"mining"},
    {"data", "evaluation", "layers"},
    {"datasets", "losses", "metrics", "search", "viz"},
    {"addons", "models"},
    {"callbacks"},
    {"__init__", "__main__", "cli"},
]
LEVEL_OF = {unit: level for level, units in enumerate(IMPORT_LEVELS) for unit in units}
# The only units that may depend on the backend.
BACKEND_UNITS = {"data", "distributed", "models", "viz"}
BACKENDS = {"tensorflow", "torch", "jax", "jaxlib"}
BANNED_NAMES = {"utils", "util", "core", "common", "base", "helpers", "misc"}
# The module path of tensorflow-addons: `addons.losses.triplet`.
REPEATED_NAMES = {"losses", "triplet"}

# Words that the pages, docstrings, comments, messages and names do without: each has a plainer one.
PLAINER = {
    r"anew|of old": "again, earlier",
    r"whoever|nobody|somebody|anybody|everybody|whom": "no identity, a caller, a user",
    r"strangers?|strange(ly|ness)?": "unknown, untrusted, invalid",
    r"slopes?": "derivative, gradient",
    r"heaps|alive": "clusters; non-zero",
    r"partners?|mates?": "positives and negatives; matching items",
    r"dealt|owed|owes|steer(s|ed|ing)?": "assigned, remaining, scheduled",
    r"lessons?|teach(es|ing)?": "gradient; trains",
    r"by (itself|themselves)": "independently, standalone",
    r"judg(e|es|ed|ing|ement)": "evaluate",
    r"tells?|told|says|said|hears?|heard|listen(s|ed|ing|ers?)?": "reports, states, records",
    r"rulers?": "distance function",
    r"draws? a picture|pictured": "plot, figure, image",
}
PLAIN_TEXTS = ("keras_metric", "docs", "examples", "benchmarks", "README.md", "CONTRIBUTING.md")
# Exact phrases in which one of these words is the right one.
ALLOWED_PHRASES = ("stream.tell()",)


def public_modules():
    """The modules with public names: those of `keras_metric.__all__`, and the models."""
    modules = {name: getattr(keras_metric, name) for name in keras_metric.__all__}
    return [m for m in modules.values() if inspect.ismodule(m)] + [keras_metric.models]


def public_objects(top=True):
    """Every public class and function as `(full name, object)`; `top`: also by its short name."""
    for module in (*[keras_metric] * top, *public_modules()):
        for name in module.__all__:
            thing = getattr(module, name, None)
            if thing is not None and not inspect.ismodule(thing):
                yield f"{module.__name__}.{name}", thing


def python_files(root):
    return sorted(path for path in root.rglob("*.py") if "build" not in path.parts)


@functools.cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def unit_of(path, root):
    return path.relative_to(root).with_suffix("").parts[0]


def imported_names(node, path, root):
    """The full names that one node imports, with a relative import resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    here = ["keras_metric", *path.relative_to(root).with_suffix("").parts]
    start = ".".join(here[: -node.level]) if node.level else ""
    module = ".".join(filter(None, [start, node.module]))
    # `from keras_metric import losses` imports the unit, not the package.
    return [f"{module}.{alias.name}" for alias in node.names]


def imports_of(root):
    """Every import below `root`, at any depth of a file, as `(path, line, full name)`."""
    for path in python_files(root):
        for node in ast.walk(parsed(path)):
            for name in imported_names(node, path, root):
                yield path, node.lineno, name


def layout_faults(root=PACKAGE, layout=LAYOUT):
    held = defaultdict(list)
    for path in python_files(root):
        held[path.parent.relative_to(root).as_posix()].append(path.name)
    for folder in held.keys() - layout:
        yield f"{folder} is not in LAYOUT: add a line that states what the folder holds."
    for folder in layout.keys() - held:
        yield f"{folder} is in LAYOUT and holds no file: remove its line."
    for folder in held:
        if "__init__.py" not in held[folder]:
            yield f"{folder} has no __init__.py."


def name_faults(root=PACKAGE, repeated=REPEATED_NAMES):
    paths_of = defaultdict(set)
    for path in python_files(root):
        parts = [part.strip("_") for part in path.relative_to(root).with_suffix("").parts]
        for banned in BANNED_NAMES & set(parts):
            yield f"{path.relative_to(root)}: `{banned}` does not describe the module."
        for depth, name in enumerate(parts, 1):
            paths_of[name].add("/".join(parts[:depth]))
    for name, paths in paths_of.items():
        if len(paths) > 1 and name not in {"init", "main", *repeated}:
            yield f"{name} names {sorted(paths)}: give each a name of its own."


def level_faults(root=PACKAGE):
    for path in python_files(root):
        if unit_of(path, root) not in LEVEL_OF:
            yield f"{path.relative_to(root)} has no import level: add its unit to IMPORT_LEVELS."
    for path, line, name in imports_of(root):
        package, theirs, *_ = *name.split("."), "__init__"
        mine = unit_of(path, root)
        if package != "keras_metric" or theirs == mine:
            continue
        if LEVEL_OF.get(theirs, len(LEVEL_OF)) >= LEVEL_OF.get(mine, 0):
            yield (
                f"{path.relative_to(root)}:{line} imports {theirs}, which is not of a lower import "
                "level. Move the common part to a lower unit, or pass it as an argument."
            )


def loss_import_faults(root=PACKAGE):
    for path, line, name in imports_of(root):
        parts = name.split(".")[1:]
        inside = parts[:1] == ["losses"] and unit_of(path, root) != "losses"
        # A module may be the whole name, or all but the imported object.
        for module in (parts, parts[:-1]) if inside else ():
            path_of = root.joinpath(*module)
            found = path_of.is_dir() or path_of.with_suffix(".py").is_file()
            if len(module) > 1 and found:
                yield (
                    f"{path.relative_to(root)}:{line} imports {name}: import public names from "
                    "keras_metric.losses, and export there what other units need."
                )


def source_faults(root=PACKAGE):
    for path in python_files(ROOT / "examples"):
        if "keras.src" in path.read_text("utf-8"):
            yield f"{path.name}: keras.src is private to Keras. Use its public API."
    for path in python_files(root):
        for node in ast.walk(parsed(path)):
            for fault in node_faults(node, path, root):
                yield f"{path.relative_to(root)}:{node.lineno}: {fault}"


def node_faults(node, path, root):
    if isinstance(node, ast.Assert):
        yield "`assert` has no effect under -O. Raise ValueError."
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
        yield "a library returns, warns or logs. Remove `print`."
    names = imported_names(node, path, root)
    for name in [ast.unparse(node)] if isinstance(node, ast.Attribute) else names:
        if f"{name}.".startswith("keras.src."):
            yield "keras.src is private to Keras. Use its public API."
    backends = BACKENDS & {name.split(".")[0] for name in names}
    if backends and unit_of(path, root) not in BACKEND_UNITS:
        yield f"imports {backends.pop()}; only {sorted(BACKEND_UNITS)} may. Use keras.ops."


def documented_arguments(docstring):
    """The argument names of the `Args:` section, in order."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    lines = [line for line in section.splitlines() if line.strip()]
    names, indent = [], len(section) - len(section.lstrip())
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if depth < max(indent, 1):
            break
        if depth == indent:
            names += [name.strip(" `") for name in line.split(":")[0].split(",")]
    return names


def arguments(thing):
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(thing).parameters.values()
    return [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]


def docstring_faults():
    for name, thing in public_objects():
        yield from faults_of_docstring(name, thing)


def faults_of_docstring(name, thing):
    docstring = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not docstring:
        yield f"{name} has no docstring of its own."
        return
    if not re.search(r"^\s*Examples?:", docstring, re.M):
        yield f"{name} has no `Example:` section. Show the intended use; it runs as a test."
    elif ">>>" not in docstring and "```python" not in docstring:
        yield f"{name} has an `Example:` without code that runs."
    found = documented_arguments(docstring)
    expected = [name for name in arguments(thing) if name != "**kwargs" or name in found]
    if found != expected:
        yield (
            f"{name} documents the arguments {found}; the signature has {expected}. List the same "
            "names in the same order under `Args:`."
        )
    if inspect.isclass(thing):
        inherited = {attribute for base in thing.__mro__[1:] for attribute in vars(base)}
        for key, method in vars(thing).items():
            new = key not in inherited and not key.startswith("_")
            if new and inspect.isfunction(method) and not method.__doc__:
                yield f"{name}.{key} is a public method without a docstring."


def export_faults():
    for module in (keras_metric, *public_modules()):
        yield from faults_of_exports(module)


def faults_of_exports(module):
    name, listed = module.__name__, getattr(module, "__all__", None)
    if listed is None:
        yield f"{name} has no `__all__`: list its public names there, sorted."
        return
    if list(listed) != sorted(listed):
        yield f"`__all__` of {name} is not sorted."
    if missing := [key for key in listed if not hasattr(module, key)]:
        yield f"`__all__` of {name} lists {missing}, which the module does not have."
    # A folder's namespace holds what it exports; a single file may also hold internal functions.
    reachable = {
        key
        for key, value in vars(module).items()
        if hasattr(module, "__path__")
        and not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith(name)
    }
    if stray := sorted(reachable - set(listed)):
        yield f"{name} holds {stray} outside its `__all__`: list them, or begin their names with _."


def changelog_faults():
    released = json.loads((ROOT / "benchmarks/results/public_api.json").read_text("utf-8"))
    released = {name for name in released["names"] if name.count(".") == 1}
    names = {name.removeprefix("keras_metric.") for name, _ in public_objects(top=False)}
    return faults_of_changelog(names, released, (ROOT / "CHANGELOG.md").read_text("utf-8"))


def faults_of_changelog(names, released, changelog):
    """Names added since the release stand in the changelog; removed ones with their module."""
    new = {name: name.rpartition(".")[2] for name in names - released}
    for name, words in {**new, **{name: name for name in released - names}}.items():
        if not re.search(rf"\b{re.escape(words)}\b", changelog):
            yield f"{name} changed since the last release: write `{words}` in CHANGELOG.md."


def registration_faults():
    for name, thing in public_objects(top=False):
        yield from faults_of_registration(name, thing)


def faults_of_registration(name, thing):
    package = "Addons" if name.startswith("keras_metric.addons") else "keras_metric"
    expected = f"{package}>{name.rpartition('.')[2]}"
    saved = inspect.isclass(thing) and issubclass(thing, (keras.layers.Layer, keras.losses.Loss))
    if saved and keras.saving.get_registered_name(thing) != expected:
        yield f"{name} is not registered with Keras as {expected}: decorate it with @export."


def patch_faults(root=ROOT / "tests"):
    """Private names and constants that a test replaces; a parameter serves instead."""
    for path in python_files(root):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "setattr":
                continue
            strings = [part.value for part in node.args[:2] if isinstance(part, ast.Constant)]
            name = str(strings[0]).rpartition(".")[2] if strings else ""
            if re.match(r"_|[A-Z][A-Z0-9_]*$", name):
                yield f"{path.relative_to(root)}:{node.lineno} replaces {name}: pass a parameter."


def word_faults():
    for start in map(ROOT.joinpath, PLAIN_TEXTS):
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.suffix in (".py", ".md"):
                yield from faults_of_words(path.relative_to(ROOT), path.read_text("utf-8"))


def faults_of_words(path, text):
    for phrase in ALLOWED_PHRASES:
        text = text.replace(phrase, "")
    for number, line in enumerate(text.splitlines(), 1):
        for words, plainer in PLAINER.items():
            if found := re.search(rf"(?<![a-z])({words})(?![a-z])", line, re.I):
                yield f"{path}:{number}: `{found[0]}` in `{line.strip()[:80]}`: {plainer}"
        if found := re.search(r"(?<![\w.)\]:])\.\d+(?![\w.])", line):
            yield f"{path}:{number}: write 0{found[0]} in `{line.strip()[:80]}`"


def backend_faults():
    for path in SAME_ON_EVERY_BACKEND:
        if not (ROOT / "tests" / path).exists():
            yield f"conftest.py names {path}, which does not exist."


RULES = {
    "every file is in a folder of the layout": layout_faults,
    "file names are unique and describe the contents": name_faults,
    "imports lead to lower levels": level_faults,
    "other units import the public names of losses": loss_import_faults,
    "sources use public and portable code": source_faults,
    "__all__ lists the public names": export_faults,
    "the changelog names changes of the public names": changelog_faults,
    "docstrings agree with signatures": docstring_faults,
    "saved classes are registered": registration_faults,
    "tests replace no private names": patch_faults,
    "tests of one backend exist": backend_faults,
    "texts use plain words": word_faults,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    if faults := sorted(RULES[rule]()):
        pytest.fail(f"{len(faults)} faults:\n" + "\n".join(faults), pytrace=False)


class TestTheRulesFindFaults:
    """Each rule reports a planted fault, and nothing where there is none."""

    @pytest.fixture
    def plant(self, tmp_path):
        def write(name, text=""):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return tmp_path

        return write

    @pytest.mark.parametrize(
        ("rule", "name", "text", "faults"),
        [
            (level_faults, "distances.py", "from keras_metric.losses import TripletLoss", 1),
            (level_faults, "distances.py", "def f():\n    from keras_metric.mining import hard", 1),
            (level_faults, "viz/a.py", "from ..callbacks import RetrievalEvaluator", 1),
            (level_faults, "models/a.py", "from keras_metric.trainers import x", 1),
            (level_faults, "trainers.py", "", 1),
            (level_faults, "losses/a.py", "from keras_metric.losses.reductions import b", 0),
            (level_faults, "losses/a.py", "from . import reductions\nimport numpy", 0),
            (level_faults, "viz/a.py", "from ..evaluation import retrieval_metrics", 0),
            (source_faults, "losses/a.py", "assert x > 0", 1),
            (source_faults, "losses/a.py", "def f():\n    print('x')", 1),
            (source_faults, "losses/a.py", "from keras.src.losses import loss", 1),
            (source_faults, "losses/a.py", "import keras\nx = keras.src.losses", 2),
            (source_faults, "losses/a.py", "import tensorflow as tf", 1),
            (source_faults, "losses/a.py", "def f():\n    import torch.nn", 1),
            (source_faults, "data/a.py", "import tensorflow as tf", 0),
            (source_faults, "losses/a.py", '"""Do not print(x) or assert; see keras.src."""', 0),
            (name_faults, "data/utils.py", "", 1),
            (name_faults, "data/batches.py", "", 0),
            (patch_faults, "b/a.py", "patch.setattr(module, '_SIZE', 1)", 1),
            (patch_faults, "a.py", "patch.setattr('a.b.SIZE', 1)", 1),
            (patch_faults, "a.py", "patch.setattr(os, 'replace', f)", 0),
        ],
    )
    def test_one_file(self, plant, rule, name, text, faults):
        assert len(list(rule(plant(name, text)))) == faults

    def test_layout(self, plant):
        root, layout = plant("viz/__init__.py"), {"viz": "plots", "data": "batches"}
        assert "remove its line" in "".join(layout_faults(root, layout))
        plant("data/batches.py")
        assert "no __init__.py" in "".join(layout_faults(root, layout))
        plant("data/__init__.py")
        assert not list(layout_faults(root, layout))
        plant("other/__init__.py")
        assert "other is not in LAYOUT" in "".join(layout_faults(root, layout))

    def test_one_name_of_two_files(self, plant):
        for name in ("viz/__init__.py", "viz/plots.py", "data/__init__.py", "data/_plots.py"):
            root = plant(name)
        assert "'data/plots', 'viz/plots'" in "".join(name_faults(root, ()))
        assert not list(name_faults(root, {"plots"}))

    def test_loss_imports(self, plant):
        root = plant("losses/pair/contrastive_loss.py", "from keras_metric.losses import pair")
        plant("models/model.py", "from keras_metric.losses import ContrastiveLoss")
        assert not list(loss_import_faults(root))
        plant("models/a.py", "from keras_metric.losses.pair.contrastive_loss import any_name")
        plant("models/b.py", "from keras_metric.losses import pair")
        assert len(list(loss_import_faults(root))) == 2

    ARGS = "Title.\n\nArgs:\n    a: one.\n        Second line: indented.\n    *rest: more.\n"
    CODE = "\nExample:\n\n>>> 1\n1\n"

    @pytest.mark.parametrize(
        ("docstring", "fault"),
        [
            (ARGS + CODE, ""),
            (None, "no docstring"),
            (ARGS, "no `Example:`"),
            (ARGS + "\nExample:\nCode.\n", "without code that runs"),
            (ARGS.replace("a:", "b:") + CODE, "['b', '*rest']; the signature has ['a', '*rest']"),
        ],
    )
    def test_docstrings(self, docstring, fault):
        def thing(a, *rest, **kwargs):
            pass

        thing.__doc__ = docstring
        found = list(faults_of_docstring("it", thing))
        assert len(found) == bool(fault) and fault in "".join(found)

    def test_exports(self):
        module = types.ModuleType("planted")
        module.__path__, module.__all__ = [], ["b", "a"]
        exec("def a(): pass\ndef _c(): pass\ndef d(): pass", {"__name__": "planted"}, vars(module))
        unsorted, missing, stray = faults_of_exports(module)
        assert "not sorted" in unsorted and "does not have" in missing and "['d'] outside" in stray

    def test_registration(self):
        planted = type("Planted", (keras.layers.Layer,), {})
        assert list(faults_of_registration("keras_metric.layers.Planted", planted))

    @pytest.mark.parametrize(
        ("text", "faults"),
        [
            ("Whoever calls it", 1),
            ("slope_of = 1", 1),
            ("at .95", 1),
            ("The gradient at 0.95 is finite (x.5, ...).", 0),
        ],
    )
    def test_words(self, text, faults):
        assert len(list(faults_of_words("page.md", text))) == faults
