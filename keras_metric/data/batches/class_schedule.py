"""Assignment of classes to the batches of an epoch."""

import numpy as np

# After n sweeps a visit is still in its first batch with probability 2 ** -n.
_SWEEPS = 8


class ClassSchedule:
    """Plans epochs of `batches` batches of `per_batch` distinct classes.

    The number of visits of a class in an epoch is `batches` times its inclusion probability, which
    is proportional to `count ** power` and at most 1. Rounding remainders are carried over to later
    epochs.
    """

    def __init__(self, counts, per_batch, batches, power, seed):
        self._per_batch = per_batch
        self._batches = batches
        self._seed = seed
        self._exact = batches * _inclusion_probabilities(counts, per_batch, power)
        self._epoch = 0
        self._visited = np.zeros(len(counts), dtype="int64")

    def plan(self, epoch):
        """Return `(classes, visits)`, both `(batches, per_batch)`.

        `visits` is the number of earlier visits of the class, in this epoch and all before it.
        """
        if epoch < self._epoch:
            self._epoch, self._visited = 0, np.zeros_like(self._visited)
        while self._epoch < epoch:
            self._visited = self._visited + self._quotas(self._epoch, self._visited)
            self._epoch += 1
        quotas = self._quotas(epoch, self._visited)
        classes = self._arrange(quotas, np.random.default_rng((self._seed, epoch, 1)))
        flat = classes.reshape(-1)
        order = np.argsort(flat, kind="stable")
        visits = np.empty(len(flat), dtype="int64")
        visits[order] = np.arange(len(flat)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
        visits += self._visited[flat]
        return classes, visits.reshape(classes.shape)

    def _quotas(self, epoch, visited):
        """Return the visits of each class in this epoch; their sum fills all batches."""
        quotas = np.floor(self._exact + 1e-9).astype("int64")
        missing = self._batches * self._per_batch - quotas.sum()
        # Sort by remaining quota over all epochs, largest first; break ties randomly.
        remaining = np.round((epoch + 1) * self._exact - visited - quotas, 6)
        ties = np.random.default_rng((self._seed, epoch, 0)).random(len(quotas))
        # A class that is in every batch already cannot get another visit.
        order = np.lexsort((ties, -np.where(quotas < self._batches, remaining, -np.inf)))
        quotas[order[:missing]] += 1
        return quotas

    def _arrange(self, quotas, rng):
        order = rng.permutation(len(quotas))
        visits = np.repeat(order, quotas[order]).astype("int32")
        # The visits of a class are adjacent and at most as many as there are batches. Assigning
        # them to the batches in turn gives no batch two of them.
        plan = visits.reshape(self._per_batch, self._batches).T[rng.permutation(self._batches)]
        if quotas.max() > 1 and self._per_batch < np.count_nonzero(quotas):
            # Without the exchange the same classes would be in one batch again and again.
            for _ in range(_SWEEPS):
                _exchange(plan, rng)
        return plan


def _inclusion_probabilities(counts, per_batch, power):
    """Return the probability of each class to be in a batch; the sum is `per_batch`."""
    # Weights above 0, since the rest of the classes may not fill a batch.
    weights = np.maximum((counts / counts.max()) ** power, 1e-300)
    always = np.zeros(len(counts), dtype=bool)
    while True:
        rest = per_batch - always.sum()
        probabilities = np.where(always, 1.0, rest * weights / weights[~always].sum())
        # Cap probabilities above 1 and distribute the excess over the other classes.
        over = ~always & (probabilities > 1.0)
        if not over.any():
            return probabilities
        always |= over


def _exchange(plan, rng):
    """Distribute the classes of random pairs of batches again between the two, in place."""
    batches = rng.permutation(len(plan))
    half = len(plan) // 2
    one, other = batches[:half], batches[half : 2 * half]
    pool = np.sort(np.concatenate([plan[one], plan[other]], axis=1), axis=1)
    equal = pool[:, 1:] == pool[:, :-1]
    in_both = np.zeros(pool.shape, dtype=bool)
    in_both[:, 1:] |= equal
    in_both[:, :-1] |= equal
    # Classes that are in both batches come first, in adjacent columns, and so each batch gets one.
    # The other classes are shuffled.
    key = np.where(in_both, np.arange(pool.shape[1]) - pool.shape[1], rng.random(pool.shape))
    pool = np.take_along_axis(pool, np.argsort(key, axis=1), axis=1)
    plan[one], plan[other] = pool[:, 0::2], pool[:, 1::2]
