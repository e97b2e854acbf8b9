"""Base class of the layers that choose pairs or triplets."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._validation import check_choice, check_seed
from keras_metric.mining import pair_rules, triplet_rules

# Strategies that need random numbers.
RANDOM = (*triplet_rules.RANDOM, *pair_rules.RANDOM)


class Miner(keras.layers.Layer):
    """Base of the miners: a strategy, or several to switch between, its settings, and a seed.

    A subclass passes its own arguments as `settings`, a dict by name; None means not given. A
    setting that none of the strategies reads raises a ValueError.
    """

    # By strategy: the settings that it reads, with their defaults.
    strategy_settings: dict[str, dict[str, object]] = {}
    # Whether a strategy reads the distances of the references to each other.
    needs_among = False

    def __init__(self, strategy, settings, distance, seed, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not isinstance(strategy, (str, tuple, list)):
            raise TypeError(
                "`strategy` must be the name of a rule, or a tuple of names to switch between. "
                f"Received: strategy={strategy!r}"
            )
        self.strategies = (strategy,) if isinstance(strategy, str) else tuple(strategy)
        for name in self.strategies:
            check_choice("strategy", name, self.strategy_settings)
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
        self.is_random = any(name in RANDOM for name in self.strategies)
        self.seed_generator = keras.random.SeedGenerator(seed) if self.is_random else None
        self.stage = None
        if len(self.strategies) > 1:
            # A variable: the value of a Python attribute is fixed in a compiled step.
            self.stage = self.add_weight(
                name="stage", shape=(), dtype="int32", initializer="zeros", trainable=False
            )
        self.built = True

    def _check_read(self, setting, value):
        readers = [name for name, settings in self.strategy_settings.items() if setting in settings]
        if not set(readers) & set(self.strategies):
            raise ValueError(
                f"`{setting}` is a setting of {readers}, which none of the strategies "
                f"{list(self.strategies)} is. Received: {setting}={value!r}"
            )

    def settings(self, name):
        """The settings that the strategy `name` reads: those given, and defaults for the others."""
        return {
            key: default if getattr(self, key) is None else getattr(self, key)
            for key, default in self.strategy_settings[name].items()
        }

    def use(self, name):
        """Switch to the strategy `name`, one of `strategies`."""
        check_choice("name", name, self.strategies)
        if self.stage is not None:
            self.stage.assign(self.strategies.index(name))

    def choose(self, compute):
        """Return `compute(name)` for the strategy in force, selected inside the graph."""
        if self.stage is None:
            return compute(self.strategies[0])
        branches = [lambda name=name: compute(name) for name in self.strategies]
        return ops.switch(ops.convert_to_tensor(self.stage), branches)

    def chosen(self, functions):
        """That of `functions`, one for each strategy, whose strategy is in force."""
        if self.stage is None:
            return functions[0]
        by_name = dict(zip(self.strategies, functions))
        return lambda *args: self.choose(lambda name: by_name[name](*args))

    @property
    def sees_batch(self):
        """Whether the choice for an anchor depends on the other anchors, or on random numbers."""
        together = (*RANDOM, *pair_rules.WHOLE_BATCH)
        return any(name in together for name in self.strategies)

    def noise(self, rows, columns):
        """Random numbers for the strategies, (rows, columns); None if none of them needs any."""
        if self.seed_generator is None:
            return None
        return uniform_noise(rows, columns, self.seed_generator)

    def compute_output_shape(self, embeddings_shape, labels_shape=None):
        return ((embeddings_shape[0],) * 2,) * 2

    def get_config(self):
        settings = dict.fromkeys(key for reads in self.strategy_settings.values() for key in reads)
        names = ("strategy", *settings, "distance", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def uniform_noise(rows, columns, seed):
    """Uniform random numbers in (0, 1), one for each pair, (rows, columns).

    Each pair gets a hash of the random numbers of its row and its column. A separate random number
    for each pair takes XLA seconds on a CPU.
    """
    numbers = keras.random.randint((rows + columns,), 0, 2**31 - 1, seed=seed)
    mixed = numbers[:rows, None] + numbers[None, rows:]
    # Two rounds of a multiplicative 32-bit hash; the integer overflow is intended.
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        shifted = ops.bitwise_and(ops.right_shift(mixed, shift), 2 ** (32 - shift) - 1)
        mixed = ops.bitwise_xor(mixed, shifted) * factor
    # 23 bits: the centres of 2**23 equal parts of (0, 1), whose logarithms are finite.
    return (ops.cast(ops.bitwise_and(mixed, 2**23 - 1), "float32") + 0.5) / 2**23
