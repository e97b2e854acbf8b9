"""`keras-metric project`: embeddings drawn in a plane and for TensorBoard."""

from pathlib import Path

import numpy as np

from keras_metric import viz
from keras_metric.cli.images import list_folder, read_listing
from keras_metric.cli.messages import say
from keras_metric.cli.run_folder import trained


def project(chosen):
    """Draw the embeddings of a folder, in a picture and for TensorBoard's projector."""
    encoder, settings = trained(chosen.run)
    listed = list_folder(chosen.folder, chosen.run, flat=True)
    images, listed = read_listing(
        listed, settings["image_size"], settings["color"], chosen.skip_broken
    )
    embeddings = encoder.predict(images, verbose=0)
    run = Path(chosen.run)
    shared = {"class_names": listed.names, "max_points": chosen.max_points}
    viz.write_projector(
        run / "logs",
        *(embeddings, listed.labels, images),
        metadata={"file": [Path(path).name for path in listed.paths]},
        name="images",
        **shared,
    )
    shared["max_points"] = min(chosen.max_points, 2000)
    labels = listed.labels
    if labels is None:  # a FOLDER without classes: all points in one colour
        labels, shared["class_names"] = np.zeros(len(images), int), ["without classes"]
    figure = viz.plot_embeddings(embeddings, labels, images, method=chosen.method, **shared)
    figure.savefig(run / "embeddings.png", dpi=120)
    say(f"{run / 'embeddings.png'}: the embeddings in a plane ({chosen.method})")
    say(f"tensorboard --logdir {run / 'logs'}: the same in three dimensions, under Projector")
