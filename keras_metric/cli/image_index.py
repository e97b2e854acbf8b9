"""`keras-metric index` and `keras-metric search`: the images of a folder, by their embeddings."""

import contextlib
import json
from pathlib import Path

import numpy as np

from keras_metric import data, search, viz
from keras_metric.cli.listing import Listing, list_folder, read_listing
from keras_metric.cli.messages import UserError, show
from keras_metric.cli.retrieval_table import METRIC
from keras_metric.cli.run_folder import trained
from keras_metric.search.fingerprint import fingerprint

# The label of an image from a FOLDER without classes; no folder can have this name.
UNLABELLED = ""


def index(chosen):
    """Embed every image of a folder and save them as an index."""
    encoder, settings = trained(chosen.run)
    listed = list_folder(chosen.folder, chosen.run, flat=True)
    images, listed = read_listing(
        listed, settings["image_size"], settings["color"], chosen.skip_broken
    )
    enrolled = search.Index(
        metric=METRIC, encoder=encoder, description=f"Images of {chosen.folder}"
    )
    embeddings = encoder.predict(images, verbose=0)
    labels = [UNLABELLED] * len(listed.paths)
    if listed.names is not None:
        labels = [listed.names[label] for label in listed.labels]
    enrolled.add(embeddings, labels, ids=listed.paths)
    enrolled.save(Path(chosen.run) / "index")
    show(f"{listed.text()} are in {Path(chosen.run) / 'index'}")
    show("Next: keras-metric search IMAGE")


def find(chosen):
    """Print the indexed images that are nearest to each given image."""
    encoder, settings = trained(chosen.run)
    folder = Path(chosen.run) / "index"
    try:
        index = search.Index.load(folder)
    except ValueError as error:
        text = str(error).rstrip(".")
        raise UserError(f"{text}. Or run keras-metric index FOLDER again.") from error
    if index.fingerprint != fingerprint(encoder):
        raise UserError(
            f"The index in {chosen.run} was made with another encoder than the current one: run "
            "keras-metric index FOLDER again."
        )
    if not len(index):
        raise UserError(f"The index in {chosen.run} is empty: run keras-metric index FOLDER.")
    size, color = settings["image_size"], settings["color"]
    images, queries = read_listing(Listing(chosen.image), size, color, chosen.skip_broken)
    found = index.search(encoder.predict(images, verbose=0), k=chosen.k)
    if chosen.json:
        _print_json(queries.paths, found, index.metric)
    else:
        _print_lines(queries.paths, found, index.metric)
    if chosen.picture:
        loader = data.ImageLoader((size, size), color)
        _plot(chosen.picture, images, queries.paths, found, index.metric, loader)
        if not chosen.json:
            show(f"{chosen.picture}: each image and its neighbours")


def _print_json(paths, found, metric):
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
        for path, matches in zip(paths, found)
    }
    show(json.dumps(rows, indent=1))


def _print_lines(paths, found, metric):
    for path, matches in zip(paths, found):
        flat = any(match.label == UNLABELLED for match in matches)
        show(f"{path}\n      {metric} distance  {'file' if flat else 'class'}")
        for rank, match in enumerate(matches, start=1):
            show(f"  {rank:2}  {match.distance:{len(metric) + 9}.4f}  {_name(match)}  {match.id}")


def _plot(path, images, paths, found, metric, loader):
    """Save a figure of each query with its nearest images; a missing file is a black image."""
    k = min(map(len, found))
    matches = [match for line in found for match in line[:k]]
    shown = np.zeros((len(matches), *images.shape[1:]), "uint8")
    for row, match in enumerate(matches):
        with contextlib.suppress(ValueError, TypeError):  # The id may not be a path.
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
    """The class of a match, or the file name of an image without a class."""
    return Path(match.id).name if match.label == UNLABELLED else match.label
