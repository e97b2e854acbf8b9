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
from keras_metric.models.loss_layers import random_states

OUT, STORE = sys.argv[1:3]
RANK = int(sys.argv[3])
# Numbers of items of the two processes.
SPLITS = ((5, 4), (4, 5), (6, 0), (0, 3), (1, 1))


def cases():
    """Yield each loss at its defaults, and what changes how a batch is distributed."""
    for name, settings in contract.CASES:
        if not settings or name == "TripletLoss" and "mining" in settings:
            yield name, settings
        elif {"learn_temperature", "learn_beta", "meta_classes"} & set(settings):
            yield name, settings
    yield "ContrastiveLoss", {"memory": CrossBatchMemory(12)}
    yield "ContrastiveLoss", {"mining": PairMiner("uniform-histogram", seed=3)}
    for name in ("TripletLoss", "ContrastiveLoss", "ArcFaceLoss"):
        for reduction in ("mean_active", "mean_valid", "sum_over_batch_size", "sum", "mean"):
            yield name, {"reduction": reduction}
    terms = [(0.5, losses.TripletLoss()), (2.0, losses.ArcFaceLoss(contract.CLASSES))]
    yield "WeightedSum", {"terms": terms}


def build(case):
    name, settings = case
    if name == "SimSiamLoss":
        # At this width the default predictor has one hidden unit: its gradient is zero.
        initializer = keras.initializers.RandomNormal(seed=1)
        predictor = keras.layers.Dense(contract.DIM, kernel_initializer=initializer)
        settings = {**settings, "predictor": predictor}
    return contract.build((name, settings))


def results(case, number, rows=slice(None), average=lambda gradient: gradient):
    """Value, gradients, new states and statistics of the first `number` items, or some of them."""
    loss = build(case)
    for state in (state for layer in loss.layers for state in random_states(layer)):
        # The processes have different random states; that of the first one counts.
        state.assign(state + RANK)
    for weight in (weight for layer in loss.layers for weight in layer.trainable_weights):
        # The terms of a sum have the same weights at every call.
        weight.value.grad = None
    y, x, weights = (
        None if array is None else torch.tensor(array[:number][rows])
        for array in (contract.targets(case), contract.rows(case), contract.weights_of(case))
    )
    x.requires_grad_(True)
    with losses.StepReports() as reports:
        value = loss(y, x, weights)
    value.backward()
    found = {"value": value.detach(), "gradient": x.grad, "rows": torch.tensor(len(x))}
    for layer in loss.layers:
        for i, weight in enumerate(layer.trainable_weights):
            gradient = weight.value.grad
            found[f"weight {i}"] = torch.zeros(()) if gradient is None else average(gradient)
    for i, (_, state) in enumerate(reports.updates):
        found[f"state {i}"] = state
    for name, statistic in reports.statistics.items():
        found[f"statistic {name}"] = statistic
    return {key: keras.ops.convert_to_numpy(value) for key, value in found.items()}


def average(gradient):
    torch.distributed.all_reduce(gradient)
    return gradient / 2


def described(case):
    name, settings = case
    shown = (getattr(v, "name", len(v) if isinstance(v, list) else v) for v in settings.values())
    return f"{name}({', '.join(f'{key}={value}' for key, value in zip(settings, shown))})"


CASES = list(cases())
found = {}
for case in CASES if RANK == 0 else ():
    for first, second in SPLITS:
        for key, value in results(case, first + second).items():
            found[f"{described(case)}|{first}+{second}|one|{key}"] = value
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{STORE}", rank=RANK, world_size=2
)
for case in CASES:
    for first, second in SPLITS:
        own = slice(None, first) if RANK == 0 else slice(first, None)
        for key, value in results(case, first + second, own, average).items():
            found[f"{described(case)}|{first}+{second}|two|{key}"] = value
torch.distributed.destroy_process_group()
np.savez(OUT, **found)
