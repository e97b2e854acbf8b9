"""Callback that changes the mining strategy epoch by epoch."""

import keras

from keras_metric._validation import check_count, check_flag


class MiningSchedule(keras.callbacks.Callback):
    """Changes the strategy of a miner during training.

    Hard triplets have the largest gradients but can collapse a model early in training. A common
    remedy is to start with all or semi-hard triplets and to change to hard ones later. The miner
    holds the strategy in a variable, so compiled steps use the new one. Each epoch uses the last
    entry at or before it, also in a training that resumes with `initial_epoch`. Before the first
    entry the miner is unchanged.

    Args:
        schedule: Dict from epoch (counted from 0) to the name of a strategy.
        miner: The miner to change; by default the one miner of the compiled loss.
        log: If True, `logs["mining_stage"]` is the number of the strategy in
            `miner.strategies`, from the first entry on.

    Raises:
        TypeError: An epoch that is not an integer, a strategy that is not a name, or a `miner` that
            is not a miner.
        ValueError: An empty schedule; and at the start of `fit`, if the compiled loss holds no such
            miner, or several, or if a name is not among the miner's strategies.

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
        https://arxiv.org/abs/1503.03832 (the hardest negatives can collapse a model early).
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
                "With JAX the model must track the miner's variable; otherwise the compiled step "
                "treats it as a constant. Use a model that tracks the layers of its loss: "
                f"keras_metric.EmbeddingModel. Received: {type(self.model).__name__}"
            )
        unknown = sorted(set(self.schedule.values()) - set(self._scheduled.strategies), key=str)
        if unknown:
            raise ValueError(
                f"The miner must have every scheduled strategy. Received: {unknown}, while it has "
                f"{list(self._scheduled.strategies)}. Pass all of them: TripletMiner"
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
        # Any layer with the interface of TripletMiner: `strategies`, and `use` to choose one.
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
                f"The compiled loss holds {len(unique)} miners. Pass the one to schedule: "
                "MiningSchedule(schedule, miner=miner)."
            )
        missing = "a miner" if self.miner is None else "the given miner"
        raise ValueError(
            f"MiningSchedule needs a compiled loss that holds {missing}: {example}. "
            f"Received: loss={self.model.loss!r}"
        )
