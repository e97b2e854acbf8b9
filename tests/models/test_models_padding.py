"""Padding of sequences: masked steps do not change the embedding."""

import keras
import numpy as np
import pytest
from autodiff import value_and_gradient
from keras import layers, ops
from model_weights import check_same_weights, numpy

from keras_metric import losses
from keras_metric.layers import EmbeddingHead, GeneralizedMeanPooling
from keras_metric.models import EmbeddingModel, Encoder, TwoTowerModel

STEPS, WORDS = 6, 20
LENGTHS = np.array([6, 3, 1, 0, 4, 2])
LABELS = np.array([0, 1, 0, 1, 0, 1])
MASK = (np.arange(STEPS) < LENGTHS[:, None]).astype("int32")
TOKENS = np.random.default_rng(0).integers(1, WORDS, MASK.shape).astype("int32")
# The same texts with other tokens at the masked steps.
OTHERS = np.where(MASK == 1, TOKENS, (TOKENS + 7) % WORDS).astype("int32")


def text_backbone(*names, as_list=False):
    """Return a backbone that ignores its masks, so that only the head uses them."""
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in ("input_ids", *names)]
    out = layers.Embedding(WORDS, 4)(inputs[0])
    return keras.Model(inputs if as_list else {i.name: i for i in inputs}, out)


def largest_change(network, x, changed):
    """Return the largest difference of the embeddings of two inputs."""
    a, b = numpy(network(x)), numpy(network(changed))
    assert np.all(np.isfinite(a)) and np.all(np.isfinite(b))
    return np.abs(a - b).max()


def masked_means(features, reduce):
    """Reduce the unmasked steps of each row with `reduce`; rows without steps are zeros."""
    expected = np.zeros((len(LENGTHS), features.shape[-1]), "float32")
    for row, length in enumerate(LENGTHS):
        if length:
            expected[row] = reduce(features[row, :length])
    return expected


class First(layers.Layer):
    """Pooling layer without an argument `mask` that returns the first step."""

    def call(self, x):
        return x[:, 0]

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])


POOLING = {
    "average": (lambda: "average", lambda x: x.mean(0)),
    "max": (lambda: "max", lambda x: x.max(0)),
    "layer of Keras": (lambda: layers.GlobalAveragePooling1D(), lambda x: x.mean(0)),
    "other layer of Keras": (lambda: layers.GlobalMaxPooling1D(), lambda x: x.max(0)),
    "power mean": (
        lambda: GeneralizedMeanPooling(),
        lambda x: (np.maximum(x, 1e-6) ** 3).mean(0) ** (1 / 3),
    ),
}


class TestKerasHub:
    """BertBackbone with random weights: a dict of inputs, one of them `padding_mask`."""

    def bert(self, dtype=None):
        reason = "needs KerasHub: pip install 'keras_metric[hub]'"
        hub = pytest.importorskip("keras_hub", reason=reason)
        bert = hub.models.BertBackbone(
            vocabulary_size=WORDS,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=8,
            max_sequence_length=STEPS,
            dropout=0.0,
            dtype=dtype,
        )
        return keras.Model(bert.input, bert.output["sequence_output"])

    def texts(self, tokens=TOKENS):
        return {"token_ids": tokens, "segment_ids": 0 * tokens, "padding_mask": MASK}

    @pytest.mark.parametrize("kind", POOLING)
    def test_pooling_uses_the_unmasked_tokens(self, kind):
        make, reduce = POOLING[kind]
        backbone = self.bert()
        encoder = Encoder(backbone, None, normalize=False, pooling=make())
        expected = masked_means(numpy(backbone(self.texts())), reduce)
        np.testing.assert_allclose(numpy(encoder(self.texts())), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(numpy(encoder(self.texts(OTHERS))), expected, 1e-4, 1e-5)

    def test_predict_save_and_load(self):
        model = EmbeddingModel(self.bert(), embedding_dim=4)
        model.train_on_batch(self.texts(), LABELS)
        expected = model.encoder.predict(self.texts(), verbose=0)
        assert np.all(np.isfinite(expected))
        np.testing.assert_allclose(np.linalg.norm(expected[:3], axis=1), 1, rtol=1e-5)
        model.save("model.keras")
        loaded = keras.saving.load_model("model.keras")
        found = loaded.encoder.predict(self.texts(OTHERS), verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_half_precision(self):
        encoder = Encoder(self.bert("mixed_float16"), embedding_dim=4)
        assert largest_change(encoder, self.texts(), self.texts(OTHERS)) == 0

    def test_export(self, backend):
        if backend != "tensorflow":
            pytest.skip("KerasHub's positions need a known length on JAX; torch has no SavedModel")
        import tensorflow as tf

        encoder = Encoder(self.bert(), embedding_dim=4)
        expected = numpy(encoder(self.texts()))
        encoder.export("served", verbose=False)
        served = tf.saved_model.load("served")
        found = served.serve(self.texts(OTHERS))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("form", ["batch", "triplets"])
    def test_a_step_in_chunks_equals_the_plain_step(self, form):
        weights = []
        for chunk_size, tokens in ((None, TOKENS), (4, OTHERS)):
            keras.utils.set_random_seed(0)
            model = EmbeddingModel(self.bert(), embedding_dim=4, chunk_size=chunk_size)
            model.compile(keras.optimizers.SGD(0.5), losses.TripletLoss(1.0))
            x, y = self.texts(tokens), LABELS
            if form == "triplets":
                x, y = dict.fromkeys(("anchor", "positive", "negative"), x), None
                x["positive"] = {name: np.roll(part, 1, 0) for name, part in x["anchor"].items()}
                x["negative"] = {name: np.roll(part, 2, 0) for name, part in x["anchor"].items()}
            before = model.get_weights()
            model.train_on_batch(x, y)
            weights.append(model.get_weights())
            assert all(np.all(np.isfinite(w)) for w in weights[-1])
            assert any(np.any(a != b) for a, b in zip(before, weights[-1]))
        check_same_weights(*weights, rtol=1e-3, atol=1e-5)

    def test_two_outputs(self):
        """The error proposes code that runs."""
        whole = self.bert()
        two = keras.Model(whole.input, {"sequence": whole.output, "first": whole.output[:, 0]})
        with pytest.raises(ValueError, match=r"a dict of 2 outputs \['first', 's") as error:
            Encoder(two)
        code = str(error.value).split("to embed: ")[1].split(")")[0] + ")"
        one = eval(code, {"keras": keras, "backbone": two})
        assert numpy(Encoder(one, 4)(self.texts())).shape == (6, 4)


class TestInputs:
    @pytest.mark.parametrize("dtype", ["int32", "bool", "float32", "uint8"])
    @pytest.mark.parametrize("name", ["attention_mask", "padding_mask", "encoder_padding_mask"])
    def test_a_dict(self, name, dtype):
        encoder = Encoder(text_backbone(name), 4)
        x = {"input_ids": TOKENS, name: MASK.astype(dtype)}
        assert largest_change(encoder, x, {**x, "input_ids": OTHERS}) == 0
        # Unmasked tokens change the embedding.
        assert largest_change(encoder, x, {**x, "input_ids": TOKENS[:, ::-1]}) > 0.1

    def test_a_list_with_names_of_inputs(self):
        encoder = Encoder(text_backbone("attention_mask", as_list=True), 4)
        encoder.save("encoder.keras")
        for network in (encoder, keras.saving.load_model("encoder.keras")):
            assert largest_change(network, [TOKENS, MASK], [OTHERS, MASK]) == 0

    def test_a_custom_layer(self):
        @keras.saving.register_keras_serializable("tests")
        class Words(layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.table = layers.Embedding(WORDS, 4)

            def call(self, inputs):
                return self.table(inputs["input_ids"])

        model = EmbeddingModel(Words(), embedding_dim=4)
        x = {"input_ids": TOKENS, "attention_mask": MASK}
        model.fit(x, LABELS, verbose=0)
        assert largest_change(model, x, {**x, "input_ids": OTHERS}) == 0

    def test_both_towers(self):
        towers = [text_backbone("attention_mask") for _ in range(2)]
        model = TwoTowerModel(*towers, embedding_dim=4)
        x = {"input_ids": TOKENS, "attention_mask": MASK}
        changed = {**x, "input_ids": OTHERS}
        assert largest_change(model, (x, x), (changed, changed)) == 0

    def test_an_input_mask_overrides_the_mask_of_keras(self):
        """Keras treats token 0 as padding; here it is a word, as in KerasHub."""
        ids, mask = (keras.Input((None,), dtype="int32", name=n) for n in ("ids", "padding_mask"))
        out = layers.Embedding(WORDS, 4, mask_zero=True)(ids)
        backbone = keras.Model({"ids": ids, "padding_mask": mask}, out)
        encoder = Encoder(backbone, None, normalize=False)
        found = numpy(
            encoder({"ids": np.array([[0, 3, 5]]), "padding_mask": np.array([[1, 1, 0]])})
        )
        (table,) = (numpy(weight) for weight in backbone.weights)
        np.testing.assert_allclose(found[0], (table[0] + table[3]) / 2, rtol=1e-5)

    def test_masks_that_are_not_for_steps(self):
        """A mask (batch, steps, steps) is for attention; a matrix needs no pooling."""
        names = {"input_ids": TOKENS, "attention_mask": np.stack([MASK] * STEPS, 1)}
        ids = keras.Input((None,), dtype="int32", name="input_ids")
        pairs = keras.Input((None, None), dtype="int32", name="attention_mask")
        inputs = {"input_ids": ids, "attention_mask": pairs}
        words = layers.Embedding(WORDS, 4)(ids)
        encoder = Encoder(keras.Model(inputs, words), None, normalize=False)
        expected = numpy(encoder.backbone(names)).mean(1)
        np.testing.assert_allclose(numpy(encoder(names)), expected, rtol=1e-5)
        matrix = Encoder(keras.Model(inputs, layers.GlobalMaxPooling1D()(words)), None)
        assert numpy(matrix(names)).shape == (6, 4)

    def test_several_masks(self):
        text = r"several masks, \['decoder_padding_mask', 'encoder_padding_mask'\].*pooling layer"
        with pytest.raises(ValueError, match=text):
            Encoder(text_backbone("encoder_padding_mask", "decoder_padding_mask"))

    def test_a_mask_of_another_length(self):
        ids = keras.Input((STEPS,), dtype="int32", name="input_ids")
        mask = keras.Input((STEPS,), dtype="int32", name="attention_mask")
        halved = layers.AveragePooling1D(2)(layers.Embedding(WORDS, 4)(ids))
        backbone = keras.Model({"input_ids": ids, "attention_mask": mask}, halved)
        text = r"mask.shape=\(None, 6\), sequence.shape=\(None, 3, 4\). Pool inside the backbone"
        with pytest.raises(ValueError, match=text):
            Encoder(backbone)
        given = {"input_ids": TOKENS, "attention_mask": MASK}
        assert numpy(Encoder(backbone, 4, pooling=First())(given)).shape == (6, 4)


class TestMasksOfKeras:
    def test_masking(self):
        x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")
        x[:, 4:] = 0
        steps = [layers.Masking(), layers.Dense(4, bias_initializer="ones")]
        encoder = Encoder(keras.Sequential(steps), None, normalize=False)
        expected = numpy(encoder.backbone(x[:, :4])).mean(1)
        np.testing.assert_allclose(encoder.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", ["average", "max", "power mean"])
    def test_a_map_of_tokens(self, kind):
        """A mask (batch, rows, columns) applies to a map."""
        make, reduce = POOLING[kind]
        grid = TOKENS.reshape(6, 2, 3) * MASK.reshape(6, 2, 3)
        backbone = keras.Sequential([layers.Embedding(WORDS, 4, mask_zero=True)])
        encoder = Encoder(backbone, None, normalize=False, pooling=make())
        expected = masked_means(numpy(backbone(grid)).reshape(6, 6, 4), reduce)
        np.testing.assert_allclose(numpy(encoder(grid)), expected, rtol=1e-4, atol=1e-6)

    def test_a_mask_with_fewer_axes_than_the_map(self):
        """TimeDistributed passes on the mask of its input, but returns maps with more axes."""
        video = np.random.default_rng(0).normal(size=(3, 5, 4, 4, 2)).astype("float32")
        convolve = layers.Conv2D(3, 3, data_format="channels_last")
        backbone = keras.Sequential([layers.Masking(), layers.TimeDistributed(convolve)])
        assert numpy(Encoder(backbone, 4)(video)).shape == (3, 4)

    @pytest.mark.parametrize("kind", POOLING)
    def test_all_steps_masked(self, kind):
        """Keras's average would be 0/0, also in the gradient."""
        x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
        mask = ops.convert_to_tensor(np.array([[1, 1, 0], [0, 0, 0]]))
        head = EmbeddingHead(None, normalize=False, pooling=POOLING[kind][0]())
        value, gradient = value_and_gradient(lambda t: ops.sum(head(t, mask=mask)[1]), x)
        assert value == 0 and np.all(gradient == 0)
