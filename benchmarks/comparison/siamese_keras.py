"""Siamese network for digits with only Keras.

    python siamese_keras.py mnist.npz EPOCHS SEED

Like https://keras.io/examples/vision/siamese_contrastive/: pairs are sampled once, two inputs share
a network, a layer computes their distance, and a sigmoid unit classifies it.
"""

import sys

import keras
import numpy as np
from keras import layers, ops
from sklearn.neighbors import NearestNeighbors

MARGIN = 1.0

data, epochs, seed = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
x, x_test = (data[name][..., None] / np.float32(255) for name in ("x_train", "x_test"))
keras.utils.set_random_seed(seed)


def make_pairs(images, labels):
    """Pair each image of the first half alternately with the same and with another digit."""
    rows_of = [np.flatnonzero(labels == digit) for digit in range(10)]
    second, targets = [], []
    half = len(images) // 2
    for row in range(half):
        different = row % 2
        digit = labels[row]
        if different:
            digit = (digit + np.random.randint(1, 10)) % 10
        second.append(np.random.choice(rows_of[digit]))
        targets.append(different)
    return images[:half], images[second], np.array(targets, "float32")


def euclidean_distance(branches):
    first, second = branches
    squared = ops.sum(ops.square(first - second), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(squared, keras.config.epsilon()))


def contrastive_loss(different, distance):
    positive = (1 - different) * ops.square(distance)
    negative = different * ops.square(ops.maximum(MARGIN - distance, 0))
    return ops.mean(positive + negative)


embedding_network = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(32),
    ]
)
first, second = layers.Input((28, 28, 1)), layers.Input((28, 28, 1))
distance = layers.Lambda(euclidean_distance, output_shape=(1,))(
    [embedding_network(first), embedding_network(second)]
)
output = layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(distance))
siamese = keras.Model([first, second], output)
siamese.compile(keras.optimizers.Adam(1e-3), contrastive_loss)
first_images, second_images, different = make_pairs(x, data["y_train"].astype("int64"))
siamese.fit([first_images, second_images], different, batch_size=64, epochs=epochs, verbose=0)

embeddings = embedding_network.predict(x_test, verbose=0)
# The first neighbor is the image itself.
neighbors = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(embeddings)
nearest = neighbors.kneighbors(embeddings, return_distance=False)[:, 1]
print(f"recall@1 {np.mean(data['y_test'][nearest] == data['y_test']):.4f}")
