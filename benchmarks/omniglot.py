"""Recall@1 on unseen characters after training the same network with each loss.

    python benchmarks/omniglot.py --data omniglot_background_28.npz
    python benchmarks/omniglot.py --data ... --losses TripletLoss NTXentLoss

Every loss of the package trains the same Conv-4 from the same weights on the same batches of
Omniglot's background set. The loss of pytorch-metric-learning with the same name trains a PyTorch
network with these weights. The results are compared with raw pixels and with the untrained network.
Takes 1.5 hours on two cores. Measurements are stored in results/omniglot.json, so that an
interrupted run resumes and new losses are added. Needs the extra `parity`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from compared_losses import (
    DIMS,
    OF_CLASSES,
    OF_PAIRS,
    PEERS,
    RATE_FACTORS,
    RAW,
    REGULARIZERS,
    labelled,
    names,
    ours,
    peer,
)
from losses import RESULTS, Worker, machine, write

from keras_metric_startup import hide_tensorflow_startup_messages

FILTERS = 32
BATCH, PER_CLASS, DIM = 128, 4, 64
SIDE = 28


def drawings(path, seed=0):
    """Return images in 0 to 1 and characters, for training and for the test."""
    import numpy as np

    from keras_metric.data import split_by_class

    with np.load(path) as file:
        x, y = file["x"].astype("float32")[..., None] / 255, file["y"]
    train, test = split_by_class(y, test_size=0.25, seed=seed)
    return x[train], y[train], x[test], y[test]


def recall(embeddings, labels):
    from keras_metric.evaluation import retrieval_metrics

    return retrieval_metrics(embeddings, labels, k=(1,))["recall_at_1"]


def conv4(seed=0, filters=FILTERS):
    """Return the backbone of the few-shot literature: four blocks of convolution and pooling."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    blocks = [
        layer
        for _ in range(4)
        for layer in (
            layers.Conv2D(filters, 3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        )
    ]
    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *blocks, layers.Flatten()])


def model_of(loss, name):
    import keras

    import keras_metric

    keras.utils.set_random_seed(0)
    backbone, dim = conv4(), DIMS.get(name, DIM)
    if name == "SimSiamLoss":
        # Batch normalization of the output prevents collapse.
        backbone.add(keras.layers.Dense(DIM))
        backbone.add(keras.layers.BatchNormalization(momentum=0.9))
        dim = None
    model = keras_metric.EmbeddingModel(backbone, dim, normalize=name not in RAW)
    model.build((None, SIDE, SIDE, 1))
    model.compile(optimizer_of(name), loss, jit_compile=False)
    if RATE_FACTORS.get(name, 1) > 1:
        # Class centers have the learning rate of the network.
        paths = [v.path for v in model.loss_layers.weights if "center_loss" not in v.path]
        by_path = {path: optimizer_of(name, RATE_FACTORS[name]) for path in paths}
        optimizers = keras.optimizers.OptimizerMap(optimizer_of(name), by_path)
        model.compile(keras.optimizers.MultiOptimizer(optimizers), loss, jit_compile=False)
    return model


def optimizer_of(name, factor=1):
    """Return Adam, or the paper's optimizer for SimSiam; `factor` scales the learning rate."""
    from keras import optimizers

    if name == "SimSiamLoss":
        decay = 5e-4 if factor == 1 else None
        return optimizers.SGD(0.05 * factor, momentum=0.9, weight_decay=decay)
    return optimizers.Adam(1e-3 * factor)


def batches(x, y, kind, steps):
    """Return labelled batches, pairs, or two augmented views of each drawing."""
    import keras
    import numpy as np
    from keras import layers

    from keras_metric.data import BalancedBatches, PairBatches

    if kind == "labelled":
        return BalancedBatches(x, y, BATCH // PER_CLASS, PER_CLASS, batches_per_epoch=steps, seed=0)
    if kind == "pairs":
        return PairBatches(x, y, BATCH // 2, batches_per_epoch=steps, seed=0)
    augmentation = keras.Sequential(
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
        augment=augmentation,
        views=2,
        view_layout="branches",
    )


def train_ours(name, x, y, x_test, y_test, steps):
    import numpy as np

    model = model_of(ours(name, len(np.unique(y)), regularize=True), name)
    kind = "labelled" if labelled(name) else "pairs" if name in OF_PAIRS else "views"
    model.fit(batches(x, y, kind, steps), epochs=1, verbose=0)
    return {"recall": recall(model.predict(x_test, verbose=0), y_test)}


def torch_layers(model):
    """Return the same layers with the same weights in PyTorch."""
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
            made = {"Activation": nn.Identity, "Flatten": nn.Flatten, "ReLU": nn.ReLU}
            block = made.get(kind, lambda: nn.MaxPool2d(2))()
        blocks.append(block)
    kernel, *bias = model.encoder.get_weights()[-2:]
    head = nn.Linear(*kernel.shape)
    head.weight, head.bias = tensor(kernel.T), tensor(bias[0])
    return nn.Sequential(*blocks, head)


def copy_class_vectors(learned, weights, dim):
    """Copy our class vectors to the parameters of the peer, transposed if necessary."""
    import torch

    for vectors in (w.reshape(-1, dim) for w in weights if w.shape[-1:] == (dim,)):
        for parameter in learned:
            for laid_out in (vectors, vectors.T):
                if tuple(parameter.shape) == laid_out.shape:
                    with torch.no_grad():
                        parameter.copy_(torch.tensor(laid_out))


def train_peer(name, x, y, x_test, y_test, steps):
    import numpy as np
    import torch
    from torch.nn.functional import normalize

    torch.manual_seed(0)
    classes, dim = len(np.unique(y)), DIMS.get(name, DIM)
    network = torch_layers(model_of(ours("TripletLoss"), name if name in DIMS else "TripletLoss"))
    loss = peer(name, classes, dim, regularize=True)
    learned = list(getattr(loss, "parameters", list)())
    if learned and name in OF_CLASSES:
        copy_class_vectors(
            learned, model_of(ours(name, classes), name).loss_layers.get_weights(), dim
        )
    groups = [
        {"params": network.parameters()},
        {"params": learned, "lr": 1e-3 * RATE_FACTORS.get(name, 1)},
    ]
    optimizer = torch.optim.Adam(groups if learned else groups[:1], 1e-3, eps=1e-7)

    def embed(images):
        z = network(torch.tensor(np.moveaxis(images, -1, 1)))
        return z if name in RAW else normalize(z)

    source = batches(x, y, "labelled" if labelled(name) else "views", steps)
    source.on_epoch_end()
    for step in range(steps):
        images, labels = source[step]
        optimizer.zero_grad()
        if labelled(name):
            loss(embed(images), torch.tensor(labels).long()).backward()
        else:
            parts = [embed(images[branch]) for branch in ("anchor", "positive")]
            loss(*parts).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        z = np.concatenate([embed(x_test[i : i + 500]).numpy() for i in range(0, len(x_test), 500)])
    return {"recall": recall(z, y_test)}


def untrained(x_test, y_test):
    def start(name):
        return {"recall": recall(model_of(ours("TripletLoss"), name).predict(x_test), y_test)}

    return {
        "raw pixels": {"recall": recall(x_test.reshape(len(x_test), -1), y_test)},
        "untrained": start("TripletLoss"),
        **{f"untrained, {dim:,} outputs": start(name) for name, dim in DIMS.items()},
    }


def work(side, data):
    """Read a case from each line of standard input and write its result."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    hide_tensorflow_startup_messages()
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
        except Exception as error:  # noqa: BLE001 - the table shows which loss failed
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def table(found, selected):
    lines = [
        "| loss | trained on | Recall@1 | pytorch-metric-learning |",
        "| --- | --- | ---: | ---: |",
    ]
    for name in sorted(name for name in found if name.startswith(("raw", "untrained"))):
        lines.append(f"| {name} | – | {found[name]['recall']:.3f} | |")

    def cell(key):
        answer = found.get(key, {})
        if key.startswith("pml ") and key[4:] not in PEERS:
            return "–"
        if "error" in answer:
            return "fails"
        return f"{answer['recall']:.3f}" if "recall" in answer else "not measured"

    for name in selected:
        source = "labels" if labelled(name) else "pairs" if name in OF_PAIRS else "two views"
        shown = f"{REGULARIZERS[name][0]} + {name}" if name in REGULARIZERS else name
        shown += f", {DIMS[name]:,} outputs" if name in DIMS else ""
        lines.append(f"| {shown} | {source} | {cell(name)} | {cell('pml ' + name)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("KERAS_METRIC_DATA"))
    parser.add_argument("--losses", nargs="+", help="default: those not measured yet")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--work", choices=("ours", "pml"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("--data must be omniglot_background_28.npz or its folder")
    data = Path(arguments.data)
    data = data / "omniglot_background_28.npz" if data.is_dir() else data
    if arguments.work:
        return work(arguments.work, data)
    kept = arguments.out / "omniglot.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    every = names()
    cases = [] if arguments.table else [("ours", "baselines", None)]
    for name in () if arguments.table else arguments.losses or every:
        cases.append(("ours", name, name))
        if name in PEERS:
            cases.append(("pml", name, f"pml {name}"))
    workers = {
        side: Worker("omniglot.py", "--work", side, "--data", str(data))
        for side in (("ours", "pml") if cases else ())
    }
    for side, name, key in cases:
        if key in found and not arguments.losses:
            continue
        answer = workers[side].measure({"loss": name, "steps": arguments.steps})
        found.update(answer if key is None else {key: answer})
        print(f"{side}, {name}: {answer}", flush=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for worker in workers.values():
        worker.close()
    text = [
        "# Recall@1 on unseen characters",
        "Omniglot's background set, 28 x 28, split by character (three quarters for training); "
        f"Conv-4 of {FILTERS} filters with {DIM} outputs, Adam 1e-3, {arguments.steps} steps of "
        f"{BATCH} drawings ({PER_CLASS} of a character, or two augmented views of {BATCH // 2} "
        f"drawings). Same initial weights and batches in every row, one seed. {machine()}.",
        "Each loss has its defaults, except for SETTINGS in compared_losses.py. The defaults "
        "suit some losses better than others: this is not a ranking. Losses of two views use no"
        " labels. The learning rate of class vectors is ten times that of the network, except "
        "for centers and for LargeMarginSoftmaxLoss, which uses their length. SimSiam is "
        "trained by SGD as in its paper (0.05, momentum 0.9; weight decay 5e-4), its predictor "
        "with ten times this rate. P2SGradLoss needs more outputs than classes. `fails`: it "
        "raises in training. pytorch-metric-learning has no blend for LargeMarginSoftmaxLoss "
        "and SphereFaceLoss, and its embeddings collapse to length 0.",
        table(found, every),
    ]
    path = write(arguments.out, "omniglot.md", text)
    print(f"{path}: Recall@1 of {len(every)} losses")


if __name__ == "__main__":
    main()
