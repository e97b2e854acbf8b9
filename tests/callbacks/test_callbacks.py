"""RetrievalEvaluator and MiningSchedule inside real training."""

import functools

import keras
import numpy as np
import pytest
from batch_list import BatchList

from keras_metric import evaluation
from keras_metric.callbacks import MiningSchedule, RetrievalEvaluator
from keras_metric.evaluation import retrieval_metrics
from keras_metric.layers import TripletMiner
from keras_metric.losses import TripletLoss
from keras_metric.models import EmbeddingModel


class Model(keras.Model):
    """A model with an `encoder`, whose own output differs from the encoder's."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
        )

    def call(self, x, training=None):
        return 0.0 * self.encoder(x, training=training)


def uneven(x, y):
    return BatchList(zip(np.array_split(x, 3), np.array_split(y, 3)))


@pytest.fixture
def data(digits):
    images, labels = digits
    return images[:50], labels[:50]


@pytest.fixture
def model(data):
    model = Model()
    model(data[0])
    model.compile(keras.optimizers.SGD(0.5), TripletLoss(), run_eagerly=True)
    return model


def fit(model, data, *callbacks, **settings):
    settings = {"epochs": 2, "verbose": 0, "batch_size": 50, **settings}
    return model.fit(*data, callbacks=list(callbacks), **settings).history


class Once:
    """Batches that can be read once, without being an iterator."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return self.batches


class TestRetrievalEvaluator:
    def test_logs_are_the_metrics_of_the_encoder(self, model, data):
        history = fit(model, data, RetrievalEvaluator(*data, k=(1, 3)))
        expected = retrieval_metrics(model.encoder.predict(data[0], verbose=0), data[1], k=(1, 3))
        for key, value in expected.items():
            if "queries" in key or "cmc" in key:
                assert f"val_{key}" not in history
            else:
                assert history[f"val_{key}"][-1] == pytest.approx(value), key
        assert len(history["val_recall_at_3"]) == 2

    def test_every_kind_of_source_gives_the_same(self, model, data):
        tf = pytest.importorskip("tensorflow")
        x, y = data
        sources = {
            "arrays": (x, y),
            "column": (x, y[:, None]),
            "names": (x, np.array([f"class {label}" for label in y])),
            "PyDataset": (uneven(x, y),),
            "Dataset": (tf.data.Dataset.from_tensor_slices((x, y)).batch(16),),
            "list": ([(x[:20], y[:20]), (x[20:], y[20:], np.ones(30))],),
        }
        evaluators = [RetrievalEvaluator(*source, name=name) for name, source in sources.items()]
        history = fit(model, data, *evaluators)
        for name in sources:
            for key in ("recall_at_1", "map", "map_at_r"):
                assert history[f"{name}_{key}"] == pytest.approx(history[f"arrays_{key}"]), name

    def test_dict_inputs(self):
        inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
        model = keras.Model(inputs, keras.layers.Dense(2)(inputs["a"] - inputs["b"]))
        model.compile("sgd", TripletLoss(), run_eagerly=True)
        x = {name: np.random.rand(12, 3).astype("float32") for name in ("a", "b")}
        history = fit(model, (x, np.arange(12) % 3), RetrievalEvaluator(x, np.arange(12) % 3))
        assert "val_recall_at_5" in history

    def test_gallery(self, model, data):
        x, y = data
        galleries = {"arrays": (x[20:], y[20:]), "source": uneven(x[20:], y[20:])}
        evaluators = (
            RetrievalEvaluator(x[:20], y[:20], gallery, name=name)
            for name, gallery in galleries.items()
        )
        history = fit(model, data, *evaluators)
        embeddings = model.encoder.predict(x, verbose=0)
        expected = retrieval_metrics(embeddings[:20], y[:20], embeddings[20:], y[20:], k=1)
        assert history["arrays_map"][-1] == pytest.approx(expected["map"])
        assert history["arrays_map"] == pytest.approx(history["source_map"])

    def test_later_callbacks_use_its_logs(self, model, data, tmp_path):
        stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=1, baseline=2)
        path = tmp_path / "best.weights.h5"
        best = keras.callbacks.ModelCheckpoint(
            path, "val_recall_at_1", save_best_only=True, save_weights_only=True, mode="max"
        )
        history = fit(model, data, RetrievalEvaluator(*data), best, stop, epochs=9)
        assert len(history["loss"]) == 2  # the baseline cannot be reached, and the patience is 1
        assert path.exists()

    def test_the_model_is_not_changed(self, data):
        """Losses, weights and the seeds of random layers, with the callback and without."""
        results = []
        for callbacks in ([], [RetrievalEvaluator(*data, at_start=True)]):
            keras.utils.set_random_seed(1)
            model = Model()
            model(data[0])
            model.compile(keras.optimizers.Adam(0.01), TripletLoss(), jit_compile=False)
            history = fit(model, data, *callbacks, epochs=3)
            results.append((history["loss"], [np.array(w) for w in model.get_weights()]))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
        for without, with_it in zip(results[0][1], results[1][1]):
            np.testing.assert_allclose(without, with_it, rtol=1e-5, atol=1e-7)

    def test_at_start_and_every(self, model, data):
        before = retrieval_metrics(model.encoder.predict(data[0], verbose=0), data[1], k=1)
        evaluator = RetrievalEvaluator(*data, every=2, at_start=True)
        history = fit(model, data, evaluator, epochs=5)
        assert evaluator.history["epoch"] == [0, 2, 4]
        assert evaluator.history["map"][0] == pytest.approx(before["map"])
        assert evaluator.history["map"][1:] == history["val_map"]
        assert evaluator.history["num_queries"] == [before["num_queries"]] * 3
        fit(model, data, evaluator, epochs=4, initial_epoch=3)
        assert evaluator.history["epoch"] == [3, 4]

    def test_a_model_without_encoder_is_the_encoder(self, data):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", TripletLoss(), run_eagerly=True)
        history = fit(model, data, RetrievalEvaluator(*data))
        expected = retrieval_metrics(model.predict(data[0], verbose=0), data[1])
        assert history["val_map"][-1] == pytest.approx(expected["map"])

    def test_several_sets_by_name(self, model, data, tmp_path):
        x, y = data
        sets = {"seen": (x[:30], y[:30]), "unseen": uneven(x[30:], y[30:])}
        settings = dict(k=1, at_start=True, log_dir=tmp_path, plots=["similarity"])
        evaluator = RetrievalEvaluator(sets=sets, **settings)
        history = fit(model, data, evaluator)
        embeddings = model.encoder.predict(x, verbose=0)
        for name, part in (("seen", slice(0, 30)), ("unseen", slice(30, None))):
            expected = retrieval_metrics(embeddings[part], y[part], k=1)
            assert history[f"val_{name}_map"][-1] == pytest.approx(expected["map"])
            assert evaluator.history[f"{name}_num_queries"] == [expected["num_queries"]] * 3
        assert evaluator.history["epoch"] == [0, 1, 2]
        assert history["val_seen_map"] != history["val_unseen_map"]
        config = (tmp_path / "projector_config.pbtxt").read_text()
        assert "val_seen" in config and "val_unseen" in config

    def test_any_measure(self, model, data):
        x, y = data
        names = ["retrieval", "clustering", "geometry", "verification"]
        few = functools.partial(evaluation.few_shot_accuracy, ways=3, queries=2, episodes=9)
        history = fit(model, data, RetrievalEvaluator(x, y, measures=[*names, few]))
        e = model.encoder.predict(x, verbose=0)
        expected = evaluation.clustering_metrics(e, y) | evaluation.geometry_metrics(e, y)
        expected |= few(e, y) | evaluation.verification_metrics(*evaluation.pair_distances(e, y))
        for key, value in expected.items():
            if key.startswith("num_"):
                assert f"val_{key}" not in history
            else:
                assert history[f"val_{key}"][-1] == pytest.approx(value), key
        assert "val_recall_at_1" in history

    @pytest.mark.parametrize("result", [None, 1.0, {"a": np.ones(2)}, {1: 1.0}, [("a", 1.0)]])
    def test_a_measure_that_returns_no_numbers(self, model, data, result):
        evaluator = RetrievalEvaluator(*data, measures=[lambda *_: result])
        with pytest.raises(TypeError, match="dict from names to numbers"):
            fit(model, data, evaluator)

    def test_a_metric_that_is_missing_in_some_epochs(self, model, data):
        given = iter([{"late": np.nan}, {"early": 1.0}, {"late": 2.0, "early": 3.0}])
        evaluator = RetrievalEvaluator(*data, measures=[lambda *_: next(given)], at_start=True)
        fit(model, data, evaluator)
        assert evaluator.history["epoch"] == [0, 1, 2]
        np.testing.assert_equal(evaluator.history["early"], [np.nan, 1.0, 3.0])
        np.testing.assert_equal(evaluator.history["late"], [np.nan, np.nan, 2.0])

    def test_measures_with_a_gallery(self, model, data):
        x, y = data
        received = []

        def shapes(*arrays):
            received.append([len(array) for array in arrays])
            return {"zero": 0.0}

        evaluator = RetrievalEvaluator(
            x[:20], y[:20], (x[20:], y[20:]), k=1, measures=["identification", shapes]
        )
        history = fit(model, data, evaluator, epochs=1)
        e = model.encoder.predict(x, verbose=0)
        expected = evaluation.identification_metrics(e[:20], y[:20], e[20:], y[20:], k=1)
        assert history["val_rank_1"] == [pytest.approx(expected["rank_1"])]
        assert history["val_zero"] == [0.0] and received == [[20, 20, 30, 30]]
        assert "val_recall_at_1" not in history

    def test_batches_have_one_label_for_each_item(self, model, data):
        x, y = data
        batches = [(x, np.eye(y.max() + 1)[y])]
        with pytest.raises(ValueError, match="one label for each item.*argmax"):
            fit(model, data, RetrievalEvaluator(batches), epochs=1)

    def test_a_custom_loop_with_a_log_dir(self, model, data, tmp_path):
        """A plot that fails, of a column of labels, would warn, and warnings are errors here."""
        settings = dict(log_dir=tmp_path, plots=["distance_history"])
        evaluator = RetrievalEvaluator(data[0], data[1][:, None], **settings)
        evaluator.set_model(model)
        evaluator.on_train_begin()
        logs = {}
        evaluator.on_epoch_end(0, logs)
        evaluator.on_train_end()
        assert 0 <= logs["val_recall_at_1"] <= 1

    def test_a_diverged_encoder_gives_nan(self, model, data, capsys, tmp_path):
        """Of "geometry" there are no names of metrics yet: only the epoch is printed."""
        model.encoder.set_weights([np.full(w.shape, np.nan) for w in model.encoder.get_weights()])
        for settings in ({}, dict(measures=["geometry"], log_dir=tmp_path)):
            with pytest.warns(UserWarning, match="NaN or infinity"):
                history = fit(
                    model, data, RetrievalEvaluator(*data, **settings), verbose=2, epochs=1
                )
            assert settings or np.isnan(history["val_recall_at_1"]).all()
        assert "RetrievalEvaluator: epoch 1: ; scalars" in capsys.readouterr().out

    def test_printed_lines(self, model, data, capsys, tmp_path):
        silent = RetrievalEvaluator(*data)
        fit(model, data, silent, verbose=2, epochs=1)
        assert "RetrievalEvaluator" not in capsys.readouterr().out
        printing = RetrievalEvaluator(*data, at_start=True, log_dir=tmp_path / "log")
        fit(model, data, printing, epochs=1)
        assert capsys.readouterr().out == ""
        fit(model, data, printing, verbose=2, epochs=1)
        lines = [line for line in capsys.readouterr().out.splitlines() if "Retrieval" in line]
        assert len(lines) == 2
        assert "epoch 0: val_recall_at_1=" in lines[0]
        assert f"projector 'val' to {tmp_path / 'log'}" in lines[1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(x=np.zeros((3, 2)), y=[0, 1]), "one label for each row"),
            (dict(x={"a": np.zeros(3), "b": np.zeros(2)}, y=[0, 1, 2]), "one label for each row"),
            (dict(x=np.zeros((3, 2))), "needs labels"),
            (dict(x=[], gallery=(np.zeros((3, 2)), [1])), "gallery"),
            (dict(x=[], k=0), "at least 1"),
            (dict(x=[], metric="l2"), "one of"),
            (dict(x=np.eye(3), y=[0, 0, 1], metric="precomputed"), "one of"),
            (dict(x=np.eye(3), y=np.eye(3)), "labels of x"),
            (dict(x=np.eye(3), y=[0, np.nan, 1]), "no NaN"),
            (dict(sets={"seen": (np.eye(3), ["a", None, "b"])}), "comparable"),
            (dict(x=np.eye(3), y=[0, 0, 1], gallery=(np.eye(3), ["a", "b", "c"])), "one kind"),
            (dict(x=[], gallery=(np.eye(2), np.eye(2))), "labels of gallery"),
            (dict(x=np.eye(3), y=[0, 0, 1], measures=["few_shot"]), "shots . queries = 16"),
            (dict(x=np.eye(3), y=[0, 0, 0], measures=["verification"]), "two classes"),
            (dict(x=[], gallery=[], measures=["identification"], metric="snr"), "one of .*snr"),
            (dict(x=[], every=0), "every"),
            (dict(), "either `x`"),
            (dict(x=[], sets={"a": []}), "either `x`"),
            (dict(sets=[]), "must be a dict"),
            (dict(sets={"seen": (np.zeros((3, 2)), [1])}), "seen"),
            (dict(x=[], measures="recall"), "functions or among"),
            (dict(x=[], measures=()), "at least one"),
            (dict(x=[], measures=["identification"]), "needs a gallery"),
            (dict(x=iter([])), "generator"),
            (dict(x=[], name="my val", log_dir="runs"), "letters"),
            (dict(sets={"a b": []}, log_dir="runs"), "letters"),
            (dict(sets={"cold": [], "cold_start": []}, at_start=True), "unique names"),
            (dict(x=np.eye(3), y=[0, 1, 5], class_names=["a", "b"], log_dir="runs"), "none for 5"),
            (
                dict(x=np.eye(3), y=[0, 1, 1], images=np.zeros((2, 8, 8))),
                "one entry for each of 3 items of `x`",
            ),
        ],
    )
    def test_errors_before_training(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RetrievalEvaluator(**arguments)

    @pytest.mark.parametrize("name", [5, ""])
    def test_names_are_strings(self, name):
        with pytest.raises(TypeError, match="non-empty strings"):
            RetrievalEvaluator([], name=name)

    def test_a_resumed_run_keeps_the_untrained_projection(self, model, data, tmp_path):
        evaluator = RetrievalEvaluator(*data, at_start=True, log_dir=tmp_path)
        fit(model, data, evaluator, epochs=1)
        start = (tmp_path / "val_start_tensor.bytes").read_bytes()
        for weight in model.trainable_weights:
            weight.assign(2.0 * weight)
        fit(model, data, evaluator, epochs=3, initial_epoch=1)
        assert evaluator.history["epoch"] == [1, 2, 3]
        assert (tmp_path / "val_start_tensor.bytes").read_bytes() == start
        assert (tmp_path / "val_tensor.bytes").read_bytes() != start

    def test_infinite_and_exhausted_sources(self, model, data):
        tf = pytest.importorskip("tensorflow")
        with pytest.raises(ValueError, match="take"):
            RetrievalEvaluator(tf.data.Dataset.from_tensor_slices(data).batch(9).repeat())
        once = iter([data])
        with pytest.raises(ValueError, match="each time it is read"):
            fit(model, data, RetrievalEvaluator(Once(once)))
        with pytest.raises(ValueError, match="without labels"):
            fit(model, data, RetrievalEvaluator([(data[0],)]))


class TestMiningSchedule:
    def compiled(self, miner, wrap=lambda loss: loss, **settings):
        model = EmbeddingModel(keras.layers.Flatten(), embedding_dim=4)
        settings = {"run_eagerly": True, **settings}
        model.compile("sgd", wrap(TripletLoss(mining=miner)), **settings)
        return model

    def test_strategies_follow_the_epochs(self, data):
        used = []
        miner = TripletMiner(("all", "semi-hard", "hard"))
        schedule = MiningSchedule({3: "hard", 0: "all", 1: "semi-hard"}, log=True)
        spy = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: used.append(schedule.current)
        )
        history = fit(self.compiled(miner), data, schedule, spy, epochs=5)
        assert history["mining_stage"] == [0, 1, 1, 2, 2]
        assert used == ["all", "semi-hard", "semi-hard", "hard", "hard"]

    def test_the_compiled_step_follows(self, data):
        """With a learning rate of 0 the strategies give different losses."""

        def losses(miner, *callbacks):
            keras.utils.set_random_seed(0)
            model = self.compiled(miner, run_eagerly=False)
            model.optimizer.learning_rate = 0.0
            return fit(model, data, *callbacks)["loss"]

        fixed = [losses(TripletMiner(name))[0] for name in ("all", "hard")]
        scheduled = losses(TripletMiner(("all", "hard")), MiningSchedule({0: "all", 1: "hard"}))
        assert abs(fixed[0] - fixed[1]) > 1e-3
        assert scheduled == pytest.approx(fixed, rel=1e-4)

    def test_resuming_uses_the_last_entry_before_the_epoch(self, data):
        schedule = MiningSchedule({0: "all", 4: "hard", 9: "semi-hard"})
        miner = TripletMiner(("all", "semi-hard", "hard"))
        fit(self.compiled(miner), data, schedule, epochs=6, initial_epoch=5)
        assert schedule.current == "hard"

    def test_before_the_first_entry_the_miner_is_unchanged(self, data):
        schedule = MiningSchedule({1: "hard"}, log=True)
        miner = TripletMiner(("all", "hard"))
        miner.use("all")
        history = fit(self.compiled(miner), data, schedule, epochs=1)
        assert schedule.current is None
        assert "mining_stage" not in history

    @pytest.mark.parametrize("wrap", [lambda loss: [loss], lambda loss: loss])
    def test_losses_in_a_list(self, data, wrap):
        miner = TripletMiner(("all", "hard"))
        schedule = MiningSchedule({0: "hard"}, miner=miner)
        fit(self.compiled(miner, wrap), data, schedule, epochs=1)
        assert schedule.current == "hard"

    def test_a_miner_that_the_model_does_not_track(self, data, backend):
        """JAX compiles its variable into the step as a constant; other backends read it."""
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
        model.compile("sgd", TripletLoss(mining=TripletMiner(("all", "hard"))), run_eagerly=True)
        schedule = MiningSchedule({0: "hard"})
        if backend == "jax":
            with pytest.raises(ValueError, match="EmbeddingModel"):
                fit(model, data, schedule)
        else:
            fit(model, data, schedule)
            assert schedule.current == "hard"

    @pytest.mark.parametrize(
        ("schedule", "error", "message"),
        [
            *((wrong, ValueError, "must be a dict") for wrong in ({}, None, ["hard"])),
            ({-1: "hard"}, ValueError, "at least 0"),
            ({"hard": 0}, TypeError, "integer"),
            ({0: ["hard"]}, TypeError, "name of a strategy"),
        ],
    )
    def test_invalid_schedules(self, schedule, error, message):
        with pytest.raises(error, match=message):
            MiningSchedule(schedule)

    def test_errors_at_the_start_of_fit(self, data):
        miner = TripletMiner(("all", "hard"))
        model = self.compiled(miner)
        with pytest.raises(ValueError, match="semi-hard"):
            fit(model, data, MiningSchedule({0: "semi-hard"}))
        with pytest.raises(ValueError, match="given miner"):
            fit(model, data, MiningSchedule({0: "hard"}, miner=TripletMiner(("all", "hard"))))
        data = data[0], np.zeros((50, 4))
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match=r"mining=TripletMiner\(\('hard',\)\)"):
            fit(model, data, MiningSchedule({0: "hard"}))
