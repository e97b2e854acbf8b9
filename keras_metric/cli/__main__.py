"""`python -m keras_metric.cli`: the command, where it is not installed."""

import sys

from keras_metric.cli import main

if __name__ == "__main__":
    sys.exit(main())
