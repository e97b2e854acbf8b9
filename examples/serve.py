"""Serve a saved encoder and an index over HTTP: enrol, identify, verify, forget.

    pip install "keras_metric[serve]"
    python examples/mnist.py                                     # trains runs/mnist/encoder.keras
    python examples/serve.py --encoder runs/mnist/encoder.keras --index runs/people --threshold 0.3

    curl --data-binary @ann.png -H "Content-Type: image/png" localhost:8000/enrol?label=ann
    curl --data-binary @who.png -H "Content-Type: image/png" localhost:8000/identify
    curl --data-binary @who.png -H "Content-Type: image/png" localhost:8000/verify?id=ID
    curl -X DELETE localhost:8000/labels/ann

An enrolment is on the disk before it is answered, so a kill loses nobody. Images that arrive while
the encoder is busy go through it together. One process serves; there is no login here: put it
behind whatever does that for your other services.
"""

import argparse
import asyncio
import contextlib
import io
import os
import uuid
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from PIL import Image

from keras_metric.search import Index

# What an upload may be; the name is Pillow's, and no other decoder is tried.
TYPES = {"image/png": "PNG", "image/jpeg": "JPEG"}
# A small file can hold a huge picture: its header is asked before a pixel is decoded.
MOST_PIXELS = 25_000_000
# Uploads that wait for the encoder; more are told to come back.
MOST_WAITING = 256


def name():
    return Query(min_length=1, max_length=200)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="what model.encoder.save(...) wrote")
    parser.add_argument("--index", type=Path, required=True, help="a folder, made if it is missing")
    parser.add_argument("--threshold", type=float, help="default: the calibrated one of the index")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help="images encoded at once")
    parser.add_argument("--max-bytes", type=int, default=5_000_000, help="of one upload")
    return parser.parse_args()


class Batcher:
    """One worker runs the encoder; what arrives while it runs is its next batch."""

    def __init__(self, encoder, batch):
        self.encoder, self.batch = encoder, batch
        self.waiting = asyncio.Queue(MOST_WAITING)

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
                # Who waited may have hung up.
                if not done.done():
                    done.set_result(embedding[None])

    def encode(self, images):
        # Batches of few different sizes: an encoder is compiled for each.
        room = 1 << (len(images) - 1).bit_length()
        padded = np.concatenate([images, np.repeat(images[:1], room - len(images), axis=0)])
        return self.encoder.predict_on_batch(padded)[: len(images)]


async def read_body(request, most):
    if int(request.headers.get("content-length", 0)) > most:
        raise HTTPException(413, f"An upload may have {most:,} bytes.")
    data = bytearray()
    # The header may lie, or be missing: what arrives is counted too.
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise HTTPException(413, f"An upload may have {most:,} bytes.")
    return bytes(data)


def decode(data, kind, shape):
    """The picture as the encoder wants it: (height, width, channels), 0 to 255."""
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise HTTPException(413, f"A picture may have {MOST_PIXELS:,} pixels.")
            image = image.convert("L" if shape[2] == 1 else "RGB").resize((shape[1], shape[0]))
    except HTTPException:
        raise
    except Exception as error:
        # Whatever a broken file makes of the decoder is the file's fault.
        raise HTTPException(422, f"This is no {kind} picture: {error}") from None
    return np.asarray(image).reshape(shape)


def open_index(path, encoder):
    if (path / "manifest.json").exists():
        index = Index.load(path, encoder=encoder)
    else:
        index = Index(encoder=encoder, description="Enrolled over HTTP.")
    # From here on every change is on the disk before it is answered.
    index.keep(path)
    return index


def make_app(encoder, index, path, threshold, batch, max_bytes):
    shape = getattr(encoder, "backbone", encoder).input_shape[1:]
    batcher = Batcher(encoder, batch)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        sizes = {1 << n for n in range((batch - 1).bit_length() + 1)}
        for size in sorted(sizes):
            batcher.encode(np.zeros((min(size, batch), *shape), "uint8"))
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        # The changes since the start are folded in, so that the next start reads one file.
        index.save(path)
        index.close()

    app = FastAPI(title="keras_metric", lifespan=lifespan)

    async def embedding_of(request):
        kind = TYPES.get(request.headers.get("content-type", "").split(";")[0].strip().lower())
        if kind is None:
            raise HTTPException(415, f"Send one of {sorted(TYPES)} as the body.")
        data = await read_body(request, max_bytes)
        image = await asyncio.to_thread(decode, data, kind, shape)
        return await batcher.embed(image)

    @app.get("/")
    def status():
        return {"items": len(index), "labels": len(index.labels), "threshold": threshold}

    @app.post("/enrol", status_code=201)
    async def enrol(request: Request, label: str = name(), id: str = Query(None, max_length=200)):
        embedding = await embedding_of(request)
        id = id or uuid.uuid4().hex
        try:
            await asyncio.to_thread(index.add, embedding, [label], [id])
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return {"id": id, "label": label}

    @app.post("/identify")
    async def identify(request: Request):
        embedding = await embedding_of(request)
        found = await asyncio.to_thread(index.identify, embedding, threshold=threshold)
        far = found[0].distance == float("inf")
        return {"label": found[0].label, "distance": None if far else found[0].distance}

    @app.post("/verify")
    async def verify(request: Request, id: str = name()):
        embedding = await embedding_of(request)
        try:
            answer = await asyncio.to_thread(index.verify, embedding, id, threshold)
        except ValueError as error:
            raise HTTPException(404, str(error)) from None
        return {"same": answer.same, "distance": answer.distance}

    def forget(**what):
        try:
            index.remove(**what)
        except ValueError as error:
            raise HTTPException(404, str(error)) from None

    @app.delete("/items/{id}", status_code=204)
    def forget_item(id: str):
        forget(ids=[id])

    @app.delete("/labels/{label}", status_code=204)
    def forget_label(label: str):
        forget(labels=[label])

    return app


def main():
    arguments = parse_arguments()
    encoder = keras.saving.load_model(arguments.encoder)
    index = open_index(arguments.index, encoder)
    threshold = arguments.threshold
    if threshold is None:
        if "nearest" not in index.operating_points:
            raise SystemExit("This index is not calibrated: pass --threshold.")
        threshold = index.operating_points["nearest"].threshold
    app = make_app(encoder, index, arguments.index, threshold, arguments.batch, arguments.max_bytes)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
