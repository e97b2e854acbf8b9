"""Miner: what the layers share that choose pairs or triplets."""

import keras
from keras import ops

from keras_metric import distances, mining
from keras_metric._validation import check_choice, check_seed


class Miner(keras.layers.Layer):
    """Base of the miners: a strategy, or several to switch between, its settings, and a seed.

    A subclass hands over its own arguments as `settings`, by name, None where they are not given.
    One that no strategy at hand reads is an error: it would be ignored without a word.
    """

    # Strategy: the settings that it reads, with their defaults.
    known: dict[str, dict[str, object]] = {}

    def __init__(self, strategy, settings, distance, seed, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not isinstance(strategy, (str, tuple, list)):
            raise TypeError(
                "`strategy` must be the name of a rule, or a tuple of names to switch between. "
                f"Received: strategy={strategy!r}"
            )
        self.strategies = (strategy,) if isinstance(strategy, str) else tuple(strategy)
        for name in self.strategies:
            check_choice("strategy", name, self.known)
        if not self.strategies:
            raise ValueError(f"`strategy` must name at least one rule. Received: {strategy!r}")
        check_choice("distance", distance, distances.METRICS)
        check_seed("seed", seed)
        self.strategy = strategy
        self.distance = distance
        self.seed = seed
        for name, value in settings.items():
            setattr(self, name, value)
            if value is not None:
                self._check_read(name, value)
        draws = any(name in mining.RANDOM for name in self.strategies)
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None
        self.stage = None
        if len(self.strategies) > 1:
            # A variable, since a Python attribute is frozen into the compiled step.
            self.stage = self.add_weight(
                name="stage", shape=(), dtype="int32", initializer="zeros", trainable=False
            )
        self.built = True

    def _check_read(self, setting, value):
        readers = [name for name, settings in self.known.items() if setting in settings]
        if not set(readers) & set(self.strategies):
            raise ValueError(
                f"`{setting}` is a setting of {readers}, which none of the strategies "
                f"{list(self.strategies)} is. Received: {setting}={value!r}"
            )

    def settings(self, name):
        """The settings that the strategy `name` reads: those given, and defaults for the others."""
        return {
            key: default if getattr(self, key) is None else getattr(self, key)
            for key, default in self.known[name].items()
        }

    def use(self, name):
        """Put the strategy `name` in force; it must be one of `strategies`."""
        check_choice("name", name, self.strategies)
        if self.stage is not None:
            self.stage.assign(self.strategies.index(name))

    def choose(self, compute):
        """Return `compute(name)` of the strategy in force, decided inside the graph."""
        if self.stage is None:
            return compute(self.strategies[0])
        branches = [lambda name=name: compute(name) for name in self.strategies]
        return ops.switch(ops.convert_to_tensor(self.stage), branches)

    @property
    def sees_batch(self):
        """Whether what it leaves of an anchor depends on the other anchors, or on a common draw."""
        together = (*mining.RANDOM, *mining.pair_rules.WHOLE_BATCH)
        return any(name in together for name in self.strategies)

    def noise(self, rows, columns):
        """What the strategies draw with, (rows, columns); None if none of them draws."""
        if self.seed_generator is None:
            return None
        return mining.draw_noise(rows, columns, self.seed_generator)

    def compute_output_shape(self, embeddings_shape, labels_shape=None):
        return ((embeddings_shape[0],) * 2,) * 2

    def get_config(self):
        settings = dict.fromkeys(key for reads in self.known.values() for key in reads)
        names = ("strategy", *settings, "distance", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
