"""Training in processes of torch.distributed; as a script of test_processes.py, writes NPZ.

    python ddp_child.py OUT STORE RANK NUMBER [CASE ...]

NUMBER: of processes; 1 for one process with the whole batch. Five steps of SGD on batches that are
split into equal parts, unequal parts, and parts without any item. The file contains for each case
the losses, the gradients of the first step, and the last weights with the state of the loss.
"""

import sys

import keras
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

import keras_metric
from keras_metric import layers, losses
from keras_metric.mining import triplet_rules

# Numbers of items of the first process, and of the whole batch.
PARTS = ((12, 24), (10, 17), (0, 9), (8, 8), (7, 15))
CLASSES, SIDE, DIM, RATE = 6, 5, 8, 0.1


def batches(rank, number):
    """Yield x and y of process `rank`."""
    rng = np.random.default_rng(7)
    for first, rows in PARTS:
        y = rng.integers(0, CLASSES, rows)
        x = rng.normal(y[:, None] % 3, 1.0, (rows, SIDE)).astype("float32")
        own = slice(None) if number == 1 else slice(first) if rank == 0 else slice(first, None)
        yield x[own], y[own]


def model_of(loss, **settings):
    backbone = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(16, "tanh")])
    model = keras_metric.EmbeddingModel(backbone, DIM, **settings)
    model.build((None, SIDE))
    model.compile(keras.optimizers.SGD(RATE), loss)
    return model


class Step(torch.nn.Module):
    """The loss of a batch, with the weights of the encoder and of the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model.compute_loss(x, y, self.model(x, training=True))


class PlainStep(torch.nn.Module):
    """The same for an encoder of torch and a loss."""

    def __init__(self, loss):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(SIDE, 16), torch.nn.Tanh(), torch.nn.Linear(16, DIM)
        )
        for layer in loss.layers:
            layer.build((None, DIM))
        self.loss_layers = torch.nn.ModuleList(loss.layers)
        self.loss = loss

    def forward(self, x, y):
        return self.loss(y, self.encoder(x))


def train(step, trained, rank, number, with_ddp=True):
    """Train on all batches with DDP; return the losses and the first gradients."""
    if number > 1 and with_ddp:
        step = DistributedDataParallel(step)
    optimizer = torch.optim.SGD(trained, RATE)
    values, first = [], None
    for x, y in batches(rank, number):
        optimizer.zero_grad()
        value = step(torch.tensor(x), torch.tensor(y))
        value.backward()
        if first is None:
            first = [weight.grad.clone() for weight in trained]
        optimizer.step()
        values.append(float(value.detach()))
    return values, first


def with_keras_model(make, **settings):
    def run(*process):
        model = model_of(make(), **settings)
        trained = [weight.value for weight in model.trainable_variables]
        return *train(Step(model), trained, *process), [w.value for w in model.weights]

    return run


def with_torch_module(make, with_ddp=True):
    def run(rank, number):
        # DDP shares the weights of the first process.
        torch.manual_seed(rank)
        step = PlainStep(make())
        weights = list(step.parameters())
        return *train(step, weights, rank, number, with_ddp), weights

    return run


def with_fit(make, one_by_one=False):
    """The same with `fit` or `train_on_batch` of Keras; the loss of the first step only."""

    def run(rank, number):
        # `fit` shares the weights of the first process.
        keras.utils.set_random_seed(1 + rank)
        model = model_of(make())
        trained = [weight.value for weight in model.trainable_variables]
        start = [weight.detach().clone() for weight in trained]
        (x, y), *rest = batches(rank, number)
        values = model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0).history["loss"]
        # A step of SGD is the learning rate times the gradient.
        first = [(old - weight.detach()) / RATE for old, weight in zip(start, trained)]
        if one_by_one:
            # It refuses an array without items.
            for batch in (rest[0], rest[-1]):
                model.train_on_batch(*batch)
        else:
            model.fit((batch for batch in rest), steps_per_epoch=4, shuffle=False, verbose=0)
        if rank == 0:
            # One process evaluates alone.
            model.evaluate(x, y, verbose=0)
        # The other processes started from other weights.
        return values, first if rank == 0 else [], [w.value for w in model.weights]

    return run


def triplet(mining):
    # The terms of "easy-all" are zero in the default form.
    form = {"form": "soft_margin"} if mining == "easy-all" else {}
    return losses.TripletLoss(mining=mining, **form)


def arc_face():
    return losses.ArcFaceLoss(CLASSES, scale=4.0)


def memory():
    return losses.ContrastiveLoss(2.0, memory=layers.CrossBatchMemory(40))


CASES = {
    **{
        f"triplet {mining}": with_keras_model(lambda mining=mining: triplet(mining))
        for mining in triplet_rules.STRATEGIES
    },
    "sup-con": with_keras_model(losses.SupConLoss),
    "arc-face": with_keras_model(arc_face),
    "ada-face": with_keras_model(lambda: losses.AdaFaceLoss(CLASSES, scale=4.0)),
    "memory": with_keras_model(memory),
    "chunks": with_keras_model(losses.SupConLoss, chunk_size=8),
    "module": with_torch_module(losses.TripletLoss),
    "module arc-face": with_torch_module(arc_face),
    "fit": with_fit(losses.TripletLoss),
    "fit arc-face": with_fit(arc_face),
    "fit memory": with_fit(memory),
    "train_on_batch": with_fit(arc_face, one_by_one=True),
}


def labels_of_two_dtypes(rank, number):
    x, y = torch.ones(2, DIM, requires_grad=True), torch.tensor([0, 1])
    losses.TripletLoss()(y.int() if rank else y, x)


WRONG = {
    "no DDP": with_torch_module(losses.TripletLoss, with_ddp=False),
    "dtypes": labels_of_two_dtypes,
}


def results(names, store, rank, number):
    """Results of the cases `names` in process `rank`, by case and kind."""
    if number > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=number
        )
    found = {}
    try:
        for name in names:
            keras.utils.set_random_seed(1)
            values, first, weights = {**CASES, **WRONG}[name](rank, number)
            found[f"{name}|losses"] = np.array(values)
            for kind, tensors in (("gradient", first), ("weight", weights)):
                for i, tensor in enumerate(tensors):
                    found[f"{name}|{kind} {i}"] = tensor.detach().numpy().copy()
    finally:
        if number > 1:
            torch.distributed.destroy_process_group()
    return found


if __name__ == "__main__":
    out, store, rank, number, *names = sys.argv[1:]
    np.savez(out, **results(names or CASES, store, int(rank), int(number)))
