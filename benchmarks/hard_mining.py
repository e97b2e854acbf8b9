"""HardExampleMining compared with random classes: recall@1 on unseen characters.

    python benchmarks/hard_mining.py --data omniglot_background_28.npz

Conv-4 of omniglot.py on its split by character, the same number of steps for each kind of batches,
three seeds. Results are kept in results/hard_mining.json, from which an interrupted run resumes.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

from losses import RESULTS, machine, write
from omniglot import SIDE, conv4, drawings, recall

WAYS = ("random", "neighbors", "classes")
CLASSES, EACH, DIM = 8, 4, 64
EPOCHS, START = 10, 2


def train(way, seed, parts, steps):
    import keras

    import keras_metric
    from keras_metric.callbacks import HardExampleMining
    from keras_metric.data import BalancedBatches

    x, y, x_test, y_test = parts
    backbone = conv4()
    keras.utils.set_random_seed(seed)
    model = keras_metric.EmbeddingModel(backbone, DIM)
    model.build((None, SIDE, SIDE, 1))
    loss = keras_metric.losses.NTXentLoss()
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    batches = BalancedBatches(
        x, y, CLASSES, EACH, batches_per_epoch=steps // EPOCHS, seed=seed, workers=1
    )
    callbacks = []
    if way != "random":
        callbacks = [HardExampleMining(batches, rule=way, start=START, progress=False)]
    model.fit(batches, epochs=EPOCHS, callbacks=callbacks, verbose=0)
    return recall(model.predict(x_test, verbose=0), y_test)


def title(way, seed, steps):
    """Return the key of a run in the file of results."""
    return f"{way} {seed}, {steps} steps"


def table(found, seeds, steps):
    lines = ["| batches | " + " | ".join(f"seed {s}" for s in seeds) + " | mean |"]
    lines.append("| --- |" + " ---: |" * (len(seeds) + 1))
    for name in ("raw pixels", "untrained"):
        if name in found:
            lines.append(f"| {name} |" + " |" * len(seeds) + f" {found[name]:.3f} |")
    for way in WAYS:
        values = [found.get(title(way, seed, steps)) for seed in seeds]
        if None not in values:
            cells = " | ".join(f"{value:.3f}" for value in values)
            lines.append(f"| {way} | {cells} | {statistics.mean(values):.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("KERAS_METRIC_DATA"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("--data: omniglot_background_28.npz, or its folder")
    data = Path(arguments.data)
    data = data / "omniglot_background_28.npz" if data.is_dir() else data
    kept = arguments.out / "hard_mining.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    parts = drawings(data)
    if "untrained" not in found:
        from omniglot import untrained

        found.update({name: row["recall"] for name, row in untrained(*parts[2:]).items()})
    for seed in arguments.seeds:
        for way in arguments.ways:
            name = title(way, seed, arguments.steps)
            if name not in found:
                found[name] = train(way, seed, parts, arguments.steps)
                print(f"{name}: {found[name]:.3f}", flush=True)
                arguments.out.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    text = [
        "# Hard classes in a batch, compared with random classes",
        "Recall@1 on unseen characters. Omniglot's background set, 28 x 28, split by "
        f"character; Conv-4 of 32 filters with {DIM} outputs, NTXentLoss, Adam 1e-3, "
        f"{arguments.steps} steps of {CLASSES} x {EACH} drawings in {EPOCHS} epochs; "
        f"`HardExampleMining` after each from the {START}nd on. {machine()}.",
        table(found, arguments.seeds, arguments.steps),
    ]
    path = write(arguments.out, "hard_mining.md", text)
    print(f"{path}: recall@1 of hard batches")


if __name__ == "__main__":
    main()
