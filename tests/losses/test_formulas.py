"""Each constructor in docs/formulas.md equals its formula, computed by a loop."""

import re
from pathlib import Path

import numpy as np
import pytest
import reference
from autodiff import value_and_gradient

from keras_metric import losses

TEXT = (Path(__file__).parents[2] / "docs" / "formulas.md").read_text()
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


# Title: (y_true, branches of ready-made tuples or None for a labelled batch, the formula).
FORMULAS = {
    "Contrastive, l = 1 for same": (SAME, 2, pairs),
    "Contrastive with halves, Y = 0 for same (Hadsell, Chopra and LeCun 2006)": (
        1 - SAME,
        2,
        lambda r: pairs(r, half=0.5),
    ),
    "Contrastive over m images (Song et al. 2016, equation 1)": (
        SAME,
        2,
        lambda r: pairs(r) * len(r) / (2 * len(r)),
    ),
    "Contrastive of plain distances (pytorch-metric-learning)": (SAME, 2, plain_pairs),
    "Triplet of squared distances (FaceNet, Schroff et al. 2015)": (
        ZEROS,
        3,
        lambda r: sum(squared_hinge(t) for t in r),
    ),
    "Triplet of squared distances, batch mean 3/(2m) (Song et al. 2016, equation 2)": (
        ZEROS,
        3,
        lambda r: 3 / (2 * 3 * len(r)) * sum(squared_hinge(t) for t in r),
    ),
    "Triplet of plain distances": (
        ZEROS,
        3,
        lambda r: mean(r, lambda t: plus(d(t, 0, 1) - d(t, 0, 2) + 0.2)),
    ),
    "Triplet, squared hinge of unsquared distances": (
        ZEROS,
        3,
        lambda r: mean(r, lambda t: plus(d(t, 0, 1) - d(t, 0, 2) + 0.2) ** 2),
    ),
    "Triplet, soft margin (Hermans, Beyer and Leibe 2017)": (
        ZEROS,
        3,
        lambda r: mean(r, lambda t: np.log(1 + np.exp(d(t, 0, 1) - d(t, 0, 2)))),
    ),
    "Triplet with swap (Balntas et al. 2016)": (
        ZEROS,
        3,
        lambda r: mean(r, lambda t: plus(d(t, 0, 1) - min(d(t, 0, 2), d(t, 1, 2)) + 0.2)),
    ),
    "Batch all (Hermans, Beyer and Leibe 2017)": (
        LABELS,
        None,
        lambda x: reference.triplet_loss(x, LABELS, 0.2, mining="all"),
    ),
    "Batch hard (Hermans, Beyer and Leibe 2017)": (LABELS, None, batch_hard),
    "Semi-hard mining (tensorflow-addons)": (
        LABELS,
        None,
        lambda x: reference.triplet_loss(
            x, LABELS, 1.0, mining="semi-hard", reduction="mean_valid"
        ),
    ),
    "Lifted structure, smooth (Song et al. 2016, equation 4)": (
        LABELS,
        None,
        lambda x: lifted(x, smooth=True),
    ),
    "Lifted structure, not smooth (Song et al. 2016, equation 3)": (
        LABELS,
        None,
        lambda x: lifted(x, smooth=False),
    ),
    "Quadruplet with two margins (Chen et al. 2017)": (ZEROS, 4, lambda r: mean(r, two_negatives)),
    "Quadruplet with two anchors": (ZEROS, 4, lambda r: mean(r, two_anchors)),
}


def test_every_section_has_its_loop():
    assert set(SECTIONS) == set(FORMULAS)


@pytest.mark.parametrize("title", FORMULAS)
def test_the_constructor_gives_the_formula(title):
    y, branches, formula = FORMULAS[title]
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
