"""TwoTowerModel: encoders, training, saving and errors."""

import keras
import numpy as np
import pytest
from batch_list import BatchList

from keras_metric import losses
from keras_metric.callbacks import RetrievalEvaluator
from keras_metric.models import EmbeddingModel, Encoder, TwoTowerModel

N, DIM = 24, 4


@pytest.fixture
def sides(rng):
    meaning = rng.normal(size=(N, 3))
    first = np.tanh(meaning @ rng.normal(size=(3, 7))).astype("float32")
    second = (meaning @ rng.normal(size=(3, 5)) + 1).astype("float32")
    return first, second


def model_of(**settings):
    keras.utils.set_random_seed(0)
    first = keras.Sequential([keras.layers.Dense(16, "relu")])
    second = keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(8)])
    return TwoTowerModel(first, second, embedding_dim=DIM, **settings)


def as_dict(sides):
    return dict(zip(("first", "second"), sides))


def test_each_side_has_its_own_encoder(sides):
    model = model_of()
    z = model.predict(as_dict(sides), verbose=0)
    assert z.shape == (N, 2, DIM)
    towers = (model.first_encoder, model.second_encoder)
    for i, (tower, x) in enumerate(zip(towers, sides)):
        np.testing.assert_allclose(tower.predict(x, verbose=0), z[:, i], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(z[:, i], axis=1), 1, atol=1e-5)
    assert isinstance(model.loss, losses.ClipLoss)
    expected = 1 - (z[:, 0] * z[:, 1]).sum(1)
    np.testing.assert_allclose(model.distance(*sides), expected, atol=1e-5)
    np.testing.assert_allclose(model.distance(sides[0][:1], sides[1])[0], expected[0], atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        None,
        losses.ClipLoss(learn_temperature=True),
        losses.SigLipLoss(learn_temperature=True),
        losses.NPairsLoss(),
        losses.InstanceLoss(),
        losses.VICRegLoss(),
        losses.WeightedSum([(1, losses.ClipLoss()), (0.1, losses.BarlowTwinsLoss())]),
    ],
)
def test_training_increases_recall(sides, loss):
    model = model_of(train_health=loss is None)
    model.compile(keras.optimizers.Adam(3e-2), loss or model.loss)

    def recall():
        first, second = (t.predict(x, verbose=0) for t, x in zip(model.towers, sides))
        return ((first @ second.T).argmax(1) == np.arange(N)).mean()

    before = recall()
    history = model.fit(as_dict(sides), epochs=30, batch_size=N, verbose=0).history
    assert recall() > max(0.4, before + 0.2)
    if loss is None:
        assert history["positive_distance"][-1] < history["negative_distance"][-1]


@pytest.mark.thorough
def test_all_forms_of_data(sides):
    first, second = sides
    y = np.arange(N) // 2
    for x, labels in [
        (as_dict(sides), None),
        (as_dict(sides), y),
        (BatchList([(as_dict(sides),)]), None),
        (BatchList([(as_dict(sides), y.astype("int32"))]), None),
        (BatchList([((first, second),)]), None),
    ]:
        history = model_of().fit(x, labels, verbose=0).history
        assert np.isfinite(history["loss"]).all()


def test_pairs_with_the_same_y_are_not_negatives(sides):
    pairs = {side: x[:12] for side, x in as_dict(sides).items()}
    y = np.arange(12) // 2
    model = model_of()
    without_y, with_y = (model.evaluate(pairs, ids, verbose=0) for ids in (None, y))
    expected = float(losses.ClipLoss()(y, model.predict(pairs, verbose=0)))
    assert with_y == pytest.approx(expected, rel=1e-4) and without_y != pytest.approx(expected)


def test_retrieval_evaluator_with_both_sides(sides):
    model = model_of()
    same = np.arange(N)
    evaluator = RetrievalEvaluator(sides[0], same, gallery=(sides[1], same), k=(1, 3))
    history = model.fit(as_dict(sides), epochs=1, callbacks=[evaluator], verbose=0).history
    z, w = (tower.predict(x, verbose=0) for tower, x in zip(model.towers, sides))
    expected = ((z @ w.T).argmax(1) == same).mean()
    assert history["val_recall_at_1"] == [pytest.approx(expected)]


class TestFiles:
    def test_towers_can_be_saved(self, sides):
        model = model_of()
        model.fit(as_dict(sides), verbose=0)
        for tower, x in zip(model.towers, sides):
            tower.save("tower.keras")
            loaded = keras.models.load_model("tower.keras")
            np.testing.assert_array_equal(loaded.predict(x, verbose=0), tower.predict(x, verbose=0))

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tests Keras's export")
    def test_towers_can_be_exported(self, sides):
        import tensorflow as tf

        model = model_of()
        expected = model.predict(as_dict(sides), verbose=0)[:, 1]
        model.second_encoder.export("served", verbose=False)
        loaded = tf.saved_model.load("served")
        served = loaded.serve(sides[1])
        np.testing.assert_allclose(served, expected, atol=1e-6)

    def test_encoders_of_other_models_are_used_as_they_are(self, sides):
        trained = EmbeddingModel(keras.layers.Dense(6), embedding_dim=DIM)
        trained(sides[0])
        model = TwoTowerModel(trained.encoder, keras.layers.Dense(6), embedding_dim=DIM)
        assert model.first_encoder is trained.encoder
        model.fit(as_dict(sides), verbose=0)
        model.save("shared.keras")
        loaded = keras.models.load_model("shared.keras")
        found, expected = (m.predict(as_dict(sides), verbose=0) for m in (loaded, model))
        np.testing.assert_allclose(found, expected)


def test_towers_of_text_and_images(rng):
    tokens = rng.integers(1, 20, (N, 6)).astype("int32")
    images = rng.normal(size=(N, 8, 8, 1)).astype("float32")
    text = keras.Sequential([keras.layers.Embedding(20, 8, mask_zero=True), keras.layers.GRU(8)])
    image = keras.Sequential([keras.layers.Conv2D(4, 3)])
    model = TwoTowerModel(image, text, embedding_dim=DIM)
    history = model.fit({"first": images, "second": tokens}, epochs=2, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoTowerModel("a", keras.layers.Dense(4)), "`first` must be"),
        (
            lambda: TwoTowerModel(keras.layers.Dense(4), keras.layers.Dense(4), embedding_dim=None),
            "vectors of the same length",
        ),
        (
            lambda: TwoTowerModel(
                Encoder(keras.layers.Dense(4), embedding_dim=3), keras.layers.Dense(4), 5
            ),
            "embedding_dim=3",
        ),
        (lambda: TwoTowerModel(*[keras.layers.Dense(4)] * 2), "are the same object"),
    ],
)
def test_wrong_towers(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_unequal_towers(sides):
    first, second = (Encoder(keras.layers.Dense(4), embedding_dim=d) for d in (3, 5))
    with pytest.raises(ValueError, match="length 3 and 5|of length"):
        model = TwoTowerModel(first, second)
        model.fit(as_dict(sides), verbose=0)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((4, 7), "float32"), r"one input of shape \(4, 7\)"),
        ({"anchor": np.ones((4, 7)), "positive": np.ones((4, 5))}, "keys"),
        ((np.ones((4, 7)),) * 3, "tuple of 3 parts"),
    ],
)
def test_wrong_inputs(inputs, message):
    with pytest.raises(ValueError, match=message):
        model_of()(inputs)
