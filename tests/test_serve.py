"""examples/serve.py as a process of its own, over HTTP with a real client."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.search import Index

httpx = pytest.importorskip("httpx", reason='needs pip install "keras_metric[dev]"')
pytest.importorskip("fastapi", reason='needs pip install "keras_metric[serve]"')
pytest.importorskip("uvicorn", reason='needs pip install "keras_metric[serve]"')

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "serve.py"
PNG = {"Content-Type": "image/png"}


def picture(seed, size=(16, 16), kind="PNG"):
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def start(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--encoder", folder / "encoder.keras", "--index", folder / "people"]
    arguments += ["--threshold", "1e-4", "--port", str(port), "--max-bytes", "100000"]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        stderr=subprocess.PIPE,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(process.stderr.read().decode())
        try:
            client.get("/")
            return process, client
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the service did not start in a minute")


def stop(process, client, how):
    client.close()
    process.send_signal(how)
    process.wait(30)
    process.stderr.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255, offset=-0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(16),
        ]
    )
    encoder.save(folder / "encoder.keras")
    return folder


@pytest.fixture(scope="module")
def service(folder):
    process, client = start(folder)
    yield client
    stop(process, client, signal.SIGTERM)
    # On its way out it folded its journal in.
    index = Index.load(folder / "people")
    assert len(index) > 0 and not list((folder / "people").glob("*.new"))


def test_enrol_identify_verify_forget(service):
    enrolled = service.post("/enrol?label=ann", content=picture(1), headers=PNG)
    assert enrolled.status_code == 201 and enrolled.json()["label"] == "ann"
    key = enrolled.json()["id"]
    jpeg = {"Content-Type": "image/jpeg; charset=binary"}
    named = {"label": "bob", "id": "b/1"}
    bob = service.post("/enrol", params=named, content=picture(2, kind="JPEG"), headers=jpeg)
    assert bob.json() == {"id": "b/1", "label": "bob"}
    found = service.post("/identify", content=picture(1), headers=PNG).json()
    assert found["label"] == "ann" and found["distance"] == pytest.approx(0, abs=1e-6)
    stranger = service.post("/identify", content=picture(3), headers=PNG).json()
    assert stranger["label"] is None and stranger["distance"] > 1e-4
    verify = f"/verify?id={key}"
    assert service.post(verify, content=picture(1), headers=PNG).json()["same"] is True
    assert service.post(verify, content=picture(2), headers=PNG).json()["same"] is False
    assert service.delete(f"/items/{key}").status_code == 204
    assert service.post("/identify", content=picture(1), headers=PNG).json()["label"] is None
    assert service.delete("/labels/bob").status_code == 204
    assert service.post("/enrol?label=carl", content=picture(4), headers=PNG).status_code == 201


def test_what_is_wrong_is_the_clients(service):
    before = service.get("/").json()

    def post(path, content, kind="image/png"):
        return service.post(path, content=content, headers={"Content-Type": kind}).status_code

    good = picture(5)
    assert post("/enrol", good) == 422
    assert post("/enrol?label=", good) == 422
    assert post(f"/enrol?label={'x' * 201}", good) == 422
    assert post("/identify", good, "text/plain") == 415
    assert post("/identify", good, "image/jpeg") == 422
    assert post("/identify", b"not a picture") == 422
    assert post("/identify", b"") == 422
    assert post("/identify", good[: len(good) // 2]) == 422
    assert post("/identify", b"x" * 100_001) == 413
    assert post("/verify?id=nobody", good) == 404
    # Sent in pieces, without a length that could be refused at once.
    assert post("/identify", (b"x" * 1000 for _ in range(200))) == 413
    huge = io.BytesIO()
    Image.new("1", (6000, 6000)).save(huge, "PNG")
    assert len(huge.getvalue()) < 100_000
    assert post("/identify", huge.getvalue()) == 413
    assert service.delete("/items/nobody").status_code == 404
    assert service.delete("/labels/nobody").status_code == 404
    assert service.get("/enrol").status_code == 405
    service.post("/enrol?label=dora&id=d", content=good, headers=PNG)
    assert post("/enrol?label=dora&id=d", good) == 409
    service.delete("/items/d")
    assert service.get("/").json() == before


def test_many_at_once_get_their_own_answers(service):
    pictures = [picture(100 + n) for n in range(40)]

    async def work():
        async with httpx.AsyncClient(base_url=service.base_url, timeout=60) as client:
            await asyncio.gather(
                *[
                    client.post(f"/enrol?label=p{n}", content=data, headers=PNG)
                    for n, data in enumerate(pictures)
                ]
            )
            found = await asyncio.gather(
                *[client.post("/identify", content=data, headers=PNG) for data in pictures]
            )
            return [answer.json()["label"] for answer in found]

    assert asyncio.run(work()) == [f"p{n}" for n in range(40)]


@pytest.mark.slow
def test_a_kill_loses_nobody(folder):
    other = folder / "killed"
    other.mkdir()
    (other / "encoder.keras").symlink_to(folder / "encoder.keras")
    process, client = start(other)
    answered = []
    for n in range(20):
        answered.append(client.post(f"/enrol?label=p{n}", content=picture(n), headers=PNG).json())
    client.delete("/labels/p3")
    stop(process, client, signal.SIGKILL)
    index = Index.load(other / "people")
    assert {item.id: item.label for item in index} == {
        answer["id"]: answer["label"] for answer in answered if answer["label"] != "p3"
    }
    process, client = start(other)
    assert client.post("/identify", content=picture(7), headers=PNG).json()["label"] == "p7"
    stop(process, client, signal.SIGTERM)
    assert len(Index.load(other / "people")) == 19
