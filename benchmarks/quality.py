"""Quality of training compared with pytorch-metric-learning: equal settings, five paired seeds.

    python benchmarks/quality.py --data FOLDER    # omniglot_background_28.npz, birds50_features...
    python benchmarks/quality.py --data FOLDER --losses SupConLoss --tasks birds --seeds 2

Each loss trains the same network in keras_metric and in PyTorch with the corresponding loss of
pytorch-metric-learning: same initial weights and class vectors, same batches, optimizer and number
of steps. The seed determines all of these and the held-out classes. The result is Recall@1 on the
held-out classes; the table has the mean paired difference with its 95 % confidence interval
(Student's t). Measurements are stored in results/quality.json, so that an interrupted run resumes.
Needs the extra `parity`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from losses import RESULTS, Worker, machine, write
from omniglot import SIDE, conv4, drawings, recall, torch_layers

from keras_metric_startup import hide_tensorflow_startup_messages

# Our class: its arguments, the peer's class and arguments, whether embeddings are not normalized.
LOSSES = {
    "TripletLoss": ({"mining": "all"}, "TripletMarginLoss", {"margin": 0.2}, True),
    "MultiSimilarityLoss": ({}, "MultiSimilarityLoss", {}, False),
    "SupConLoss": ({}, "SupConLoss", {}, False),
    "ProxyAnchorLoss": ({}, "ProxyAnchorLoss", {}, False),
    "ArcFaceLoss": ({"scale": 16}, "ArcFaceLoss", {"scale": 16}, False),
}
OF_CLASSES = ("ProxyAnchorLoss", "ArcFaceLoss")
RATE_FACTOR = 10  # learning rate of class vectors relative to that of the network
BATCH, PER_CLASS, DIM, FILTERS = 128, 4, 64, 16
# Number of steps and learning rate of Adam.
TASKS = {"omniglot": (200, 1e-3), "birds": (150, 1e-3)}
# Student's t at 97.5 % for 1, 2, ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def omniglot(folder, seed):
    return drawings(folder / "omniglot_background_28.npz", seed)


def birds(folder, seed):
    """Return MobileNet features of 50 species, half for training and half for the test."""
    import numpy as np

    from keras_metric.data import split_by_class

    with np.load(folder / "birds50_features_mnv2_1280.npz") as file:
        x = ((file["f"].astype("float32") - file["zero_point"]) * file["scale"]).astype("float32")
        y = file["y"]
    train, test = split_by_class(y, test_size=0.5, seed=seed)
    return x[train], y[train], x[test], y[test]


def model_of(task, name, num_classes, seed):
    import keras

    import keras_metric

    settings = dict(LOSSES[name][0])
    if name in OF_CLASSES:
        settings["num_classes"] = num_classes
    loss = getattr(keras_metric.losses, name)(**settings)
    keras.utils.set_random_seed(seed)
    shape = {"omniglot": (SIDE, SIDE, 1), "birds": (1280,)}[task]
    # The encoder has only its linear layer.
    plain = keras.Sequential([keras.Input(shape), keras.layers.Activation("linear")])
    model = keras_metric.EmbeddingModel(conv4(seed, FILTERS) if task == "omniglot" else plain, DIM)
    model.build((None, *shape))
    rate = TASKS[task][1]
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    by_path = {
        v.path: keras.optimizers.Adam(rate * RATE_FACTOR)
        for v in model.loss_layers.trainable_weights
    }
    if by_path:
        optimizers = keras.optimizers.OptimizerMap(keras.optimizers.Adam(rate), by_path)
        model.compile(keras.optimizers.MultiOptimizer(optimizers), loss, jit_compile=False)
    return model


def batches(x, y, steps, seed):
    import numpy as np

    from keras_metric.data import BalancedBatches

    classes = min(BATCH // PER_CLASS, len(np.unique(y)))
    return BalancedBatches(x, y, classes, PER_CLASS, batches_per_epoch=steps, seed=seed)


def train_ours(model, x, y, x_test, y_test, steps, rate, seed):
    model.fit(batches(x, y, steps, seed), epochs=1, verbose=0)
    return recall(model.predict(x_test, verbose=0), y_test)


def train_peer(name, model, x, y, x_test, y_test, steps, rate, seed):
    """Train in PyTorch, from the weights of `model`."""
    import numpy as np
    import torch
    from pytorch_metric_learning import distances, losses
    from torch.nn.functional import normalize

    torch.manual_seed(seed)
    network = torch_layers(model)
    _, kind, arguments, plain = LOSSES[name]
    if name in OF_CLASSES:
        classes = {"num_classes": len(np.unique(y)), "embedding_size": DIM}
        arguments = {**arguments, **classes}
    if plain:
        arguments = {**arguments, "distance": distances.LpDistance(normalize_embeddings=False)}
    loss = getattr(losses, kind)(**arguments)
    groups = [{"params": network.parameters()}]
    if name in OF_CLASSES:
        (vectors,) = model.loss_layers.get_weights()
        (learned,) = loss.parameters()
        same_shape = tuple(learned.shape) == vectors.shape
        with torch.no_grad():
            learned.copy_(torch.tensor(vectors if same_shape else vectors.T))
        groups.append({"params": [learned], "lr": rate * RATE_FACTOR})
    optimizer = torch.optim.Adam(groups, rate, eps=1e-7)

    def embed(part):
        return normalize(network(torch.tensor(np.moveaxis(part, -1, 1) if part.ndim > 2 else part)))

    source = batches(x, y, steps, seed)
    source.on_epoch_end()
    for step in range(steps):
        part, labels = source[step]
        optimizer.zero_grad()
        loss(embed(part), torch.tensor(labels).long()).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        parts = [embed(x_test[i : i + 500]).numpy() for i in range(0, len(x_test), 500)]
    return recall(np.concatenate(parts), y_test)


def work(side, folder):
    """Read a case from each line of standard input and write its result."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    hide_tensorflow_startup_messages()
    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        case = json.loads(line)
        task, name, seed = case["task"], case["loss"], case["seed"]
        parts = {"omniglot": omniglot, "birds": birds}[task](Path(folder), seed)
        steps, rate = TASKS[task]
        model = model_of(task, name or "TripletLoss", len(np.unique(parts[1])), seed)
        if name is None:
            x, y = parts[2:]
            answer = {
                "raw input": recall(x.reshape(len(x), -1), y),
                "untrained": recall(model.predict(x, verbose=0), y),
            }
        elif side == "ours":
            answer = {"recall": train_ours(model, *parts, steps, rate, seed)}
        else:
            answer = {"recall": train_peer(name, model, *parts, steps, rate, seed)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def interval(values):
    """Return the mean and half of its 95 % confidence interval."""
    import numpy as np

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return mean, float(error * STUDENT[min(len(values) - 2, len(STUDENT) - 1)])


def table(found, tasks, names, seeds):
    import numpy as np

    lines = [
        "| task | loss | seeds | raw input | untrained | keras_metric | pytorch-metric-learning "
        "| difference |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for task in tasks:
        for name in names:
            keys = [f"{task} {name} {seed}" for seed in range(seeds)]
            pairs = [
                [found[f"{side} {key}"]["recall"] for side in ("ours", "pml")]
                for key in keys
                if f"ours {key}" in found and f"pml {key}" in found
            ]
            if not pairs:
                continue
            ours, peer = np.mean(pairs, axis=0)
            mean, half = interval([a - b for a, b in pairs])
            first = [found[f"ours {task} None {seed}"] for seed in range(len(pairs))]
            before = [np.mean([row[k] for row in first]) for k in ("raw input", "untrained")]
            lines.append(
                f"| {task} | {name} | {len(pairs)} | {before[0]:.3f} | {before[1]:.3f} "
                f"| {ours:.3f} | {peer:.3f} | {mean:+.3f} ± {half:.3f} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("KERAS_METRIC_DATA"))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=("ours", "pml"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error(
            "--data must be the folder of omniglot_background_28.npz and the birds' features"
        )
    if arguments.work:
        return work(arguments.work, arguments.data)
    kept = arguments.out / "quality.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    workers = {
        side: Worker("quality.py", "--work", side, "--data", arguments.data)
        for side in ("ours", "pml")
    }
    for seed in range(arguments.seeds):
        for task in arguments.tasks:
            for name in (None, *arguments.losses):
                for side in ("ours", "pml") if name else ("ours",):
                    key = f"{side} {task} {name} {seed}"
                    if key in found:
                        continue
                    answer = workers[side].measure({"task": task, "loss": name, "seed": seed})
                    print(f"{key}: {answer}", flush=True)
                    if "error" in answer:
                        raise SystemExit(f"{key} failed")
                    found[key] = answer
                    arguments.out.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for worker in workers.values():
        worker.close()
    steps = ", ".join(f"{TASKS[task][0]} steps on {task}" for task in TASKS)
    text = [
        "# Quality of training compared with pytorch-metric-learning",
        "Recall@1 on held-out classes; mean paired difference with its 95 % confidence interval. "
        f"{steps}, Adam {TASKS['birds'][1]:g} (class vectors: {RATE_FACTOR} times this rate), "
        f"batches of up to {BATCH}, {PER_CLASS} per class, {DIM} outputs. omniglot: Conv-4 of "
        f"{FILTERS} filters on the background set, a quarter of the characters held out. birds: a "
        "linear layer on features of a MobileNet for 50 species, half of them held out. "
        f"{machine()}.",
        table(found, list(TASKS), list(LOSSES), arguments.seeds),
    ]
    path = write(arguments.out, "quality.md", text)
    print(f"{path}: {len(LOSSES)} losses")


if __name__ == "__main__":
    main()
