"""Batch sources, splits, image folders and TFRecord files for metric learning."""

from keras_metric.data.batches.balanced_batches import BalancedBatches
from keras_metric.data.batches.stream_batches import StreamBatches
from keras_metric.data.batches.tuple_batches import (
    PairBatches,
    QuadrupletBatches,
    TripletBatches,
)
from keras_metric.data.batches.view_batches import ViewBatches
from keras_metric.data.images.image_folders import image_folder, image_paths
from keras_metric.data.images.image_loader import ImageLoader
from keras_metric.data.images.path_table import path_table
from keras_metric.data.images.random_resized_crop import RandomResizedCrop
from keras_metric.data.records.tf_example import parse_example
from keras_metric.data.records.tfrecords import tfrecord_items
from keras_metric.data.splits import check_no_leak, split_by_class

__all__ = [
    "BalancedBatches",
    "ImageLoader",
    "PairBatches",
    "QuadrupletBatches",
    "RandomResizedCrop",
    "StreamBatches",
    "TripletBatches",
    "ViewBatches",
    "check_no_leak",
    "image_folder",
    "image_paths",
    "parse_example",
    "path_table",
    "split_by_class",
    "tfrecord_items",
]
