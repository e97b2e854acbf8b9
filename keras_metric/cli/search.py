"""`keras-metric search`: the enrolled images nearest to given ones."""

import contextlib
import json
from pathlib import Path

import numpy as np

from keras_metric import data, search, viz
from keras_metric.cli.index import UNLABELLED
from keras_metric.cli.listing import Listing, read_listing
from keras_metric.cli.messages import UserError, show
from keras_metric.cli.run_folder import trained
from keras_metric.search.fingerprint import fingerprint


def find(chosen):
    """Print the enrolled images that are nearest to each given one."""
    encoder, settings = trained(chosen.run)
    folder = Path(chosen.run) / "index"
    try:
        enrolled = search.Index.load(folder)
    except ValueError as error:
        text = str(error).rstrip(".")
        raise UserError(f"{text}. Or run keras-metric index FOLDER again.") from error
    if enrolled.fingerprint != fingerprint(encoder):
        raise UserError(
            f"The index in {chosen.run} was made with another encoder than the one that is there "
            "now: run keras-metric index FOLDER again."
        )
    if not len(enrolled):
        raise UserError(f"The index in {chosen.run} is empty: run keras-metric index FOLDER.")
    size, color = settings["image_size"], settings["color"]
    images, queries = read_listing(Listing(chosen.image), size, color, chosen.skip_broken)
    answers = enrolled.search(encoder.predict(images, verbose=0), k=chosen.k)
    if chosen.json:
        _say_json(queries.paths, answers, enrolled.metric)
    else:
        _say_lines(queries.paths, answers, enrolled.metric)
    if chosen.picture:
        loader = data.ImageLoader((size, size), color)
        _draw(chosen.picture, images, queries.paths, answers, enrolled.metric, loader)
        if not chosen.json:
            show(f"{chosen.picture}: each image and its neighbours")


def _say_json(paths, answers, metric):
    rows = {
        path: [
            {
                "id": match.id,
                "label": None if match.label == UNLABELLED else match.label,
                "distance": match.distance,
                "metric": metric,
            }
            for match in matches
        ]
        for path, matches in zip(paths, answers)
    }
    show(json.dumps(rows, indent=1))


def _say_lines(paths, answers, metric):
    for path, matches in zip(paths, answers):
        flat = any(match.label == UNLABELLED for match in matches)
        show(f"{path}\n      {metric} distance  {'file' if flat else 'class'}")
        for place, match in enumerate(matches, start=1):
            show(f"  {place:2}  {match.distance:{len(metric) + 9}.4f}  {_name(match)}  {match.id}")


def _draw(path, images, paths, answers, metric, loader):
    """Save a picture of each query with its nearest images; a file that is gone is a black one."""
    k = min(map(len, answers))
    matches = [match for found in answers for match in found[:k]]
    shown = np.zeros((len(matches), *images.shape[1:]), "uint8")
    for row, match in enumerate(matches):
        with contextlib.suppress(ValueError, TypeError):  # The id may be no path.
            shown[row] = loader(match.id)
    figure = viz.plot_neighbors(
        np.concatenate([images, shown]),
        labels=None,
        neighbors=len(images) + np.arange(len(matches)).reshape(-1, k),
        queries=range(len(images)),
        k=k,
        distances=np.array([match.distance for match in matches]).reshape(-1, k),
        metric=metric,
        titles=[*(Path(path).name for path in paths), *map(_name, matches)],
    )
    figure.savefig(path)


def _name(match):
    """The class of a match; of an image from a FOLDER without classes, the name of its file."""
    return Path(match.id).name if match.label == UNLABELLED else match.label
