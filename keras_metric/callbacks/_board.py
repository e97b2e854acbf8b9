"""What RetrievalEvaluator shows in TensorBoard."""

import warnings

import numpy as np

from keras_metric import distances
from keras_metric._validation import check_choice
from keras_metric.viz import (
    plot_confusions,
    plot_distance_history,
    plot_distances,
    plot_hardest_pairs,
    plot_label_errors,
    plot_neighbors,
    plot_similarity,
    write_projector,
)
from keras_metric.viz.event_file import EventFile

# Of embeddings and labels; of images, too; and of all the evaluations so far.
_DRAWN = {"confusions": plot_confusions, "similarity": plot_similarity}
_OF_IMAGES = {
    "hardest_pairs": plot_hardest_pairs,
    "label_errors": plot_label_errors,
    "neighbors": plot_neighbors,
}
PICTURES = (*_DRAWN, *_OF_IMAGES, "distance_history", "distances")
_KEPT = 500  # items whose distances are drawn over the epochs


def check_pictures(pictures):
    """Return the names of the pictures that `True`, `False` or a list of names asks for."""
    if isinstance(pictures, bool):
        return PICTURES if pictures else ()
    if not isinstance(pictures, (list, tuple)):
        raise TypeError(
            f"`pictures` must be True, False or a list of names among {sorted(PICTURES)}. "
            f"Received: pictures={pictures!r}"
        )
    for name in pictures:
        check_choice("pictures", name, PICTURES)
    return tuple(pictures)


class Board:
    """Writes the curves, pictures and projections of one folder; opens it when first used.

    Args:
        log_dir: Folder of TensorBoard.
        class_names: Optional names of the labels.
        max_points: Points in the projector.
        pictures: Names of the pictures to draw.
        metric: What the evaluation measures with; pictures of "cosine" are of unit vectors.
    """

    def __init__(self, log_dir, class_names, max_points, pictures, metric):
        self.log_dir, self.class_names = log_dir, class_names
        self.max_points, self.pictures = max_points, pictures
        self.events, self.past = None, {}
        self.metric = metric
        # What distances can be drawn of.
        self.drawn_metric = metric if metric in distances.METRICS else "euclidean"

    def write_scalars(self, metrics, step):
        """Write a dict of numbers at `step`."""
        self._opened().scalars(metrics, step)

    def write_embeddings(self, name, embeddings, labels, images, step):
        """Write the projector's files, and the pictures."""
        write_projector(
            self.log_dir,
            embeddings,
            labels,
            images,
            name=name,
            max_points=self.max_points,
            class_names=self.class_names,
        )
        for picture in self.pictures:
            if picture in _OF_IMAGES and images is None:
                continue
            try:
                figure = self._drawn(picture, name, embeddings, labels, images, step)
            except ValueError as error:
                # Such as distances of one class alone: no reason to end hours of training.
                warnings.warn(f"No picture {name}_{picture} was drawn: {error}", stacklevel=2)
                continue
            self._opened().figure(f"{name}_{picture}", figure, step)

    def _drawn(self, picture, name, embeddings, labels, images, step):
        if picture == "distance_history":
            return self._history(name.removesuffix("_start"), embeddings, labels, step)
        if picture == "distances":
            return plot_distances(embeddings, labels, metric=self.drawn_metric)
        if picture == "neighbors":
            shared = {"class_names": self.class_names, "metric": self.drawn_metric}
            return plot_neighbors(images, labels, embeddings, **shared)
        if self.metric == "cosine":
            # The nearest of these are the nearest by cosine.
            lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.maximum(lengths, 1e-12)
        if picture in _DRAWN:
            return _DRAWN[picture](embeddings, labels, class_names=self.class_names)
        draw = _OF_IMAGES[picture]
        return draw(images, labels, embeddings=embeddings, class_names=self.class_names)

    def close(self):
        """Close the event file; the next write opens another."""
        if self.events is not None:
            self.events.close()
            self.events = None
        self.past = {}

    def _history(self, name, embeddings, labels, step):
        few = _whole_classes(labels)
        embeddings, labels = embeddings[few], labels[few]
        then, past = self.past.get(name, (labels, {}))
        if not np.array_equal(then, labels):
            past = {}  # the items come in another order now: nothing to compare
        past[step] = embeddings
        self.past[name] = labels, past
        return plot_distance_history(past, labels, metric=self.drawn_metric)

    def _opened(self):
        if self.events is None:
            self.events = EventFile(self.log_dir)
        return self.events


def _whole_classes(labels):
    """Some `_KEPT` rows, the same at each call: up to ten items each of classes drawn evenly."""
    classes, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    order = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Few classes share the places; of many, some have ten each.
    each = max(10, _KEPT // len(classes))
    chosen = rng.permutation(len(classes))
    filled = np.cumsum(np.minimum(counts, each)[chosen])
    chosen = chosen[: max(2, np.searchsorted(filled, _KEPT) + 1)]
    return np.sort(order[(place < each) & np.isin(codes[order], chosen)])
