"""Which classes meet in which batch of an epoch."""

import numpy as np

# After n sweeps a visit has stayed in its first batch with probability 2 ** -n.
_SWEEPS = 8


class ClassRotation:
    """Plans of `batches` batches of `per_batch` distinct classes, one plan an epoch.

    A class is due `batches * share` visits an epoch, where the shares are proportional to
    `count ** power` and no class comes twice in a batch. What rounding leaves over in one epoch
    is paid in a later one, so that no class waits longer than its share says.
    """

    def __init__(self, counts, per_batch, batches, power, seed):
        self._per_batch = per_batch
        self._batches = batches
        self._seed = seed
        self._shares = _shares(counts, per_batch, power)
        self._epoch = 0
        self._visited = np.zeros(len(counts), dtype="int64")

    def plan(self, epoch):
        """Return `(classes, visits)`, both `(batches, per_batch)`.

        `visits` says how often the class was visited before, in this epoch and all earlier ones.
        """
        if epoch < self._epoch:
            self._epoch, self._visited = 0, np.zeros_like(self._visited)
        while self._epoch < epoch:
            self._visited = self._visited + self._due(self._epoch, self._visited)
            self._epoch += 1
        due = self._due(epoch, self._visited)
        classes = self._arranged(due, np.random.default_rng((self._seed, epoch, 1)))
        flat = classes.reshape(-1)
        order = np.argsort(flat, kind="stable")
        visits = np.empty(len(flat), dtype="int64")
        visits[order] = np.arange(len(flat)) - np.repeat(np.cumsum(due) - due, due)
        visits += self._visited[flat]
        return classes, visits.reshape(classes.shape)

    def _due(self, epoch, visited):
        """Visits of each class in this epoch, its due rounded up or down; they fill all places."""
        exact = self._batches * self._shares
        due = np.floor(exact + 1e-9).astype("int64")
        left = self._batches * self._per_batch - due.sum()
        # Whom most is owed from all epochs first; equals, and they are many, in random order.
        owed = np.round((epoch + 1) * exact - visited - due, 6)
        by_chance = np.random.default_rng((self._seed, epoch, 0)).random(len(due))
        # A class that comes in every batch cannot come more often.
        order = np.lexsort((by_chance, -np.where(due < self._batches, owed, -np.inf)))
        due[order[:left]] += 1
        return due

    def _arranged(self, due, rng):
        order = rng.permutation(len(due))
        visits = np.repeat(order, due[order]).astype("int32")
        # Dealt like cards: the visits of a class lie side by side and are at most as many as
        # there are batches, so no batch gets two of them.
        plan = visits.reshape(self._per_batch, self._batches).T[rng.permutation(self._batches)]
        if due.max() > 1 and self._per_batch < np.count_nonzero(due):
            # A deal alone would let the same classes meet again and again.
            for _ in range(_SWEEPS):
                _trade(plan, rng)
        return plan


def _shares(counts, per_batch, power):
    """The chance of each class to be in a batch: proportional, at most 1, summing to per_batch."""
    # Not 0, however small: a class that never came would leave batches unfilled.
    weights = np.maximum((counts / counts.max()) ** power, 1e-300)
    shares = np.zeros(len(counts))
    always = np.zeros(len(counts), dtype=bool)
    while True:
        rest = per_batch - always.sum()
        shares = np.where(always, 1.0, rest * weights / weights[~always].sum())
        # A class that would be due more than once a batch is in every batch; others get the rest.
        over = ~always & (shares > 1.0)
        if not over.any():
            return shares
        always |= over


def _trade(plan, rng):
    """Let random pairs of batches pool the classes they do not share and draw them anew."""
    batches = rng.permutation(len(plan))
    half = len(plan) // 2
    one, other = batches[:half], batches[half : 2 * half]
    pool = np.sort(np.concatenate([plan[one], plan[other]], axis=1), axis=1)
    twin = pool[:, 1:] == pool[:, :-1]
    shared = np.zeros(pool.shape, dtype=bool)
    shared[:, 1:] |= twin
    shared[:, :-1] |= twin
    # Twins stay side by side in front, and so one goes to each batch; the rest is shuffled.
    place = np.where(shared, np.arange(pool.shape[1]) - pool.shape[1], rng.random(pool.shape))
    pool = np.take_along_axis(pool, np.argsort(place, axis=1), axis=1)
    plan[one], plan[other] = pool[:, 0::2], pool[:, 1::2]
