"""Viz draws: figures are returned, never shown; the only code that writes TensorBoard files."""

from keras_metric.viz.plot_distances import plot_distances
from keras_metric.viz.plot_embeddings import plot_embeddings
from keras_metric.viz.plot_neighbors import plot_neighbors
from keras_metric.viz.write_projector import write_projector

__all__ = ["plot_distances", "plot_embeddings", "plot_neighbors", "write_projector"]
