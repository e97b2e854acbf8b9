"""Batches, splits and image folders for metric learning."""

from keras_metric.data.balanced_batches import BalancedBatches
from keras_metric.data.folders import ImageLoader, image_folder, image_paths
from keras_metric.data.leaks import check_no_leak
from keras_metric.data.pair_batches import PairBatches
from keras_metric.data.quadruplet_batches import QuadrupletBatches
from keras_metric.data.random_resized_crop import RandomResizedCrop
from keras_metric.data.split import split_by_class
from keras_metric.data.triplet_batches import TripletBatches
from keras_metric.data.view_batches import ViewBatches

__all__ = [
    "BalancedBatches",
    "ImageLoader",
    "PairBatches",
    "QuadrupletBatches",
    "RandomResizedCrop",
    "TripletBatches",
    "ViewBatches",
    "check_no_leak",
    "image_folder",
    "image_paths",
    "split_by_class",
]
