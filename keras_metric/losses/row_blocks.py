"""Some hundred anchor rows at a time, so that a block stays in the processor's cache."""

from keras import ops

# 256 rows of 1,024 float32 are 1 MB: a block, its slopes and a temporary fit a core's cache.
ROWS = 256


def in_blocks(compute, distance, partners):
    """`compute(distance, partners)` for `ROWS` anchors after the other, results joined.

    `compute` returns a tuple of tensors with one row for each anchor. Anchors that fill up the
    last block have no class mates, hence no term.
    """
    if distance.shape[0] is not None and distance.shape[0] <= ROWS:
        return compute(distance, partners)
    batch = ops.shape(distance)[0]
    blocks = (batch + ROWS - 1) // ROWS

    def block(number):
        place = number * ROWS + ops.arange(ROWS, dtype="int32")
        inside = place < batch
        place = ops.minimum(place, batch - 1)

        def rows(tensor):
            return ops.take(tensor, place, axis=0)

        part = partners._replace(
            positive=rows(partners.positive),
            negative=rows(partners.negative),
            start=rows(partners.start),
            count=ops.where(inside, rows(partners.count), 0),
            own=ops.where(inside, rows(partners.own), -1),
        )
        return compute(rows(distance), part)

    def joined(results):
        results = ops.reshape(results, (blocks * ROWS, *ops.shape(results)[2:]))
        whole = isinstance(batch, int) and batch % ROWS == 0
        return results if whole else results[:batch]

    results = ops.map(block, ops.arange(blocks, dtype="int32"))
    return tuple(joined(result) for result in results)
