"""Shared labels and several views, with NT-Xent and SupCon."""

import engine
import keras
import numpy as np
import pytest
import reference
from autodiff import value_and_gradient

from keras_metric import losses
from keras_metric.models import EmbeddingModel
from keras_metric.pairwise import class_pairs

# Unequal classes in no order, one of a single item.
Y = np.array([2, 0, 2, 5, 1, 2, 0, 1, 2, 0, 0])


# The fourth row has no label.
SEVERAL = np.array(
    [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]]
)


def vectors(seed=0, rows=11):
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype("float32")


@pytest.mark.parametrize("rows", [2, 3, 4])
@pytest.mark.parametrize("labels", ["ids", "multi_hot", "references"])
def test_blocks_of_rows_change_nothing(labels, rows):
    batch = (SEVERAL, vectors(0, 6)) if labels == "multi_hot" else (Y, vectors())
    sets = (Y[:6], vectors(1, 6)) if labels == "references" else ()
    loss = losses.SupConLoss(0.4, labels="multi_hot" if labels == "multi_hot" else "ids")

    def whole(y, z):
        return loss.against(y, z, *sets) if sets else loss(y, z)

    def in_blocks(y, z):
        return engine.lists(loss, size=rows)(y, z, *sets)

    y, x = batch
    found, expected = (value_and_gradient(lambda z, f=f: f(y, z), x) for f in (in_blocks, whole))
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (losses.NTXentLoss(0.1), 0.2981431006),
        (losses.NTXentLoss(0.1, "euclidean"), 0.0623551094),
        (losses.SupConLoss(0.1), 0.7200604451),
        (losses.SupConLoss(0.1, "euclidean"), 0.6051629973),
    ],
)
def test_published_numbers(loss, value):
    """Six angles of the tests of pytorch-metric-learning."""
    angles = np.radians([0, 10, 20, 50, 60, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")
    assert float(loss(np.array([0, 0, 0, 1, 1, 2]), x)) == pytest.approx(value, rel=1e-4)


class TestSeveralLabels:
    def test_masks(self):
        found = class_pairs.from_labels(keras.ops.convert_to_tensor(SEVERAL))
        common = [
            [i != j and bool(set(np.flatnonzero(a)) & set(np.flatnonzero(b)))
             for j, b in enumerate(SEVERAL)]
            for i, a in enumerate(SEVERAL)
        ]  # fmt: skip
        positive, negative = map(keras.ops.convert_to_numpy, (found.positive, found.negative))
        np.testing.assert_array_equal(positive, common)
        # An item without a label is a negative of all others, but not of itself.
        np.testing.assert_array_equal(negative, ~np.array(common) & ~np.eye(6, dtype=bool))
        np.testing.assert_array_equal(found.num_positives, np.sum(common, 1))

    def test_each_positive_occurs_once(self):
        found = class_pairs.from_labels(keras.ops.convert_to_tensor(SEVERAL))
        counts = np.zeros((6, 6), int)
        for rank in range(4):
            column, exists = (np.asarray(a) for a in found.column(rank))
            for row in range(6):
                counts[row, column[row]] += exists[row]
        np.testing.assert_array_equal(counts, keras.ops.convert_to_numpy(found.positive))

    def test_triplets(self):
        x, gaps = vectors(0, 6), []
        d = reference.matrix(x)
        for i, a in enumerate(SEVERAL):
            common = [(a & b).any() for b in SEVERAL]
            for p in range(6):
                for n in range(6):
                    if common[p] and p != i and n != i and not common[n]:
                        gaps.append(max(d[i, p] - d[i, n] + 0.3, 0))
        value = losses.TripletLoss(0.3, mining="all", labels="multi_hot")(SEVERAL, x)
        assert float(value) == pytest.approx(np.mean([gap for gap in gaps if gap > 0]), rel=1e-4)

    def test_one_negative_is_enough(self):
        x, y = np.array([[0.0], [1.0], [3.0]], "float32"), np.array([[1, 0], [1, 1], [0, 0]])
        loss = losses.TripletLoss(5.0, mining="hard", labels="multi_hot")
        assert float(loss(y, x)) == pytest.approx(((1 - 3 + 5) + (1 - 2 + 5)) / 2)

    def test_bad_labels(self):
        loss = losses.SupConLoss(labels="multi_hot")
        with pytest.raises(ValueError, match="0 or 1"):
            loss(2 * SEVERAL, vectors(0, 6))
        with pytest.raises(ValueError, match=r"\(batch, classes\)"):
            loss(SEVERAL[:, 0], vectors(0, 6))
        with pytest.raises(ValueError, match="one label"):
            loss(SEVERAL[:4], vectors(0, 6))
        with pytest.raises(ValueError, match="several labels"):
            losses.SupConLoss()(SEVERAL, vectors(0, 6))
        with pytest.raises(ValueError, match="must be one of"):
            losses.SupConLoss(labels="one_hot")


class TestViews:
    def test_views_are_positives(self):
        """Three views of five items are a batch of fifteen with five classes."""
        x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")
        value = float(losses.SupConLoss()(np.arange(5), x))
        assert float(losses.SupConLoss()(None, x)) == pytest.approx(value)
        flat, labels = x.transpose(1, 0, 2).reshape(15, 4), np.tile(np.arange(5), 3)
        for name in ("NTXentLoss", "SupConLoss", "LiftedStructureLoss"):
            loss = getattr(losses, name)()
            assert float(loss(np.arange(5), x)) == pytest.approx(float(loss(labels, flat)), 1e-5)

    def test_labels_join_views_of_different_items(self):
        x = np.random.default_rng(0).normal(size=(5, 2, 4)).astype("float32")
        y = np.array([0, 1, 0, 2, 1])
        flat = x.transpose(1, 0, 2).reshape(10, 4)
        loss = losses.SupConLoss()
        assert float(loss(y, x)) == pytest.approx(float(loss(np.tile(y, 2), flat)), rel=1e-5)

    def test_weights_are_of_items(self):
        x = np.random.default_rng(0).normal(size=(4, 2, 4)).astype("float32")
        rows = keras.ops.convert_to_numpy(losses.SupConLoss(reduction="none")(np.arange(4), x))
        assert rows.shape == (4,)
        weights = np.array([0.0, 2.0, 1.0, 0.5], "float32")
        value = losses.SupConLoss(reduction="sum")(np.arange(4), x, weights)
        assert float(value) == pytest.approx((weights * rows).sum(), rel=1e-5)

    @pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
    def test_a_model_learns_without_labels(self, name):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(64, 8)).astype("float32")
        views = {
            k: x + 0.1 * rng.normal(size=x.shape).astype("float32") for k in ("first", "second")
        }
        model = EmbeddingModel(keras.layers.Dense(16, activation="relu"), embedding_dim=4)
        model.compile(keras.optimizers.Adam(0.01), getattr(losses, name)(0.2))
        history = model.fit(views, epochs=4, batch_size=16, verbose=0).history["loss"]
        assert np.isfinite(history).all() and history[-1] < 0.9 * history[0]
