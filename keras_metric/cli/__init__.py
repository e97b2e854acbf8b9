"""The command line: train on a folder of images, evaluate, index, search, draw.

Each command calls the library and has a file of its own. `keras_metric_command`, which lies next
to the package, parses the arguments before it imports the package.
"""

from keras_metric_command import main

__all__ = ["main"]
