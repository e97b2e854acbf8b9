"""Worker process of the benchmark of training steps: reads cases as JSON lines, writes seconds.

The benchmarks start it:  python benchmarks/fit_engine.py jax A process uses one framework, with a
model for each kind of step. The steps of a framework thus share threads and memory allocator, and
alternate within one process.
"""

import json
import os
import sys
import time

from keras_metric_startup import hide_tensorflow_startup_messages

ENGINES = ("tensorflow", "jax", "torch", "pml")
# Typical user code. The first step of a framework is the reference of the others.
STEPS = {
    "keras": (
        "classification",
        "classification, PyDataset",
        "classification, tf.data",
        "TripletModel",
        "SiameseModel",
        "QuadrupletModel",
        "TripletModel, arrays",
    ),
    "pml": ("classification", "TripletMarginLoss"),
}
CLASSES = 1000
ROWS_OF_A_CLASS = 20
PER_CLASS = 4
# Warm-up steps of a turn, which start threads and fill buffers.
SKIPPED = 2


def steps_of(engine):
    return STEPS.get(engine, STEPS["keras"])


def images(channels_first=False):
    """Return random images 28 x 28, 20 of each class, about as many as in Omniglot."""
    import numpy as np

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), ROWS_OF_A_CLASS).astype("int64")
    x = rng.random((len(y), 28, 28, 1), dtype="float32")
    order = rng.permutation(len(y))
    return (x.transpose(0, 3, 1, 2).copy() if channels_first else x), y[order]


def clocks():
    """Return the wall time and the CPU time of all threads of this process in seconds.

    The CPU time depends less on other processes.
    """
    return time.perf_counter(), time.process_time()


def elapsed(start):
    return [now - then for now, then in zip(clocks(), start)]


# --- Keras ----------------------------------------------------------------------------------------


def conv4():
    """The backbone of the few-shot literature: four blocks of 64 filters."""
    import keras

    def block():
        return [
            keras.layers.Conv2D(64, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
        ]

    layers = [layer for _ in range(4) for layer in block()]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Flatten()])


def keras_model(kind, jit):
    import keras

    import keras_metric

    jit = {"auto": "auto", "on": True, "off": False}[jit]
    if kind.startswith("classification"):
        # The loss contains the softmax, as Keras's guides recommend for speed.
        model = keras.Sequential([conv4(), keras.layers.Dense(CLASSES, dtype="float32")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        model = getattr(keras_metric, kind.split(",")[0])(conv4())
        loss = model.loss
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=jit)
    return model


def keras_source(kind, x, y, batch, steps):
    """Return keyword arguments of `fit` for an epoch of `steps` steps."""
    import keras
    import numpy as np

    from keras_metric import data

    class RandomBatches(keras.utils.PyDataset):
        """Batches of rows in random order."""

        def __init__(self):
            super().__init__()
            self.order = np.random.default_rng(0).permutation(len(x))

        def __len__(self):
            return steps

        def __getitem__(self, index):
            rows = self.order[index * batch : (index + 1) * batch]
            return x[rows], y[rows]

    if kind.endswith("PyDataset"):
        return {"x": RandomBatches()}
    if kind.endswith("tf.data"):
        import tensorflow as tf

        stream = tf.data.Dataset.from_tensor_slices((x[: steps * batch], y[: steps * batch]))
        return {"x": stream.shuffle(steps * batch).batch(batch).prefetch(tf.data.AUTOTUNE)}
    if kind in ("classification", "TripletModel, arrays"):
        return {"x": x[: steps * batch], "y": y[: steps * batch], "batch_size": batch}
    return {
        "x": data.BalancedBatches(
            x, y, batch // PER_CLASS, PER_CLASS, batches_per_epoch=steps, seed=0
        )
    }


def on_keras(kind, case):
    """Return a function that trains for a turn and returns the `elapsed` seconds of its steps."""
    import keras

    class Clock(keras.callbacks.Callback):
        """Measures the time after the warm-up steps; reading the loss waits for the device."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == SKIPPED - 1:
                float(logs["loss"])
                self.start = clocks()
            if batch == SKIPPED + case["steps"] - 1:
                float(logs["loss"])
                self.seconds = elapsed(self.start)

    keras.utils.set_random_seed(0)
    model = keras_model(kind, case["jit"])
    x, y = images()
    source = keras_source(kind, x, y, case["batch"], SKIPPED + case["steps"])

    def turn():
        clock = Clock()
        model.fit(**source, verbose=0, callbacks=[clock])
        return clock.seconds

    return turn


# --- PyTorch --------------------------------------------------------------------------------------


def torch_conv4(features):
    from torch import nn

    def block(channels):
        return [
            nn.Conv2d(channels, 64, 3, padding="same"),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]

    layers = [layer for channels in (1, 64, 64, 64) for layer in block(channels)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, features))


def on_torch(kind, case):
    """Return the training loop of the guides of PyTorch and pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning import losses, miners, samplers

    torch.manual_seed(0)
    device = torch.device(case.get("device", "cpu"))
    half = case.get("half", False)
    x, y = images(channels_first=True)
    dataset = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    batch, count = case["batch"], SKIPPED + case["steps"]
    if kind == "classification":
        model = torch_conv4(CLASSES)
        loss = torch.nn.CrossEntropyLoss()
        sampler = torch.utils.data.RandomSampler(dataset, num_samples=count * batch)
    else:
        model = torch_conv4(128)
        triplets = losses.TripletMarginLoss(margin=0.2)
        miner = miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard")
        sampler = samplers.MPerClassSampler(y, PER_CLASS, batch, count * batch)

        def loss(embeddings, labels):
            return triplets(embeddings, labels, miner(embeddings, labels))

    model = model.to(device)
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, sampler=sampler)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=half)

    def turn():
        model.train()
        for step, (inputs, labels) in enumerate(loader):
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.float16, enabled=half):
                outputs = model(inputs)
            value = loss(outputs.float(), labels)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            if step == SKIPPED - 1:
                value.item()
                start = clocks()
        value.item()
        return elapsed(start)

    return turn


# --- the process ----------------------------------------------------------------------------------


def serve(answer_to):
    """Write `answer_to(case)` for each JSON line of the standard input."""
    # Standard output is for the answers only; redirect other output to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = answer_to(json.loads(line))
        except Exception as error:  # noqa: BLE001 - a failure is a result
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main():
    engine = sys.argv[1]
    os.environ["KERAS_BACKEND"] = "torch" if engine == "pml" else engine
    hide_tensorflow_startup_messages()
    turns = {}

    def answer_to(case):
        kind = case["step"]
        if kind not in turns:
            turns[kind] = (on_torch if engine == "pml" else on_keras)(kind, case)
            turns[kind]()
        wall, cpu = turns[kind]()
        return {"seconds": wall / case["steps"], "cpu": cpu / case["steps"]}

    serve(answer_to)


if __name__ == "__main__":
    main()
