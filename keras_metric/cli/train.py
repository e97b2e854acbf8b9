"""`keras-metric train`: train an encoder on a folder of images."""

import inspect
import json
import os
import time
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_metric import callbacks, data, losses, viz
from keras_metric.cli.listing import list_folder, read_listing, usual_color, usual_size
from keras_metric.cli.messages import UserError, note, show
from keras_metric.cli.retrieval_table import METRIC, evaluate_vectors, show_table
from keras_metric.cli.run_folder import NEW, check_input, load_model, locked
from keras_metric.models import EmbeddingModel
from keras_metric.models.model_card import model_card
from keras_metric_command import BACKBONES, ENOUGH_CLASSES


def train(chosen):
    """Train an encoder on a folder that has one folder of images for each class."""
    listed = list_folder(chosen.folder, chosen.run)
    with locked(Path(chosen.run)):
        _train(chosen, listed)


def _train(chosen, listed):
    start = time.perf_counter()
    run = Path(chosen.run)
    # Raises for too few classes before the images are read.
    _split(listed.labels, listed.names, chosen.split, chosen.seed)
    size = chosen.image_size or usual_size(listed.paths, 96 if chosen.backbone == "small" else 160)
    color = usual_color(listed.paths) if chosen.color == "auto" else chosen.color
    if chosen.backbone in BACKBONES:
        color = "rgb"
    keras.utils.set_random_seed(chosen.seed)
    backbone = _backbone(chosen, size, 1 if color == "grayscale" else 3)
    images, listed = read_listing(listed, size, color, chosen.skip_broken)
    paths, labels, names, _ = listed
    kept, held = _split(labels, names, chosen.split, chosen.seed)
    by_class = not set(labels[kept]) & set(labels[held])
    loss = _loss(chosen, len(set(labels[kept])))
    show(
        f"{listed.text()}, read as {size} x {size} {color}; {len(held):,} held out, "
        + ("from classes that are not trained on" if by_class else "from the same classes")
    )
    x, y, x_held, y_held = images[kept], labels[kept], images[held], labels[held]

    batches = _batches(chosen, x, y)
    model = EmbeddingModel(backbone, embedding_dim=chosen.embedding_dim)
    rate = chosen.learning_rate or (1e-3 if chosen.backbone == "small" else 1e-4)
    schedule = keras.optimizers.schedules.CosineDecay(rate, chosen.epochs * len(batches))
    model.compile(keras.optimizers.Adam(schedule), loss)
    before = model.encoder.predict(x_held, verbose=0)
    model.encoder.save(run / "new.untrained.keras")
    # For the log only: the encoder of the last epoch is saved.
    subset = slice(None, None, -(-len(x_held) // 2000))
    evaluator = callbacks.RetrievalEvaluator(
        *(x_held[subset], y_held[subset]),
        metric=METRIC,
        name="held_out",
        log_dir=run / "logs",
        class_names=names,
    )
    report = keras.callbacks.LambdaCallback(on_epoch_end=_epoch_reporter(chosen.epochs))
    model.fit(batches, epochs=chosen.epochs, callbacks=[evaluator, report], verbose=0)
    after = model.encoder.predict(x_held, verbose=0)
    if not np.isfinite(after).all():
        raise UserError(
            "Training diverged: the encoder returns NaN or infinity. Lower --learning-rate "
            f"({rate:g}) or choose another --loss. Nothing was saved."
        )

    numbers = {
        "raw pixels": evaluate_vectors(x_held, y_held),
        "untrained encoder": evaluate_vectors(before, y_held),
        "trained encoder": evaluate_vectors(after, y_held),
    }
    show_table(numbers)
    settings = {
        "folder": str(Path(chosen.folder).resolve()),
        "image_size": size,
        "color": color,
        "held_out": {str(Path(paths[row]).resolve()): names[labels[row]] for row in held},
        "trained_on": [str(Path(paths[row]).resolve()) for row in kept],
    }
    # All new files are complete before the first one replaces a file of an earlier run.
    model.encoder.save(run / "new.encoder.keras")
    (run / "new.run.json").write_text(json.dumps(settings, indent=1), "utf-8")
    for name in NEW:
        os.replace(run / name, run / name.removeprefix("new."))
    verdict = _verdict(numbers["raw pixels"], numbers["trained encoder"])
    notes = [verdict] if verdict else []
    if not by_class:
        notes.append("Evaluated on the training classes; results on new classes can be worse.")
    card = model_card(
        Path(chosen.folder).resolve().name,
        {
            "images": f"{len(paths):,}, of which {len(held):,} held out",
            "classes": f"{len(names):,}",
            "held out": "whole classes" if by_class else "images of the training classes",
            "compared by": f"{METRIC} distance",
            "read as": f"{size} x {size} pixels, {color}, values 0 to 255",
        },
        names,
        {
            "network": f"{chosen.backbone}, weights {chosen.weights}",
            "embedding": f"{model.encoder.width} dimensions, L2-normalized",
            "loss": type(model.loss).__name__,
            "batches": f"{chosen.epochs} epochs of {len(batches)}, {len(batches[0][1])} images",
            "augmentation": chosen.augment + (", horizontal flips" if chosen.flip else ""),
            "learning rate": f"{rate:g} with cosine decay to 0",
            "seed": chosen.seed,
        },
        numbers,
        notes,
    )
    (run / "model_card.md").write_text(card, "utf-8")
    figure = viz.plot_neighbors(x_held, y_held, after, class_names=names, metric=METRIC)
    figure.savefig(run / "neighbors.png")
    if verdict:
        show(verdict)
    show(
        f"{run}: encoder.keras (and untrained.keras), model_card.md, neighbors.png and logs for "
        "TensorBoard"
    )
    options = " --skip-broken" if chosen.skip_broken else ""
    show(f"{time.perf_counter() - start:.0f} s. Next: keras-metric index {chosen.folder}{options}")


def _split(labels, names, how, seed):
    """Return the rows to train on and the held-out rows."""
    if len(names) < 2:
        raise UserError(f"Training needs at least two classes; the folder has {len(names)}.")
    if how == "classes" or (how == "auto" and len(names) >= ENOUGH_CLASSES):
        if len(names) < 4:
            way_out = "Use --split images."
            raise UserError(f"--split classes needs 4 classes; there are {len(names)}. {way_out}")
        kept, held = data.split_by_class(labels, test_size=max(0.25, 2 / len(names)), seed=seed)
        if np.bincount(labels[held]).max() < 2:
            raise UserError("Training needs held-out classes of two images or more.")
        return kept, held
    rng = np.random.default_rng(seed)
    held = []
    for label in range(len(names)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # Hold out at least two images, which are matches of each other, and train on at least two.
        if len(rows) >= 4:
            held.append(rows[: max(2, len(rows) // 4)])
    if len(held) < 2:
        raise UserError("Training needs two classes of four images or more.")
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held), held


def _loss(chosen, num_classes):
    loss = getattr(losses, chosen.loss)
    needed = inspect.signature(loss).parameters.get("num_classes")
    return loss(num_classes) if needed and needed.default is needed.empty else loss()


def _backbone(chosen, size, channels):
    shape = (size, size, channels)
    if chosen.backbone == "small":
        return _small(shape)
    if chosen.backbone.endswith(".keras"):
        model = load_model(chosen.backbone)
        color = "grayscale" if channels == 1 else "rgb"
        what = f"--backbone {chosen.backbone} does not fit --image-size {size} --color {color}: it"
        check_input(model, size, color, what)
        return model
    weights = None if chosen.weights == "none" else chosen.weights
    build = getattr(keras.applications, chosen.backbone)
    try:
        return build(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:  # Keras raises Exception if a download fails.
        raise UserError(f"{chosen.backbone} with weights {weights}: {error}") from error


def _small(shape):
    """Return a network of four strided convolutions.

    It has no average pooling, since the positions of strokes matter in small images.
    """
    layers = [keras.layers.Input(shape), keras.layers.Rescaling(1 / 255)]
    for filters in (32, 64, 128, 128):
        layers += [
            keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.95),
            keras.layers.ReLU(),
        ]
    return keras.Sequential([*layers, keras.layers.Flatten()], name="small")


def _batches(chosen, x, y):
    num_classes = len(set(y.tolist()))
    classes = min(num_classes, chosen.classes_per_batch or 16)
    samples = chosen.samples_per_class or int(np.clip(64 // classes, 4, 16))
    steps = chosen.steps or int(np.clip(len(x) // (classes * samples), 20, 200))
    layers, fill = [], {"fill_mode": "nearest", "seed": chosen.seed % 2**31}
    if chosen.augment == "light":
        layers += [
            keras.layers.RandomRotation(0.03, **fill),
            keras.layers.RandomTranslation(0.08, 0.08, **fill),
            keras.layers.RandomZoom((-0.1, 0.1), (-0.1, 0.1), **fill),
        ]
    if chosen.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=fill["seed"]))
    augment = keras.Sequential(layers) if layers else None
    small = int((np.bincount(y)[np.unique(y)] < samples).sum())
    if samples == 1:
        note("--samples-per-class 1 leaves pair and triplet losses without pairs of one class")
    elif small and augment is None:
        note(
            f"{small:,} of {num_classes:,} classes have fewer training images than the {samples} "
            "of a batch (--samples-per-class): images repeat without augmentation"
        )
    with warnings.catch_warnings():
        # The warnings of BalancedBatches name Python arguments instead of options.
        warnings.simplefilter("ignore", UserWarning)
        return data.BalancedBatches(
            *(x, y, classes, samples, steps), seed=chosen.seed, augment=augment
        )


def _epoch_reporter(epochs):
    start = time.perf_counter()

    def report(epoch, logs):
        show(
            f"epoch {epoch + 1}/{epochs}: loss {logs['loss']:.4f}, held-out recall@1 "
            f"{logs['held_out_recall_at_1']:.3f}, {time.perf_counter() - start:.0f} s"
        )

    return report


def _verdict(raw, trained):
    """Return a sentence if the encoder is not better than raw pixels in both metrics, else ""."""
    worse = [name for name in ("recall_at_1", "map_at_r") if trained[name] <= raw[name]]
    if len(worse) == 2:
        return "It is not better than raw pixels: more classes, images or epochs may help."
    return f"It is not better than raw pixels in {worse[0]}." if worse else ""
