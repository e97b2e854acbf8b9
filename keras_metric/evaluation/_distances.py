"""Distances for ranking: a fast product that is nearly right, and float64 where it matters."""

import numpy as np

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
# Those that `in_units` knows; a distance of "snr" depends on its query's variance as well.
UNITS = tuple(name for name in METRICS if name != "snr")
_CANCELLED = np.float32(2.0**-26)  # below it a float64 product has less digits than float32
HEADROOM = 50  # 2**50 squared is far inside float32, also summed over millions of dimensions
_NUMBERS = 1 << 19  # float64 numbers handled at a time: 4 MB


class Geometry:
    """Distances between the rows of `queries` and those of `gallery`.

    `closeness` costs one float32 GEMM, grows as the distance falls, and is off by less than
    `slack`; it is minus half a squared distance, or the product itself. `paired` and `block` give
    float64 distances in the metric's order.
    """

    def __init__(self, queries, gallery, metric):
        self.metric = metric
        self.centred_rows, self.unit, self.squared = _FORMS[metric]
        self.same = queries is gallery
        self.raw_queries, self.raw_gallery, self.kept = queries, gallery, None
        # A power of two changes no digit. Squares of large vectors fit float32 after it, and those
        # of vectors 1e-30 times as long are not zero. Metrics that normalize rows need no scale.
        exponent = HEADROOM - exponent_of(queries, gallery)
        self.scale = 1.0 if self.unit else 2.0 ** min(exponent, 1000)
        self.origin = np.zeros(gallery.shape[1])
        # Between vectors of length 1 a cosine distance is half the squared difference, which
        # keeps its digits where 1 - cos cancels. A zero vector has no length to bring to 1.
        if self.unit and not (self._has_zeros(queries) or self._has_zeros(gallery)):
            self.squared = True
        if self.squared:
            # Differences do not move, but the product cancels less when the cloud sits at zero.
            # The median, because one far outlier would drag the mean away from all the others.
            sample = gallery[:: max(1, len(gallery) // 1024)]
            if len(sample):
                self.origin = np.median(self._rows(sample), axis=0)
        self.gallery, self.gallery_norms = self._in_float32(gallery)
        self.queries, self.query_norms = self.gallery, self.gallery_norms
        if not self.same:
            self.queries, self.query_norms = self._in_float32(queries)
        if self.squared:
            # Two more columns make the product q.g - q.q / 2 - g.g / 2, at no pass over it.
            self.queries = _widened(self.queries, self.query_norms, first=True)
            self.gallery = _widened(self.gallery, self.gallery_norms, first=False)
        # The float32 product was seen to err by sqrt(dim) / 10 units in the last place. Ten
        # times that is still narrow, and too wide a band costs time, never exactness.
        units = (8 + np.sqrt(gallery.shape[1])) * 2.0**-24
        longest = self.gallery_norms.max(initial=0.0)
        self.slack = units * self.query_norms * longest
        if self.squared:
            self.slack += units * (self.query_norms**2 + longest**2)

    def closeness(self, query, item):
        """Return the float32 closeness of two slices, every query with every item."""
        return self.queries[query] @ self.gallery[item].T

    def threshold(self, distances):
        """Return the closeness that belongs to `distances`."""
        return -0.5 * distances if self.squared else float(self.unit) - distances

    def paired(self, query, item):
        """Return the float64 distances of the pairs `(query[i], item[i])`."""
        distances = np.empty(len(query))
        step = max(1, _NUMBERS // self.raw_gallery.shape[1])
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            a = self._rows(self.raw_queries[query[part]])
            b = self._rows(self.raw_gallery[item[part]])
            distances[part] = self._between(a, b)
        return distances

    def block(self, query, item):
        """Return the distances of two slices, every query with every item, as float32.

        Measured in float64 and then rounded, as `order_keys` does with those of `paired`.
        """
        (a, a_squares), (b, b_squares) = self._exact(query, True), self._exact(item, False)
        product = a @ b.T
        if not self.squared:
            np.subtract(float(self.unit), product, out=product)
            reach = np.float32(self.unit)
        else:
            product *= -2.0
            product += a_squares[:, None]
            product += b_squares
            reach = a_squares[:, None].astype("float32") + b_squares.astype("float32")
        distances = product.astype("float32")
        # The product of near copies has lost its digits: measure them by their difference.
        row, column = np.nonzero(distances < _CANCELLED * reach)
        if len(row) and (self.squared or self.unit):
            first, second = np.arange(len(self.queries))[query], np.arange(len(self.gallery))[item]
            distances[row, column] = self.paired(first[row], second[column])
        return distances

    def in_units(self, distances):
        """Return what `block` gave as float64 distances in units of the metric."""
        distances = distances.astype("float64")
        if self.unit:
            return 0.5 * distances if self.squared else distances
        if self.metric == "euclidean":
            return np.sqrt(distances) / self.scale
        return distances / self.scale / self.scale

    def keep_exact(self):
        """Keep the gallery in float64: `block` is about to need all of it again and again."""
        self.kept = self._exact(slice(None), False)

    def _exact(self, part, of_queries):
        if self.kept is not None and not of_queries:
            return self.kept[0][part], self.kept[1][part]
        rows = self._rows((self.raw_queries if of_queries else self.raw_gallery)[part])
        rows -= self.origin
        return rows, np.square(rows).sum(axis=1)

    def _between(self, a, b):
        if not (self.squared or self.unit):
            return -(a * b).sum(axis=1)
        distances = np.square(a - b).sum(axis=1)
        if self.unit or self.centred_rows:
            # Rows that are equal but for their scale or offset differ in the last digit here.
            size = np.square(a).sum(axis=1) + np.square(b).sum(axis=1)
            distances[distances < 2.0**-96 * size] = 0.0
        if self.squared:
            return distances
        return np.where(a.any(axis=1) & b.any(axis=1), 0.5 * distances, 1.0)

    def _rows(self, rows):
        rows = rows * np.float64(self.scale)
        if self.centred_rows:
            size = np.abs(rows).max(axis=1, keepdims=True)
            if self.unit:
                # The mean of huge numbers would overflow, and the square of tiny ones vanish.
                exponent = np.frexp(size)[1]
                rows, size = np.ldexp(rows, -exponent), np.ldexp(size, -exponent)
            rows -= rows.mean(axis=1, keepdims=True)
            # A constant row must become zeros, not what rounding left of it.
            rows[np.abs(rows) < 2.0**-48 * size] = 0.0
        if self.unit:
            rows = unit_rows(rows)
        return rows

    def _has_zeros(self, raw):
        step = max(1, _NUMBERS // raw.shape[1])
        parts = (raw[start : start + step] for start in range(0, len(raw), step))
        return not all(self._rows(part).any(axis=1).all() for part in parts)

    def _in_float32(self, raw):
        rows, norms = np.empty(raw.shape, "float32"), np.empty(len(raw))
        step = max(1, _NUMBERS // raw.shape[1])
        for start in range(0, len(raw), step):
            part = slice(start, start + step)
            exact = self._rows(raw[part]) - self.origin
            rows[part], norms[part] = exact, np.sqrt(np.square(exact).sum(axis=1))
        return rows, norms


def exponent_of(*arrays):
    """Return the exponent of the power of two next above the largest number in `arrays`."""
    largest = max(float(max(part.max(initial=0.0), -part.min(initial=0.0))) for part in arrays)
    return int(np.frexp(largest)[1])


def unit_rows(rows):
    """Return `rows` scaled to length 1; those of zeros stay as they are."""
    # The largest entry first: squares of a tiny row would vanish, and those of a huge one overflow.
    size = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(size > 0, size, 1)
    size = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    rows /= np.where(size > 0, size, 1)
    return rows


def _widened(rows, norms, first):
    """Return `rows` with two more columns: minus half their squares and 1, or the other way."""
    halves, ones = -0.5 * norms[:, None] ** 2, np.ones((len(rows), 1))
    columns = (halves, ones) if first else (ones, halves)
    return np.concatenate([rows, *(column.astype("float32") for column in columns)], axis=1)


def order_keys(distances, index):
    """Return int64 keys that sort by distance rounded to float32, then by `index`; all are even.

    Equal distances computed in two ways differ in their last float64 digits; rounded to float32
    they are equal again, so that a tie is a tie whatever computed it.
    """
    # Adding zero turns -0.0 into 0.0. The bits of positive floats sort as integers.
    bits = (distances.astype("float32", copy=False) + np.float32(0.0)).view("int32")
    keys = bits.astype("int64")
    if (bits < 0).any():
        # Those of negative ones grow the wrong way round.
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
