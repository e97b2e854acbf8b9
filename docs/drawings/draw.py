"""Plot the figures of the pages: `python docs/drawings/draw.py`, or one: `draw.py miners`.

The arrows are the negative gradient of the loss, the selected triplets come from the miner, and the
figure of margins shows networks trained on digits (half a minute).
"""

import sys
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import keras_metric
from keras_metric import evaluation, layers, losses, viz

HERE = Path(__file__).parent
# The palette of Okabe and Ito, as in keras_metric.viz.
COLORS, SYMBOLS = (
    ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"),
    ("o", "s", "^", "D", "v"),
)

POINTS = np.array(
    [[0.0, 0.0], [0.9, 0.5], [0.25, 0.95], [0.75, -0.35], [1.55, 0.1], [1.0, 1.4]], "float32"
)
LABELS = np.array([0, 0, 0, 1, 1, 2])


def negative_gradient(loss, points, labels):
    """Return the negative gradient of the loss by central differences."""
    step, gradient = 1e-3, np.zeros_like(points)
    for index in np.ndindex(points.shape):
        change = np.zeros_like(points)
        change[index] = step
        values = [float(loss(labels, points + sign * change)) for sign in (1, -1)]
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return -gradient


def frame(axes, title):
    """Format a square panel without ticks."""
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("#BBBBBB")


def scatter(axes, points, labels, size=70):
    """Plot points with the color and the symbol of their class."""
    for label in np.unique(labels):
        own = points[labels == label]
        axes.scatter(*own.T, s=size, c=COLORS[label], marker=SYMBOLS[label], zorder=3)


def plot_losses():
    """Plot the negative gradients of five families of losses."""
    kinds = {
        "contrastive: each pair": losses.ContrastiveLoss(reduction="sum"),
        "triplet: order, with a margin": losses.TripletLoss(0.2, mining="all", reduction="sum"),
        "lifted: all negatives of a pair": losses.LiftedStructureLoss(reduction="sum"),
        "quadruplet: also other classes": losses.QuadrupletLoss(reduction="sum"),
    }
    figure = Figure(figsize=(13, 3.1), layout="constrained")
    *panels, last = figure.subplots(1, 5)
    for axes, (title, loss) in zip(panels, kinds.items()):
        plot_arrows(axes, POINTS, LABELS, negative_gradient(loss, POINTS, LABELS))
        axes.set(xlim=(-0.55, 2.05), ylim=(-0.8, 1.9))
        frame(axes, title)
    # Unit vectors, because the loss normalizes proxies.
    angles = np.radians([10, 65, 50, 130, 185, 260])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    proxies = np.radians([35, 160, 285])
    proxies = np.stack([np.cos(proxies), np.sin(proxies)], axis=1)
    loss = losses.ProxyNCALoss(3, softmax_scale=3, embedding_dim=2, reduction="sum")
    loss.proxies.set_weights([proxies])
    last.add_patch(Circle((0, 0), 1, fill=False, color="#CCCCCC"))
    for label, proxy in enumerate(proxies):
        last.scatter(*proxy, s=220, c=COLORS[label], marker="*", edgecolors="black", zorder=3)
    plot_arrows(last, points, LABELS, negative_gradient(loss, points, LABELS))
    last.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
    frame(last, "proxy: one vector (star) per class")
    figure.savefig(HERE / "losses.png", dpi=80)


def plot_arrows(axes, points, labels, steps):
    """Plot points and their steps; the longest arrow has the same length in every panel."""
    steps = 0.55 * steps / np.linalg.norm(steps, axis=1).max()
    scatter(axes, points, labels)
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.009, "zorder": 4}
    axes.quiver(*points.T, *steps.T, color="#333333", **style)


def plot_miners():
    """Plot the negatives that each strategy selects for one anchor and one positive."""
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, 14)
    reach = np.linspace(0.25, 1.9, 14)
    negatives = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    points = np.concatenate([[[0.0, 0.0], [0.8, 0.0]], negatives]).astype("float32")
    labels = np.array([0, 0] + [1] * 14)
    rules = {
        "hard: nearest negative": layers.TripletMiner("hard"),
        "semi-hard: nearest after positive": layers.TripletMiner("semi-hard"),
        "semi-hard-random: any in band": layers.TripletMiner(
            "semi-hard-random", margin=0.5, seed=0
        ),
        "easy-positive": layers.TripletMiner("easy-positive"),
        "random: any negative": layers.TripletMiner("random", seed=0),
    }
    figure = Figure(figsize=(13, 3.1), layout="constrained")
    for axes, (title, miner) in zip(figure.subplots(1, 5), rules.items()):
        # Twelve runs of a random strategy show the negatives that it can select.
        runs = [miner(points, labels) for _ in range(12 if "any" in title else 1)]
        chosen = {int(n[0, 1]) for n, w in runs if float(w[0, 1])}
        axes.add_patch(Circle((0, 0), 0.8, fill=False, color="#0072B2", lw=1, ls="--"))
        if "band" in title:
            axes.add_patch(Circle((0, 0), 1.3, fill=False, color="#0072B2", lw=1, ls=":"))
        for item in chosen:
            axes.plot(*np.stack([points[0], points[item]]).T, color="#333333", lw=1, zorder=2)
        axes.scatter(*points[2:].T, s=35, c="#F5D9A5", marker="s", zorder=3)
        axes.scatter(*points[sorted(chosen)].T, s=55, c="#E69F00", marker="s", zorder=4)
        axes.scatter(*points[:2].T, s=70, c="#0072B2", zorder=5)
        axes.annotate("anchor", points[0], (-0.15, -0.28), fontsize=7)
        axes.annotate("positive", points[1], (0.62, -0.28), fontsize=7)
        axes.set(xlim=(-2, 2), ylim=(-2, 2))
        frame(axes, title)
    figure.savefig(HERE / "miners.png", dpi=80)


def plot_margins():
    """Plot two-dimensional embeddings of digits for three losses with class vectors."""
    digits = load_digits()
    images, labels = (digits.data / 16).astype("float32"), digits.target
    kept = labels < 5
    images, labels = images[kept], labels[kept]
    kinds = {
        "NormalizedSoftmaxLoss: no margin": losses.NormalizedSoftmaxLoss(5, temperature=0.1),
        "CosFaceLoss: a margin of the cosine": losses.CosFaceLoss(5, margin=0.35, scale=10),
        "ArcFaceLoss: a margin of the angle": losses.ArcFaceLoss(5, margin=28.6, scale=10),
    }
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    for axes, (title, loss) in zip(figure.subplots(1, 3), kinds.items()):
        keras.utils.set_random_seed(1)
        hidden = [keras.layers.Input((64,))]
        hidden += [keras.layers.Dense(128, activation="relu") for _ in range(2)]
        model = keras_metric.EmbeddingModel(keras.Sequential(hidden), embedding_dim=2)
        model.compile(keras.optimizers.Adam(3e-3), loss)
        model.fit(images, labels, batch_size=90, epochs=15, verbose=0)
        points = model.predict(images, batch_size=901, verbose=0)
        # All embeddings have length 1; random radii separate the points.
        points = points * np.random.default_rng(0).uniform(0.75, 1.0, (len(points), 1))
        axes.add_patch(Circle((0, 0), 1, fill=False, color="#CCCCCC"))
        scatter(axes, points, labels, size=8)
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        frame(axes, title)
    figure.savefig(HERE / "margins.png", dpi=80)


def plot_gallery():
    """Plot the gallery of docs/plots.md: digits with 16 principal components as embeddings."""
    digits = load_digits()
    images, labels = digits.images[:900], digits.target[:900].copy()
    embeddings = PCA(16, whiten=True, random_state=0).fit_transform(digits.data[:900])
    planted = np.arange(50, 900, 150)
    wrong = labels.copy()
    wrong[planted] = (labels[planted] + 3) % 10
    raw, same = evaluation.pair_distances(digits.data[:900], labels, max_pairs=20_000)
    reduced, _ = evaluation.pair_distances(embeddings, labels, max_pairs=20_000)
    scores = {"pixels": raw, "16 directions": reduced}
    # The proportion of noise decreases from epoch to epoch, as in training.
    noise = np.random.default_rng(0).normal(size=embeddings.shape) * 3
    history = {epoch: embeddings + (1 - epoch / 10) * noise for epoch in range(11)}
    figures = {
        "neighbors": viz.plot_neighbors(images, labels, embeddings, queries=4),
        "embeddings": viz.plot_embeddings(embeddings[:400], labels[:400], images[:400]),
        "distances": viz.plot_distances(embeddings, labels),
        "distance_history": viz.plot_distance_history(history, labels),
        "roc": viz.plot_roc(scores, same),
        "det": viz.plot_det(scores, same),
        "similarity": viz.plot_similarity(embeddings, labels),
        "confusions": viz.plot_confusions(embeddings, labels),
        "hardest_pairs": viz.plot_hardest_pairs(images, labels, embeddings),
        "label_errors": viz.plot_label_errors(images, wrong, embeddings),
    }
    for name, figure in figures.items():
        figure.savefig(HERE / f"{name}.png", dpi=72)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["losses", "miners", "margins", "gallery"]:
        globals()[f"plot_{name}"]()
