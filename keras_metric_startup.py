"""Start-up of the examples, the tests and the command `keras-metric`.

This module is outside the package because it must run before TensorFlow is imported, and importing
the package imports Keras.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import subprocess
import sys

# Run in a separate process, so that a message before a crash is not lost.
_FILTER = r"""
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
dropped = re.compile(rb"WARNING: All log messages before absl::|I\d{4} \d\d:\d\d:\d+\.\d+ ")
for line in sys.stdin.buffer:
    if not dropped.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def hide_tensorflow_startup_messages():
    """Hide the messages about the machine that TensorFlow writes to stderr when it is imported.

    Its C++ libraries write them for any TF_CPP_MIN_LOG_LEVEL, since the logging of absl is not
    initialised yet. During the import of TensorFlow, messages of the level INFO and the notice
    before them are removed line by line; errors, Python warnings and all other lines appear. Set
    TF_CPP_MIN_LOG_LEVEL=0 to show everything.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    if not any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow by the other finders, and filters stderr during its import."""

    searching = False

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow" or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            with _filtered_stderr():
                execute(module)

        spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _filtered_stderr():
    """Redirect file descriptor 2 through the filter."""
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    try:
        kept = os.dup(2)
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
    except OSError:  # no stderr, or a process cannot be started
        yield
        return
    sys.stderr.flush()
    os.dup2(process.stdin.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        process.communicate()
