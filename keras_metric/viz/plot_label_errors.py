"""Items whose neighbours say that their label is wrong."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.viz._nearness import nearest, sampled_items
from keras_metric.viz._pixels import as_pixels, channels_last
from keras_metric.viz._style import WRONG, as_labels, new_figure, readable, shorten

_CELL = 1.35  # inches of one image


def plot_label_errors(
    images, labels, embeddings, num_items=12, k=10, max_items=10_000, class_names=None, seed=0
):
    """Draw the items whose neighbours agree most on a label that the item does not have.

    A list to look through by hand, not a verdict. Of each item's `k` nearest (or as many as there
    are others of its class, if fewer), the score is the share of the most frequent other label
    minus that of the item's own; the highest scores are shown, as "own label → neighbours' label".
    The only item of a class has no voters, and is never suspect.

    Args:
        images: Images of the items, see `plot_neighbors`.
        labels: `(items,)`, of any kind.
        embeddings: `(items, dim)`, best of an encoder that did not train on these labels: one
            that did has learned the errors, too.
        num_items: Items to show.
        k: Neighbours that vote.
        max_items: Items to compare; of more, so many are drawn evenly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for that draw.

    Returns:
        A `matplotlib.figure.Figure`; its title says how many items are outvoted in all.

    Raises:
        ValueError: for fewer than two items, or shapes that do not fit.

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
    images = channels_last(images)
    labels = as_labels("labels", labels, len(images))
    kept, embeddings, codes, classes = sampled_items(embeddings, labels, max_items, seed)
    votes = codes[nearest(embeddings, k)]
    # Beyond as many as it has fellows, an item's neighbours must be of other classes.
    voters = np.minimum(np.bincount(codes)[codes] - 1, votes.shape[1])
    heard = np.arange(votes.shape[1]) < voters[:, None]
    # In each row the votes for the label of each place, and the place's own label.
    counts = ((votes[:, :, None] == votes[:, None, :]) & heard[:, None, :]).sum(axis=2)
    own = ((votes == codes[:, None]) & heard).sum(axis=1)
    counts[votes == codes[:, None]] = 0
    place = counts.argmax(axis=1)
    winner, other = votes[np.arange(len(votes)), place], counts.max(axis=1)
    scores = (other - own) / np.maximum(voters, 1)
    order = np.argsort(-scores, kind="stable")
    suspects = order[scores[order] > 0]
    shown = suspects[:num_items]
    columns = min(6, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    size = (max(4.5, _CELL * columns), 1.35 * _CELL * rows + 0.4)
    figure = new_figure(figsize=size, layout="constrained")
    figure.suptitle(
        f"{len(suspects):,} of {len(codes):,} items are outvoted by their {votes.shape[1]} nearest",
        fontsize=10,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, row, picture in zip(grid, shown, as_pixels(images, rows=kept[shown])):
        item = kept[row]
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        texts = [
            shorten(readable(label, class_names)) for label in classes[[codes[row], winner[row]]]
        ]
        axes.set_title(f"#{item}\n{texts[0]} → {texts[1]}", fontsize=7, pad=2, color=WRONG)
    return figure
