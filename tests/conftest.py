"""Settings of all tests: fixed seeds, warnings as errors (setup.cfg), an empty working folder.

Each test starts from the same seed, in a folder of its own, with the default settings of Keras.
"""

import functools
import os
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# All of these are read when a backend or matplotlib is first imported, so they come first.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["MPLBACKEND"] = "Agg"
# Tests compile many functions and run each once, on a few rows: XLA need not optimize them.
_XLA = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA}".strip()
# Tests run in a folder of their own; the processes they start must still find the package.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])
)
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from keras_metric_startup import hide_tensorflow_startup_messages  # noqa: E402

hide_tensorflow_startup_messages()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

keras.utils.set_random_seed(0)

# The variable may be a relative path, and every test changes its working folder.
_DATA = os.environ.get("KERAS_METRIC_DATA")
if _DATA:
    os.environ["KERAS_METRIC_DATA"] = _DATA = str(Path(_DATA).resolve())


# Folders and files of tests whose code does not depend on the backend: on JAX and torch only those
# of their tests run that pass Keras tensors (`touches_keras`).
SAME_ON_EVERY_BACKEND = {
    "cli/test_cli.py": "the command line calls code that is tested on each backend",
    "data/test_data_split.py": "split_by_class and check_no_leak are NumPy",
    "datasets": "reads lists and names of files",
    "evaluation": "evaluation is NumPy",
    "search": "an index is NumPy and FAISS",
    "test_architecture.py": "reads the source, runs none of it",
    "test_comparison.py": "counts lines; each script has its own backend",
    "test_examples.py": "runs scripts whose parts are tested on each backend",
    "test_notebooks.py": "reads the source, runs none of it",
    "viz/test_browser.py": "a browser reads files",
    "viz/test_viz.py": "plots are made from NumPy arrays",
    "viz/test_viz_mistakes.py": "plots are made from NumPy arrays",
}


def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "tensorflow":
        return
    for item in items:
        path = item.path.relative_to(ROOT / "tests")
        reason = SAME_ON_EVERY_BACKEND.get(path.as_posix()) or SAME_ON_EVERY_BACKEND.get(
            path.parts[0]
        )
        if item.name.startswith("test_pages["):
            reason = "the pages show the code of docstrings, which run on every backend"
        if reason and not item.get_closest_marker("touches_keras"):
            item.add_marker(pytest.mark.skip(reason=f"the same on every backend: {reason}"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Tests on the random batches of peers.py may pass on a second batch, see `once_more`."""
    peers = sys.modules.get("peers")
    if peers is None or getattr(pyfuncitem.module, "batch", None) is not peers.batch:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    failed = peers.once_more(functools.partial(pyfuncitem.obj, **arguments))
    if failed:
        capture = pyfuncitem.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{pyfuncitem.nodeid} passed on its second batches. The first: {failed}")
    return True


@pytest.fixture(autouse=True)
def _clean_slate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Like keras.utils.set_random_seed without TensorFlow's seed, which is set once above: setting
    # it clears TensorFlow's cache of kernels, which costs 0.1 s in each test.
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True, scope="session")
def _eager_is_eager():
    """Keras compiles each loop of an eager model on JAX at each call; here it does not."""
    with pytest.MonkeyPatch.context() as patch:
        if keras.backend.backend() == "jax":
            for name in ("fit", "evaluate", "predict", "train_on_batch"):
                patch.setattr(keras.Model, name, _uncompiled(getattr(keras.Model, name)))
        yield


def _uncompiled(method):
    import jax

    @functools.wraps(method)
    def run(model, *args, **kwargs):
        with jax.disable_jit(bool(model.run_eagerly)):
            return method(model, *args, **kwargs)

    return run


@pytest.fixture(autouse=True, scope="module")
def _clear_caches_of_jax():
    """JAX keeps every program that it compiled: gigabytes over the whole suite."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def backend():
    """The name of the Keras backend under test."""
    return keras.backend.backend()


@pytest.fixture(scope="session")
def _digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images[..., None] / 16.0).astype("float32"), bunch.target.astype("int32")


@pytest.fixture
def digits(_digits):
    """1,797 real digits, 8 x 8, from scikit-learn: images (1797, 8, 8, 1) in 0..1, labels."""
    images, labels = _digits
    return images.copy(), labels.copy()


@pytest.fixture(scope="session")
def data_file():
    """A function from a file's name to its path in KERAS_METRIC_DATA; skips if it is missing."""

    def find(name):
        if not _DATA:
            pytest.skip("needs real data: set KERAS_METRIC_DATA to the folder that has it")
        path = Path(_DATA) / name
        if not path.exists():
            pytest.skip(f"needs {name} in KERAS_METRIC_DATA={_DATA}")
        return path

    return find


@pytest.fixture(scope="session")
def uri(tmp_path_factory):
    """One file for all tests: embedded Milvus starts a server that runs until the process ends."""
    for module in ("pymilvus", "milvus_lite"):
        pytest.importorskip(module, reason="needs pip install keras_metric[milvus]")
    return str(tmp_path_factory.mktemp("milvus") / "milvus.db")


@pytest.fixture
def frequent_switches():
    """Python switches threads every 10 microseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
