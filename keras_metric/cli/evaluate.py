"""`keras-metric evaluate`: the trained encoder, compared with raw pixels and untrained."""

import json
from pathlib import Path

import numpy as np

from keras_metric.cli.listing import Listing, list_folder, read_listing
from keras_metric.cli.messages import UserError, note, show
from keras_metric.cli.retrieval_table import METRIC, evaluate_vectors, show_table
from keras_metric.cli.run_folder import trained, untrained


def evaluate(chosen):
    """Evaluate a trained encoder next to raw pixels and the untrained encoder."""
    encoder, settings = trained(chosen.run)
    if chosen.folder is None:
        if not settings["held_out"]:
            raise UserError(f"The run in {chosen.run} has no held-out images: pass a FOLDER.")
        names, labels = np.unique(list(settings["held_out"].values()), return_inverse=True)
        listed = Listing(list(settings["held_out"]), labels, names.tolist())
    else:
        listed = list_folder(chosen.folder, chosen.run)
        trained_on = set(settings["trained_on"])
        count = sum(str(Path(path).resolve()) in trained_on for path in listed.paths)
        if count:
            total = len(listed.paths)
            note(f"{count:,} of {total:,} images were trained on: the numbers are too good.")
    size, color = settings["image_size"], settings["color"]
    images, listed = read_listing(listed, size, color, chosen.skip_broken)
    labels = listed.labels
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.max() < 2:
        raise UserError("evaluate needs images of two classes, and two images of one of them.")
    rows = {"raw pixels": images}
    before = untrained(chosen.run)
    if before is not None:
        rows["untrained encoder"] = before.predict(images, verbose=0)
    rows["trained encoder"] = encoder.predict(images, verbose=0)
    numbers = {row: evaluate_vectors(vectors, labels, True) for row, vectors in rows.items()}
    if chosen.json:
        named = {row: {"metric": METRIC} | found for row, found in numbers.items()}
        show(json.dumps(named, indent=1))
    else:
        show(listed.text())
        show_table(numbers)
