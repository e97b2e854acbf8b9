"""Training scripts for tensorflow-addons; a test replaces their import line.

`python addons_script.py` prints a JSON object: for each loss the values of 20 steps and the final
weights.
"""

import json

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

STEPS, BATCH, DIM = 20, 24, 10

random = np.random.RandomState(0)
centres = random.normal(size=(5, DIM))
# Some classes have one item in a batch, or none.
labels = random.choice(5, p=[0.4, 0.3, 0.15, 0.1, 0.05], size=(STEPS, BATCH))
points = (centres[labels] + random.normal(size=(STEPS, BATCH, DIM))).astype("float32")
others = (centres[labels] + random.normal(size=(STEPS, BATCH, DIM))).astype("float32")
same = random.randint(0, 2, size=(STEPS, BATCH))
several = (random.uniform(size=(STEPS, BATCH, 6)) < 0.3).astype("int64")
several[:, :, 0] |= several.sum(-1) == 0


def network(normalize=True, dtype=None):
    """Return a model with the same initial weights on every call."""
    layers = [
        tf.keras.Input((DIM,)),
        tf.keras.layers.Dense(16, activation="tanh", dtype=dtype),
        tf.keras.layers.Dense(6, dtype=dtype),
    ]
    if normalize:
        layers.append(
            tf.keras.layers.Lambda(lambda x: tf.math.l2_normalize(x, axis=1), dtype=dtype)
        )
    model = tf.keras.Sequential(layers)
    random = np.random.RandomState(1)
    model.set_weights([0.4 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


def batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).repeat()


def result(model, values):
    weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
    return {"losses": [float(v) for v in values], "weights": weights.tolist()}


def fit(loss, learning_rate=0.3, **settings):
    """Embeddings and labels, by compile and fit."""
    model = network(**settings)
    model.compile(optimizer=tf.keras.optimizers.SGD(learning_rate), loss=loss)
    history = model.fit(
        batches(points, labels), epochs=STEPS, steps_per_epoch=1, shuffle=False, verbose=0
    )
    return result(model, history.history["loss"])


def fit_pairs(loss):
    """Two branches and their distance."""
    model = network()
    first, second = tf.keras.Input((DIM,)), tf.keras.Input((DIM,))
    distance = tf.keras.layers.Lambda(lambda pair: tf.norm(pair[0] - pair[1], axis=1))
    siamese = tf.keras.Model([first, second], distance([model(first), model(second)]))
    siamese.compile(optimizer=tf.keras.optimizers.SGD(0.3), loss=loss)
    history = siamese.fit(
        batches((points, others), same), epochs=STEPS, steps_per_epoch=1, shuffle=False, verbose=0
    )
    return result(model, history.history["loss"])


def loop(loss, targets):
    """Train on the similarities of anchors and positives, in a custom loop."""
    model = network(normalize=False)
    optimizer = tf.keras.optimizers.SGD(0.1)
    values = []
    for x, y, target in zip(points, others, targets):
        with tf.GradientTape() as tape:
            similarities = tf.matmul(model(x), model(y), transpose_b=True)
            value = loss(target, similarities)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        values.append(value)
    return result(model, values)


def city_block(x):
    return tf.reduce_sum(tf.abs(x[:, None] - x[None, :]), axis=-1)


SCRIPTS = {
    "semi-hard": lambda: fit(tfa.losses.TripletSemiHardLoss()),
    "semi-hard, squared": lambda: fit(
        tfa.losses.TripletSemiHardLoss(margin=0.5, distance_metric="squared-L2")
    ),
    "semi-hard, angular": lambda: fit(
        tfa.losses.TripletSemiHardLoss(0.3, distance_metric="angular"), normalize=False
    ),
    "semi-hard, callable": lambda: fit(
        tfa.losses.TripletSemiHardLoss(distance_metric=city_block), learning_rate=0.1
    ),
    "semi-hard, function": lambda: fit(tfa.losses.triplet_semihard_loss),
    "semi-hard, half": lambda: fit(tfa.losses.TripletSemiHardLoss(), dtype="mixed_bfloat16"),
    "hard": lambda: fit(tfa.losses.TripletHardLoss()),
    "hard, soft": lambda: fit(tfa.losses.TripletHardLoss(soft=True, distance_metric="squared-L2")),
    "lifted": lambda: fit(tfa.losses.LiftedStructLoss(), learning_rate=0.01, normalize=False),
    "contrastive": lambda: fit_pairs(tfa.losses.ContrastiveLoss()),
    "contrastive, wide": lambda: fit_pairs(tfa.losses.ContrastiveLoss(margin=2.0)),
    "n-pairs": lambda: loop(tfa.losses.NpairsLoss(), labels),
    "n-pairs, function": lambda: loop(tfa.losses.npairs_loss, labels),
    "n-pairs, several labels": lambda: loop(tfa.losses.NpairsMultilabelLoss(), several),
    "n-pairs, sparse": lambda: loop(
        tfa.losses.NpairsMultilabelLoss(), map(tf.sparse.from_dense, several)
    ),
}

if __name__ == "__main__":
    print(json.dumps({name: script() for name, script in SCRIPTS.items()}))
