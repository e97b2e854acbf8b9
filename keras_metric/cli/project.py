"""`keras-metric project`: a plot of embeddings, and data for TensorBoard's projector."""

from pathlib import Path

import numpy as np

from keras_metric import viz
from keras_metric.cli.listing import list_folder, read_listing
from keras_metric.cli.messages import show
from keras_metric.cli.run_folder import trained


def project(chosen):
    """Plot the embeddings of a folder, and write them for TensorBoard's projector."""
    encoder, settings = trained(chosen.run)
    listed = list_folder(chosen.folder, chosen.run, flat=True)
    size, color = settings["image_size"], settings["color"]
    images, listed = read_listing(listed, size, color, chosen.skip_broken)
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
    if labels is None:  # FOLDER has no classes: all points have one colour
        labels, shared["class_names"] = np.zeros(len(images), int), ["without classes"]
    figure = viz.plot_embeddings(embeddings, labels, images, method=chosen.method, **shared)
    figure.savefig(run / "embeddings.png", dpi=120)
    show(f"{run / 'embeddings.png'}: the embeddings in a plane ({chosen.method})")
    show(f"tensorboard --logdir {run / 'logs'}: the same in three dimensions, under Projector")
