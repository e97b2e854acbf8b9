"""`keras-metric index`: add the images of a folder to the index of a run."""

from pathlib import Path

from keras_metric import search
from keras_metric.cli.listing import list_folder, read_listing
from keras_metric.cli.messages import show
from keras_metric.cli.retrieval_table import METRIC
from keras_metric.cli.run_folder import trained

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
