"""`python -m keras_metric.cli`: the command, where it is not installed.

Python imports the package, and so Keras, before this file. `python -m keras_metric_command` parses
the arguments first.
"""

import sys

from keras_metric.cli import main

if __name__ == "__main__":
    sys.exit(main())
