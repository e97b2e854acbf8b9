"""Approximate kinds: a FAISS structure proposes candidate rows, exact distances order them.

| kind | FAISS structure | property |
| --- | --- | --- |
| `short` | the first dimensions of each vector, normalized again | reads every row |
| `hnsw` | a graph over half-precision vectors | logarithmic time |
| `ivf` | lists of half-precision vectors around centroids | reads the nearest lists only |
| `pq` | product-quantized codes of a few bytes | reads every row |
| `ivf-pq` | such codes in lists | least memory and time, lowest recall |

For all kinds distances are exact, filters hold without exception, and a query gets `k` matches if
`k` items fit; only some nearest neighbours can be missed. Below `train_at` items, and where a
filter leaves few, the search is exact.
"""

import math

import numpy as np

from keras_metric._validation import check_count, shown
from keras_metric.search.stores.exact_distances import BLOCK, stored
from keras_metric.search.stores.exact_search import bitmap, matrix_products
from keras_metric.search.stores.growing_arrays import GrowingArray

# The settings of each kind, named as in FAISS, with defaults; None is derived from the data.
SETTINGS = {
    "flat": {},
    "short": {"dims": None, "rerank": 10},
    "hnsw": {"M": 32, "ef_construction": 80, "ef_search": 64, "rerank": 2},
    "ivf": {"nlist": None, "nprobe": None, "rerank": 2},
    "pq": {"m": None, "nbits": 8, "rerank": 20},
    "ivf-pq": {"nlist": None, "nprobe": None, "m": None, "nbits": 8, "rerank": 20},
}
# With fewer items a structure is no faster than an exact search.
_TRAIN_AT = 10_000
# FAISS recommends at least this number of items for each centroid.
_ITEMS_PER_CENTROID = 39
# Train again when the index has grown by this factor.
_RETRAIN_GROWTH = 4
# Rebuild when more than this fraction of the slots belong to removed items.
_MAX_REMOVED_FRACTION = 0.5


def check_settings(kind, settings, dim):
    """Return the settings of a kind with defaults filled in; raise for an unknown or wrong one."""
    defaults = SETTINGS[kind]
    if kind != "flat":
        defaults = {**defaults, "train_at": _TRAIN_AT}
    if settings is not None and not isinstance(settings, dict):
        raise TypeError(f"`settings` must be a dict or None. Received: settings={shown(settings)}")
    for name, value in (settings or {}).items():
        received = f"Received: {str(name):.200}={shown(value)}"
        if name not in defaults:
            raise ValueError(f"kind={kind!r} has the settings {sorted(defaults)}. {received}")
        if value is not None or defaults[name] is not None:
            check_count(name, value)
            # FAISS stores these as 32-bit integers.
            if value > 2**31 - 1:
                raise ValueError(f"`{name}` must be at most 2**31 - 1. {received}")
    result = {**defaults, **(settings or {})}
    if "dims" in result:
        result["dims"] = result["dims"] or max(1, dim // 4)
        if result["dims"] > dim:
            raise ValueError(f"`dims` must be at most dim={dim}. Received: dims={result['dims']}")
    if "m" in result:
        # About one code for 8 dimensions, and a divisor of `dim`.
        most = range(max(1, dim // 8), 0, -1)
        result["m"] = result["m"] or next(m for m in most if dim % m == 0)
        if dim % result["m"]:
            raise ValueError(f"`m` must divide dim={dim}. Received: m={result['m']}")
        if not 4 <= result["nbits"] <= 12:
            raise ValueError(f"`nbits` must be from 4 to 12. Received: nbits={result['nbits']}")
    centroids = max(result.get("nlist") or 1, 1 << result.get("nbits", 0))
    if centroids > result.get("train_at", centroids):
        raise ValueError(
            f"{centroids} centroids (`nlist`, or 2 to the power of `nbits`) need at least as many "
            f"training items: `train_at` must be at least {centroids}. Received: "
            f"train_at={result['train_at']}"
        )
    return result


class ApproximateSearch:
    """A FAISS structure of slots, each of which points to a row.

    FAISS cannot remove from a graph, so a removed item leaves an unused slot. When half of the
    slots are unused, or the data have outgrown the training set, the structure is built again.
    The kind "flat" never has a structure.
    """

    def __init__(self, dim, metric, kind, settings):
        self.dim, self.metric, self.kind, self.settings = dim, metric, kind, settings
        self._train_at = settings.get("train_at", math.inf)
        self._reset()

    def _reset(self):
        self.structure = None
        self.trained_on = 0
        self.removed = 0
        self.row_of_slot = GrowingArray("int64")
        self.slot_of_row = GrowingArray("int64")

    @property
    def ready(self):
        """Whether there is a structure; without one, every search is exact."""
        return self.structure is not None

    def add(self, start, vectors):
        """Add the rows from `start` on; `vectors` are all rows."""
        enough = len(vectors) >= max(self._train_at, _RETRAIN_GROWTH * self.trained_on)
        if enough and (not self.ready or self.kind not in ("hnsw", "short")):
            self._build(vectors)
        elif self.ready:
            self._append(start, vectors)

    def remove(self, row, last):
        """Remove a row; the row `last` gets its number."""
        if not self.ready:
            return
        self.row_of_slot.rows[self.slot_of_row.rows[row]] = -1
        self.removed += 1
        if row != last:
            self.row_of_slot.rows[self.slot_of_row.rows[last]] = row
        self.slot_of_row.fill_hole(row)

    def replace(self, rows, vectors):
        """Give new slots to rows whose vectors changed; `vectors` are all rows."""
        if not self.ready:
            return
        self.row_of_slot.rows[self.slot_of_row.rows[rows]] = -1
        self.removed += len(rows)
        first = len(self.row_of_slot)
        self.row_of_slot.grow(len(rows))[:] = rows
        self.slot_of_row.rows[rows] = np.arange(first, first + len(rows))
        self.structure.add(self._reduced(vectors[rows]))

    def tidy(self, vectors):
        """Build again if most slots are unused."""
        if self.ready and self.removed > _MAX_REMOVED_FRACTION * len(self.row_of_slot):
            self._rebuild(vectors)

    def nearest_rows(self, queries, k, rows):
        """Candidate rows `(queries, rerank * k)`; -1 fills up incomplete lines."""
        count = min(self.settings["rerank"] * k, len(self.row_of_slot))
        parameters = self._search_parameters(count, rows)
        # faiss.contrib.torch_utils, which other libraries import, replaces `search` by a function
        # without `params`; it keeps the original as `search_numpy`.
        find = getattr(self.structure, "search_numpy", self.structure.search)
        with matrix_products(len(queries)):
            _, slots = find(self._reduced(queries), count, params=parameters)
        return np.where(slots < 0, -1, self.row_of_slot.rows[slots])

    def to_arrays(self):
        """Return a JSON-ready description and arrays by name, for `from_arrays`."""
        if not self.ready:
            return None, {}
        import faiss

        arrays = {
            "coarse-structure": faiss.serialize_index(self.structure),
            "coarse-row-of-slot": self.row_of_slot.rows,
            "coarse-slot-of-row": self.slot_of_row.rows,
        }
        return {"trained_on": self.trained_on, "removed": self.removed}, arrays

    def from_arrays(self, description, arrays, vectors):
        """Restore the state of `to_arrays`; build again if the FAISS structure does not fit."""
        structure = read_structure(np.array(arrays["coarse-structure"]))
        if not self._is_valid(structure, len(arrays["coarse-row-of-slot"])):
            self._rebuild(vectors)
            return
        self.structure = structure
        self.trained_on, self.removed = description["trained_on"], description["removed"]
        self.row_of_slot = GrowingArray.of(arrays["coarse-row-of-slot"])
        self.slot_of_row = GrowingArray.of(arrays["coarse-slot-of-row"])

    def _is_valid(self, structure, slots):
        import faiss

        kinds = {"flat": (), "short": faiss.IndexFlat, "hnsw": faiss.IndexHNSW}
        width = self.settings["dims"] if self.kind == "short" else self.dim
        fits = isinstance(structure, kinds.get(self.kind, faiss.IndexIVF))
        if not fits or structure.d != width or structure.ntotal != slots:
            return False
        if structure.metric_type != self._faiss_metric():
            return False
        return not isinstance(structure, faiss.IndexIVF) or (
            _centroids_fit(structure) and _lists_hold_slots(structure, slots)
        )

    def _faiss_metric(self):
        import faiss

        # Product and distance rank unit vectors alike; graphs and centroids work better with the
        # distance.
        return faiss.METRIC_INNER_PRODUCT if self.metric == "dot" else faiss.METRIC_L2

    def _rebuild(self, vectors):
        self._reset()
        if len(vectors) >= self._train_at:
            self._build(vectors)

    def _build(self, vectors):
        self._reset()
        structure = self._new(len(vectors))
        if not structure.is_trained:
            # FAISS itself would sample about as many, after a copy of all rows.
            most = 256 * max(1 << self.settings.get("nbits", 0), getattr(structure, "nlist", 1))
            rows = np.arange(len(vectors))
            if len(vectors) > most:
                rows = np.random.default_rng(0).choice(len(vectors), most, replace=False)
            structure.train(self._reduced(vectors[rows]))
        self.structure, self.trained_on = structure, len(vectors)
        self._append(0, vectors)

    def _append(self, start, vectors):
        count = len(vectors) - start
        first = len(self.row_of_slot)
        self.row_of_slot.grow(count)[:] = np.arange(start, len(vectors))
        self.slot_of_row.grow(count)[:] = np.arange(first, first + count)
        for block in range(start, len(vectors), BLOCK):
            self.structure.add(self._reduced(vectors[block : block + BLOCK]))

    def _new(self, size):
        import faiss

        metric, settings = self._faiss_metric(), self.settings
        if self.kind == "short":
            return faiss.IndexFlat(settings["dims"], metric)
        if self.kind == "hnsw":
            half = faiss.ScalarQuantizer.QT_fp16
            structure = faiss.IndexHNSWSQ(self.dim, half, settings["M"], metric)
            structure.hnsw.efConstruction = settings["ef_construction"]
            return structure
        lists = 1
        if self.kind != "pq":
            most = size // _ITEMS_PER_CENTROID
            lists = max(1, settings["nlist"] or min(round(4 * math.sqrt(size)), most))
        quantizer = "SQfp16"
        if self.kind != "ivf":
            # Codes are stored in IVF lists because FAISS cannot filter plain codes. "np" omits the
            # computation of a code order that is not used here.
            quantizer = f"PQ{settings['m']}x{settings['nbits']}np"
        structure = faiss.index_factory(self.dim, f"IVF{lists},{quantizer}", metric)
        # `train_at` ensures enough items; FAISS would print a warning about fewer than its default.
        structure.cp.min_points_per_centroid = 1
        if self.kind != "ivf":
            structure.pq.cp.min_points_per_centroid = 1
        return structure

    def _search_parameters(self, count, rows):
        import faiss

        selector, fraction = None, 1.0
        if rows is not None or self.removed:
            slots = self.slot_of_row.rows if rows is None else self.slot_of_row.rows[rows]
            selector = bitmap(slots, len(self.row_of_slot))
            fraction = len(slots) / len(self.row_of_slot)
        if self.kind == "short":
            return faiss.SearchParameters(sel=selector)
        if self.kind == "hnsw":
            # The search also visits filtered items, so it must visit more to find as many.
            ef_search = max(self.settings["ef_search"], count) / max(fraction, 0.1)
            return faiss.SearchParametersHNSW(efSearch=round(ef_search), sel=selector)
        lists = self.structure.nlist
        nprobe = self.settings.get("nprobe") or max(1, lists // 16)
        return faiss.SearchParametersIVF(nprobe=min(nprobe, lists), sel=selector)

    def _reduced(self, rows):
        if self.kind == "short":
            rows = stored(rows[:, : self.settings["dims"]], self.metric)
        return np.ascontiguousarray(rows)


def read_structure(data):
    """The FAISS structure of some bytes, or None if they are damaged or refer to another file."""
    import faiss

    # The marker of lists on the disk, which FAISS would read from any path in the bytes.
    if b"ilod" in data.tobytes():
        return None
    try:
        return faiss.deserialize_index(data)
    # Damaged bytes can declare sizes that FAISS cannot allocate.
    except (RuntimeError, MemoryError):
        return None


def _centroids_fit(structure):
    """Whether an IVF structure has one centroid of its own width for each list."""
    import faiss

    centroids = faiss.downcast_index(structure.quantizer)
    shape = centroids.ntotal, centroids.d
    return isinstance(centroids, faiss.IndexFlat) and shape == (structure.nlist, structure.d)


def _lists_hold_slots(structure, slots):
    """Whether the lists of an IVF structure contain only slots below `slots`."""
    import faiss

    lists = structure.invlists
    for number in range(structure.nlist):
        if size := lists.list_size(number):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if not 0 <= ids.min() <= ids.max() < slots:
                return False
    return True
