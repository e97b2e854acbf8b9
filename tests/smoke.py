"""Test of an installed package outside its repository: `make package` runs it in an empty venv."""

import importlib.metadata
import importlib.resources
import pathlib
import subprocess
import sys

import keras
import numpy as np

import keras_metric


def main():
    file = pathlib.Path(keras_metric.__file__).resolve()
    installed = pathlib.Path(sys.prefix).resolve()
    assert installed in file.parents, f"{file} is not the installed package"
    assert importlib.metadata.version("keras_metric") == keras_metric.__version__
    assert importlib.resources.files("keras_metric").joinpath("py.typed").is_file()
    assert not (file.parents[1] / "tests").exists(), "tests must not be installed"

    rng = np.random.default_rng(0)
    y = np.arange(64) % 8
    x = rng.normal(y[:, None], size=(64, 4)).astype("float32")
    model = keras_metric.TripletModel(keras.layers.Dense(8), embedding_dim=4)
    batches = keras_metric.data.BalancedBatches(x, y, 4, 4, seed=0)
    history = model.fit(batches, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    z = model.predict(x, verbose=0)
    metrics = keras_metric.evaluation.retrieval_metrics(z, y, k=1)
    index = keras_metric.search.Index(4)
    index.add(z, y)
    assert index.search(z[:1], k=1)[0][0].label == y[0]
    figure = keras_metric.viz.plot_embeddings(z, y)
    assert figure.axes
    command = pathlib.Path(sys.executable).with_name("keras-metric")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "train" in shown.stdout and not shown.stderr
    print(f"keras_metric {keras_metric.__version__}: recall@1 {metrics['recall_at_1']:.2f}")


if __name__ == "__main__":
    main()
