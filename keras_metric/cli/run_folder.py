"""The folder of a run: locking, loading of the encoder and of its settings."""

import contextlib
import json
import os
import zipfile
from pathlib import Path

import keras

from keras_metric.cli.messages import UserError

NEW = ("new.untrained.keras", "new.encoder.keras", "new.run.json")


@contextlib.contextmanager
def locked(run):
    """Create the folder `run` and lock it, so that only one training writes there at a time.

    At the end of the block the files `NEW` are removed, and the folder if it is new and empty.
    """
    made = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(run)
    try:
        yield
    finally:
        for name in NEW:
            with contextlib.suppress(OSError):
                (run / name).unlink()
        if made:
            with contextlib.suppress(OSError):
                run.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _lock(run):
    """Lock a folder until the returned descriptor is closed; None where locks do not exist."""
    try:
        import fcntl
    except ImportError:
        # Windows has no flock; there the user must not start two trainings at a time.
        return None
    descriptor = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        way_out = "wait until it ends, or choose another --run"
        raise UserError(f"Another keras-metric train writes to {run}: {way_out}.") from None
    return descriptor


def trained(run):
    """Return the encoder in the folder `run`, and its settings."""
    path = Path(run)
    encoder, settings = load_model(path / "encoder.keras"), _read_settings(path / "run.json")
    what = f"The encoder in {run} does not match its run.json: train again, or restore both. It"
    check_input(encoder, settings["image_size"], settings["color"], what)
    return encoder, settings


def check_input(model, size, color, what):
    """Raise unless a model accepts a batch of square images of this size and colour."""
    channels = 1 if color == "grayscale" else 3
    image = (size, size, channels)
    if keras.config.image_data_format() == "channels_first":
        image = (channels, size, size)
    takes = getattr(getattr(model, "backbone", model), "input_shape", None)
    fits = takes is None or (
        len(takes) == 4 and all(side in (None, n) for side, n in zip(takes[1:], image))
    )
    if not fits:
        raise UserError(f"{what} takes inputs of shape {takes}. Received: images of shape {image}.")


def untrained(run):
    """Return the encoder of the run before training, or None if it was not saved."""
    path = Path(run) / "untrained.keras"
    return load_model(path) if path.exists() else None


def load_model(path):
    """Load a .keras file; the safe mode of Keras rejects code in it."""
    if not zipfile.is_zipfile(path):  # Keras reports such a file as missing.
        raise UserError(f"The model {str(path)!r} cannot be read: it is no valid .keras file.")
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises many types for a damaged file.
        raise UserError(f"The model {str(path)!r} cannot be read: {error}") from error


def _read_settings(path):
    """Read and validate the settings that `train` wrote next to an encoder."""
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is no JSON: {error}") from error
    checks = {
        "image_size": lambda size: type(size) is int and 0 < size < 2**16,
        "color": lambda color: color in ("rgb", "grayscale"),
        "held_out": lambda held: isinstance(held, dict) and _are_strings(held.values()),
        "trained_on": lambda paths: isinstance(paths, list) and _are_strings(paths),
    }
    for part, is_valid in checks.items():
        value = settings.get(part) if isinstance(settings, dict) else None
        if not is_valid(value):
            raise UserError(f"{str(path)!r} is damaged: {part}={str(value)[:60]}. Restore it.")
    return settings


def _are_strings(values):
    return all(isinstance(value, str) for value in values)
