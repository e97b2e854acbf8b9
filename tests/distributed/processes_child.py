"""Script of test_processes.py: every loss in two processes of torch.distributed, write NPZ.

    python processes_child.py OUT STORE RANK

Process 0 first computes the results of one process with the whole batch. Then both processes
compute the results of their part of it, split in several ways, also without any item. The gradients
are averaged over the processes like DistributedDataParallel averages them.
"""

import sys

import keras
import numpy as np
import test_contract as contract
import torch

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory, PairMiner
from keras_metric.losses.metric_loss import REDUCTIONS
from keras_metric.models.loss_layers import random_states

OUT, STORE = sys.argv[1:3]
RANK = int(sys.argv[3])
# Numbers of items of the two processes.
SPLITS = ((5, 4), (4, 5), (6, 0), (0, 3), (1, 1))


def cases():
    """Yield (loss, settings, form of the batch): each loss at its defaults, and other forms."""
    for name, settings in contract.CASES:
        learned = {"learn_temperature", "learn_beta", "meta_classes"} & set(settings)
        if not settings or learned or name == "TripletLoss" and "mining" in settings:
            yield name, settings, "batch"
    yield "ContrastiveLoss", {"memory": CrossBatchMemory(12)}, "batch"
    yield "ContrastiveLoss", {"mining": PairMiner("uniform-histogram", seed=3)}, "batch"
    for name in ("TripletLoss", "ContrastiveLoss", "ArcFaceLoss"):
        for reduction in REDUCTIONS:
            yield name, {"reduction": reduction}, "batch"
    terms = [(0.5, losses.TripletLoss()), (2.0, losses.ArcFaceLoss(contract.CLASSES))]
    yield "WeightedSum", {"terms": terms}, "batch"
    yield "ContrastiveLoss", {"labels": "multi_hot"}, "multi-hot"
    yield "TripletLoss", {}, "tuples of 3"
    yield "QuadrupletLoss", {}, "tuples of 4"
    yield "ContrastiveLoss", {}, "pairs"
    yield "NTXentLoss", {}, "views"
    yield "SupConLoss", {}, "views with ids"


def build(name, settings):
    if name == "SimSiamLoss":
        # At this width the default predictor has one hidden unit: its gradient is zero.
        initializer = keras.initializers.RandomNormal(seed=1)
        predictor = keras.layers.Dense(contract.DIM, kernel_initializer=initializer)
        settings = {**settings, "predictor": predictor}
    return contract.build((name, settings))


def batch(case):
    """Labels or None, embeddings, and weights or None."""
    name, settings, form = case
    y, x = contract.targets((name, settings)), contract.rows((name, settings))
    number = {"tuples of 3": 3, "tuples of 4": 4}.get(form, 2)
    if form.startswith(("tuples", "pairs", "views")):
        x = np.random.default_rng(0).normal(size=(len(y), number, contract.DIM)).astype("float32")
    if form.startswith(("tuples", "pairs")):
        y = (y % 2).astype("float32") if form == "pairs" else None
    if form == "views":
        y = None
    if form == "multi-hot":
        y = np.eye(contract.CLASSES, dtype="int32")[y] | np.eye(contract.CLASSES, dtype="int32")[0]
    return y, x, contract.weights_of((name, settings))


def results(case, number, rows=slice(None), average=None):
    """Value, gradients, new states and statistics of the first `number` items, or some of them.

    `average`: function of a gradient, or None in one process.
    """
    loss = build(*case[:2])
    for state in (state for layer in loss.layers for state in random_states(layer)):
        # The processes have different random states; that of the first one counts.
        state.assign(state + RANK)
    for weight in (weight for layer in loss.layers for weight in layer.trainable_weights):
        # The terms of a sum have the same weights at every call.
        weight.value.grad = None
    y, x, weights = (
        None if array is None else torch.tensor(array[:number][rows]) for array in batch(case)
    )
    x.requires_grad_(True)
    with losses.StepReports() as reports:
        value = loss(y, x, weights)
    found = {"value": value.detach()}
    if loss.reduction == "none":
        found = {"own rows": value.detach()}
        # The sum of the averages of two processes is half of the sum of the rows.
        value = value.sum() * (1 if average is None else 2)
    value.backward()
    found["gradient"] = x.grad
    for layer in loss.layers:
        for i, weight in enumerate(layer.trainable_weights):
            gradient = weight.value.grad
            if gradient is not None:
                found[f"weight {i}"] = gradient if average is None else average(gradient)
    for i, (_, state) in enumerate(reports.updates):
        found[f"state {i}"] = state
    for name, statistic in reports.statistics.items():
        found[f"statistic {name}"] = statistic
    return {key: keras.ops.convert_to_numpy(value) for key, value in found.items()}


def average(gradient):
    torch.distributed.all_reduce(gradient)
    return gradient / 2


def described(case):
    name, settings, form = case
    shown = (getattr(v, "name", len(v) if isinstance(v, list) else v) for v in settings.values())
    settings = ", ".join(f"{key}={value}" for key, value in zip(settings, shown))
    return f"{name}({settings}), {form}"


CASES = list(cases())
found = {}
for case in CASES if RANK == 0 else ():
    for first, second in SPLITS:
        for key, value in results(case, first + second).items():
            found[f"{described(case)}|{first}+{second}|one|{key}"] = value
torch.distributed.init_process_group("gloo", init_method=f"file://{STORE}", rank=RANK, world_size=2)
for case in CASES:
    for first, second in SPLITS:
        own = slice(None, first) if RANK == 0 else slice(first, None)
        for key, value in results(case, first + second, own, average).items():
            found[f"{described(case)}|{first}+{second}|two|{key}"] = value
torch.distributed.destroy_process_group()
np.savez(OUT, **found)
