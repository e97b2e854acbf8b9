"""Serve a saved encoder and an index over HTTP: enrol, identify, verify, remove.

    pip install "keras_metric[serve]"
    python examples/mnist.py                                     # trains runs/mnist/encoder.keras
    python examples/serve.py --encoder runs/mnist/encoder.keras --index runs/people --threshold 0.3

    curl --data-binary @ann.png -H "Content-Type: image/png" localhost:8000/enrol?label=ann
    curl --data-binary @who.png -H "Content-Type: image/png" localhost:8000/identify
    curl --data-binary @who.png -H "Content-Type: image/png" localhost:8000/verify?id=ID
    curl -X DELETE localhost:8000/labels?label=ann
    curl -X DELETE localhost:8000/items?id=ID

An enrolment is on the disk before the response is sent, so a kill loses none. Images that arrive
while the encoder runs are its next batch. Ids and labels may be any text; percent-encode them. In
an index with integer ids or labels, 7 means the integer; if both 7 and "7" exist, add &kind=integer
or &kind=string. The service is one process and has no authentication: run it behind a proxy that
has.
"""

import argparse
import asyncio
import contextlib
import math
import re
import uuid
from pathlib import Path
from typing import Literal

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np

from keras_metric.data import ImageLoader
from keras_metric.search import Index

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Query, Request
    from starlette.requests import ClientDisconnect
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
except ImportError:
    uvicorn, AutoHTTPProtocol = None, object  # `main` reports it, after `--help`

# Content types of uploads, and Pillow's name of the only decoder that is used for each.
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
# A small file can hold a huge image, so the size in its header is checked before decoding.
MAX_PIXELS = 25_000_000
# Images that may wait for the encoder. Further uploads get the status 503.
MAX_WAITING = 256
# Images decoded concurrently; each may need two copies of 4 bytes for each of MAX_PIXELS.
MAX_DECODING = 2
COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}
INTEGER = re.compile("0|-?[1-9][0-9]{0,17}")

Kind = Literal["string", "integer"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="file written by model.encoder.save(...)")
    parser.add_argument("--index", type=Path, required=True, help="a folder, created if missing")
    parser.add_argument(
        "--threshold",
        type=distance,
        help="largest distance of a match, to identify and to verify; default: the two thresholds "
        'of the index from calibrate(rule="nearest") and calibrate(rule="verify")',
    )
    parser.add_argument("--verify-threshold", type=distance, help="a different threshold to verify")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help="largest batch of the encoder")
    parser.add_argument("--max-bytes", type=int, default=5_000_000, help="limit of one upload")
    parser.add_argument(
        "--max-total-bytes", type=int, default=100_000_000, help="limit of all uploads in memory"
    )
    parser.add_argument(
        "--read-seconds", type=float, default=30.0, help="time for one request to arrive"
    )
    parser.add_argument(
        "--stop-seconds",
        type=int,
        default=5,
        help="time for open requests to end after SIGTERM or Ctrl-C",
    )
    return parser.parse_args()


def distance(text):
    value = float(text)
    if math.isnan(value):
        raise argparse.ArgumentTypeError("expected a distance; inf accepts every distance")
    return value


class Uploads:
    """Reads request bodies within limits of time, of bytes of each and of bytes of all."""

    def __init__(self, max_bytes, max_total_bytes, seconds):
        self.max_bytes, self.max_total_bytes, self.seconds = max_bytes, max_total_bytes, seconds
        self.total = 0

    @contextlib.asynccontextmanager
    async def read(self, request):
        if int(request.headers.get("content-length", 0)) > self.max_bytes:
            raise HTTPException(413, f"An upload may have {self.max_bytes:,} bytes.")
        data = bytearray()
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    # The header may be wrong or missing, so count the received bytes.
                    async for chunk in request.stream():
                        data += chunk
                        self.total += len(chunk)
                        self.check(len(data))
            except TimeoutError:
                raise HTTPException(408, f"The upload took more than {self.seconds} s.") from None
            except ClientDisconnect:
                raise HTTPException(400, "The client closed the connection.") from None
            yield bytes(data)
        finally:
            self.total -= len(data)

    def check(self, length):
        if length > self.max_bytes:
            raise HTTPException(413, f"An upload may have {self.max_bytes:,} bytes.")
        if self.total > self.max_total_bytes:
            raise HTTPException(503, "Too many uploads at once. Try again in a moment.")


class Batcher:
    """Runs the encoder in one task; images that arrive while it runs are its next batch."""

    def __init__(self, encoder, batch):
        self.encoder, self.batch = encoder, batch
        self.waiting = asyncio.Queue(MAX_WAITING)

    async def embed(self, image):
        done = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((image, done))
        except asyncio.QueueFull:
            raise HTTPException(503, "Too many uploads at once. Try again in a moment.") from None
        return await done

    async def run(self):
        while True:
            work = [await self.waiting.get()]
            while len(work) < self.batch and not self.waiting.empty():
                work.append(self.waiting.get_nowait())
            images, waiting = zip(*work, strict=True)
            try:
                embeddings = await asyncio.to_thread(self.encode, np.stack(images))
            except Exception as error:
                for done in waiting:
                    if not done.done():
                        done.set_exception(error)
                continue
            for done, embedding in zip(waiting, embeddings, strict=True):
                # A client that closed its connection has cancelled its future.
                if not done.done():
                    done.set_result(embedding[None])

    def encode(self, images):
        # Pad to a power of two: the encoder is compiled for each batch size.
        rows = 1 << (len(images) - 1).bit_length()
        padded = np.concatenate([images, np.repeat(images[:1], rows - len(images), axis=0)])
        return self.encoder.predict_on_batch(padded)[: len(images)]


class Reader:
    """Decodes uploads into input arrays of the encoder."""

    def __init__(self, encoder):
        shape = getattr(getattr(encoder, "backbone", encoder), "input_shape", None)
        self.shape = shape[1:] if isinstance(shape, tuple) else ()
        sizes = self.shape if len(self.shape) == 3 else (*self.shape, 1)
        if len(self.shape) == 3 and keras.config.image_data_format() == "channels_first":
            sizes = (*sizes[1:], sizes[0])
        if len(sizes) != 3 or None in sizes or sizes[2] not in COLORS:
            raise ValueError(
                "The encoder must take one image of a fixed size: (height, width), or (height, "
                f"width, channels) with 1, 3 or 4 channels. Received: input_shape={shape}. Save it "
                "as one model with preprocessing layers that take such an input."
            )
        self.loaders = {
            format: ImageLoader(
                sizes[:2], COLORS[sizes[2]], formats=[format], max_pixels=MAX_PIXELS
            )
            for format in FORMATS.values()
        }

    def __call__(self, data, format):
        try:
            return self.loaders[format](data).reshape(self.shape)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None


class RequestTimeout(AutoHTTPProtocol):
    """Closes a connection whose next request does not begin in time; uvicorn itself does not."""

    seconds = 30.0

    def connection_made(self, transport):
        super().connection_made(transport)
        self.check_later()

    def check_later(self):
        self.loop.call_later(self.seconds, self.check, self.cycle)

    def check(self, before):
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is before:
            self.transport.close()
        elif not self.transport.is_closing():
            self.check_later()


def existing(text, kind, is_known):
    """The id or label that the text in a URL stands for, or None if the index does not have it."""
    choices = {"string": text}
    if INTEGER.fullmatch(text):
        choices["integer"] = int(text)
    found = [name for of, name in choices.items() if kind in (None, of) and is_known(name)]
    if len(found) > 1:
        raise HTTPException(
            409, f"The index has {text} as an integer and as a string: add kind=integer or string."
        )
    return found[0] if found else None


def new_name(text, kind, integers):
    """A new id or label: an integer if requested, or if the index has integers."""
    if kind == "integer" and not INTEGER.fullmatch(text):
        raise HTTPException(422, f"Expected an integer of at most 18 digits. Received: {text}")
    integer = kind == "integer" or (kind is None and integers and INTEGER.fullmatch(text))
    return int(text) if integer else text


def open_index(path, encoder):
    if (path / "manifest.json").exists():
        index = Index.load(path, encoder=encoder)
    else:
        index = Index(encoder=encoder, description="Enrolled over HTTP.")
    # From now on every change is on the disk before the response is sent.
    index.keep(path)
    return index


def make_app(encoder, index, path, thresholds, batch, uploads):
    reader, batcher = Reader(encoder), Batcher(encoder, batch)
    decoding = asyncio.Semaphore(MAX_DECODING)
    first = next(iter(index), None)
    integer_ids = first is not None and isinstance(first.id, int)
    integer_labels = first is not None and isinstance(first.label, int)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        sizes = {1 << n for n in range((batch - 1).bit_length() + 1)}
        for size in sorted(sizes):
            batcher.encode(np.zeros((min(size, batch), *reader.shape), "uint8"))
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        # Merge the journal, so that the next start reads the saved index only.
        index.save(path)
        index.close()

    app = FastAPI(title="keras_metric", lifespan=lifespan)

    async def embedding_of(request):
        sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if sent not in FORMATS:
            raise HTTPException(415, f"Send one of {sorted(FORMATS)} as the body.")
        try:
            async with uploads.read(request) as data, decoding:
                image = await asyncio.to_thread(reader, data, FORMATS[sent])
            return await batcher.embed(image)
        except asyncio.CancelledError:  # uvicorn cancels open requests after --stop-seconds.
            raise HTTPException(503, "The service is stopping.") from None

    def threshold_of(rule):
        if rule not in thresholds:
            raise HTTPException(
                409,
                f'The index has no threshold for this: call index.calibrate(rule="{rule}"), or '
                "start the service with --threshold or --verify-threshold.",
            )
        return thresholds[rule]

    def has_label(label):
        return bool(index.ids(label=label))

    @app.get("/")
    def status():
        shown = {
            rule: value if math.isfinite(value) else None for rule, value in thresholds.items()
        }
        return {"items": len(index), "labels": len(index.labels), "thresholds": shown}

    @app.post("/enrol", status_code=201)
    async def enrol(
        request: Request,
        label: str = Query(min_length=1, max_length=200),
        id: str = Query(None, max_length=200),
        kind: Kind = None,
    ):
        embedding = await embedding_of(request)
        known = await asyncio.to_thread(existing, label, kind, has_label)
        label = new_name(label, kind, integer_labels) if known is None else known
        # An index with integer ids continues the count; otherwise create a globally unique id.
        new = new_name(id, kind, integer_ids) if id else None if integer_ids else uuid.uuid4().hex
        try:
            ids = None if new is None else [new]
            (id,) = await asyncio.to_thread(index.add, embedding, [label], ids)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return {"id": id, "label": label}

    @app.post("/identify")
    async def identify(request: Request):
        threshold = threshold_of("nearest")
        embedding = await embedding_of(request)
        found = await asyncio.to_thread(index.identify, embedding, threshold=threshold)
        far = found[0].distance == float("inf")
        return {"label": found[0].label, "distance": None if far else found[0].distance}

    @app.post("/verify")
    async def verify(request: Request, id: str, kind: Kind = None):
        threshold = threshold_of("verify")
        embedding = await embedding_of(request)
        known = await asyncio.to_thread(existing, id, kind, index.__contains__)
        if known is None:
            raise HTTPException(404, f"No item has the id {id[:200]}")
        try:
            answer = await asyncio.to_thread(index.verify, embedding, known, threshold)
        except ValueError as error:  # A concurrent request has removed it.
            raise HTTPException(404, str(error)) from None
        return {"same": answer.same, "distance": answer.distance}

    def remove(text, known, **selection):
        if known is None:
            raise HTTPException(404, f"No item has the id or label {text[:200]}")
        try:
            index.remove(**selection)
        except ValueError as error:  # A concurrent request has removed it.
            raise HTTPException(404, str(error)) from None

    # A path can contain most names; names with ".." or a line break must be in the query.
    @app.delete("/items", status_code=204)
    @app.delete("/items/{id:path}", status_code=204)
    def remove_item(id: str, kind: Kind = None):
        known = existing(id, kind, index.__contains__)
        remove(id, known, ids=[known])

    @app.delete("/labels", status_code=204)
    @app.delete("/labels/{label:path}", status_code=204)
    def remove_label(label: str, kind: Kind = None):
        known = existing(label, kind, has_label)
        remove(label, known, labels=[known])

    return app


def thresholds_of(index, threshold, verify_threshold):
    """The largest distance of a match for each rule: the argument, else the calibrated one."""
    thresholds = {rule: point.threshold for rule, point in index.operating_points.items()}
    if threshold is not None:
        thresholds |= {"nearest": threshold, "verify": threshold}
    if verify_threshold is not None:
        thresholds["verify"] = verify_threshold
    thresholds = {rule: thresholds[rule] for rule in ("nearest", "verify") if rule in thresholds}
    if not thresholds:
        raise ValueError("This index is not calibrated: pass --threshold.")
    return thresholds


def main():
    arguments = parse_arguments()
    if uvicorn is None:
        raise SystemExit('The service needs FastAPI and uvicorn: pip install "keras_metric[serve]"')
    try:
        encoder = keras.saving.load_model(arguments.encoder)
        Reader(encoder)
        index = open_index(arguments.index, encoder)
        thresholds = thresholds_of(index, arguments.threshold, arguments.verify_threshold)
    except ValueError as error:
        raise SystemExit(f"serve.py: {error}") from None
    RequestTimeout.seconds = arguments.read_seconds
    uploads = Uploads(arguments.max_bytes, arguments.max_total_bytes, arguments.read_seconds)
    uvicorn.run(
        make_app(encoder, index, arguments.index, thresholds, arguments.batch, uploads),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        http=RequestTimeout,
        timeout_graceful_shutdown=arguments.stop_seconds,
    )


if __name__ == "__main__":
    main()
