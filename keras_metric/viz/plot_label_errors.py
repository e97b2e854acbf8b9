"""Items whose neighbours have another label."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.neighbors import nearest_items
from keras_metric.viz._pixels import as_pixels
from keras_metric.viz._plot_inputs import as_labelled_images, sampled_items
from keras_metric.viz._plot_style import WRONG, new_figure, readable, shorten, show_image

_CELL = 1.35  # inches of one image


def plot_label_errors(
    images, labels, embeddings, num_items=12, k=10, max_items=10_000, class_names=None, seed=0
):
    """Plot the items whose neighbours agree most on a label that the item does not have.

    The labels are candidates to check by hand. Each item is scored by its `k` nearest neighbours
    (or as many as there are others of its class, if fewer): the fraction of the most frequent other
    label minus that of the item's own. The items with the highest scores are shown, as
    "own label → neighbours' label". The only item of a class is never shown.

    Args:
        images: Images of the items, see `plot_neighbors`.
        labels: `(items,)`, of any kind.
        embeddings: `(items, dim)`, preferably of an encoder that was not trained on these labels:
            a trained one has learned the errors.
        num_items: Number of items to show.
        k: Number of neighbours that vote.
        max_items: Number of items to compare; more are sampled uniformly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`; its title has the number of all items with a positive score.

    Raises:
        ValueError: Fewer than two items, or mismatched shapes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_label_errors
        >>> x, labels = np.repeat([[0.0], [9.0]], 6, axis=0), np.repeat(["ant", "bee"], 6)
        >>> labels[2] = "bee"
        >>> figure = plot_label_errors(np.zeros((12, 8, 8)), labels, x, k=3)
        >>> figure.axes[0].get_title().splitlines()
        ['#2', 'bee → ant']
    """
    check_count("num_items", num_items)
    check_count("k", k)
    check_count("max_items", max_items)
    images, labels = as_labelled_images(images, labels)
    kept, embeddings, codes, classes = sampled_items(embeddings, labels, max_items, seed)
    parts = nearest_items(embeddings, embeddings, "euclidean", k, without_self=True)
    votes = codes[np.concatenate([index for _, index, _ in parts])]
    # Beyond the number of others of its class, an item's neighbours must be of other classes.
    num_voters = np.minimum(np.bincount(codes)[codes] - 1, votes.shape[1])
    valid = np.arange(votes.shape[1]) < num_voters[:, None]
    # In each row the votes for the label of each neighbour, and for the item's own label.
    counts = ((votes[:, :, None] == votes[:, None, :]) & valid[:, None, :]).sum(axis=2)
    own = ((votes == codes[:, None]) & valid).sum(axis=1)
    counts[votes == codes[:, None]] = 0
    best = counts.argmax(axis=1)
    winner, other = votes[np.arange(len(votes)), best], counts.max(axis=1)
    scores = (other - own) / np.maximum(num_voters, 1)
    order = np.argsort(-scores, kind="stable")
    suspects = order[scores[order] > 0]
    shown = suspects[:num_items]
    columns = min(6, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = new_figure(max(4.5, _CELL * columns), 1.35 * _CELL * rows + 0.4)
    figure.suptitle(
        f"{len(suspects):,} of {len(codes):,} items are outvoted by their {votes.shape[1]} nearest",
        fontsize=10,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, row, image in zip(grid, shown, as_pixels(images, rows=kept[shown])):
        pair = classes[[codes[row], winner[row]]]
        title = " → ".join(shorten(readable(label, class_names)) for label in pair)
        show_image(axes, image, f"#{kept[row]}\n{title}", fontsize=7, pad=2, color=WRONG)
    return figure
