"""What RetrievalEvaluator shows in TensorBoard."""

from keras_metric.viz import plot_distances, plot_neighbors, write_projector
from keras_metric.viz.event_file import EventFile


class Board:
    """Writes the curves, pictures and projections of one folder; opens it when first used.

    Args:
        log_dir: Folder of TensorBoard.
        class_names: Optional names of the labels.
        max_points: Points in the projector.
        pictures: Whether to draw neighbours and distances.
    """

    def __init__(self, log_dir, class_names, max_points, pictures):
        self.log_dir, self.class_names = log_dir, class_names
        self.max_points, self.pictures = max_points, pictures
        self.events = None

    def write_scalars(self, metrics, step):
        """Write a dict of numbers at `step`."""
        if self.events is None:
            self.events = EventFile(self.log_dir)
        self.events.scalars(metrics, step)

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
        if self.pictures:
            self.events.figure(f"{name}_distances", plot_distances(embeddings, labels), step)
            if images is not None:
                figure = plot_neighbors(images, labels, embeddings, **shared)
                self.events.figure(f"{name}_neighbors", figure, step)

    def close(self):
        """Close the event file; the next write opens another."""
        if self.events is not None:
            self.events.close()
            self.events = None
