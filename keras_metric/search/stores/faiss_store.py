"""The store inside the process: rows in memory, FAISS to find them."""

import numpy as np

from keras_metric.search.results import Item, Match
from keras_metric.search.stores.coarse import Coarse
from keras_metric.search.stores.columns import Codes, Columns, compacted
from keras_metric.search.stores.flat import nearest_rows
from keras_metric.search.stores.growing_array import GrowingArray
from keras_metric.search.stores.label_sums import LabelSums
from keras_metric.search.stores.vectors import BLOCK, paired, stored

# Where a filter leaves so few rows, the approximate kinds measure each of them.
_FEW = 10_000


class FaissStore:
    """Vectors, labels and attributes as columns; rows are dense, so removing moves the last one.

    Whatever the kind, the vectors themselves are kept: the final order is always by exact
    distance, and an approximate kind only proposes candidates.
    """

    def __init__(self, dim, metric, kind, settings):
        self.metric = metric
        self.ids = []
        self.row_of = {}
        self.next_id = 0
        # Squared length of the longest vector that was ever here.
        self.largest = 0.0
        self.vectors = GrowingArray("float32", dim)
        self.labels = GrowingArray("int32")
        self.label_names = Codes()
        self.columns = Columns()
        self.sums = LabelSums(dim)
        self.coarse = None if kind == "flat" else Coarse(dim, metric, kind, settings)

    def __len__(self):
        return len(self.ids)

    def known(self, ids):
        """Those of the ids that are in the store."""
        return [key for key in ids if key in self.row_of]

    def all_ids(self):
        return list(self.ids)

    def new_ids(self, count):
        """Integers that no item has: counted on from the largest that any item ever had."""
        return list(range(self.next_id, self.next_id + count))

    def label_counts(self):
        """`{label: number of its items}`."""
        codes, counts = np.unique(self.labels.rows, return_counts=True)
        labels = [self.label_names.values[code] for code in codes.tolist()]
        return dict(zip(labels, counts.tolist(), strict=True))

    def ids_of(self, labels):
        """The ids of all items with one of the labels."""
        codes = [self.label_names.code_of.get(label, -1) for label in labels]
        rows = np.flatnonzero(np.isin(self.labels.rows, codes))
        return [self.ids[row] for row in rows.tolist()]

    def summary(self):
        """What the index card says of the data."""
        kinds = [f"{name} ({kind})" for name, kind in sorted(self.columns.kinds.items())]
        return {
            "items": f"{len(self):,}",
            "labels": f"{len(self.label_counts()):,}",
            "attributes": ", ".join(kinds) or "none",
        }

    def close(self):
        """Nothing is open."""

    def address(self):
        """Where the data are, if elsewhere."""
        return {}

    def check_attributes(self, table):
        """Raise if attributes do not fit those that are here; change nothing."""
        self.columns.check(table)

    def add(self, ids, vectors, labels, table):
        start = len(self.ids)
        fresh = self.vectors.grow(len(ids))
        for block in range(0, len(ids), BLOCK):
            fresh[block : block + BLOCK] = stored(vectors[block : block + BLOCK], self.metric)
            self._measure(fresh[block : block + BLOCK])
        codes = self.label_names.encode(labels)
        self.labels.grow(len(ids))[:] = codes
        self.columns.append(table, len(ids))
        self.row_of.update(zip(ids, range(start, start + len(ids)), strict=True))
        self.ids.extend(ids)
        largest = max((key for key in ids if isinstance(key, int)), default=-1)
        self.next_id = max(self.next_id, largest + 1)
        self.sums.add(codes, fresh)
        if self.coarse is not None:
            self.coarse.add(start, self.vectors.rows)

    def replace(self, ids, vectors, labels, table):
        rows = np.array([self.row_of[key] for key in ids], "int64")
        for row in rows.tolist():
            self.sums.subtract(self.labels.rows[row], self.vectors.rows[row])
        self.vectors.rows[rows] = fresh = stored(vectors, self.metric)
        self._measure(fresh)
        codes = self.label_names.encode(labels)
        self.label_names.release(self.labels.rows[rows])
        self.labels.rows[rows] = codes
        self.columns.replace(rows, table)
        self.sums.add(codes, self.vectors.rows[rows])
        self._tidy()
        if self.coarse is not None:
            self.coarse.replace(rows, self.vectors.rows)
            self.coarse.tidy(self.vectors.rows)

    def remove(self, ids):
        rows = np.array([self.row_of[key] for key in ids], "int64")
        self.label_names.release(self.labels.rows[rows])
        self.columns.release(rows)
        for key in ids:
            row, last = self.row_of.pop(key), len(self.ids) - 1
            self.sums.subtract(self.labels.rows[row], self.vectors.rows[row])
            if self.coarse is not None:
                self.coarse.remove(row, last)
            self.vectors.fill_hole(row)
            self.labels.fill_hole(row)
            self.columns.fill_hole(row)
            moved = self.ids.pop()
            if row != last:
                self.ids[row] = moved
                self.row_of[moved] = row
        self._tidy()
        if self.coarse is not None:
            self.coarse.tidy(self.vectors.rows)

    def get(self, ids):
        """The items with these ids, in that order; without those that are not here."""
        return self._items(np.array([self.row_of[key] for key in self.known(ids)], "int64"))

    def sample(self, count, rng):
        """Items drawn without replacement, all of them if there are no more."""
        if count >= len(self):
            return self._items(np.arange(len(self)))
        return self._items(rng.choice(len(self), count, replace=False))

    def search(self, queries, k, clauses=(), label=None, other_than=None):
        """Up to `k` matches for each query, closest first.

        `label` narrows to the items of one label, `other_than` to those of all others; each is
        None or a tuple of one.
        """
        queries = np.ascontiguousarray(stored(queries, self.metric))
        rows = self._selection(clauses, label, other_than)
        if len(queries) and self._uses_coarse(k, rows):
            found, distances = self._from_coarse(queries, k, rows)
        else:
            found, distances = self._nearest(queries, k, rows)
        return self._matches(found, distances.tolist())

    def centroids(self, clauses=()):
        """Labels, sums of their vectors `(labels, dim)` in float64, and numbers of items."""
        rows = self._selection(clauses, None, None)
        if rows is None:
            codes, sums, counts = self.sums.of(self.labels.rows, self.vectors.rows)
        else:
            picked = LabelSums(self.vectors.rows.shape[1])
            codes, sums, counts = picked.of(self.labels.rows[rows], self.vectors.rows[rows])
        return [self.label_names.values[code] for code in codes.tolist()], sums, counts

    def to_arrays(self):
        """What `from_arrays` needs: a JSON-ready description and arrays by name."""
        columns, arrays = self.columns.to_arrays()
        coarse, coarse_arrays = (None, {}) if self.coarse is None else self.coarse.to_arrays()
        codes, labels = compacted(self.labels.rows, self.label_names.values)
        description = {
            "ids": self.ids,
            "labels": labels,
            "columns": columns,
            "coarse": coarse,
            "next_id": self.next_id,
        }
        rows = {"vectors": self.vectors.rows, "labels": codes}
        return description, {**rows, **arrays, **coarse_arrays}

    def from_arrays(self, description, arrays):
        """Take over what `to_arrays` gave, into an empty store."""
        self.ids = description["ids"]
        self.row_of = {key: row for row, key in enumerate(self.ids)}
        self.next_id = description["next_id"]
        self.vectors = GrowingArray.of(arrays["vectors"])
        for start in range(0, len(self.ids), BLOCK):
            self._measure(self.vectors.rows[start : start + BLOCK])
        self.labels = GrowingArray.of(arrays["labels"])
        self.label_names = Codes(description["labels"], self.labels.rows)
        self.columns = Columns.from_arrays(description["columns"], arrays, len(self.ids))
        if description["coarse"] is not None:
            self.coarse.from_arrays(description["coarse"], arrays, self.vectors.rows)

    def _tidy(self):
        """Free the tables of names where most of them were removed."""
        used = self.label_names.compact(self.labels.rows)
        if used is not None:
            self.sums.keep(used)
        self.columns.tidy()

    def _measure(self, rows):
        if len(rows):
            lengths = np.einsum("ij,ij->i", rows, rows, dtype="float64")
            self.largest = max(self.largest, float(lengths.max()))

    def _nearest(self, queries, k, rows):
        return nearest_rows(queries, self.vectors.rows, k, self.metric, self.largest, rows)

    def _uses_coarse(self, k, rows):
        if self.coarse is None or not self.coarse.ready:
            return False
        return (len(self) if rows is None else len(rows)) > max(_FEW, k)

    def _from_coarse(self, queries, k, rows):
        candidates = self.coarse.nearest_rows(queries, k, rows)
        exact = paired(queries, self.vectors.rows[candidates], self.metric)
        exact[candidates < 0] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(exact, order, axis=1)
        short = (found < 0).any(axis=1)
        if short.any():
            # A graph or a list can end before k are found; the promise is k answers.
            found[short], distances[short] = self._nearest(queries[short], k, rows)
        return found, distances

    def _selection(self, clauses, label, other_than):
        """The rows that a search may find, in rising order; None for all."""
        mask = self.columns.mask(clauses)
        for wanted, equal in ((label, True), (other_than, False)):
            if wanted is not None:
                code = self.label_names.code_of.get(wanted[0], -1)
                found = (self.labels.rows == code) == equal
                mask = found if mask is None else mask & found
        return None if mask is None else np.flatnonzero(mask)

    def _matches(self, found, distances):
        if not found.size:
            return [[] for _ in found]
        rows = found.ravel()
        labels = self._labels(rows)
        attributes = self.columns.read(rows)
        ids, width = self.ids, found.shape[1]
        matches = list(
            map(
                Match._make,
                zip(
                    [ids[row] for row in rows.tolist()],
                    labels,
                    [distance for line in distances for distance in line],
                    attributes,
                    strict=True,
                ),
            )
        )
        return [matches[start : start + width] for start in range(0, len(matches), width)]

    def _items(self, rows):
        ids = [self.ids[row] for row in rows.tolist()]
        parts = zip(
            ids,
            self._labels(rows),
            self.vectors.rows[rows],
            self.columns.read(rows),
            strict=True,
        )
        return list(map(Item._make, parts))

    def _labels(self, rows):
        names = self.label_names.values
        return [names[code] for code in self.labels.rows[rows].tolist()]
