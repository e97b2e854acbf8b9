"""MiningSchedule: from easy to hard triplets, epoch by epoch."""

import keras

from keras_metric._validation import check_count, check_flag


class MiningSchedule(keras.callbacks.Callback):
    """Changes a miner's strategy while a model trains.

    Hard triplets teach most and, early in training, break the model: a common cure is to begin
    with all or semi-hard triplets and to turn to hard ones later. The miner holds the strategy
    in a variable, so compiled steps follow. At the start of each epoch the last entry that is
    not beyond it counts, so a training that resumes with `initial_epoch` goes on where it was.
    Before the first entry the miner is left alone.

    Args:
        schedule: Dict from epoch (counted from 0) to the name of a strategy.
        miner: The miner to change; by default the one miner of the compiled loss.
        log: If True, `logs["mining_stage"]` is the number of the strategy in
            `miner.strategies`, from the first entry on.

    Raises:
        TypeError: an epoch that is no integer, a strategy that is no name, or a `miner` that is
            none.
        ValueError: an empty schedule; and at the start of `fit`, if the compiled loss holds no
            such miner, or several, or if a name is not among the miner's strategies.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_metric.callbacks import MiningSchedule
        >>> from keras_metric.layers import TripletMiner
        >>> from keras_metric.losses import TripletLoss
        >>> from keras_metric.models import EmbeddingModel
        >>> model = EmbeddingModel(keras.layers.Dense(4))
        >>> miner = TripletMiner(("all", "hard"))
        >>> model.compile("sgd", TripletLoss(mining=miner))
        >>> schedule = MiningSchedule({0: "all", 1: "hard"}, log=True)
        >>> x, y = np.eye(8, dtype="float32"), np.arange(8) // 2
        >>> history = model.fit(x, y, epochs=2, callbacks=[schedule], verbose=0)
        >>> history.history["mining_stage"]
        [0, 1]

    Reference:
        Harwood et al. (2017), Smart Mining for Deep Metric Learning,
        https://arxiv.org/abs/1704.01285; Schroff et al. (2015), FaceNet,
        https://arxiv.org/abs/1503.03832 (why the hardest negatives collapse a model early).
    """

    def __init__(self, schedule, miner=None, log=False):
        super().__init__()
        if not isinstance(schedule, dict) or not schedule:
            raise ValueError(
                '`schedule` must be a dict such as {0: "semi-hard", 10: "hard"}. '
                f"Received: schedule={schedule!r}"
            )
        for epoch in schedule:
            check_count("epoch of schedule", epoch, at_least=0)
            if not isinstance(schedule[epoch], str):
                raise TypeError(
                    "`schedule` must have the name of a strategy for each epoch. Received: "
                    f"{schedule[epoch]!r} for epoch {epoch}"
                )
        check_flag("log", log)
        if miner is not None and not hasattr(miner, "strategies"):
            raise TypeError(
                "`miner` must be a TripletMiner or PairMiner, the one that the loss holds. "
                f"Received: miner={miner!r}"
            )
        self.schedule = dict(sorted(schedule.items()))
        self.miner = miner
        self.log = log
        self.current = None
        self._scheduled = None

    def on_train_begin(self, logs=None):
        self._scheduled = self._find()
        self.current = None
        tracked = {id(variable) for variable in self.model.variables}
        if keras.backend.backend() == "jax" and not all(
            id(variable) in tracked for variable in self._scheduled.variables
        ):
            raise ValueError(
                "With JAX the model must track the miner's variable, or the compiled step takes "
                "it for a constant. Use a model that holds the layers of its loss: "
                f"keras_metric.EmbeddingModel. Received: {type(self.model).__name__}"
            )
        unknown = sorted(set(self.schedule.values()) - set(self._scheduled.strategies), key=str)
        if unknown:
            raise ValueError(
                f"The miner must know every scheduled strategy. Received: {unknown}, while it has "
                f"{list(self._scheduled.strategies)}. Name them all: TripletMiner"
                f"({tuple(dict.fromkeys(self.schedule.values()))!r})"
            )

    def on_epoch_begin(self, epoch, logs=None):
        due = [name for start, name in self.schedule.items() if start <= epoch]
        if due and due[-1] != self.current:
            self.current = due[-1]
            self._scheduled.use(self.current)

    def on_epoch_end(self, epoch, logs=None):
        if self.log and logs is not None and self.current is not None:
            logs["mining_stage"] = self._scheduled.strategies.index(self.current)

    def _find(self):
        layers = [
            layer
            for loss in keras.tree.flatten(self.model.loss)
            for layer in getattr(loss, "layers", ())
        ]
        # Any layer that keeps the promise of TripletMiner: names, and `use` to choose one.
        miners = [layer for layer in layers if hasattr(layer, "strategies")]
        if self.miner is not None:
            miners = [layer for layer in miners if layer is self.miner]
        unique = list({id(layer): layer for layer in miners}.values())
        if len(unique) == 1:
            return unique[0]
        names = tuple(dict.fromkeys(self.schedule.values()))
        example = f"compile(loss=TripletLoss(mining=TripletMiner({names!r})))"
        if unique:
            raise ValueError(
                f"The compiled loss holds {len(unique)} miners. Say which one to schedule: "
                "MiningSchedule(schedule, miner=miner)."
            )
        wanted = "a miner" if self.miner is None else "the given miner"
        raise ValueError(
            f"MiningSchedule needs a compiled loss that holds {wanted}: {example}. "
            f"Received: loss={self.model.loss!r}"
        )
