"""examples/serve.py in a separate process, over HTTP."""

import asyncio
import contextlib
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.data import ImageLoader
from keras_metric.search import Index

httpx = pytest.importorskip("httpx", reason='needs pip install "keras_metric[dev]"')
pytest.importorskip("fastapi", reason='needs pip install "keras_metric[serve]"')
pytest.importorskip("uvicorn", reason='needs pip install "keras_metric[serve]"')

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "serve.py"
PNG, JPEG = {"Content-Type": "image/png"}, {"Content-Type": "image/jpeg"}


def image_file(seed, size=(16, 16), kind="PNG"):
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def send_image(client, path, seed, **arguments):
    return client.post(path, content=image_file(seed), headers=PNG, **arguments)


def start(folder, index, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--encoder", folder / "encoder.keras", "--index", index]
    arguments += ["--threshold", "1e-4", "--port", str(port), "--max-bytes", "100000", *more]
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
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255, offset=-0.5)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(16)]
    keras.Sequential(layers).save(folder / "encoder.keras")
    return folder


@pytest.fixture(scope="module")
def service(folder):
    process, client = start(folder, folder / "people")
    yield client
    stop(process, client, signal.SIGTERM)
    # On exit the service merges the journal into the saved index.
    index = Index.load(folder / "people")
    assert index.dim == 16 and not list((folder / "people").glob("*.new"))


@contextlib.contextmanager
def in_process(folder, index, **thresholds):
    """A client of the application in this process, for an index that a test made."""
    from starlette.testclient import TestClient

    spec = importlib.util.spec_from_file_location("serve", SCRIPT)
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    encoder = keras.saving.load_model(folder / "encoder.keras")
    uploads = serve.Uploads(100_000, 1_000_000, 30.0)
    found = serve.thresholds_of(index, thresholds.get("threshold"), thresholds.get("verify"))
    app = serve.make_app(encoder, index, folder / "other", found, 8, uploads)
    index.keep(folder / "other")
    with TestClient(app) as client:
        yield client


def embedded(folder, *images):
    encoder = keras.saving.load_model(folder / "encoder.keras")
    load = ImageLoader((16, 16))
    return encoder.predict(np.stack([load(data) for data in images]), verbose=0)


def test_enrol_identify_verify_forget(service):
    enrolled = send_image(service, "/enrol?label=ann", 1)
    assert enrolled.status_code == 201 and enrolled.json()["label"] == "ann"
    key = enrolled.json()["id"]
    jpeg = {"Content-Type": "image/jpeg; charset=binary"}
    named = {"label": "bob", "id": "b/1"}
    bob = service.post("/enrol", params=named, content=image_file(2, kind="JPEG"), headers=jpeg)
    assert bob.json() == {"id": "b/1", "label": "bob"}
    found = send_image(service, "/identify", 1).json()
    assert found["label"] == "ann" and found["distance"] == pytest.approx(0, abs=1e-6)
    unknown = send_image(service, "/identify", 3).json()
    assert unknown["label"] is None and unknown["distance"] > 1e-4
    verify = f"/verify?id={key}"
    assert service.post(verify, content=image_file(1), headers=PNG).json()["same"] is True
    assert service.post(verify, content=image_file(2), headers=PNG).json()["same"] is False
    assert service.delete(f"/items/{key}").status_code == 204
    assert send_image(service, "/identify", 1).json()["label"] is None
    assert service.delete("/labels/bob").status_code == 204
    assert send_image(service, "/enrol?label=carl", 4).status_code == 201


def test_client_errors(service):
    before = service.get("/").json()

    def post(path, content, kind="image/png"):
        return service.post(path, content=content, headers={"Content-Type": kind}).status_code

    good = image_file(5)
    assert post("/enrol", good) == 422
    assert post("/enrol?label=", good) == 422
    assert post(f"/enrol?label={'x' * 201}", good) == 422
    assert post("/identify", good, "text/plain") == 415
    assert post("/identify", good, "image/jpeg") == 422
    assert post("/identify", b"not a picture") == 422
    assert post("/identify", b"") == 422
    assert post("/identify", good[: len(good) // 2]) == 422
    assert post("/identify", b"x" * 100_001) == 413
    assert post("/verify?id=unknown", good) == 404
    assert post("/enrol?label=x&kind=integer", good) == 422
    assert post("/enrol?label=x&kind=float", good) == 422
    # Sent in parts, without a Content-Length that could be checked first.
    assert post("/identify", (b"x" * 1000 for _ in range(200))) == 413
    huge = io.BytesIO()
    Image.new("1", (6000, 6000)).save(huge, "PNG")
    assert len(huge.getvalue()) < 100_000
    rejected = service.post("/identify", content=huge.getvalue(), headers=PNG)
    assert rejected.status_code == 422 and "25,000,000" in rejected.json()["detail"]
    assert service.delete("/items/unknown").status_code == 404
    assert service.delete("/labels/unknown").status_code == 404
    assert service.get("/enrol").status_code == 405
    service.post("/enrol?label=dora&id=d", content=good, headers=PNG)
    assert post("/enrol?label=dora&id=d", good) == 409
    service.delete("/items/d")
    assert service.get("/").json() == before


def test_concurrent_requests_get_their_own_responses(service):
    images = [image_file(100 + n) for n in range(40)]

    async def work():
        async with httpx.AsyncClient(base_url=service.base_url, timeout=60) as client:
            await asyncio.gather(
                *[
                    client.post(f"/enrol?label=p{n}", content=data, headers=PNG)
                    for n, data in enumerate(images)
                ]
            )
            found = await asyncio.gather(
                *[client.post("/identify", content=data, headers=PNG) for data in images]
            )
            return [response.json()["label"] for response in found]

    assert asyncio.run(work()) == [f"p{n}" for n in range(40)]


def test_a_burst_is_processed_or_gets_503(service):
    async def work():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=service.base_url, timeout=120, limits=limits
        ) as client:
            posts = [
                client.post("/identify", content=image_file(1, (400, 400), "JPEG"), headers=JPEG)
                for _ in range(600)
            ]
            return [response.status_code for response in await asyncio.gather(*posts)]

    assert set(asyncio.run(work())) <= {200, 503}
    assert send_image(service, "/identify", 1).status_code == 200


@pytest.mark.slow
def test_a_kill_loses_no_enrolment(folder):
    process, client = start(folder, folder / "killed")
    items = [send_image(client, f"/enrol?label=p{n}", n).json() for n in range(20)]
    client.delete("/labels/p3")
    stop(process, client, signal.SIGKILL)
    enrolled = {item["id"]: item["label"] for item in items if item["label"] != "p3"}
    assert {item.id: item.label for item in Index.load(folder / "killed")} == enrolled
    process, client = start(folder, folder / "killed")
    assert send_image(client, "/identify", 7).json()["label"] == "p7"
    stop(process, client, signal.SIGTERM)
    assert len(Index.load(folder / "killed")) == 19


# Every character that JSON allows in a string, and names that a URL path would change.
NAMES = ["Sales/Ann", "/", "a//b/", ".", "..", "a/../b", "%2F", "%", "?label=x&id=y#z", "+ +", " "]
NAMES += ["7", "-1", 'zz" or id < "', "\\", "".join(map(chr, range(32)))]
NAMES += ["".join(map(chr, range(127, 161))), "\u2028\ufeff\ufffd\uffff"]
NAMES += ["\U0001f600 \u0301 \u202e \u4e2d"]


def test_every_enrolled_name_can_be_found_and_removed(service):
    before = service.get("/").json()
    for name in NAMES:
        named = {"label": name, "id": name}
        enrolled = send_image(service, "/enrol", 7, params=named)
        assert enrolled.status_code == 201 and enrolled.json() == {"id": name, "label": name}
        found = send_image(service, "/identify", 7).json()
        assert found["label"] == name
        same = send_image(service, "/verify", 7, params={"id": name})
        assert same.json()["same"] is True, name
        assert service.delete("/items", params={"id": name}).status_code == 204, name
        send_image(service, "/enrol", 7, params=named)
        assert service.delete("/labels", params={"label": name}).status_code == 204, name
        assert service.delete("/labels", params={"label": name}).status_code == 404
        if {".", ".."} & set(name.split("/")) or "\n" in name:
            continue  # Clients take dots out of a path, and the router ends at a line break.
        send_image(service, "/enrol", 7, params=named)
        assert service.delete(f"/items/{quote(name, safe='')}").status_code == 204, name
        send_image(service, "/enrol", 7, params=named)
        assert service.delete(f"/labels/{quote(name, safe='')}").status_code == 204, name
    assert service.get("/").json() == before


def test_an_index_with_integers(folder):
    index = Index(16)
    index.add(embedded(folder, *[image_file(n) for n in range(4)]), [10, 11, 12, -13])
    with in_process(folder, index, threshold=1e-4) as client:
        found = send_image(client, "/identify", 1).json()
        assert found["label"] == 11
        assert send_image(client, "/verify?id=1", 1).json()["same"] is True
        assert send_image(client, "/verify?id=2", 1).json()["same"] is False
        assert send_image(client, "/verify?id=01", 1).status_code == 404
        assert client.delete("/items/3").status_code == 204
        assert client.delete("/labels/12").status_code == 204
        made = send_image(client, "/enrol?label=14", 5).json()
        assert made == {"id": 4, "label": 14}
        made = send_image(client, "/enrol?label=10&id=99", 6).json()
        assert made == {"id": 99, "label": 10}
        text = send_image(client, "/enrol?label=10&kind=string&id=x", 8)
        assert text.json() == {"id": "x", "label": "10"}
        # The index now has both 10 and "10", so the kind must be given.
        assert client.delete("/labels/10").status_code == 409
        assert client.delete("/labels/10?kind=string").status_code == 204
        assert client.delete("/labels/10").status_code == 204
        assert {(item.id, item.label) for item in index} == {(1, 11), (4, 14)}


@pytest.mark.parametrize("rules", [("nearest",), ("verify",), ("nearest", "verify")])
def test_each_rule_has_its_own_threshold(folder, rules):
    index = Index(16)
    vectors = embedded(folder, *[image_file(n) for n in range(20)])
    index.add(vectors, [f"p{n % 10}" for n in range(20)])
    query = image_file(30)
    nearest = index.search(embedded(folder, query))[0][0]
    for rule in rules:
        index.calibrate(rule=rule, false_accept_rate=0.5)
    # One threshold is below the distance of the query, the other one above it.
    limits = {"nearest": nearest.distance * 0.9, "verify": nearest.distance * 1.1}
    for rule in rules:
        point = index.operating_points[rule]
        index.operating_points[rule] = point._replace(threshold=limits[rule])
    with in_process(folder, index) as client:
        assert client.get("/").json()["thresholds"] == {rule: limits[rule] for rule in rules}
        identified = client.post("/identify", content=query, headers=PNG)
        verified = client.post(f"/verify?id={nearest.id}", content=query, headers=PNG)
        for rule, answer in (("nearest", identified), ("verify", verified)):
            if rule not in rules:
                assert answer.status_code == 409 and "calibrate" in answer.json()["detail"]
        assert "nearest" not in rules or identified.json()["label"] is None
        assert "verify" not in rules or verified.json()["same"] is True


def test_infinite_thresholds_are_null(folder):
    index = Index(16)
    with in_process(folder, index, threshold=float("inf")) as client:
        response = client.get("/")
        assert json.loads(response.text)["thresholds"] == {"nearest": None, "verify": None}
        assert send_image(client, "/identify", 1).json() == {"label": None, "distance": None}
        send_image(client, "/enrol?label=ann", 2)
        assert send_image(client, "/identify", 1).json()["label"] == "ann"


def test_images_are_read_as_by_the_loader(service, folder):
    grey = np.random.default_rng(3).integers(256, size=(16, 16)).astype("uint8")

    def saved(image, kind="PNG", **saving):
        file = io.BytesIO()
        image.save(file, kind, **saving)
        return file.getvalue()

    service.post("/enrol?label=grey", content=saved(Image.fromarray(grey)), headers=PNG)
    deep = saved(Image.fromarray(grey.astype("uint16") * 257))
    found = service.post("/identify", content=deep, headers=PNG).json()
    assert found["label"] == "grey" and found["distance"] < 1e-6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.fromarray(np.ascontiguousarray(np.rot90(grey))), exif=exif)
    found = service.post("/identify", content=turned, headers=PNG).json()
    assert found["label"] == "grey" and found["distance"] < 1e-6
    for data, kind in (
        (image_file(50, (40, 24)), "png"),
        (image_file(51, (9, 30), "JPEG"), "jpeg"),
    ):
        label = {"label": kind, "id": kind}
        head = {"Content-Type": f"image/{kind}"}
        service.post("/enrol", params=label, content=data, headers=head)
        index = Index(16)
        index.add(embedded(folder, data), [kind])
        found = service.post("/identify", content=data, headers=head).json()
        assert found["label"] == kind and found["distance"] < 1e-6
    for label in ("grey", "png", "jpeg"):
        service.delete(f"/labels/{label}")


def test_no_response_contains_an_address(service):
    for data in (b"", b"x", image_file(1)[:60], image_file(1)[:-100]):
        response = service.post("/identify", content=data, headers=PNG)
        assert response.status_code == 422
        assert "0x" not in response.text and "BytesIO" not in response.text


def test_concurrent_changes_are_not_lost(service):
    images = [image_file(200 + n) for n in range(24)]

    def change(n):
        with httpx.Client(base_url=service.base_url, timeout=60) as client:
            for _ in range(3):
                client.post(f"/enrol?label=q{n}&id=q{n}", content=images[n], headers=PNG)
                found = client.post("/identify", content=images[n], headers=PNG).json()["label"]
                removed = client.delete(f"/items/q{n}").status_code
                assert (found, removed) == (f"q{n}", 204)

    before = service.get("/").json()
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(change, range(24)))
    assert service.get("/").json() == before


def open_upload(service, length, sent):
    """A client that begins an upload and does not finish it."""
    client = socket.create_connection((service.base_url.host, service.base_url.port))
    client.sendall(
        b"POST /identify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        + b"Content-Length: %d\r\n\r\n" % length
        + b"x" * sent
    )
    return client


def response_of(client, seconds=30):
    client.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        return client.recv(1000).split(b"\r\n")[0]
    return b""


def resident(process):
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_slow_clients(folder):
    """Unfinished uploads: memory and response time are bounded, and the server can stop."""
    limits = ["--max-bytes", "5000000", "--max-total-bytes", "30000000", "--read-seconds", "3"]
    limits += ["--stop-seconds", "1"]
    process, client = start(folder, folder / "slow", *limits)
    lines = []
    reading = threading.Thread(target=lambda: lines.extend(process.stderr))
    reading.start()
    try:
        send_image(client, "/enrol?label=ann", 1)
        before = resident(process)
        # Without a bound these would take 490 MB.
        uploads = [open_upload(client, 4_950_000, 4_900_000) for _ in range(100)]
        assert resident(process) - before < 120e6
        responses = [response_of(upload) for upload in uploads]
        # Uploads within the memory limit reach the time limit; others are rejected immediately.
        assert {response.split(b" ")[1] for response in responses if response} <= {b"408", b"503"}
        assert any(b"408" in response for response in responses)
        for upload in uploads:
            upload.close()
        # An unfinished header, and a connection that sends nothing.
        half = socket.create_connection((client.base_url.host, client.base_url.port))
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        silent = socket.create_connection((client.base_url.host, client.base_url.port))
        assert response_of(half) == b"" and response_of(silent) == b""
        half.close()
        silent.close()
        assert send_image(client, "/identify", 1).json()["label"] == "ann"
        # A client that closes its connection causes no traceback.
        open_upload(client, 1000, 10).close()
        time.sleep(0.5)
        # The server stops while an upload is open, and loses no enrolment.
        uploads = [open_upload(client, 4_950_000, 10) for _ in range(5)]
        send_image(client, "/enrol?label=bob", 2)
        client.close()
        signalled = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert time.monotonic() - signalled < 15
        for upload in uploads:
            upload.close()
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stderr.close()
    text = b"".join(lines).decode()
    assert "Traceback" not in text, text
    assert sorted(Index.load(folder / "slow").labels) == ["ann", "bob"]


@pytest.mark.parametrize("given", ["nan", "NaN", "-nan", "x"])
def test_a_threshold_must_be_a_number(folder, given):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--encoder", "e", "--index", "i", f"--threshold={given}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--threshold" in done.stderr


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (16, 16, 4), (12, 20, 3)])
def test_encoders_of_other_image_shapes(tmp_path, shape):
    encoder = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(16)])
    encoder.save(tmp_path / "encoder.keras")
    with in_process(tmp_path, Index(16), threshold=0.0001) as client:
        assert send_image(client, "/enrol?label=a", 1).status_code == 201
        assert send_image(client, "/identify", 1).json()["label"] == "a"


@pytest.mark.parametrize("shape", [(None, None, 3), (16, 16, 2), (16,), (4, 16, 16, 3)])
def test_encoders_without_one_fixed_image_shape(tmp_path, shape):
    image = keras.Input(shape)
    flat = keras.layers.GlobalAveragePooling2D()(image) if len(shape) == 3 else image
    flat = keras.layers.Flatten()(flat)
    keras.Model(image, keras.layers.Dense(16)(flat)).save(tmp_path / "encoder.keras")
    expected = "one image of a fixed size.*Received: input_shape="
    with pytest.raises(ValueError, match=expected), in_process(tmp_path, Index(16), threshold=0.1):
        pass
