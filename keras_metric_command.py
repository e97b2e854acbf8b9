"""The command `keras-metric`; all that it does is in `keras_metric.cli`."""

import sys

from keras_metric_startup import hide_tensorflow_startup_messages


def main():
    """Run the command line and end with its exit code."""
    hide_tensorflow_startup_messages()
    try:
        from keras_metric.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("\nkeras-metric: interrupted\n")
        sys.exit(130)
    sys.exit(main())


if __name__ == "__main__":
    main()
