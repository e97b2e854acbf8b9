"""Siamese network for digits with keras_metric.

    python siamese_keras_metric.py mnist.npz EPOCHS SEED

The loss uses every pair of a batch.
"""

import sys

import keras
import numpy as np
from keras import layers

from keras_metric import SiameseModel, evaluation

data, epochs, seed = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
x, x_test = (data[name][..., None] / np.float32(255) for name in ("x_train", "x_test"))
keras.utils.set_random_seed(seed)

backbone = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
    ]
)
model = SiameseModel(backbone, embedding_dim=32)
model.fit(x, data["y_train"], batch_size=128, epochs=epochs, verbose=0)

embeddings = model.predict(x_test, verbose=0)
found = evaluation.retrieval_metrics(embeddings, data["y_test"], k=1, measures="recall")
print(f"recall@1 {found['recall_at_1']:.4f}")
