"""Scalars, plots and projector files that RetrievalEvaluator writes for TensorBoard."""

import warnings

import numpy as np

from keras_metric import distances, viz
from keras_metric._validation import check_choice
from keras_metric.neighbors import unit_rows
from keras_metric.viz.event_file import EventFile

_OF_EMBEDDINGS = {"confusions": viz.plot_confusions, "similarity": viz.plot_similarity}
_OF_IMAGES = {
    "hardest_pairs": viz.plot_hardest_pairs,
    "label_errors": viz.plot_label_errors,
    "neighbors": viz.plot_neighbors,
}
PLOTS = (*_OF_EMBEDDINGS, *_OF_IMAGES, "distance_history", "distances")
_HISTORY_ITEMS = 500  # items whose distances are plotted over the epochs


def check_plots(plots):
    """Return the names of the plots for `True`, `False` or a list of names."""
    if isinstance(plots, bool):
        return PLOTS if plots else ()
    if not isinstance(plots, (list, tuple)):
        raise TypeError(
            f"`plots` must be True, False or a list of names among {sorted(PLOTS)}. "
            f"Received: plots={plots!r}"
        )
    for name in plots:
        check_choice("plots", name, PLOTS)
    return tuple(plots)


class TensorBoardLog:
    """Writes the curves, plots and projections of one folder; the first write opens its file.

    `metric` is that of the evaluation; plots for "cosine" use unit vectors.
    """

    def __init__(self, log_dir, class_names, max_points, plots, metric):
        self.log_dir, self.class_names = log_dir, class_names
        self.max_points, self.plots = max_points, plots
        self.events, self.past = None, {}
        self.metric = metric
        self.plotted_metric = metric if metric in distances.METRICS else "euclidean"

    def write_scalars(self, metrics, step):
        """Write a dict of numbers at `step`."""
        self._event_file().scalars(metrics, step)

    def write_embeddings(self, name, embeddings, labels, images, step):
        """Write the projector's files, and the plots."""
        settings = {"max_points": self.max_points, "class_names": self.class_names}
        viz.write_projector(self.log_dir, embeddings, labels, images, name=name, **settings)
        for plot in self.plots:
            if plot in _OF_IMAGES and images is None:
                continue
            try:
                figure = self.figure_of(plot, name, embeddings, labels, images, step)
            except ValueError as error:
                # For example the distances of items of one class; training must not end.
                warnings.warn(f"No plot {name}_{plot} was written: {error}", stacklevel=2)
                continue
            self._event_file().figure(f"{name}_{plot}", figure, step)

    def figure_of(self, plot, name, embeddings, labels, images, step):
        """Return the figure of a plot."""
        if plot == "distance_history":
            return self._history(name.removesuffix("_start"), embeddings, labels, step)
        names, metric = {"class_names": self.class_names}, self.plotted_metric
        if plot == "distances":
            return viz.plot_distances(embeddings, labels, metric=metric)
        if plot == "neighbors":
            return viz.plot_neighbors(images, labels, embeddings, metric=metric, **names)
        if self.metric == "cosine":
            # The nearest unit vectors by Euclidean distance are the nearest by cosine.
            embeddings = unit_rows(embeddings)
        if plot in _OF_EMBEDDINGS:
            return _OF_EMBEDDINGS[plot](embeddings, labels, **names)
        return _OF_IMAGES[plot](images, labels, embeddings=embeddings, **names)

    def close(self):
        """Close the event file; the next write opens another."""
        if self.events is not None:
            self.events.close()
            self.events = None
        self.past = {}

    def _history(self, name, embeddings, labels, step):
        kept = _sampled_classes(labels)
        embeddings, labels = embeddings[kept], labels[kept]
        old_labels, past = self.past.get(name, (labels, {}))
        if not np.array_equal(old_labels, labels):
            past = {}  # the order of the items has changed: earlier epochs are not comparable
        past[step] = embeddings
        self.past[name] = labels, past
        return viz.plot_distance_history(past, labels, metric=self.plotted_metric)

    def _event_file(self):
        if self.events is None:
            self.events = EventFile(self.log_dir)
        return self.events


def _sampled_classes(labels):
    """Return about `_HISTORY_ITEMS` rows, the same at each call: items of sampled classes."""
    classes, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    order = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes)
    position = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Few classes have equal parts of the items; of many classes, some have ten items each.
    per_class = max(10, _HISTORY_ITEMS // len(classes))
    chosen = rng.permutation(len(classes))
    filled = np.cumsum(np.minimum(counts, per_class)[chosen])
    chosen = chosen[: max(2, np.searchsorted(filled, _HISTORY_ITEMS) + 1)]
    return np.sort(order[(position < per_class) & np.isin(codes[order], chosen)])
