"""Script of test_replicas.py: train every model on every form of batch, write NPZ.

    python forms_child.py DEVICES OUT

DEVICES is the number of devices of tf.distribute. Ten steps of SGD on batches of 24, 9, 8, ... 1
items, so that up to three of four replicas have no item. The file contains for each form the
weights before training, after the first step and at the end, the mean loss of `fit`, and the loss
of `evaluate`.
"""

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf

DEVICES = int(sys.argv[1])
STRATEGY = contextlib.nullcontext
if DEVICES > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * DEVICES
    tf.config.set_logical_device_configuration(cpu, parts)
    mirrored = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])
    STRATEGY = mirrored.scope

from keras_metric import losses, models  # noqa: E402

SIZES = (24, 9, 8, 7, 6, 5, 4, 3, 2, 1)
CLASSES, SIDE, RATE = 6, 5, 0.1
PAIR, TRIPLET = ("first", "second"), ("anchor", "positive", "negative")
QUADRUPLET = (*TRIPLET, "second_negative")
TWO_ANCHORS = ("anchor", "second_anchor", "positive", "negative")


def backbone():
    return keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(16, "tanh")])


def embedding(loss=None):
    model = models.EmbeddingModel(backbone(), 8)
    model.compile(loss=loss or losses.TripletLoss())
    return model


def towers(loss=None):
    model = models.TwoTowerModel(backbone(), backbone(), embedding_dim=8)
    model.compile(loss=loss or losses.ClipLoss())
    return model


def two_anchors():
    model = models.QuadrupletModel(backbone(), embedding_dim=8)
    model.compile(loss=losses.QuadrupletLoss(form="two_anchors"))
    return model


# The model, the names of its branches (empty for a labelled batch), and the kind of y.
FORMS = {
    "labels": (embedding, (), "ids"),
    "pairs": (lambda: models.SiameseModel(backbone(), embedding_dim=8), PAIR, "same"),
    "triplets": (lambda: models.TripletModel(backbone(), embedding_dim=8), TRIPLET, None),
    "quadruplets": (lambda: models.QuadrupletModel(backbone(), embedding_dim=8), QUADRUPLET, None),
    "two anchors": (two_anchors, TWO_ANCHORS, None),
    "positive pairs": (lambda: embedding(losses.NTXentLoss()), ("anchor", "positive"), None),
    "views": (lambda: embedding(losses.VICRegLoss()), PAIR, None),
    "views with ids": (lambda: embedding(losses.SupConLoss()), PAIR, "ids"),
    "graded": (lambda: embedding(losses.CosineRegressionLoss()), PAIR, "same"),
    "towers": (towers, PAIR, None),
    "towers with ids": (towers, PAIR, "ids"),
    "towers, SigLIP": (lambda: towers(losses.SigLipLoss()), PAIR, None),
}


def batches(names, y):
    rng = np.random.default_rng(7)
    for size in SIZES:
        ids = rng.integers(0, CLASSES, size).astype("int32")
        x = [
            rng.normal(ids[:, None] % 3, 1.0, (size, SIDE)).astype("float32") for _ in names or "x"
        ]
        x = dict(zip(names, x)) if names else x[0]
        if y is None:
            yield (x,)
        else:
            yield x, ids if y == "ids" else (ids % 2).astype("float32")


def data_of(steps):
    signature = keras.tree.map_structure(
        lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), steps[0]
    )
    data = tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=signature)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.with_options(options)


def weights(model):
    return [keras.ops.convert_to_numpy(weight.value) for weight in model.trainable_variables]


found = {}
for name, (make, names, y) in FORMS.items():
    with STRATEGY():
        keras.utils.set_random_seed(1)
        model = make()
        model.compile(keras.optimizers.SGD(RATE), model.loss, run_eagerly=DEVICES == 1)
    steps = list(batches(names, y))
    before = weights(model)
    loss = model.fit(data_of(steps[:1]), verbose=0).history["loss"][0]
    first = weights(model)
    rest = model.fit(data_of(steps), verbose=0).history["loss"][0]
    last = weights(model)
    found[f"{name}|loss"] = np.array([loss, rest, model.evaluate(data_of(steps), verbose=0)])
    for kind, values in (("before", before), ("first", first), ("last", last)):
        found.update({f"{name}|{kind}|{i}": value for i, value in enumerate(values)})
np.savez(sys.argv[2], **found)
