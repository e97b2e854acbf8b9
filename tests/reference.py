"""Formulas as slow float64 loops in NumPy; imports nothing of the package."""

import itertools

import numpy as np


def distance(a, b, metric):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum())
    if metric == "squared_euclidean":
        return ((a - b) ** 2).sum()
    if metric == "manhattan":
        return np.abs(a - b).sum()
    if metric == "cosine":
        return 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    if metric == "dot":
        return -(a @ b)
    if metric == "pearson":
        return 1 - np.corrcoef(a, b)[0, 1]
    if metric == "snr":
        return np.var(a - b) / np.var(a)
    raise KeyError(metric)


def matrix(x, metric="euclidean", references=None):
    references = x if references is None else references
    return np.array([[distance(a, b, metric) for b in references] for a in x])


def same(a, b):
    """Whether two labels are of one class: ids, or rows of 0 and 1 with a common label."""
    return bool(np.any(np.multiply(a, b))) if np.ndim(a) else a == b


def positives(y, i, others=None):
    """Items of the class of item i; with the labels of `others`, among those."""
    if others is None:
        return [j for j in range(len(y)) if same(y[i], y[j]) and j != i]
    return [j for j in range(len(others)) if same(y[i], others[j])]


def negatives(y, i, others=None):
    if others is None:
        return [j for j in range(len(y)) if not same(y[i], y[j]) and j != i]
    return [j for j in range(len(others)) if not same(y[i], others[j])]


def rows_of(metric, x, y, others=None, labels=None):
    """(distances, positives, negatives) of each anchor, in the batch or among `others`."""
    d = matrix(x, metric, others)
    for i in range(len(y)):
        yield d[i], positives(y, i, labels), negatives(y, i, labels)


def triplets(d, y, mining, margin=0.2, others=None):
    """The triplets (a, p, n) of a strategy; ties go to the lowest index."""
    chosen = []
    for a in range(len(y)):
        P, N = positives(y, a, others), negatives(y, a, others)
        if not P or not N:
            continue
        if mining == "hard":
            chosen.append((a, max(P, key=lambda j: d[a, j]), min(N, key=lambda j: d[a, j])))
        elif mining == "easy-positive":
            p = min(P, key=lambda j: d[a, j])
            beyond = [n for n in N if d[a, n] > d[a, p]]
            if beyond:
                chosen.append((a, p, min(beyond, key=lambda j: d[a, j])))
        elif mining == "semi-hard":
            for p in P:
                beyond = [n for n in N if d[a, n] > d[a, p]]
                n = min(beyond, key=lambda j: d[a, j]) if beyond else max(N, key=lambda j: d[a, j])
                chosen.append((a, p, n))
        elif mining == "all":
            chosen += [(a, p, n) for p in P for n in N]
        elif mining == "semi-hard-all":
            chosen += [(a, p, n) for p in P for n in N if d[a, p] < d[a, n] < d[a, p] + margin]
        elif mining == "hard-all":
            chosen += [(a, p, n) for p in P for n in N if d[a, n] <= d[a, p]]
        elif mining == "easy-all":
            chosen += [(a, p, n) for p in P for n in N if d[a, n] >= d[a, p] + margin]
        else:
            raise KeyError(mining)
    return chosen


def term(gap, form):
    if form == "hinge":
        return max(gap, 0.0)
    if form == "squared_hinge":
        return max(gap, 0.0) ** 2
    return np.logaddexp(0.0, gap)


def reduce(terms, reduction, batch, weights=None):
    """`terms` is a list of (anchor, value) for each part of a loss; the parts are added."""
    weights = np.ones(batch) if weights is None else np.asarray(weights, "float64")
    result = 0.0
    rows = np.zeros(batch)
    for part in terms:
        if reduction in ("mean_active", "mean_valid"):
            counted = [(a, v) for a, v in part if reduction == "mean_valid" or v > 0]
            total = sum(weights[a] * v for a, v in counted)
            count = sum(weights[a] for a, _ in counted)
            result += total / count if count > 0 else 0.0
        else:
            for i in range(batch):
                active = [v for a, v in part if a == i and v > 0]
                rows[i] += sum(active) / len(active) if active else 0.0
    if reduction in ("mean_active", "mean_valid"):
        return result
    if reduction == "sum":
        return (weights * rows).sum()
    if reduction == "sum_over_batch_size":
        return (weights * rows).mean()
    if reduction == "mean_with_sample_weight":
        return (weights * rows).sum() / weights.sum()
    return weights * rows


def triplet_loss(
    x,
    y,
    margin=0.2,
    metric="euclidean",
    mining="all",
    form="hinge",
    swap=False,
    reduction="mean_active",
    weights=None,
    chosen=None,
    references=(None, None),
):
    others, labels = references
    d = matrix(x, metric, others)
    among = d if others is None else matrix(others, metric)
    terms = []
    for a, p, n in triplets(d, y, mining, margin, labels) if chosen is None else chosen:
        far = min(d[a, n], among[p, n]) if swap else d[a, n]
        terms.append((a, term(d[a, p] - far + margin, form)))
    return reduce([terms], reduction, len(y), weights)


def contrastive_loss(
    x, y, margin=1.0, positive_margin=0.0, power=1, metric="euclidean", reduction="mean_active",
    weights=None, references=(None, None),
):  # fmt: skip
    others, labels = references
    d = matrix(x, metric, others)
    pull, push = [], []
    for i in range(len(y)):
        pull += [(i, max(d[i, j] - positive_margin, 0) ** power) for j in positives(y, i, labels)]
        push += [(i, max(margin - d[i, j], 0) ** power) for j in negatives(y, i, labels)]
    return reduce([pull, push], reduction, len(y), weights)


def lifted_structure_loss(
    x, y, margin=1.0, positive_margin=0.0, smooth=True, metric="euclidean",
    reduction="mean_valid", weights=None, references=(None, None),
):  # fmt: skip
    others, labels = references
    d = matrix(x, metric, others)
    terms = []
    for i in range(len(y)):
        for j in positives(y, i, labels):
            push = [margin - d[i, k] for k in negatives(y, i, labels)]
            if others is None:
                push += [margin - d[j, k] for k in negatives(y, j)]
            else:
                push += [margin - d[k, j] for k in negatives(labels, j, y)]
            if not push:
                terms.append((i, 0.0))
                continue
            either = np.logaddexp.reduce(push) if smooth else max(push)
            terms.append((i, max(either + d[i, j] - positive_margin, 0.0) ** 2 / 2))
    return reduce([terms], reduction, len(y), weights)


def quadruplet_loss(
    x,
    y,
    margin=1.0,
    second_margin=0.5,
    metric="squared_euclidean",
    form="second_negative",
    mining="all",
    second_pair="hardest",
    reduction="mean_active",
    weights=None,
    references=(None, None),
):
    others, labels = references
    d = matrix(x, metric, others)
    within = matrix(x, metric)
    labels = y if labels is None else labels
    batch = range(len(y))
    if form == "two_anchors":
        parts = [[], [], [], []]
        for a, a2, p in itertools.permutations(batch, 3):
            if not y[a] == y[a2] == y[p]:
                continue
            for n in negatives(y, a):
                parts[0].append((a, max(d[a, p] - d[a, n] + margin, 0)))
                parts[1].append((a2, max(d[a2, p] - d[a2, n] + margin, 0)))
                parts[2].append((a, max(d[a, a2] - d[a, n] + second_margin, 0)))
                parts[3].append((a2, max(d[a2, a] - d[a2, n] + second_margin, 0)))
        return reduce(parts, reduction, len(y), weights)
    chosen = triplets(d, y, mining, margin, None if others is None else labels)
    first = [(a, max(d[a, p] - d[a, n] + margin, 0)) for a, p, n in chosen]
    second = []
    for a in batch:
        # The first of the second pair is an item of the batch, the other a reference.
        items = negatives(y, a)
        if second_pair == "nearest" and items:
            items = [min(items, key=lambda j: within[a, j])]
        further = [k for k in range(len(labels)) if labels[k] != y[a]]
        between = [d[j, k] for j in items for k in further if labels[k] != y[j]]
        if between:
            members = positives(y, a, None if others is None else labels)
            second += [(a, max(d[a, p] - min(between) + second_margin, 0)) for p in members]
    return reduce([first, second], reduction, len(y), weights)


def slopes(function, x, directions, step=1e-6):
    """Derivatives of a number along `directions` (each shaped like `x`), by central differences."""
    x = np.asarray(x, "float64")
    return np.array(
        [(function(x + step * v) - function(x - step * v)) / (2 * step) for v in directions]
    )
