"""Listing and reading of the images of a FOLDER, and the choice of their size and colour."""

import os
import typing
from pathlib import Path

import numpy as np
from PIL import Image

from keras_metric import data
from keras_metric.cli.messages import UserError, note
from keras_metric.data.images.image_folders import (
    flatten_classes,
    images_by_class,
    images_without_class,
)
from keras_metric.data.images.image_loader import read_images
from keras_metric.data.images.unreadable_images import describe_faults

_MAX_IMAGE_BYTES = 4 * 2**30  # of all images, which are read into memory


class Listing(typing.NamedTuple):
    """The images of a FOLDER: paths, labels and class names (None without classes)."""

    paths: list
    labels: np.ndarray | None = None
    names: list | None = None
    empty: tuple = ()  # class folders without images

    def text(self):
        """Return the number of images and of classes as text."""
        classes = "without classes" if self.names is None else f"of {len(self.names):,} classes"
        return f"{len(self.paths):,} images {classes}"


def list_folder(folder, run, flat=False):
    """List the images of a FOLDER by class; `flat` also accepts a FOLDER without classes.

    The folder `run` may be inside FOLDER. The images that the command writes there are omitted.
    """
    root = Path(folder)
    classes, loose = _without_run(images_by_class(root), root, run), images_without_class(root)
    found = {name: paths for name, paths in classes.items() if paths}
    empty = tuple(str(root / name) for name in classes if name not in found)
    if not found and flat and loose:
        return Listing(loose, empty=empty)
    if not found:
        where = "in its class folders" if loose else "of a type that Pillow reads by its ending"
        raise UserError(f"FOLDER {folder} has no images {where}.")
    if loose:
        note(f"{len(loose):,} images directly in {folder} are in no class folder and are left out")
    return Listing(*flatten_classes(found), list(found), empty)


def _without_run(classes, root, run):
    run = os.path.realpath(run)
    if not Path(run).is_relative_to(os.path.realpath(root)):
        return classes
    kept = {}
    for name, paths in classes.items():
        paths = [path for path in paths if not Path(os.path.realpath(path)).is_relative_to(run)]
        # Keep a class folder without images, which is reported, unless it contains the run.
        if paths or not Path(run).is_relative_to(os.path.realpath(root / name)):
            kept[name] = paths
    return kept


def read_listing(listing, size, color, skip_broken):
    """Return the images of a listing as one uint8 array, and the listing of the images read.

    All files are read before an error names the unreadable ones. With `skip_broken` they are
    omitted, together with classes without images.
    """
    needed = len(listing.paths) * size * size * (1 if color == "grayscale" else 3)
    if needed > _MAX_IMAGE_BYTES:
        raise UserError(
            f"{len(listing.paths):,} images of {size} x {size} take {needed / 2**30:.1f} GB: "
            "train with a lower --image-size, give fewer images at once, or read them batch by "
            "batch in Python: data.BalancedBatches(paths, load=ImageLoader)."
        )
    images, failures = read_images(data.ImageLoader((size, size), color), listing.paths)
    faults = describe_faults(failures, len(listing.paths), listing.empty)
    if faults and (images is None or not skip_broken):
        way_out = "" if images is None else ", or add --skip-broken to leave them out"
        raise UserError(f"{faults}. Remove or replace them{way_out}.")
    if faults:
        note(f"left out by --skip-broken: {faults}")
    return images, _without(listing, failures)


def _without(listing, failures):
    rows = [row for row, path in enumerate(listing.paths) if path not in failures]
    paths = [listing.paths[row] for row in rows]
    if listing.names is None:
        return Listing(paths)
    kept, labels = np.unique(listing.labels[rows], return_inverse=True)
    return Listing(paths, labels.astype("int32"), [listing.names[label] for label in kept])


def usual_size(paths, most):
    """Return the median of the shorter sides of some images, 24 to `most` pixels."""
    sides = [min(size) for size, _ in _sampled(paths)]
    return int(np.clip(np.median(sides or [most]), 24, most))


def usual_color(paths):
    """Return `"rgb"` if any of some images has colours, else `"grayscale"`."""
    gray = ("1", "L", "LA")
    found = [mode in gray or mode.startswith("I") for _, mode in _sampled(paths)]
    return "grayscale" if all(found) else "rgb"


def _sampled(paths):
    """Yield size and mode of some images; `read_listing` reports unreadable ones."""
    for path in paths[:: max(1, len(paths) // 20)]:
        try:
            with Image.open(path) as image:
                yield image.size, image.mode
        except Exception:  # Pillow raises more types than OSError.
            continue
