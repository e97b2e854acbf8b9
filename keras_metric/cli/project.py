"""`keras-metric project`: embeddings drawn in a plane and for TensorBoard."""

from pathlib import Path

from keras_metric import data, viz
from keras_metric.cli.images import read_images
from keras_metric.cli.messages import say
from keras_metric.cli.run_folder import trained


def project(chosen):
    """Draw the embeddings of a folder, in a picture and for TensorBoard's projector."""
    encoder, settings = trained(chosen.run)
    paths, labels, names = data.image_paths(chosen.folder)
    images = read_images(paths, settings["image_size"], settings["color"])
    embeddings = encoder.predict(images, verbose=0)
    run = Path(chosen.run)
    shared = {"class_names": names, "max_points": chosen.max_points}
    viz.write_projector(run / "logs", embeddings, labels, images, name="images", **shared)
    shared["max_points"] = min(chosen.max_points, 2000)
    figure = viz.plot_embeddings(embeddings, labels, images, method=chosen.method, **shared)
    figure.savefig(run / "embeddings.png", dpi=120)
    say(f"{run / 'embeddings.png'}: the embeddings in a plane ({chosen.method})")
    say(f"tensorboard --logdir {run / 'logs'}: the same in three dimensions, under Projector")
