"""`keras-metric evaluate`: a trained encoder beside raw pixels and what it was untrained."""

import json
from pathlib import Path

import numpy as np

from keras_metric import evaluation
from keras_metric.cli.images import Listing, list_folder, note, read_listing
from keras_metric.cli.messages import UserError, say
from keras_metric.cli.run_folder import trained, untrained
from keras_metric.cli.scores import METRIC, flat, judge, ranked_alike, say_table


def evaluate(chosen):
    """Evaluate a trained encoder next to raw pixels and the untrained encoder."""
    encoder, settings = trained(chosen.run)
    if chosen.folder is None:
        if not settings["held_out"]:
            raise UserError(f"The run in {chosen.run} held out no images: name a FOLDER to judge.")
        names, labels = np.unique(list(settings["held_out"].values()), return_inverse=True)
        listed = Listing(list(settings["held_out"]), labels, names.tolist())
    else:
        listed = list_folder(chosen.folder, chosen.run)
        known = set(settings["trained_on"])
        seen = sum(str(Path(path).resolve()) in known for path in listed.paths)
        if seen:
            note(
                f"{seen:,} of {len(listed.paths):,} images were trained on, which flatters the "
                "numbers."
            )
    images, listed = read_listing(
        listed, settings["image_size"], settings["color"], chosen.skip_broken
    )
    labels = listed.labels
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.max() < 2:
        raise UserError("evaluate needs images of two classes, and two images of one of them.")
    rows = {"raw pixels": flat(images)}
    before = untrained(chosen.run)
    if before is not None:
        rows["untrained encoder"] = before.predict(images, verbose=0)
    rows["trained encoder"] = encoder.predict(images, verbose=0)
    numbers = {
        row: judge(vectors, labels) | _verification(vectors, labels)
        for row, vectors in rows.items()
    }
    if chosen.json:
        named = {row: {"metric": METRIC} | found for row, found in numbers.items()}
        say(json.dumps(named, indent=1))
    else:
        say(listed.text())
        say_table(numbers)


def _verification(vectors, labels):
    vectors, metric = ranked_alike(vectors)
    distances, same = evaluation.pair_distances(vectors, labels, metric=metric)
    found = evaluation.verification_metrics(distances, same)
    return {name: found[name] for name in ("auc", "eer")}
