"""`keras-metric index`: the images of a folder, ready to be searched."""

from pathlib import Path

from keras_metric import data, search
from keras_metric.cli.images import read_images
from keras_metric.cli.messages import say
from keras_metric.cli.run_folder import trained


def index(chosen):
    """Enrol every image of a folder, so that `search` finds it."""
    encoder, settings = trained(chosen.run)
    paths, labels, names = data.image_paths(chosen.folder)
    images = read_images(paths, settings["image_size"], settings["color"])
    enrolled = search.Index(encoder=encoder, description=f"Images of {chosen.folder}")
    embeddings = encoder.predict(images, verbose=0)
    enrolled.add(embeddings, [names[label] for label in labels], ids=paths)
    enrolled.save(Path(chosen.run) / "index")
    say(f"{len(paths):,} images of {len(names):,} classes are in {Path(chosen.run) / 'index'}")
    say("Next: keras-metric search IMAGE")
