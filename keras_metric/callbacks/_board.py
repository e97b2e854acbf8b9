"""What RetrievalEvaluator shows in TensorBoard."""

import numpy as np

from keras_metric._checks import check_choice
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
    """

    def __init__(self, log_dir, class_names, max_points, pictures):
        self.log_dir, self.class_names = log_dir, class_names
        self.max_points, self.pictures = max_points, pictures
        self.events, self.past = None, {}

    def write_scalars(self, metrics, step):
        """Write a dict of numbers at `step`."""
        self._opened().scalars(metrics, step)

    def write_embeddings(self, name, embeddings, labels, images, step):
        """Write the projector's files, and the pictures."""
        shared = {"class_names": self.class_names}
        write_projector(
            self.log_dir,
            embeddings,
            labels,
            images,
            name=name,
            max_points=self.max_points,
            **shared,
        )
        for picture in self.pictures:
            if picture == "distance_history":
                figure = self._history(name.removesuffix("_start"), embeddings, labels, step)
            elif picture == "distances":
                figure = plot_distances(embeddings, labels)
            elif picture in _DRAWN:
                figure = _DRAWN[picture](embeddings, labels, **shared)
            elif images is None:
                continue
            else:
                figure = _OF_IMAGES[picture](images, labels, embeddings=embeddings, **shared)
            self._opened().figure(f"{name}_{picture}", figure, step)

    def close(self):
        """Close the event file; the next write opens another."""
        if self.events is not None:
            self.events.close()
            self.events = None
        self.past = {}

    def _history(self, name, embeddings, labels, step):
        few = slice(None, None, -(-len(labels) // _KEPT))
        embeddings, labels = embeddings[few], labels[few]
        then, past = self.past.get(name, (labels, {}))
        if not np.array_equal(then, labels):
            past = {}  # the items come in another order now: nothing to compare
        past[step] = embeddings
        self.past[name] = labels, past
        return plot_distance_history(past, labels)

    def _opened(self):
        if self.events is None:
            self.events = EventFile(self.log_dir)
        return self.events
