"""Readers of published data sets."""

from keras_metric.datasets.cars_196 import read_cars_196
from keras_metric.datasets.cub_200_2011 import read_cub_200_2011
from keras_metric.datasets.in_shop import read_in_shop
from keras_metric.datasets.lfw_pairs import read_lfw_pairs
from keras_metric.datasets.market_1501 import read_market_1501
from keras_metric.datasets.omniglot import read_omniglot
from keras_metric.datasets.stanford_online_products import read_stanford_online_products

__all__ = [
    "read_cars_196",
    "read_cub_200_2011",
    "read_in_shop",
    "read_lfw_pairs",
    "read_market_1501",
    "read_omniglot",
    "read_stanford_online_products",
]
