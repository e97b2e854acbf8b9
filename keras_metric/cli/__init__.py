"""The command line: train on a folder of images, evaluate, index, search, project.

Each file is one command. `keras_metric_command`, a module next to the package, parses the arguments
before it imports the package.
"""

from keras_metric_command import main

__all__ = ["main"]
