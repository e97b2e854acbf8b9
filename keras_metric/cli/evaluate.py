"""`keras-metric evaluate`: a trained encoder beside raw pixels and what it was untrained."""

import json
import sys
from pathlib import Path

import numpy as np

from keras_metric import data, evaluation
from keras_metric.cli.images import read_images
from keras_metric.cli.messages import UserError, say
from keras_metric.cli.run_folder import trained, untrained
from keras_metric.cli.scores import flat, judge, say_table


def evaluate(chosen):
    """Judge a trained encoder beside raw pixels and itself untrained."""
    encoder, settings = trained(chosen.run)
    if chosen.folder is None:
        paths = list(settings["held_out"])
        if not paths:
            raise UserError(f"The run in {chosen.run} held out no images: name a FOLDER to judge.")
        labels = np.unique(list(settings["held_out"].values()), return_inverse=True)[1]
    else:
        paths, labels, _ = data.image_paths(chosen.folder)
        known = set(settings["trained_on"])
        seen = sum(str(Path(path).resolve()) in known for path in paths)
        if seen:
            sys.stderr.write(
                f"keras-metric: note: {seen:,} of {len(paths):,} images were trained on, which "
                "flatters the numbers.\n"
            )
    images = read_images(paths, settings["image_size"], settings["color"])
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
        say(json.dumps(numbers, indent=1))
    else:
        say(f"{len(paths):,} images of {len(set(labels.tolist())):,} classes")
        say_table(numbers)


def _verification(vectors, labels):
    distances, same = evaluation.pair_distances(vectors, labels)
    found = evaluation.verification_metrics(distances, same)
    return {name: found[name] for name in ("auc", "eer")}
