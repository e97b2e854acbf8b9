"""`python -m keras_metric.cli` runs the command where it is not installed.

It imports Keras before it parses the arguments; `python -m keras_metric_command` parses them first.
"""

import sys

from keras_metric.cli import main

if __name__ == "__main__":
    sys.exit(main())
