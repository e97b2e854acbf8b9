"""The approximate kinds: a coarse FAISS structure proposes rows, exact distances order them.

| kind | coarse structure | what it promises |
| --- | --- | --- |
| `short` | the first dimensions of each vector, renormalised | looks at every row |
| `hnsw` | a graph over half-precision vectors | finds most neighbours in logarithmic time |
| `ivf` | lists of half-precision vectors around centres | looks at the nearest lists only |
| `pq` | product-quantised codes of a few bytes | looks at every row, coarsely |
| `ivf-pq` | such codes in lists | the least memory and time, the most misses |

Common to all: distances are exact; a filter is kept without exception; a query gets `k` matches
if `k` items fit; only whether they are the nearest is likely and not certain. Below `train_at`
items, and where a filter leaves few, the search is exact.
"""

import math

import numpy as np

from keras_metric._validation import check_count, shown
from keras_metric.search.stores.flat import by_products
from keras_metric.search.stores.growing_array import GrowingArray
from keras_metric.search.stores.vectors import BLOCK, stored

# What each kind can be told, with its default; None is worked out from the data.
SETTINGS = {
    "flat": {},
    "short": {"dims": None, "rerank": 10},
    "hnsw": {"links": 32, "build_effort": 80, "search_effort": 64, "rerank": 2},
    "ivf": {"lists": None, "probes": None, "rerank": 2},
    "pq": {"codes": None, "bits": 8, "rerank": 20},
    "ivf-pq": {"lists": None, "probes": None, "codes": None, "bits": 8, "rerank": 20},
}
# A structure that is trained on fewer items is no faster than measuring them all.
_TRAIN_AT = 10_000
# FAISS's own advice: as many items for each centre, at least.
_PER_CENTRE = 39
# Growth after which centres no longer fit the data, and share of removed slots that slows a search.
_RETRAIN, _REMOVED = 4, 0.5


def check_settings(kind, settings, dim):
    """Return the settings of a kind, defaults filled in; raise for what it does not have."""
    defaults = SETTINGS[kind]
    if kind != "flat":
        defaults = {**defaults, "train_at": _TRAIN_AT}
    if settings is not None and not isinstance(settings, dict):
        raise TypeError(f"`settings` must be a dict or None. Received: settings={shown(settings)}")
    for name, value in (settings or {}).items():
        if name not in defaults:
            raise ValueError(
                f"kind={kind!r} has the settings {sorted(defaults)}. Received: "
                f"{str(name):.200}={shown(value)}"
            )
        if value is not None or defaults[name] is not None:
            check_count(name, value)
            # FAISS counts in 32 bits.
            if value > 2**31 - 1:
                raise ValueError(
                    f"`{name}` must be at most 2**31 - 1. Received: {name}={shown(value)}"
                )
    result = {**defaults, **(settings or {})}
    if "dims" in result:
        result["dims"] = result["dims"] or max(1, dim // 4)
        if result["dims"] > dim:
            raise ValueError(f"`dims` must be at most dim={dim}. Received: dims={result['dims']}")
    if "codes" in result:
        result["codes"] = result["codes"] or _divisor(dim)
        if dim % result["codes"]:
            raise ValueError(f"`codes` must divide dim={dim}. Received: codes={result['codes']}")
        if not 4 <= result["bits"] <= 12:
            raise ValueError(f"`bits` must be from 4 to 12. Received: bits={result['bits']}")
    centres = max(result.get("lists") or 1, 1 << result.get("bits", 0))
    if centres > result.get("train_at", centres):
        raise ValueError(
            f"{centres} centres (`lists`, or 2 to the power of `bits`) need as many items to be "
            f"trained on: `train_at` must be at least that. Received: train_at={result['train_at']}"
        )
    return result


class Coarse:
    """A FAISS structure over slots; a slot is given once, and points to the row that it is of.

    FAISS removes from no graph, so a removed item leaves an empty slot behind; when half of them
    are empty, or the data have outgrown their training, the structure is built anew.
    """

    def __init__(self, dim, metric, kind, settings):
        self.dim, self.metric, self.kind, self.settings = dim, metric, kind, settings
        self._reset()

    def _reset(self):
        self.structure = None
        self.trained_on = 0
        self.removed = 0
        self.row_of_slot = GrowingArray("int64")
        self.slot_of_row = GrowingArray("int64")

    @property
    def ready(self):
        """Whether there is a structure; before, every row is measured."""
        return self.structure is not None

    def add(self, start, vectors):
        """Take in the rows from `start` on."""
        if len(vectors) >= max(self.settings["train_at"], _RETRAIN * self.trained_on):
            trains = self.kind not in ("hnsw", "short")
            if not self.ready or trains:
                self._build(vectors)
                return
        if self.ready:
            self._append(start, vectors)

    def remove(self, row, last):
        """Forget a row; the last row takes its number."""
        if not self.ready:
            return
        self.row_of_slot.rows[self.slot_of_row.rows[row]] = -1
        self.removed += 1
        if row != last:
            self.row_of_slot.rows[self.slot_of_row.rows[last]] = row
        self.slot_of_row.fill_hole(row)

    def replace(self, rows, vectors):
        """The vectors of some rows have changed: give each a new slot."""
        if not self.ready:
            return
        self.row_of_slot.rows[self.slot_of_row.rows[rows]] = -1
        self.removed += len(rows)
        first = len(self.row_of_slot)
        self.row_of_slot.grow(len(rows))[:] = rows
        self.slot_of_row.rows[rows] = np.arange(first, first + len(rows))
        self.structure.add(self._reduced(vectors[rows]))

    def tidy(self, vectors):
        """Build anew if most slots are empty."""
        if self.ready and self.removed > _REMOVED * len(self.row_of_slot):
            self._reset()
            if len(vectors) >= self.settings["train_at"]:
                self._build(vectors)

    def nearest_rows(self, queries, k, rows):
        """Candidate rows `(queries, rerank * k)`, each line filled up with -1."""
        count = min(self.settings["rerank"] * k, len(self.row_of_slot))
        parameters = self._parameters(count, rows)
        # faiss.contrib.torch_utils, which other libraries load, puts a search without `params` in
        # the place of this one, for all; the one for NumPy stays under another name.
        find = getattr(self.structure, "search_numpy", self.structure.search)
        with by_products(len(queries)):
            _, slots = find(self._reduced(queries), count, params=parameters)
        return np.where(slots < 0, -1, self.row_of_slot.rows[slots])

    def to_arrays(self):
        """What `from_arrays` needs: a JSON-ready description and arrays by name."""
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
        """Take over what `to_arrays` gave; a structure that is not of this kind is built anew."""
        structure = _structure_of(np.array(arrays["coarse-structure"]))
        slots = len(arrays["coarse-row-of-slot"])
        if not self._is_ours(structure, slots):
            self._reset()
            if len(vectors) >= self.settings["train_at"]:
                self._build(vectors)
            return
        self.structure = structure
        self.trained_on, self.removed = description["trained_on"], description["removed"]
        for name in ("row_of_slot", "slot_of_row"):
            values = arrays["coarse-" + name.replace("_", "-")]
            setattr(self, name, GrowingArray.of(values))

    def _is_ours(self, structure, slots):
        import faiss

        kinds = {"short": faiss.IndexFlat, "hnsw": faiss.IndexHNSW}
        width = self.settings["dims"] if self.kind == "short" else self.dim
        fits = isinstance(structure, kinds.get(self.kind, faiss.IndexIVF))
        if not fits or structure.d != width or structure.ntotal != slots:
            return False
        if structure.metric_type != self._faiss_metric():
            return False
        return not isinstance(structure, faiss.IndexIVF) or (
            _centres_fit(structure) and _lists_point_inside(structure, slots)
        )

    def _faiss_metric(self):
        import faiss

        # Unit vectors rank alike by product and by distance, and graphs and centres prefer the
        # latter.
        return faiss.METRIC_INNER_PRODUCT if self.metric == "dot" else faiss.METRIC_L2

    def _build(self, vectors):
        self._reset()
        structure = self._new(len(vectors))
        if not structure.is_trained:
            # FAISS would draw a sample of about this size itself, after a copy of all rows.
            most = 256 * max(1 << self.settings.get("bits", 0), getattr(structure, "nlist", 1))
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
            kind = faiss.ScalarQuantizer.QT_fp16
            structure = faiss.IndexHNSWSQ(self.dim, kind, settings["links"], metric)
            structure.hnsw.efConstruction = settings["build_effort"]
            return structure
        lists = 1
        if self.kind != "pq":
            lists = settings["lists"] or min(round(4 * math.sqrt(size)), size // _PER_CENTRE)
        quantizer = "SQfp16"
        if self.kind != "ivf":
            # A list of all items rather than plain codes, which FAISS cannot filter.
            # "np" leaves out a search for an order of the codes that nothing here uses.
            quantizer = f"PQ{settings['codes']}x{settings['bits']}np"
        structure = faiss.index_factory(self.dim, f"IVF{max(1, lists)},{quantizer}", metric)
        # `train_at` decides when there is enough; FAISS would otherwise write to the terminal.
        structure.cp.min_points_per_centroid = 1
        if self.kind != "ivf":
            structure.pq.cp.min_points_per_centroid = 1
        return structure

    def _parameters(self, count, rows):
        import faiss

        selector, share = None, 1.0
        if rows is not None or self.removed:
            chosen = np.zeros(len(self.row_of_slot), bool)
            chosen[self.slot_of_row.rows if rows is None else self.slot_of_row.rows[rows]] = True
            selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
            share = chosen.mean()
        if self.kind == "short":
            return faiss.SearchParameters(sel=selector)
        if self.kind == "hnsw":
            # The walk passes through filtered items too: it must go on for longer to find as many.
            effort = max(self.settings["search_effort"], count) / max(share, 0.1)
            return faiss.SearchParametersHNSW(efSearch=round(effort), sel=selector)
        lists = self.structure.nlist
        probes = self.settings.get("probes") or max(1, lists // 16)
        return faiss.SearchParametersIVF(nprobe=min(probes, lists), sel=selector)

    def _reduced(self, rows):
        if self.kind != "short":
            return np.ascontiguousarray(rows)
        return np.ascontiguousarray(stored(rows[:, : self.settings["dims"]], self.metric))


def _structure_of(data):
    """The FAISS structure of some bytes, or None if it names a file of its own or is damaged."""
    import faiss

    # Lists on the disk (FAISS marks them so) would be read from wherever the bytes say.
    if b"ilod" in data.tobytes():
        return None
    try:
        return faiss.deserialize_index(data)
    # FAISS allocates the sizes that damaged bytes declare.
    except (RuntimeError, MemoryError):
        return None


def _centres_fit(structure):
    """Whether the centres of a FAISS structure are flat vectors of its width, one for each list."""
    import faiss

    centres = faiss.downcast_index(structure.quantizer)
    shape = centres.ntotal, centres.d
    return isinstance(centres, faiss.IndexFlat) and shape == (structure.nlist, structure.d)


def _lists_point_inside(structure, slots):
    """Whether the lists of a FAISS structure hold slots that exist, and nothing else."""
    import faiss

    lists = structure.invlists
    for number in range(structure.nlist):
        size = lists.list_size(number)
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.zeros(0, "int64")
        if size and not 0 <= ids.min() <= ids.max() < slots:
            return False
    return True


def _divisor(dim):
    """A code for about every 8 dimensions."""
    wanted = max(1, dim // 8)
    return next(codes for codes in range(wanted, 0, -1) if dim % codes == 0)
