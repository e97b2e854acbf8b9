"""Losses that a model accepts in `compile`, and the errors for the others."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_metric import addons, losses
from keras_metric.models import (
    EmbeddingModel,
    QuadrupletModel,
    SiameseModel,
    TripletModel,
    TwoTowerModel,
)

X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
Y = np.repeat(np.arange(3), 4)


def two_towers():
    return TwoTowerModel(layers.Dense(4), layers.Dense(4), 4)


MODELS = {
    "EmbeddingModel": lambda: EmbeddingModel(layers.Dense(4), 4),
    "SiameseModel": lambda: SiameseModel(layers.Dense(4), 4),
    "TripletModel": lambda: TripletModel(layers.Dense(4), 4),
    "QuadrupletModel": lambda: QuadrupletModel(layers.Dense(4), 4),
    "TwoTowerModel": two_towers,
}
# Tuples that a model accepts, by number of branches.
TUPLES = {
    "EmbeddingModel": {
        2: {"first": X, "second": X + 1},
        3: {"anchor": X, "positive": X + 1, "negative": X[::-1]},
        4: {"anchor": X, "positive": X + 1, "negative": X[::-1], "second_negative": X[::-1] + 1},
    },
    "SiameseModel": {2: (X, X + 1)},
    "TripletModel": {3: (X, X + 1, X[::-1])},
    "QuadrupletModel": {4: (X, X + 1, X[::-1], X[::-1] + 1)},
    "TwoTowerModel": {2: (X, X + 1)},
}
# Required arguments of losses.
ARGUMENTS = {
    "ManifoldLoss": {"embedding_dim": 4},
    "WeightedSum": {"terms": [(1.0, losses.TripletLoss())]},
    **{
        name: {"num_classes": 3}
        for name in losses.__all__
        if "num_classes" in getattr(losses, name).__init__.__code__.co_varnames
        and name != "MarginLoss"
    },
}
OURS = [name for name in losses.__all__ if name not in ("MetricLoss", "StepReports")]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OURS)
def test_compile_accepts_losses_that_can_train_the_model(name, model):
    """`compile` accepts a loss if it can be computed for one of the model's forms of data."""

    def make():
        return getattr(losses, name)(**ARGUMENTS.get(name, {}))

    data = [(x, Y % 2) for x in TUPLES[model].values()]
    data += [] if model == "TwoTowerModel" else [(X, Y)]
    # Compute the loss without a compiled model, because `compile` may reject it.
    predictor = MODELS[model]()
    worked = []
    for x, y in data:
        predicted = ops.convert_to_tensor(keras.Model.predict(predictor, x, verbose=0))
        loss = make()
        for layer in getattr(loss, "layers", ()):
            layer.build((None, 4)) if not layer.built else None
        try:
            loss(y.astype("int32"), predicted)
            worked.append(True)
        except ValueError:
            worked.append(False)
    accepted = True
    try:
        MODELS[model]().compile("sgd", make())
    except ValueError as error:
        accepted = False
        # The message names the term of a sum.
        rejected = "TripletLoss" if name == "WeightedSum" else name
        assert f"{model} cannot train with the loss {rejected}, which needs" in str(error)
    assert accepted == any(worked)


REJECTED = {
    "by name": "mean_squared_error",
    "by a short name": "mse",
    "by class name": "MeanSquaredError",
    "object": keras.losses.MeanSquaredError(),
    "class": keras.losses.MeanSquaredError,
    "function": keras.losses.mean_squared_error,
    "crossentropy": "sparse_categorical_crossentropy",
    "hinge": keras.losses.Hinge(),
    "divergence": keras.losses.kl_divergence,
    "in a list": [keras.losses.Poisson()],
    "in a sum": losses.WeightedSum([(1, keras.losses.BinaryCrossentropy())]),
    "in a sum with ours": losses.WeightedSum(
        [(1, losses.SupConLoss()), (1, keras.losses.MeanSquaredError())]
    ),
}


@pytest.mark.parametrize("model", [name for name in MODELS if name != "EmbeddingModel"])
@pytest.mark.parametrize("loss", REJECTED)
def test_losses_of_keras_on_tuples(loss, model):
    made = MODELS[model]()
    before = made.loss
    with pytest.raises(ValueError, match=f"{model} cannot train with the loss .*fit: .*Loss") as e:
        made.compile("sgd", REJECTED[loss])
    assert type(before).__name__ in str(e.value)
    # The model keeps its loss.
    assert made.loss is before


class TestEmbeddingModel:
    @pytest.mark.parametrize("loss", ["crossentropy", "hinge", "divergence", "in a list"])
    def test_losses_of_class_probabilities(self, loss):
        with pytest.raises(ValueError, match="needs predictions of classes as y_pred"):
            MODELS["EmbeddingModel"]().compile("sgd", REJECTED[loss])

    @pytest.mark.parametrize("loss", ["mse", keras.losses.CosineSimilarity(), keras.losses.huber])
    def test_targets_are_embeddings_of_another_model(self, loss):
        model = MODELS["EmbeddingModel"]()
        model.compile(keras.optimizers.SGD(0.1), loss)
        targets = np.eye(4, dtype="float32")[Y]
        history = model.fit(X, targets, epochs=5, verbose=0).history["loss"]
        assert history[-1] < history[0]
        # Keras would broadcast ids over the dimensions of an embedding.
        for y in (Y, Y.astype("float32"), Y[:, None]):
            model = MODELS["EmbeddingModel"]()
            model.compile(keras.optimizers.SGD(0.1), loss)
            with pytest.raises(ValueError, match=r"a target of the shape.*y.shape=.*4\)"):
                model.fit(X, y, verbose=0)

    def test_a_classifier(self):
        logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = EmbeddingModel(layers.Dense(4), 3, normalize=False)
        for loss in (logits, "sparse_categorical_crossentropy"):
            model.compile("sgd", loss)
            assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()

    def test_circle_loss_of_keras(self):
        for loss in (keras.losses.Circle(), "circle"):
            for name in ("EmbeddingModel", "TripletModel"):
                model = MODELS[name]()
                model.compile("sgd", loss)
                assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()
        with pytest.raises(ValueError, match="circle, which needs labelled batches"):
            two_towers().compile("sgd", "circle")


def my_loss(y_true, y_pred):
    return ops.mean(ops.square(y_pred), axis=-1)


class MyLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return my_loss(y_true, y_pred)


class MySquares(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return my_loss(y_true, y_pred)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "loss", [MyLoss(), MySquares(), my_loss, lambda y_true, y_pred: my_loss(y_true, y_pred)]
)
def test_custom_losses_are_accepted(loss, model):
    made = MODELS[model]()
    made.compile("sgd", loss)
    for x in TUPLES[model].values():
        assert np.isfinite(made.fit(x, np.zeros(12), verbose=0).history["loss"]).all()


def test_terms_without_a_common_form():
    model = MODELS["EmbeddingModel"]()
    both = losses.WeightedSum([(1, losses.TripletLoss()), (1, losses.ClipLoss())])
    with pytest.raises(ValueError, match="the loss ClipLoss, which needs tuples of 2 branches"):
        model.compile("sgd", both)


def test_losses_of_addons_on_distances():
    for loss in (addons.losses.ContrastiveLoss(), addons.losses.NpairsLoss()):
        with pytest.raises(ValueError, match="which needs distances.* as y_pred"):
            MODELS["SiameseModel"]().compile("sgd", loss)
    MODELS["SiameseModel"]().compile("sgd", addons.losses.TripletSemiHardLoss())


def test_a_class_or_an_unknown_name():
    with pytest.raises(ValueError, match=r"an object. .*class ContrastiveLoss.*loss=Contrastive"):
        MODELS["SiameseModel"]().compile("sgd", losses.ContrastiveLoss)
    with pytest.raises(ValueError, match="the loss 'contrastive', .*fit: .*ContrastiveLoss"):
        MODELS["SiameseModel"]().compile("sgd", "contrastive")
