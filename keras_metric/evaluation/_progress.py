"""A progress bar for work that takes seconds."""

from tqdm import tqdm

from keras_metric._validation import check_flag

_PATIENCE = 2.0  # seconds; what is done by then needs no bar


def check_progress(progress):
    """Raise unless `progress` is True, False or None."""
    if progress is not None:
        check_flag("progress", progress)


def watched(parts, total, what, progress=None):
    """Yield `parts` under a bar: None shows it on terminals, after two seconds; True at once."""
    check_progress(progress)
    return tqdm(
        parts,
        desc=what,
        total=total,
        delay=0.0 if progress else _PATIENCE,
        leave=False,
        disable=None if progress is None else not progress,
    )
