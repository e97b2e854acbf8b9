"""Mahalanobis: the definition of M, training, as a last layer and as the distance of losses."""

import keras
import numpy as np
import pytest
import reference
from autodiff import step_by_step, value_and_gradient

from keras_metric import distances, losses
from keras_metric.layers import Mahalanobis
from keras_metric.models import EmbeddingModel


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def with_factor(factor, **settings):
    layer = Mahalanobis(rank=factor.shape[1], **settings)
    layer.build((None, factor.shape[0]))
    layer.set_weights([factor])
    return layer


def between(a, b, matrix, squared=False):
    value = (a - b) @ matrix @ (a - b)
    return value if squared else np.sqrt(value)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_distances_follow_the_matrix(rank, squared, rng):
    factor = rng.normal(size=(4, rank))
    a, b = (rng.normal(size=(n, 4)).astype("float32") for n in (5, 3))
    layer, matrix = with_factor(factor, squared=squared), factor @ factor.T
    np.testing.assert_allclose(numpy(layer.matrix), matrix, rtol=1e-5, atol=1e-6)
    expected = [[between(u, v, matrix, squared) for v in b] for u in a]
    np.testing.assert_allclose(numpy(layer.pairwise(a, b)), expected, rtol=1e-4)
    expected = [[between(u, v, matrix, squared) for v in a] for u in a]
    np.testing.assert_allclose(numpy(layer.pairwise(a)), expected, rtol=1e-4, atol=1e-5)
    expected = [between(u, v, matrix, squared) for u, v in zip(a, b)]
    np.testing.assert_allclose(numpy(layer.elementwise(a[:3], b)), expected, rtol=1e-4)
    np.testing.assert_allclose(numpy(layer(a)), a @ factor, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((7, 4)) == (7, rank)


@pytest.mark.parametrize("rank", [None, 5, 8])
def test_training_starts_at_the_euclidean_distance(rank, rng):
    x = rng.normal(size=(6, 5)).astype("float32")
    np.testing.assert_allclose(
        numpy(Mahalanobis(rank).pairwise(x)), numpy(distances.pairwise(x)), rtol=1e-5, atol=1e-5
    )


def test_a_low_rank_starts_at_a_projection_that_keeps_squares_on_average(rng):
    layer = Mahalanobis(8)
    layer.build((None, 32))
    matrix = numpy(layer.matrix)
    assert np.linalg.matrix_rank(matrix, tol=1e-4) == 8
    assert np.trace(matrix) == pytest.approx(32, rel=1e-5)
    x = rng.normal(size=(400, 32))
    assert np.einsum("ij,jk,ik", x, matrix, x) == pytest.approx((x**2).sum(), rel=0.1)


def test_training_finds_the_direction_that_separates_classes():
    """The noise is wider than the distance between classes; the Euclidean distance fails."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = np.arange(64) % 4
    x = np.concatenate([y[:, None], 5 * rng.normal(size=(64, 3))], axis=1).astype("float32")

    def nearest_is_right(d):
        d = numpy(d) + 1e9 * np.eye(64)
        return (y[d.argmin(1)] == y).mean()

    assert nearest_is_right(distances.pairwise(x)) < 0.6
    metric = Mahalanobis()
    model = EmbeddingModel(keras.layers.Identity(), embedding_dim=None, normalize=False)
    model.compile(keras.optimizers.Adam(0.1), losses.TripletLoss(1.0, metric, "all"))
    model.fit(x, y, batch_size=64, epochs=80, verbose=0)
    assert nearest_is_right(metric.pairwise(x)) > 0.95
    matrix = numpy(metric.matrix)
    assert matrix[0, 0] > 20 * matrix[1:, 1:].diagonal().max()


LOSSES = [
    *(losses.ContrastiveLoss, losses.LiftedStructureLoss, losses.NTXentLoss),
    *(losses.QuadrupletLoss, losses.TripletLoss),
]


class TestDistanceOfLosses:
    LABELS = np.array([0, 0, 1, 1, 2, 2, 2, 3])

    def both(self, rng, loss, **settings):
        """A loss with a trainable distance, and the same loss for vectors mapped before."""
        factor = rng.normal(size=(4, 3))
        named = {"distance": "squared_euclidean"} if settings.get("squared") else {}
        layer = with_factor(factor, **settings)
        x = rng.normal(size=(8, 4)).astype("float32")
        return loss(distance=layer), loss(**{"distance": "euclidean", **named}), x, factor

    @pytest.mark.parametrize("squared", [False, True])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_loss_of_mapped_vectors(self, loss, squared, rng):
        ours, plain, x, factor = self.both(rng, loss, squared=squared)
        value, gradient = value_and_gradient(lambda z: ours(self.LABELS, z), x)
        mapped = (x @ factor).astype("float32")
        expected, mapped_gradient = value_and_gradient(lambda z: plain(self.LABELS, z), mapped)
        assert value == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(gradient, mapped_gradient @ factor.T, rtol=1e-3, atol=1e-5)
        others = rng.normal(size=(6, 4)).astype("float32")
        found = step_by_step(ours.against)(self.LABELS, x, self.LABELS[2:], others)
        others = (others @ factor).astype("float32")
        expected = step_by_step(plain.against)(self.LABELS, mapped, self.LABELS[2:], others)
        assert numpy(found) == pytest.approx(numpy(expected), rel=1e-4)

    @pytest.mark.parametrize("mining", ["hard", "semi-hard", "all", "angular"])
    @pytest.mark.parametrize("swap", [False, True])
    def test_mining_uses_mapped_vectors(self, mining, swap, rng):
        def loss(distance):
            return losses.TripletLoss(0.3, distance, mining, swap=swap)

        ours, plain, x, factor = self.both(rng, loss)
        expected = step_by_step(plain)(self.LABELS, (x @ factor).astype("float32"))
        found = numpy(step_by_step(ours)(self.LABELS, x))
        assert found == pytest.approx(numpy(expected), rel=1e-4)

    def test_tuples(self, rng):
        for loss, branches in ((losses.TripletLoss, 3), (losses.QuadrupletLoss, 4)):
            ours, plain, x, factor = self.both(rng, loss)
            x = rng.normal(size=(5, branches, 4)).astype("float32")
            labels = np.zeros(5, "int32")
            expected = plain(labels, (x @ factor).astype("float32"))
            assert numpy(ours(labels, x)) == pytest.approx(numpy(expected), rel=1e-4)

    def test_the_slope_of_the_factor(self, rng):
        """Compared with central differences."""
        x, factor = rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(4, 2))
        layer = with_factor(factor)
        loss = losses.ContrastiveLoss(4.0, distance=layer)

        def whole(weights):
            z = layer.stateless_call([weights], [], x)[0]
            return losses.ContrastiveLoss(4.0)(self.LABELS, z)

        value, gradient = value_and_gradient(whole, factor.astype("float32"))
        assert value == pytest.approx(numpy(step_by_step(loss)(self.LABELS, x)), rel=1e-5)
        directions = rng.normal(size=(3, 4, 2))
        expected = reference.slopes(
            lambda w: reference.contrastive_loss(x @ w, self.LABELS, 4.0), factor, directions
        )
        np.testing.assert_allclose((directions * gradient).sum((1, 2)), expected, rtol=1e-3)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_models_train_and_save_it(self, loss, rng):
        x = rng.normal(size=(8, 4)).astype("float32")
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=3, normalize=False)
        model.compile(keras.optimizers.SGD(0.1), loss(distance=Mahalanobis(2)), run_eagerly=True)
        model(x)
        metric = model.loss.distance
        before = metric.get_weights()[0]
        model.fit(x, self.LABELS, epochs=2, verbose=0)
        after = metric.get_weights()[0]
        assert np.abs(after - before).max() > 1e-6
        model.save("model.keras")
        again = keras.models.load_model("model.keras")
        assert again.loss.distance.rank == 2
        np.testing.assert_array_equal(again.loss.distance.get_weights()[0], after)
        far = keras.ops.convert_to_numpy(metric.elementwise(model(x[:3]), model(x[3:6])))
        np.testing.assert_allclose(model.distance(x[:3], x[3:6]), far, rtol=1e-4)
        again.fit(x, self.LABELS, epochs=1, verbose=0)
        assert (again.loss.distance.get_weights()[0] != after).any()

    def test_a_loss_outside_a_model_raises(self, rng):
        loss = losses.TripletLoss(distance=Mahalanobis())
        with pytest.raises(ValueError, match="no model trains"):
            loss(self.LABELS, rng.normal(size=(8, 4)).astype("float32"))

    @pytest.mark.parametrize("distance", ["mahalanobis", keras.layers.Dense(3)])
    def test_other_distances_raise(self, distance):
        with pytest.raises(ValueError, match="must be one of"):
            losses.ContrastiveLoss(distance=distance)


def test_as_the_last_layer_of_a_backbone(rng):
    x, y = rng.normal(size=(12, 4)).astype("float32"), np.arange(12) // 3
    backbone = keras.Sequential([keras.Input((4,)), Mahalanobis(2)])
    model = EmbeddingModel(backbone, embedding_dim=None, normalize=False)
    model.compile(keras.optimizers.SGD(0.1), losses.TripletLoss(1.0, mining="all"))
    model.fit(x, y, epochs=2, verbose=0)
    z = model.predict(x, verbose=0)
    layer = backbone.layers[-1]
    assert z.shape == (12, 2)
    np.testing.assert_allclose(
        numpy(distances.pairwise(z)), numpy(layer.pairwise(x)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_vectors_are_mapped_in_float32(policy, rng):
    keras.config.set_dtype_policy(policy)
    layer = Mahalanobis()
    x = keras.ops.cast(300 * rng.normal(size=(3, 4)), policy.removeprefix("mixed_"))
    value = layer.pairwise(x)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    expected = reference.matrix(numpy(keras.ops.cast(x, "float32")))
    np.testing.assert_allclose(numpy(value), expected, rtol=1e-3, atol=1e-2)


def test_arguments_and_config():
    for wrong in ({"rank": 0}, {"rank": 2.5}, {"squared": "yes"}):
        with pytest.raises((ValueError, TypeError), match=f"`{next(iter(wrong))}` must be"):
            Mahalanobis(**wrong)
    with pytest.raises(ValueError, match="has no matrix yet"):
        _ = Mahalanobis().matrix
    again = Mahalanobis.from_config(Mahalanobis(3, squared=True).get_config())
    assert again.rank == 3 and again.metric == "squared_euclidean"
