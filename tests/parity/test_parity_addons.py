"""Comparison with tensorflow-addons, which runs in a separate process, on random batches."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from addons_oracle import METRICS
from autodiff import value_and_gradient
from keras import ops

import keras_metric.addons as tfa
from keras_metric import losses

PYTHON = os.environ.get("KERAS_METRIC_TFA_PYTHON")
SEED = int(os.environ.get("KERAS_METRIC_SEED", np.random.default_rng().integers(2**31)))
SEED_HINT = f"KERAS_METRIC_SEED={SEED} repeats this batch"
SCRIPT = Path(__file__).with_name("addons_script.py")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PYTHON, reason="make parity sets KERAS_METRIC_TFA_PYTHON"),
]


def oracle(script, question=""):
    """Output of the script under the interpreter that has tensorflow-addons."""
    done = subprocess.run(
        [PYTHON, str(script)],
        input=question,
        capture_output=True,
        text=True,
        # Its interpreter must not find the packages of this environment.
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    if done.returncode:
        pytest.fail(f"tensorflow-addons in {PYTHON} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answers_to(questions):
    """Value and gradient for each request, see addons_oracle.py."""
    plain = [
        {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in question.items()}
        for question in questions
    ]
    answers = oracle(Path(__file__).with_name("addons_oracle.py"), json.dumps(plain))
    return [[np.array(part) for part in answer] for answer in answers]


def triplet(**settings):
    return losses.TripletLoss(1.0, reduction="mean_valid", **settings)


# The constructors of keras_metric.losses that docs/migrate-tensorflow-addons.md gives.
OURS = {
    "semi-hard": (triplet(), "TripletSemiHardLoss", {}),
    **{
        f"semi-hard {theirs}": (
            triplet(distance=distance),
            "TripletSemiHardLoss",
            {"distance_metric": theirs},
        )
        for distance, theirs in (("squared_euclidean", "squared-L2"), ("cosine", "angular"))
    },
    "hard": (triplet(mining="hard"), "TripletHardLoss", {}),
    "hard, soft margin": (
        losses.TripletLoss(0, mining="hard", form="soft_margin", reduction="mean_valid"),
        "TripletHardLoss",
        {"soft": True},
    ),
    "lifted structure": (losses.LiftedStructureLoss(), "LiftedStructLoss", {}),
}


def pairs_batch(extra):
    rng = np.random.default_rng([SEED, extra])
    # At least two items of each class: in tensorflow-addons every anchor has a term.
    labels = np.concatenate([np.repeat(np.arange(6), 2), rng.choice(6, size=20)])
    return rng.uniform(size=(32, 7)).astype("float32"), rng.permutation(labels)


@pytest.fixture(scope="module", params=range(2))
def own_answers(request):
    """A batch, and the results of tensorflow-addons for each case of OURS."""
    x, y = pairs_batch(request.param)
    calls = [{"loss": loss, "arguments": settings} for _, loss, settings in OURS.values()]
    return x, y, dict(zip(OURS, answers_to([{**call, "x": x, "y": y} for call in calls])))


@pytest.mark.parametrize("case", OURS)
def test_our_own_losses(case, own_answers):
    x, y, theirs = own_answers
    value, gradient = value_and_gradient(lambda z: OURS[case][0](y, z), x)
    np.testing.assert_allclose(value, theirs[case][0], rtol=1e-4, err_msg=SEED_HINT)
    np.testing.assert_allclose(gradient, theirs[case][1], rtol=1e-3, atol=1e-5, err_msg=SEED_HINT)


def random_batch(extra):
    """Classes of different sizes, one of a single item."""
    rng = np.random.default_rng([SEED, 10, extra])
    y = np.r_[rng.choice(5, p=rng.dirichlet(np.ones(5)), size=23), 99]
    # Numbers that half precision represents exactly.
    return rng.normal(size=(24, 6)).astype("float16").astype("float32"), y


def on_a_grid():
    """Many equal distances: the value depends on the strict comparison."""
    rng = np.random.default_rng([SEED, 20])
    return rng.integers(0, 3, (20, 3)).astype("float32"), rng.integers(0, 4, 20)


BATCHES = {
    "random": random_batch(0),
    "another": random_batch(1),
    "one class": (random_batch(2)[0][:8], np.full(8, 5)),
    "no class twice": (random_batch(3)[0][:8], np.arange(8)),
    "zero vectors": (np.r_[random_batch(4)[0][:9], np.zeros((2, 6), "float32")], np.arange(11) % 3),
    "solved to the bit": (np.array([[4, 1], [5, 1], [2, 1]], "float32"), np.array([0, 0, 1])),
    "equal negatives": (
        np.array([[3, 5], [4, 5], [3, 7], [3, 3], [3, 14]], "float32"),
        np.array([0, 0, 1, 2, 2]),
    ),
    "all equal": (np.full((8, 4), 0.3, "float32"), np.arange(8) % 3),
    "all zero": (np.zeros((8, 4), "float32"), np.arange(8) % 3),
    "on a grid": on_a_grid(),
    "one item": (np.ones((1, 4), "float32"), np.array([7])),
    "far apart": (300 * random_batch(5)[0], random_batch(5)[1]),
}
# For equal distances the gradient is not unique. That of tensorflow-addons also reaches items that
# are in no term, thtolerance its shifted masks.
AMBIGUOUS_GRADIENT = ("zero vectors", "all equal", "all zero", "on a grid")
DISTANCES = ("L2", "squared-L2", "angular", *METRICS)
ARGUMENTS = [
    *[("TripletSemiHardLoss", {"distance_metric": d}) for d in DISTANCES],
    ("TripletSemiHardLoss", {"margin": 0.25}),
    ("triplet_semihard_loss", {"margin": 0.25, "distance_metric": "angular"}),
    *[("TripletHardLoss", {"distance_metric": d}) for d in DISTANCES],
    *[("TripletHardLoss", {"distance_metric": d, "soft": True}) for d in DISTANCES],
    ("triplet_hard_loss", {"margin": 0.25, "distance_metric": "squared-L2"}),
    ("LiftedStructLoss", {}),
    ("lifted_struct_loss", {"margin": 0.4}),
]
HALF = ("float16", "bfloat16")


def pairs_questions():
    rng = np.random.default_rng([SEED, 30])
    logits = rng.normal(size=(9, 9)).astype("float16").astype("float32")
    several = rng.integers(0, 2, (9, 5))
    several[:, 0] |= several.sum(1) == 0
    distances = rng.uniform(0, 2, 9).astype("float16").astype("float32")
    same, ids = rng.integers(0, 2, 9), rng.integers(0, 4, 9)
    for dtype in ("float32", *HALF):
        for loss, settings in (
            ("ContrastiveLoss", {}),
            ("ContrastiveLoss", {"margin": 1.7, "reduction": "sum"}),
            ("contrastive_loss", {"margin": 1.7}),
        ):
            arguments = {"loss": loss, "arguments": settings, "dtype": dtype}
            yield arguments | {"x": distances, "y": same}
            yield arguments | {"x": distances, "y": same.astype("float64")}
        arguments = {"arguments": {}, "x": logits, "dtype": dtype}
        for loss in ("NpairsLoss", "npairs_loss"):
            for y in (ids, np.arange(9), np.zeros(9, int)):
                yield {"loss": loss, "y": y, **arguments}
        for loss in ("NpairsMultilabelLoss", "npairs_multilabel_loss"):
            for sparse in (False, True):
                yield {"loss": loss, "y": several, "sparse": sparse, **arguments}


def batch_questions():
    for name, (x, y) in BATCHES.items():
        for loss, settings in ARGUMENTS:
            for dtype in ("float32", *(HALF if name == "random" else ())):
                yield name, {"loss": loss, "arguments": settings, "x": x, "y": y, "dtype": dtype}


def ours(loss, arguments, x, y, dtype="float32", sparse=False):
    """The same as `addons_oracle.answer`, from keras_metric."""
    chosen = METRICS.get(arguments.get("distance_metric"))
    if chosen:

        def metric(x):
            return chosen(lambda a, b: ops.matmul(a, ops.transpose(b)), x)

        arguments = {**arguments, "distance_metric": metric}
    if sparse:
        import tensorflow as tf

        y = tf.sparse.from_dense(y)
    thing, values = getattr(tfa.losses, loss), []

    def total(z):
        z = ops.cast(z, dtype)
        value = thing(**arguments)(y, z) if isinstance(thing, type) else thing(y, z, **arguments)
        values.append(ops.convert_to_numpy(ops.cast(value, "float32")))
        return ops.sum(ops.cast(value, "float32"))

    _, gradient = value_and_gradient(total, x)
    return values[0], gradient


def named(question):
    arguments = ", ".join(f"{k}={v}" for k, v in question["arguments"].items())
    return f"{question['loss']}({arguments}), {question.get('dtype', 'float32')}"


# Relative error of a float32 result rounded to half precision, and of a sum in half precision:
# tensorflow-addons adds the terms of pairs in half precision.
ROUNDED = {"float16": 2e-3, "bfloat16": 1.6e-2}
ADDED_UP = {"float16": 1e-2, "bfloat16": 8e-2}


def compare(question, answer, gradients=True, rounding=ROUNDED):
    """Compare value and gradient where theirs are finite; return whether their value is finite."""
    value, gradient = ours(**question)
    assert np.isfinite(value).all() and np.isfinite(gradient).all(), named(question)
    expected, theirs = answer
    message = f"{named(question)}; {SEED_HINT}"
    tolerance = rounding.get(question["dtype"], 1e-4)
    if np.isfinite(expected).all():
        np.testing.assert_allclose(
            value, expected, rtol=tolerance, atol=tolerance / 10, err_msg=message
        )
    if gradients and np.isfinite(theirs).all():
        atol = max(1e-5, 3 * tolerance * abs(theirs).max())
        np.testing.assert_allclose(gradient, theirs, rtol=0, atol=atol, err_msg=message)
    return np.isfinite(expected).all()


@pytest.fixture(scope="module")
def batch_answers():
    questions = list(batch_questions())
    return list(zip(questions, answers_to([question for _, question in questions])))


@pytest.mark.filterwarnings("ignore:.*no two items:UserWarning")
@pytest.mark.parametrize("name", BATCHES)
def test_batches(name, batch_answers):
    found = [(question, answer) for (batch, question), answer in batch_answers if batch == name]
    finite = [compare(q, a, gradients=name not in AMBIGUOUS_GRADIENT) for q, a in found]
    # Require that enough values are compared.
    assert sum(finite) >= len(ARGUMENTS) // 2


def test_pairs():
    questions = list(pairs_questions())
    for question, answer in zip(questions, answers_to(questions)):
        assert compare(question, answer, rounding=ADDED_UP)


@pytest.fixture(scope="module")
def curves():
    """Results of the original scripts, and the scripts with another import line."""
    text, line = SCRIPT.read_text("utf-8"), "import tensorflow_addons as tfa\n"
    assert text.count(line) == 1 and text.count("addons as") == 1
    script = {"__name__": "script"}
    exec(text.replace(line, "import keras_metric.addons as tfa\n"), script)
    return oracle(SCRIPT), script["SCRIPTS"]


@pytest.mark.parametrize(
    "name", re.findall(r'^    "(.+)": lambda', SCRIPT.read_text("utf-8"), re.M)
)
def test_a_script_with_another_import_line_gives_the_same_curve(name, curves):
    written, changed = curves
    assert set(written) == set(changed)
    theirs, found = written[name], changed[name]()
    # A step in bfloat16 has three digits on both sides.
    tolerance = 2e-2 if "half" in name else 1e-5
    assert len(found["losses"]) == 20 and found["losses"][-1] < 0.9 * found["losses"][0]
    np.testing.assert_allclose(found["losses"], theirs["losses"], rtol=tolerance)
    np.testing.assert_allclose(found["weights"], theirs["weights"], rtol=0, atol=tolerance)
