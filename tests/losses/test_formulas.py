"""Constructors of docs/formulas.md and migrate-tensorflow-similarity.md give the stated values."""

import re
from pathlib import Path

import numpy as np
import pytest
import reference
from autodiff import step_by_step, value_and_gradient

from keras_metric import losses

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "formulas.md").read_text("utf-8")
SECTIONS = {
    title.strip(): body
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
}


def loss_of(title):
    scope = {"np": np, "losses": losses}
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.S):
        exec(block, scope)
    return scope["loss"]


def plus(z):
    return max(z, 0.0)


def d(row, i, j):
    return reference.distance(row[i], row[j], "euclidean")


def mean(rows, term):
    return sum(term(row) for row in rows) / len(rows)


SAME = np.array([1, 0, 0, 1, 1, 0, 1, 0])
ZEROS = np.zeros(8, "int32")
LABELS = np.array([2, 0, 2, 1, 1, 2, 0, 3])


def pairs(rows, same=SAME, half=1.0):
    terms = [
        s * d(r, 0, 1) ** 2 + (1 - s) * plus(1.0 - d(r, 0, 1)) ** 2 for r, s in zip(rows, same)
    ]
    return half * sum(terms) / len(rows)


def plain_pairs(rows):
    near = [d(r, 0, 1) for r, s in zip(rows, SAME) if s]
    far = [1 - d(r, 0, 1) for r, s in zip(rows, SAME) if not s and d(r, 0, 1) < 1]
    return np.mean(near) + np.mean(far)


def squared_hinge(row):
    return plus(d(row, 0, 1) ** 2 - d(row, 0, 2) ** 2 + 0.2)


def two_negatives(row):
    near = d(row, 0, 1) ** 2
    return plus(near - d(row, 0, 2) ** 2 + 1) + plus(near - d(row, 2, 3) ** 2 + 0.5)


def two_anchors(row):
    return (
        plus(d(row, 0, 2) - d(row, 0, 3) + 0.4)
        + plus(d(row, 1, 2) - d(row, 1, 3) + 0.4)
        + plus(d(row, 0, 1) - d(row, 0, 3) + 0.2)
        + plus(d(row, 0, 1) - d(row, 1, 3) + 0.2)
    )


def batch_hard(x):
    m, terms = reference.matrix(x), []
    for a in range(len(x)):
        P, N = reference.positives(LABELS, a), reference.negatives(LABELS, a)
        if P:
            terms.append(plus(max(m[a, p] for p in P) - min(m[a, n] for n in N) + 0.2))
    return np.mean(terms)


def lifted(x, smooth):
    m, terms = reference.matrix(x), []
    for i in range(len(x)):
        for j in reference.positives(LABELS, i):
            if i < j:
                reach = [1 - m[i, k] for k in reference.negatives(LABELS, i)]
                reach += [1 - m[j, k] for k in reference.negatives(LABELS, j)]
                either = np.log(np.exp(reach).sum()) if smooth else max(reach)
                terms.append(plus(either + m[i, j]) ** 2)
    return sum(terms) / (2 * len(terms))


# The y_true of ready-made tuples by number of branches, and of a labelled batch.
TARGETS = {2: SAME, 3: ZEROS, 4: ZEROS, None: LABELS}


def triplets(rows, term):
    return mean(rows, lambda t: term(d(t, 0, 1), d(t, 0, 2), d(t, 1, 2)))


def semi_hard(x):
    return reference.triplet_loss(x, LABELS, 1.0, mining="semi-hard", reduction="mean_valid")


# Title: (branches, the formula).
FORMULAS = {
    "Contrastive, l = 1 for same": (2, pairs),
    "Contrastive with halves, Y = 0 for same (Hadsell, Chopra and LeCun 2006)": (
        *(2, lambda r: pairs(r, half=0.5)),
    ),
    "Contrastive over m images (Song et al. 2016, equation 1)": (2, lambda r: pairs(r) / 2),
    "Contrastive of plain distances (pytorch-metric-learning)": (2, plain_pairs),
    "Triplet of squared distances (FaceNet, Schroff et al. 2015)": (
        *(3, lambda r: sum(squared_hinge(t) for t in r)),
    ),
    "Triplet of squared distances, batch mean 3/(2m) (Song et al. 2016, equation 2)": (
        *(3, lambda r: 3 / (2 * 3 * len(r)) * sum(squared_hinge(t) for t in r)),
    ),
    "Triplet of plain distances": (3, lambda r: triplets(r, lambda p, n, _: plus(p - n + 0.2))),
    "Triplet, squared hinge of unsquared distances": (
        *(3, lambda r: triplets(r, lambda p, n, _: plus(p - n + 0.2) ** 2)),
    ),
    "Triplet, soft margin (Hermans, Beyer and Leibe 2017)": (
        *(3, lambda r: triplets(r, lambda p, n, _: np.log(1 + np.exp(p - n)))),
    ),
    "Triplet with swap (Balntas et al. 2016)": (
        *(3, lambda r: triplets(r, lambda p, n, other: plus(p - min(n, other) + 0.2))),
    ),
    "Batch all (Hermans, Beyer and Leibe 2017)": (
        *(None, lambda x: reference.triplet_loss(x, LABELS, 0.2, mining="all")),
    ),
    "Batch hard (Hermans, Beyer and Leibe 2017)": (None, batch_hard),
    "Semi-hard mining (tensorflow-addons)": (None, semi_hard),
    "Lifted structure, smooth (Song et al. 2016, equation 4)": (None, lambda x: lifted(x, True)),
    "Lifted structure, not smooth (Song et al. 2016, equation 3)": (
        *(None, lambda x: lifted(x, False)),
    ),
    "Quadruplet with two margins (Chen et al. 2017)": (4, lambda r: mean(r, two_negatives)),
    "Quadruplet with two anchors": (4, lambda r: mean(r, two_anchors)),
}


def test_every_section_has_its_loop():
    assert set(SECTIONS) == set(FORMULAS)


@pytest.mark.parametrize("title", FORMULAS)
def test_the_constructor_gives_the_formula(title):
    branches, formula = FORMULAS[title]
    # Hadsell, Chopra and LeCun write 0 for the same.
    y = 1 - SAME if "Y = 0" in title else TARGETS[branches]
    shape = (8, 4) if branches is None else (8, branches, 4)
    x = 0.4 * np.random.default_rng(1).normal(size=shape)
    loss = loss_of(title)
    value, gradient = value_and_gradient(lambda z: loss(y, z), x.astype("float32"))
    np.testing.assert_allclose(value, formula(x), rtol=1e-4)
    directions = np.random.default_rng(2).normal(size=(3, *shape))
    along = (directions * gradient).reshape(3, -1).sum(1)
    np.testing.assert_allclose(
        along, reference.slopes(formula, x, directions), rtol=1e-3, atol=1e-4
    )


# Values of TensorFlow Similarity 0.17.1 under TensorFlow 2.15.1, on unit vectors of
# RandomState(seed).normal(size=(24, 6)), six classes of four. With these seeds the hardest
# negatives and the swap of `PNLoss` differ.
MIGRATION = (DOCS / "migrate-tensorflow-similarity.md").read_text("utf-8")
SEEDS = (3, 14)
NUMBERS = {
    'TripletLoss("l2", "hard", "hard", margin=m)': (1.7548310, 1.7815825),
    'TripletLoss("l2", "hard", "hard", margin=None)': (1.1467961, 1.1664367),
    'TripletLoss("cosine", "hard", "hard", margin=m)': (1.2147348, 1.2052227),
    'PNLoss("l2", "hard", "hard", margin=m)': (1.7649010, 1.7925581),
    "MultiSimilarityLoss(alpha=2, beta=40, epsilon=0.1, lmda=0.5)": (1.3017503, 1.2882727),
    "SoftNearestNeighborLoss(temperature=1)": (2.0645101, 1.8970064),
    "SimCLRLoss(temperature=0.05)": (28.0310574, 32.5705528),
}
ROWS = {
    was.removeprefix("`").removesuffix("`"): re.search(r"`losses\.(.*?)`", now)
    for was, now in re.findall(r"^\| (.*?) \| (.*) \|$", MIGRATION, re.M)
}


@pytest.mark.parametrize("index", range(len(SEEDS)))
@pytest.mark.parametrize("was", NUMBERS)
def test_the_constructor_of_the_table_gives_the_number(was, index):
    x = np.random.RandomState(SEEDS[index]).normal(size=(24, 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    y = np.repeat(np.arange(6), 4)
    # The margin of the run: 0.3 of cosines, 1 of distances.
    margin = 0.3 if "cosine" in was else 1.0
    loss = eval(ROWS[was][1], {**vars(losses), "m": margin})
    expected = NUMBERS[was][index]
    if was.startswith("SimCLR"):
        # Two views of twelve items, and the sum over both where ours is the mean.
        x, y, expected = np.stack([x[:12], x[12:]], axis=1), np.arange(12), expected / 2
    assert float(step_by_step(loss)(y, x)) == pytest.approx(expected, rel=1e-5)
