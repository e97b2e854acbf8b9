"""Exact distances and nearest neighbours in NumPy: a float32 product, corrected in float64."""

import numpy as np

from keras_metric._block_loops import in_threads, row_blocks, with_progress

# For each metric: are rows centred at their own mean, are they scaled to length one, and is the
# distance a squared difference (otherwise it is a constant minus the product).
_FORMS = {
    "cosine": (False, True, False),
    "dot": (False, False, False),
    "euclidean": (False, False, True),
    "pearson": (True, True, False),
    "snr": (True, False, True),
    "squared_euclidean": (False, False, True),
}
METRICS = tuple(_FORMS)
# Metrics that `in_units` supports; a distance of "snr" also depends on the variance of its query.
METRICS_WITH_UNITS = tuple(name for name in METRICS if name != "snr")
_CANCELLED = np.float32(2.0**-26)  # below it a float64 product has fewer digits than float32
HEADROOM = 50  # 2**50 squared is far inside float32, also summed over millions of dimensions
_FLOAT64_NUMBERS = 1 << 19  # converted at a time: 4 MB
_BLOCK_NUMBERS = 1 << 20  # distances in a block: 8 MB of keys
LAST_KEY = np.iinfo("int64").max  # sorts behind every item
# More candidates than this fraction of a block are cheaper as a float64 product of the block.
_MOST_CANDIDATES = 1 / 32
_GROUPS_PER_NEIGHBOR = 16  # with more groups, fewer of the `k` items are in one group


class ExactDistances:
    """Distances between the rows of `queries` and those of `gallery`.

    `closeness` costs one float32 product, increases as the distance falls, and has an error below
    `max_error`; it is minus half a squared distance, or the product itself. `paired` and `block`
    return float64 distances in the order of the metric.
    """

    def __init__(self, queries, gallery, metric):
        self.metric = metric
        self.centred_rows, self.unit, self.squared = _FORMS[metric]
        self.same = queries is gallery
        self.raw_queries, self.raw_gallery, self.kept = queries, gallery, None
        # A power of two changes no digit. With it, squares of large vectors fit float32, and
        # those of vectors 1e-30 times as long are not zero. Normalizing metrics need no scale.
        exponent = HEADROOM - exponent_of(queries, gallery)
        self.scale = 1.0 if self.unit else 2.0 ** min(exponent, 1000)
        self.origin = np.zeros(gallery.shape[1])
        # Between vectors of length 1 a cosine distance is half the squared difference, which
        # keeps its digits where 1 - cos cancels. Zero vectors cannot be scaled to length 1.
        if self.unit and not (self._has_zeros(queries) or self._has_zeros(gallery)):
            self.squared = True
        if self.squared:
            # Differences do not depend on the origin, but the product cancels less near it.
            # The median is used because one outlier would move the mean away from all others.
            sample = gallery[:: max(1, len(gallery) // 1024)]
            if len(sample):
                self.origin = np.median(self._prepared(sample), axis=0)
        self.gallery, self.gallery_norms = self._in_float32(gallery)
        self.queries, self.query_norms = self.gallery, self.gallery_norms
        if not self.same:
            self.queries, self.query_norms = self._in_float32(queries)
        if self.squared:
            # With two more columns the product is q.g - q.q / 2 - g.g / 2, without another pass.
            self.queries = _with_squares(self.queries, self.query_norms, first=True)
            self.gallery = _with_squares(self.gallery, self.gallery_norms, first=False)
        # The measured error of the float32 product is sqrt(dim) / 10 units in the last place. Ten
        # times that is still narrow; a bound that is too wide costs time, never exactness.
        units = (8 + np.sqrt(gallery.shape[1])) * 2.0**-24
        longest = self.gallery_norms.max(initial=0.0)
        self.max_error = units * self.query_norms * longest
        if self.squared:
            self.max_error += units * (self.query_norms**2 + longest**2)

    def closeness(self, query, item):
        """Return the float32 closeness of two slices, every query with every item."""
        return self.queries[query] @ self.gallery[item].T

    def threshold(self, distances):
        """Return the closeness that belongs to `distances`."""
        return -0.5 * distances if self.squared else float(self.unit) - distances

    def paired(self, query, item):
        """Return the float64 distances of the pairs `(query[i], item[i])`."""
        distances = np.empty(len(query))
        for part in row_blocks(0, len(query), _FLOAT64_NUMBERS // self.raw_gallery.shape[1]):
            a = self._prepared(self.raw_queries[query[part]])
            b = self._prepared(self.raw_gallery[item[part]])
            distances[part] = self._between(a, b)
        return distances

    def block(self, query, item):
        """Return the distances of two slices, every query with every item, as float32.

        They are computed in float64 and then rounded, as `order_keys` rounds those of `paired`.
        """
        (a, a_squares), (b, b_squares) = self._in_float64(query, True), self._in_float64(item)
        product = a @ b.T
        if not self.squared:
            np.subtract(float(self.unit), product, out=product)
            size = np.float32(self.unit)
        else:
            product *= -2.0
            product += a_squares[:, None]
            product += b_squares
            size = a_squares[:, None].astype("float32") + b_squares.astype("float32")
        distances = product.astype("float32")
        # The product of near copies has lost its digits; compute those from their difference.
        row, column = np.nonzero(distances < _CANCELLED * size)
        if len(row) and (self.squared or self.unit):
            first, second = np.arange(len(self.queries))[query], np.arange(len(self.gallery))[item]
            distances[row, column] = self.paired(first[row], second[column])
        return distances

    def in_units(self, distances):
        """Return distances from `block` or `paired` as float64 in units of the metric."""
        distances = distances.astype("float64")
        if self.unit:
            return 0.5 * distances if self.squared else distances
        if self.metric == "euclidean":
            return np.sqrt(distances) / self.scale
        return distances / self.scale / self.scale

    def keep_float64(self):
        """Keep the gallery in float64, for repeated calls of `block` over all of it."""
        self.kept = self._in_float64(slice(None))

    def _in_float64(self, part, of_queries=False):
        if self.kept is not None and not of_queries:
            return self.kept[0][part], self.kept[1][part]
        rows = self._prepared((self.raw_queries if of_queries else self.raw_gallery)[part])
        rows -= self.origin
        return rows, np.square(rows).sum(axis=1)

    def _between(self, a, b):
        if not (self.squared or self.unit):
            return -(a * b).sum(axis=1)
        distances = np.square(a - b).sum(axis=1)
        if self.unit or self.centred_rows:
            # Rows that are equal up to scale or offset differ in the last digit here.
            size = np.square(a).sum(axis=1) + np.square(b).sum(axis=1)
            distances[distances < 2.0**-96 * size] = 0.0
        if self.squared:
            return distances
        return np.where(a.any(axis=1) & b.any(axis=1), 0.5 * distances, 1.0)

    def _prepared(self, rows):
        """Return rows in float64, scaled, centred and normalized as the metric requires."""
        rows = rows * np.float64(self.scale)
        if self.centred_rows:
            size = np.abs(rows).max(axis=1, keepdims=True)
            if self.unit:
                # The mean of huge numbers would overflow, and the square of tiny ones vanish.
                exponent = np.frexp(size)[1]
                rows, size = np.ldexp(rows, -exponent), np.ldexp(size, -exponent)
            rows -= rows.mean(axis=1, keepdims=True)
            # A constant row must become zeros, not the rounding errors of its mean.
            rows[np.abs(rows) < 2.0**-48 * size] = 0.0
        return unit_rows(rows) if self.unit else rows

    def _parts(self, raw):
        return row_blocks(0, len(raw), _FLOAT64_NUMBERS // raw.shape[1])

    def _has_zeros(self, raw):
        return not all(self._prepared(raw[part]).any(axis=1).all() for part in self._parts(raw))

    def _in_float32(self, raw):
        rows, norms = np.empty(raw.shape, "float32"), np.empty(len(raw))
        for part in self._parts(raw):
            exact = self._prepared(raw[part]) - self.origin
            rows[part], norms[part] = exact, np.sqrt(np.square(exact).sum(axis=1))
        return rows, norms


def exponent_of(*arrays):
    """Return the exponent of the power of two next above the largest number in `arrays`."""
    largest = max(float(max(part.max(initial=0.0), -part.min(initial=0.0))) for part in arrays)
    return int(np.frexp(largest)[1])


def unit_rows(rows):
    """Return `rows` scaled to length 1; rows of zeros are unchanged."""
    # Divide by the largest entry first, so that squares neither vanish nor overflow.
    size = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(size > 0, size, 1)
    size = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    rows /= np.where(size > 0, size, 1)
    return rows


def _with_squares(rows, norms, first):
    """Return `rows` with two more columns: minus half their squares and 1, or 1 and the squares."""
    halves, ones = -0.5 * norms[:, None] ** 2, np.ones((len(rows), 1))
    columns = (halves, ones) if first else (ones, halves)
    return np.concatenate([rows, *(column.astype("float32") for column in columns)], axis=1)


def order_keys(distances, index):
    """Return int64 keys that sort by distance rounded to float32, then by `index`; all are even.

    Equal distances that are computed in two ways differ in their last float64 digits. Rounded to
    float32 they are equal, so ties do not depend on the computation.
    """
    # Adding zero turns -0.0 into 0.0. The bits of positive floats sort as integers.
    bits = (distances.astype("float32", copy=False) + np.float32(0.0)).view("int32")
    keys = bits.astype("int64")
    if (bits < 0).any():
        # The bits of negative floats sort in the opposite order.
        keys = np.where(bits < 0, keys ^ 0x7FFFFFFF, keys)
    keys <<= 32
    keys |= 2 * index
    return keys


def key_distances(keys):
    """Return the float32 distances from which `order_keys` made `keys`."""
    bits = (keys >> 32).astype("int32")
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).view("float32")


def key_index(keys):
    """Return the item numbers in `keys`."""
    return (keys & 0xFFFFFFFF) >> 1


def key_blocks(distances, description, progress=None, numbers=_BLOCK_NUMBERS):
    """Yield `(rows, keys)`: a slice of the queries and their `order_keys` `(rows, items)`."""
    items = len(distances.gallery)
    index = np.arange(items)
    distances.keep_float64()
    # A block holds its distances, and the queries themselves.
    size = numbers // max(items, distances.raw_gallery.shape[1])
    blocks = row_blocks(0, len(distances.queries), size)

    def keys(rows):
        return rows, order_keys(distances.block(rows, slice(None)), index)

    yield from with_progress(in_threads(keys, blocks), len(blocks), description, progress)


def smallest_keys(keys, k):
    """Return the `k` smallest of each row of `keys`, in order."""
    if k < keys.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    return np.sort(keys, axis=1)


def remove_self(keys, rows):
    """Overwrite the key of each query among `keys` `(rows, items)` of the same items."""
    keys[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = LAST_KEY


def nearest_items(
    queries,
    gallery,
    metric,
    k,
    description="neighbours",
    progress=None,
    without_self=False,
    numbers=2 * _BLOCK_NUMBERS,
):
    """Yield `(rows, index, distances)`: the `k` nearest items of a slice of the queries.

    `index` and the float64 `distances`, in units of `metric` (one of `METRICS_WITH_UNITS`), are
    `(rows, k)`, or narrower if there are fewer items, nearest first; of distances that are equal in
    float32 the smaller index comes first. `gallery` may be the same object as `queries`;
    `without_self` then excludes item i from the neighbours of query i.
    """
    measured = ExactDistances(queries, gallery, metric)
    k = min(k, len(gallery) - without_self)
    size = numbers // max(len(gallery), gallery.shape[1])
    blocks = row_blocks(0, len(queries), size)

    def search(rows):
        keys = _nearest_keys(measured, rows, k, without_self)
        return rows, key_index(keys), measured.in_units(key_distances(keys))

    yield from with_progress(in_threads(search, blocks), len(blocks), description, progress)


def _nearest_keys(distances, rows, k, without_self):
    """Return the keys `(rows, k)` of the nearest items."""
    items = len(distances.gallery)
    most = int(_MOST_CANDIDATES * items * (rows.stop - rows.start))
    if k * (rows.stop - rows.start) <= most:
        close = distances.closeness(rows, slice(None))
        if without_self:
            close[np.arange(len(close)), np.arange(rows.start, rows.stop)] = -np.inf
        # Split the items into groups: k group maxima, so k items, reach the k-th largest maximum.
        # An item that is below it by more than both errors is not among the k nearest.
        groups = min(items, _GROUPS_PER_NEIGHBOR * k)
        grouped = close[:, : items // groups * groups].reshape(len(close), -1, groups)
        bound = np.partition(grouped.max(axis=1), groups - k, axis=1)[:, groups - k]
        bound = (bound - 2 * distances.max_error[rows]).astype("float32")
        candidates = np.flatnonzero(close >= bound[:, None])
        if len(candidates) <= most:
            row, item = np.divmod(candidates, items)
            counts = np.bincount(row, minlength=len(close))
            keys = np.full((len(close), counts.max()), LAST_KEY)
            keys[np.arange(counts.max()) < counts[:, None]] = order_keys(
                distances.paired(row + rows.start, item), item
            )
            return smallest_keys(keys, k)
    if distances.kept is None:
        distances.keep_float64()
    keys = order_keys(distances.block(rows, slice(None)), np.arange(items))
    if without_self:
        remove_self(keys, rows)
    return smallest_keys(keys, k)
