"""Batches, splits, image folders and published data sets for metric learning."""

from keras_metric.data.balanced_batches import BalancedBatches
from keras_metric.data.cars_196 import read_cars_196
from keras_metric.data.cub_200_2011 import read_cub_200_2011
from keras_metric.data.example import parse_example
from keras_metric.data.folders import ImageLoader, image_folder, image_paths
from keras_metric.data.in_shop import read_in_shop
from keras_metric.data.leaks import check_no_leak
from keras_metric.data.lfw_pairs import read_lfw_pairs
from keras_metric.data.market_1501 import read_market_1501
from keras_metric.data.omniglot import read_omniglot
from keras_metric.data.pair_batches import PairBatches
from keras_metric.data.path_table import path_table
from keras_metric.data.quadruplet_batches import QuadrupletBatches
from keras_metric.data.random_resized_crop import RandomResizedCrop
from keras_metric.data.split import split_by_class
from keras_metric.data.stanford_online_products import read_stanford_online_products
from keras_metric.data.stream_batches import StreamBatches
from keras_metric.data.tfrecords import tfrecord_items
from keras_metric.data.triplet_batches import TripletBatches
from keras_metric.data.view_batches import ViewBatches

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
    "read_cars_196",
    "read_cub_200_2011",
    "read_in_shop",
    "read_lfw_pairs",
    "read_market_1501",
    "read_omniglot",
    "read_stanford_online_products",
    "split_by_class",
    "tfrecord_items",
]
