"""What each loss teaches the same network: Recall@1 on characters it has never seen.

    python benchmarks/omniglot.py --data omniglot_background_28.npz
    python benchmarks/omniglot.py --data ... --losses TripletLoss NTXentLoss

Every loss of the package trains the same Conv-4 from the same weights on the same batches of
Omniglot's background set; pytorch-metric-learning's loss of the same name does so too, on a
PyTorch network with these weights. Raw pixels and the untrained network stand beside them. An
hour and a half on two cores. What is measured is kept in results/omniglot.json, so that a run
that was cut off, or a new loss, goes on from there. Needs the extra `parity`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from contenders import PEERS, RAW, labelled, names, ours, peer
from losses import RESULTS, Worker, machine, write

FILTERS = 32
BATCH, PER_CLASS, DIM = 128, 4, 64
SIDE = 28


def drawings(path):
    """Images in 0 to 1 and characters: to train on, and to judge on, of other characters."""
    import numpy as np

    from keras_metric.data import split_by_class

    with np.load(path) as file:
        x, y = file["x"].astype("float32")[..., None] / 255, file["y"]
    train, test = split_by_class(y, test_size=0.25)
    return x[train], y[train], x[test], y[test]


def recall(embeddings, labels):
    from keras_metric.evaluation import retrieval_metrics

    return retrieval_metrics(embeddings, labels, k=(1,))["recall_at_1"]


def conv4():
    """The backbone of the few-shot literature: four blocks of a convolution and a pooling."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    blocks = [
        layer
        for _ in range(4)
        for layer in (
            layers.Conv2D(FILTERS, 3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        )
    ]
    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *blocks, layers.Flatten()])


def model_of(loss, normalize):
    import keras

    import keras_metric

    keras.utils.set_random_seed(0)
    model = keras_metric.EmbeddingModel(conv4(), embedding_dim=DIM, normalize=normalize)
    model.build((None, SIDE, SIDE, 1))
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    return model


def batches(x, y, kind, steps):
    """The same for ours and the peer: labelled, or two changed views of each drawing."""
    import keras
    import numpy as np
    from keras import layers

    from keras_metric.data import BalancedBatches

    if kind == "labelled":
        return BalancedBatches(x, y, BATCH // PER_CLASS, PER_CLASS, batches_per_epoch=steps, seed=0)
    change = keras.Sequential(
        [
            layers.RandomRotation(0.06, fill_mode="constant", seed=0),
            layers.RandomTranslation(0.15, 0.15, fill_mode="constant", seed=1),
            layers.RandomZoom((-0.25, 0.25), fill_mode="constant", seed=2),
        ]
    )
    return BalancedBatches(
        x,
        np.arange(len(x)),
        BATCH // 2,
        1,
        batches_per_epoch=steps,
        seed=0,
        augment=change,
        views=2,
        view_layout="branches",
    )


def train_ours(name, x, y, x_test, y_test, steps):
    model = model_of(ours(name), normalize=name not in RAW)
    kind = "labelled" if labelled(name) else "views"
    start = time.perf_counter()
    model.fit(batches(x, y, kind, steps), epochs=1, verbose=0)
    seconds = time.perf_counter() - start
    return {"recall": recall(model.predict(x_test, verbose=0), y_test), "seconds": seconds}


def torch_network(model):
    """The same layers with the same weights in PyTorch."""
    import torch
    from torch import nn

    def tensor(weights):
        return nn.Parameter(torch.tensor(weights))

    blocks = []
    for layer in model.backbone.layers:
        kind, weights = type(layer).__name__, layer.get_weights()
        if kind == "Conv2D":
            block = nn.Conv2d(weights[0].shape[2], weights[0].shape[3], 3, padding="same")
            block.weight, block.bias = tensor(weights[0].transpose(3, 2, 0, 1)), tensor(weights[1])
        elif kind == "BatchNormalization":
            block = nn.BatchNorm2d(len(weights[0]), eps=layer.epsilon, momentum=1 - layer.momentum)
        else:
            block = {"ReLU": nn.ReLU, "Flatten": nn.Flatten}.get(kind, lambda: nn.MaxPool2d(2))()
        blocks.append(block)
    kernel, *bias = model.encoder.get_weights()[-2:]
    head = nn.Linear(*kernel.shape)
    head.weight, head.bias = tensor(kernel.T), tensor(bias[0])
    return nn.Sequential(*blocks, head)


def train_peer(name, x, y, x_test, y_test, steps):
    import numpy as np
    import torch
    from torch.nn.functional import normalize

    torch.manual_seed(0)
    network, loss = torch_network(model_of(ours("TripletLoss"), True)), peer(name)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7)

    def embed(images):
        z = network(torch.tensor(np.moveaxis(images, -1, 1)))
        return z if name in RAW else normalize(z)

    source = batches(x, y, "labelled" if labelled(name) else "views", steps)
    source.on_epoch_end()
    start = time.perf_counter()
    for step in range(steps):
        images, labels = source[step]
        optimizer.zero_grad()
        if labelled(name):
            loss(embed(images), torch.tensor(labels)).backward()
        else:
            parts = [embed(images[branch]) for branch in ("anchor", "positive")]
            loss(*parts).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    network.eval()
    with torch.no_grad():
        z = np.concatenate([embed(x_test[i : i + 500]).numpy() for i in range(0, len(x_test), 500)])
    return {"recall": recall(z, y_test), "seconds": seconds}


def untrained(x_test, y_test):
    z = model_of(ours("TripletLoss"), True).predict(x_test, verbose=0)
    return {
        "raw pixels": {"recall": recall(x_test.reshape(len(x_test), -1), y_test)},
        "untrained": {"recall": recall(z, y_test)},
    }


def work(side, data):
    """Answer one case a line, as a process of its own."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    parts = drawings(data)
    for line in sys.stdin:
        case = json.loads(line)
        try:
            if case["loss"] == "baselines":
                answer = untrained(*parts[2:])
            else:
                train = {"ours": train_ours, "pml": train_peer}[side]
                answer = train(case["loss"], *parts, case["steps"])
        except Exception as error:  # noqa: BLE001 - the table says which loss failed
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def table(found, wanted):
    lines = [
        "| loss | learns from | Recall@1 | pytorch-metric-learning |",
        "| --- | --- | ---: | ---: |",
    ]
    for name in ("raw pixels", "untrained"):
        lines.append(f"| {name} | nothing | {found[name]['recall']:.3f} | |")

    def cell(key):
        answer = found.get(key, {})
        return f"{answer['recall']:.3f}" if "recall" in answer else answer.get("error", "–")

    for name in wanted:
        source = "labels" if labelled(name) else "two views"
        lines.append(f"| {name} | {source} | {cell(name)} | {cell('pml ' + name)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("KERAS_METRIC_DATA"))
    parser.add_argument("--losses", nargs="+", help="default: those not measured yet")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=("ours", "pml"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("--data: omniglot_background_28.npz, or the folder that has it")
    data = Path(arguments.data)
    data = data / "omniglot_background_28.npz" if data.is_dir() else data
    if arguments.work:
        return work(arguments.work, data)
    kept = arguments.out / "omniglot.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    every = names()
    cases = [("ours", "baselines", None)]
    for name in arguments.losses or every:
        cases.append(("ours", name, name))
        if name in PEERS:
            cases.append(("pml", name, f"pml {name}"))
    workers = {
        side: Worker("omniglot.py", "--work", side, "--data", str(data)) for side in ("ours", "pml")
    }
    for side, name, key in cases:
        if key in found and not arguments.losses:
            continue
        answer = workers[side].ask({"loss": name, "steps": arguments.steps})
        found.update(answer if key is None else {key: answer})
        print(f"{side}, {name}: {answer}", flush=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for worker in workers.values():
        worker.close()
    text = [
        "# Recall@1 on unseen characters",
        f"Omniglot's background set, 28 x 28, split by character (three quarters to train on); "
        f"Conv-4 of {FILTERS} filters with {DIM} outputs, Adam 1e-3, {arguments.steps} steps of "
        f"{BATCH} drawings ({PER_CLASS} of a character, or two changed views of {BATCH // 2} "
        f"drawings). Same first weights and same batches in every row, one seed. {machine()}.",
        "Each loss with its defaults, which favour some: this is no ranking. Losses of two views "
        "see no label.",
        table(found, every),
    ]
    path = write(arguments.out, "omniglot.md", text)
    print(f"{path}: Recall@1 of {len(every)} losses")


if __name__ == "__main__":
    main()
