"""`keras-metric search`: the enrolled images nearest to given ones."""

import json
from pathlib import Path

from keras_metric import search
from keras_metric.cli.images import read_images
from keras_metric.cli.messages import UserError, say
from keras_metric.cli.run_folder import trained
from keras_metric.search.fingerprint import fingerprint


def find(chosen):
    """Print the enrolled images that are nearest to each given one."""
    encoder, settings = trained(chosen.run)
    folder = Path(chosen.run) / "index"
    enrolled = search.Index.load(folder)
    if enrolled.fingerprint != fingerprint(encoder):
        raise UserError(
            f"The index in {chosen.run} was made with another encoder than the one that is there "
            "now: run keras-metric index FOLDER again."
        )
    images = read_images(chosen.image, settings["image_size"], settings["color"])
    answers = enrolled.search(encoder.predict(images, verbose=0), k=chosen.k)
    if chosen.json:
        rows = {
            path: [{"id": m.id, "label": m.label, "distance": m.distance} for m in matches]
            for path, matches in zip(chosen.image, answers)
        }
        say(json.dumps(rows, indent=1))
        return
    for path, matches in zip(chosen.image, answers):
        say(f"{path}\n      distance  class")
        for place, match in enumerate(matches, start=1):
            say(f"  {place:2}  {match.distance:8.4f}  {match.label}  {match.id}")
