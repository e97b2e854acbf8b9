"""Loops over blocks of rows: slices, threads, and a progress bar."""

import collections
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from keras_metric._validation import check_flag

_BAR_DELAY = 2.0  # seconds before a bar appears; shorter loops need none


def row_blocks(start, stop, size):
    """Return the slices of at most `size` rows that cover `start` to `stop`."""
    size = max(1, size)
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def check_progress(progress):
    """Raise unless `progress` is True, False or None."""
    if progress is not None:
        check_flag("progress", progress)


def with_progress(parts, total, description, progress=None):
    """Yield `parts` under a progress bar on the standard error.

    `progress`: None shows the bar on terminals, after two seconds; True at once; False never.
    """
    check_progress(progress)
    return tqdm(
        parts,
        desc=description,
        total=total,
        delay=0.0 if progress else _BAR_DELAY,
        leave=False,
        disable=None if progress is None else not progress,
    )


class _BlasLimit:
    """Context in which BLAS uses one thread, in the whole process.

    Evaluations in several threads overlap. The last one to end restores the thread count: if each
    restored the count that it found, the process would keep the limit of another one.
    """

    def __init__(self):
        self.lock, self.users, self.limit = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if not self.users:
                self.limit = threadpool_limits(1, "blas")
            self.users += 1

    def __exit__(self, *error):
        with self.lock:
            self.users -= 1
            if not self.users:
                self.limit.restore_original_limits()


_ONE_BLAS_THREAD = _BlasLimit()


def in_threads(function, parts):
    """Yield `function(part)` for all parts, in order, computed in one thread per core.

    A matrix product uses all cores without these threads, but the operations after it do not.
    Multi-threaded products inside threads would spend a third of the time waiting for each other.
    """
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, _ONE_BLAS_THREAD:
        waiting = collections.deque()
        for part in parts:
            waiting.append(pool.submit(function, part))
            # Finished results that are not consumed yet take memory; limit their number.
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
