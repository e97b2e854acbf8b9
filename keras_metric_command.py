"""The command `keras-metric`; all that it does is in `keras_metric.cli`.

TensorFlow writes some lines about the machine to stderr when it is imported, with whatever log
level. A command's stderr is for what its user can use, so they are swallowed here, before the
package is imported.
"""

import os
import sys
import tempfile


def main():
    """Run the command line and end with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        main = None
        try:
            from keras_metric.cli import main
        except KeyboardInterrupt:
            pass
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    if main is None:
        sys.stderr.write("\nkeras-metric: interrupted\n")
        sys.exit(130)
    sys.exit(main())


if __name__ == "__main__":
    main()
