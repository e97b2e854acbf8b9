"""Store in this process: vectors, labels and attributes in memory, searched by FAISS."""

import numpy as np

from keras_metric.search.results import Item, Match
from keras_metric.search.stores.approximate_search import ApproximateSearch
from keras_metric.search.stores.attribute_columns import AttributeColumns
from keras_metric.search.stores.exact_distances import BLOCK, paired, stored
from keras_metric.search.stores.exact_search import nearest_rows
from keras_metric.search.stores.growing_arrays import GrowingArray, LabelSums, ValueCodes, compacted


class FaissStore:
    """Vectors, labels and attributes as columns of dense rows: a removal moves the last row.

    Every kind stores the vectors themselves: matches are ordered by exact distance, and an
    approximate kind only proposes candidates, if there are more than `exact_up_to` rows, which a
    filter can leave. `settings` are checked and complete.
    """

    def __init__(self, dim, metric, kind, settings, exact_up_to=10_000):
        self.metric, self.exact_up_to = metric, exact_up_to
        self.ids = []
        self.row_of = {}
        self.next_id = 0
        # Squared length of the longest vector ever added.
        self.largest = 0.0
        self.vectors = GrowingArray("float32", dim)
        self.labels = GrowingArray("int32")
        self.label_names = ValueCodes()
        self.columns = AttributeColumns()
        self.sums = LabelSums(dim)
        self.approximate = ApproximateSearch(dim, metric, kind, settings)

    def __len__(self):
        return len(self.ids)

    def existing(self, ids):
        """The ids that are in the store, among those given."""
        return [key for key in ids if key in self.row_of]

    def all_ids(self):
        return list(self.ids)

    def new_ids(self, count):
        """Integers that follow the largest integer id that any item ever had."""
        return list(range(self.next_id, self.next_id + count))

    def label_counts(self):
        """`{label: number of its items}`."""
        codes, counts = np.unique(self.labels.rows, return_counts=True)
        return dict(zip(self._labels(codes), counts.tolist(), strict=True))

    def ids_of(self, labels):
        """The ids of all items with one of the labels."""
        codes = [self.label_names.code_of.get(label, -1) for label in labels]
        return self._ids(np.flatnonzero(np.isin(self.labels.rows, codes)))

    def summary(self):
        """The data part of the index card."""
        kinds = [f"{name} ({kind})" for name, kind in sorted(self.columns.kinds.items())]
        return {
            "items": f"{len(self):,}",
            "labels": f"{len(self.label_counts()):,}",
            "attributes": ", ".join(kinds) or "none",
        }

    def close(self):
        """There is nothing to close."""

    def address(self):
        """The address of the data, empty for a store in this process."""
        return {}

    def check_attributes(self, table):
        """Raise if the kinds of attributes differ from those of the store; change nothing."""
        self.columns.check(table)

    def add(self, ids, vectors, labels, table):
        start = len(self.ids)
        fresh = self.vectors.grow(len(ids))
        for block in range(0, len(ids), BLOCK):
            fresh[block : block + BLOCK] = stored(vectors[block : block + BLOCK], self.metric)
            self._note_lengths(fresh[block : block + BLOCK])
        codes = self.label_names.encode(labels)
        self.labels.grow(len(ids))[:] = codes
        self.columns.append(table, len(ids))
        self.row_of.update(zip(ids, range(start, start + len(ids)), strict=True))
        self.ids.extend(ids)
        largest = max((key for key in ids if isinstance(key, int)), default=-1)
        self.next_id = max(self.next_id, largest + 1)
        self.sums.add(codes, fresh)
        self.approximate.add(start, self.vectors.rows)

    def replace(self, ids, vectors, labels, table):
        rows = np.array([self.row_of[key] for key in ids], "int64")
        for row in rows.tolist():
            self.sums.subtract(self.labels.rows[row], self.vectors.rows[row])
        self.vectors.rows[rows] = fresh = stored(vectors, self.metric)
        self._note_lengths(fresh)
        codes = self.label_names.encode(labels)
        self.label_names.release(self.labels.rows[rows])
        self.labels.rows[rows] = codes
        self.columns.replace(rows, table)
        self.sums.add(codes, self.vectors.rows[rows])
        self.approximate.replace(rows, self.vectors.rows)
        self._tidy()

    def remove(self, ids):
        rows = np.array([self.row_of[key] for key in ids], "int64")
        self.label_names.release(self.labels.rows[rows])
        self.columns.release(rows)
        for key in ids:
            row, last = self.row_of.pop(key), len(self.ids) - 1
            self.sums.subtract(self.labels.rows[row], self.vectors.rows[row])
            self.approximate.remove(row, last)
            self.vectors.fill_hole(row)
            self.labels.fill_hole(row)
            self.columns.fill_hole(row)
            moved = self.ids.pop()
            if row != last:
                self.ids[row] = moved
                self.row_of[moved] = row
        self._tidy()

    def get(self, ids):
        """The items with these ids, in that order; unknown ids are left out."""
        rows = np.array([self.row_of[key] for key in self.existing(ids)], "int64")
        return self._tuples(Item, rows, self.vectors.rows[rows])

    def search(self, queries, k, clauses=(), other_than=None):
        """Up to `k` matches for each query, closest first.

        `other_than` is None, or a tuple of one label whose items are left out.
        """
        queries = np.ascontiguousarray(stored(queries, self.metric))
        rows = self._selection(clauses, other_than)
        if len(queries) and self._is_approximate(k, rows):
            found, distances = self._nearest_candidates(queries, k, rows)
        else:
            found, distances = self._nearest(queries, k, rows)
        return self._matches(found, distances)

    def centroids(self, clauses=()):
        """Labels, sums of their vectors `(labels, dim)` in float64, and numbers of items."""
        rows = self._selection(clauses)
        if rows is None:
            codes, sums, counts = self.sums.of(self.labels.rows, self.vectors.rows)
        else:
            picked = LabelSums(self.vectors.rows.shape[1])
            codes, sums, counts = picked.of(self.labels.rows[rows], self.vectors.rows[rows])
        return self._labels(codes), sums, counts

    def to_arrays(self):
        """Return a JSON-ready description and arrays by name, for `from_arrays`."""
        columns, arrays = self.columns.to_arrays()
        coarse, coarse_arrays = self.approximate.to_arrays()
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
        """Restore the state of `to_arrays` into an empty store."""
        self.ids = description["ids"]
        self.row_of = {key: row for row, key in enumerate(self.ids)}
        self.next_id = description["next_id"]
        self.vectors = GrowingArray.of(arrays["vectors"])
        for start in range(0, len(self.ids), BLOCK):
            self._note_lengths(self.vectors.rows[start : start + BLOCK])
        self.labels = GrowingArray.of(arrays["labels"])
        self.label_names = ValueCodes(description["labels"], self.labels.rows)
        self.columns = AttributeColumns.from_arrays(description["columns"], arrays, len(self.ids))
        if description["coarse"] is not None:
            self.approximate.from_arrays(description["coarse"], arrays, self.vectors.rows)

    def _tidy(self):
        """Compact tables and structures in which most entries belong to removed items."""
        used = self.label_names.compact(self.labels.rows)
        if used is not None:
            self.sums.keep(used)
        self.columns.tidy()
        self.approximate.tidy(self.vectors.rows)

    def _note_lengths(self, rows):
        if len(rows):
            lengths = np.einsum("ij,ij->i", rows, rows, dtype="float64")
            self.largest = max(self.largest, float(lengths.max()))

    def _nearest(self, queries, k, rows):
        return nearest_rows(queries, self.vectors.rows, k, self.metric, self.largest, rows)

    def _is_approximate(self, k, rows):
        count = len(self) if rows is None else len(rows)
        return self.approximate.ready and count > max(self.exact_up_to, k)

    def _nearest_candidates(self, queries, k, rows):
        candidates = self.approximate.nearest_rows(queries, k, rows)
        exact = paired(queries, self.vectors.rows[candidates], self.metric)
        exact[candidates < 0] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(exact, order, axis=1)
        incomplete = (found < 0).any(axis=1)
        if incomplete.any():
            # A graph or a list can end before `k` items are found: search these queries exactly.
            found[incomplete], distances[incomplete] = self._nearest(queries[incomplete], k, rows)
        return found, distances

    def _selection(self, clauses, other_than=None):
        """The rows to search, in rising order; None for all."""
        mask = self.columns.mask(clauses)
        if other_than is not None:
            found = self.labels.rows != self.label_names.code_of.get(other_than[0], -1)
            mask = found if mask is None else mask & found
        return None if mask is None else np.flatnonzero(mask)

    def _matches(self, found, distances):
        if not found.size:
            return [[] for _ in found]
        matches = self._tuples(Match, found.ravel(), distances.ravel().tolist())
        width = found.shape[1]
        return [matches[start : start + width] for start in range(0, len(matches), width)]

    def _tuples(self, cls, rows, values):
        """`cls(id, label, value, attributes)` for each row."""
        labels = self._labels(self.labels.rows[rows])
        parts = zip(self._ids(rows), labels, values, self.columns.read(rows), strict=True)
        return list(map(cls._make, parts))

    def _labels(self, codes):
        return [self.label_names.values[code] for code in codes.tolist()]

    def _ids(self, rows):
        return [self.ids[row] for row in rows.tolist()]
