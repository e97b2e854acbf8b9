"""Plots of embeddings as matplotlib figures, and files for TensorBoard."""

from keras_metric.viz.plot_confusions import plot_confusions
from keras_metric.viz.plot_det import plot_det
from keras_metric.viz.plot_distance_history import plot_distance_history
from keras_metric.viz.plot_distances import plot_distances
from keras_metric.viz.plot_embeddings import plot_embeddings
from keras_metric.viz.plot_hardest_pairs import plot_hardest_pairs
from keras_metric.viz.plot_label_errors import plot_label_errors
from keras_metric.viz.plot_neighbors import plot_neighbors
from keras_metric.viz.plot_roc import plot_roc
from keras_metric.viz.plot_similarity import plot_similarity
from keras_metric.viz.write_projector import write_projector

__all__ = [
    "plot_confusions",
    "plot_det",
    "plot_distance_history",
    "plot_distances",
    "plot_embeddings",
    "plot_hardest_pairs",
    "plot_label_errors",
    "plot_neighbors",
    "plot_roc",
    "plot_similarity",
    "write_projector",
]
