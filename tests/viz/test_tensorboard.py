"""A TensorBoard server reads the files of RetrievalEvaluator."""

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.callbacks import RetrievalEvaluator
from keras_metric.callbacks._tensorboard_log import PLOTS, TensorBoardLog

pytest.importorskip("tensorboard")
DEADLINE = 90  # seconds for the server to start and to find its plugins


class Server:
    """A TensorBoard process on a free loopback port."""

    def __init__(self, log_dir, output):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
        command += ["--host", "127.0.0.1", "--port", port, "--load_fast=false"]
        self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.deadline = time.monotonic() + DEADLINE

    def get(self, path, **query):
        url = f"{self.address}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read()

    def wait_for(self, path, holds, **query):
        """Repeat a request until `holds(answer)`, and fail after the deadline."""
        answer = None
        while time.monotonic() < self.deadline:
            if self.process.poll() is not None:
                pytest.fail(f"TensorBoard ended with status {self.process.returncode}")
            # The server has not started yet, or has not read the folder.
            with contextlib.suppress(OSError, urllib.error.URLError):
                answer = json.loads(self.get(path, **query))
                if holds(answer):
                    return answer
            time.sleep(0.3)
        pytest.fail(f"{path} did not come true in {DEADLINE} s; the last answer was {answer}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _digits):
    """The folder of a training, its embeddings and labels, and the callback."""
    images, labels = (part[:60] for part in _digits)
    log_dir = tmp_path_factory.mktemp("board")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])
    model.compile("sgd", "mse", run_eagerly=True)
    settings = dict(plots=["distance_history", "neighbors"], class_names="ABCDEFGHIJ")
    evaluator = RetrievalEvaluator(images, labels, log_dir=log_dir, at_start=True, **settings)
    model.fit(images, np.zeros((60, 5)), epochs=3, callbacks=[evaluator], verbose=0)
    return log_dir, model.predict(images, verbose=0), labels, evaluator


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "output"
    with open(path, "wb") as output:
        server = Server(trained[0], output)
        try:
            yield server
        finally:
            server.stop()


def test_projector_serves_tensors_labels_and_thumbnails(server, trained, _digits):
    server.wait_for("data/plugins_listing", lambda plugins: plugins["projector"]["enabled"])
    assert server.wait_for("data/plugin/projector/runs", bool) == ["."]
    info = json.loads(server.get("data/plugin/projector/info", run="."))
    assert [entry["tensorName"] for entry in info["embeddings"]] == ["val_start", "val"]
    assert all(entry["tensorShape"] == [60, 5] for entry in info["embeddings"])

    def get(name, **query):
        return server.get(f"data/plugin/projector/{name}", run=".", name="val", **query)

    tensor = np.frombuffer(get("tensor", num_rows=100), "<f4").reshape(60, 5)
    np.testing.assert_allclose(tensor, trained[1], rtol=1e-5)
    labels = get("metadata", num_rows=100).decode().split()
    assert labels == ["ABCDEFGHIJ"[label] for label in trained[2]]
    with Image.open(io.BytesIO(get("sprite_image"))) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (64, 64)  # eight by eight thumbnails of eight by eight pixels
    np.testing.assert_allclose(sheet[8:16, 8:16], 255 * _digits[0][9, ..., 0], atol=0.6)


def test_scalars_and_plots_are_served(server, trained):
    tags = server.wait_for(
        "data/plugin/scalars/tags", lambda tags: "val_recall_at_1" in tags.get(".", {})
    )
    assert {"val_recall_at_5", "val_map_at_r", "val_r_precision"} <= set(tags["."])
    points = json.loads(server.get("data/plugin/scalars/scalars", run=".", tag="val_recall_at_1"))
    evaluator = trained[3]
    assert [step for _, step, _ in points] == evaluator.history["epoch"] == [0, 1, 2, 3]
    values = [value for _, _, value in points]
    np.testing.assert_allclose(values, evaluator.history["recall_at_1"], rtol=1e-6)
    plots = json.loads(server.get("data/plugin/images/tags"))["."]
    assert {"val_distance_history", "val_neighbors"} <= set(plots)
    listed = json.loads(
        server.get("data/plugin/images/images", run=".", tag="val_neighbors", sample=0)
    )
    assert server.get(f"data/plugin/images/individualImage?{listed[0]['query']}").startswith(
        b"\x89PNG"
    )


def written(folder):
    """The values in the one event file of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (path,) = folder.glob("events.out.tfevents.*")
    return [value for event in EventFileLoader(str(path)).Load() for value in event.summary.value]


def test_every_plot_can_be_written(tmp_path, _digits):
    images, labels = (part[:40] for part in _digits)
    log = TensorBoardLog(tmp_path, None, 100, PLOTS, "euclidean")
    log.write_embeddings("val", images.reshape(40, -1), labels, images, 7)
    log.close()
    values = written(tmp_path)
    assert {value.tag for value in values} == {f"val_{name}" for name in PLOTS}
    assert all(value.tensor.string_val[2].startswith(b"\x89PNG") for value in values)


def test_a_history_restarts_if_the_order_of_the_items_changes(tmp_path):
    x, labels = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    log = TensorBoardLog(tmp_path, None, 100, ["distance_history"], "euclidean")
    for step, order in ((1, labels), (2, labels), (3, 1 - labels)):
        log.write_embeddings("val", x, order, None, step)
        assert list(log.past["val"][1]) == [[1], [1, 2], [3]][step - 1]
    log.close()
    assert not log.past


@pytest.mark.parametrize(
    "labels", [np.arange(5000) % 10, np.arange(1000) // 2, np.arange(1200) % 300], ids=str
)
def test_the_history_of_many_items_holds_whole_classes(tmp_path, labels):
    x = np.random.default_rng(0).normal(size=(len(labels), 3))
    log = TensorBoardLog(tmp_path, None, 100, ["distance_history"], "euclidean")
    log.write_embeddings("val", x, labels, None, 1)
    kept, past = log.past["val"]
    log.close()
    counts = np.unique(kept, return_counts=True)[1]
    assert len(counts) >= 2 and counts.min() >= 2
    assert 500 <= len(kept) <= 510 and len(past[1]) == len(kept)


def test_an_impossible_plot_gives_a_warning(tmp_path):
    log = TensorBoardLog(tmp_path, None, 100, ["distances", "similarity"], "euclidean")
    with pytest.warns(UserWarning, match="No plot val_distances was written: .*two items"):
        log.write_embeddings("val", np.eye(4), np.arange(4), None, 1)
    log.close()
    assert [value.tag for value in written(tmp_path)] == ["val_similarity"]


def test_plots_use_the_metric_of_the_evaluation(tmp_path):
    """The first two items agree by cosine, and the last two by Euclidean distance."""
    x, labels = np.array([[1.0, 0.0], [9.0, 0.0], [9.0, 2.0], [0.0, 1.0]]), np.array([0, 0, 1, 1])
    figures = {
        (metric, plot): TensorBoardLog(tmp_path, None, 100, [plot], metric).figure_of(
            plot, "val", x, labels, None, 1
        )
        for metric in ("cosine", "euclidean")
        for plot in ("confusions", "distances")
    }
    assert "75.0%" in figures["cosine", "confusions"].axes[0].get_title()
    assert " 0.0%" in figures["euclidean", "confusions"].axes[0].get_title()
    assert figures["cosine", "distances"].axes[0].get_xlabel() == "cosine distance"


def test_names_of_plots():
    x, y = np.eye(4), [0, 0, 1, 1]
    with pytest.raises(ValueError, match="distance_history"):
        RetrievalEvaluator(x, y, plots=["neighbours"])
    with pytest.raises(TypeError, match="list of names"):
        RetrievalEvaluator(x, y, plots="neighbors")
