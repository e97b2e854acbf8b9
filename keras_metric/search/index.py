"""Index of labelled embeddings: search, verify and identify; add and remove items at any time."""

from keras_metric._validation import as_array, check_choice, check_count, check_number, shown
from keras_metric.search.calibration import as_threshold, calibrated
from keras_metric.search.fingerprint import check_fingerprint, encoder_width, fingerprint
from keras_metric.search.identify_rules import RULES, by_centroids, by_matches, search_stages
from keras_metric.search.index_inputs import (
    as_clauses,
    as_name,
    as_names,
    as_table,
    as_vectors,
    check_distinct,
)
from keras_metric.search.read_write_lock import ReadWriteLock
from keras_metric.search.results import Identity, Verification
from keras_metric.search.storage import index_folder
from keras_metric.search.stores.approximate_search import SETTINGS, check_settings
from keras_metric.search.stores.exact_distances import METRICS, paired, stored
from keras_metric.search.stores.faiss_store import FaissStore

_STORES = ("faiss", "milvus")
_PAGE = 1000
# Far more than any encoder has, and few enough for every array and FAISS structure.
_MAX_DIM = 2**24


class Index:
    """Index of labelled embeddings: search, verify and identify; add and remove items at any time.

    An index recognizes a person enrolled a minute ago without retraining, because it compares
    embeddings only. Every item has an id, a label, an embedding, and attributes that can restrict
    a search.

    Any number of threads may read and write. Readers run while a change is written to the disk and
    wait only while it is applied in memory. Writers run in the order in which they arrive. A call
    that raises changes nothing.

    Distances are computed in float64 from the stored float32 vectors; smaller is closer:

    | metric | formula | range |
    | --- | --- | --- |
    | `cosine` | `1 - a.b / (norm(a) norm(b))`; 1 for a zero vector | 0 to 2 |
    | `euclidean` | `sqrt(sum((a - b)**2))` | 0 and up |
    | `squared_euclidean` | `sum((a - b)**2)` | 0 and up |
    | `dot` | `-a.b` | all reals |

    Args:
        dim: integer: length of the embeddings. None takes it from `encoder`.
        metric: a metric of the table. The default suits encoders that normalize their output, as
            those of this package do.
        store: `"faiss"` (default) keeps the items in this process. `"milvus"` keeps them at `uri`;
            it needs `pip install keras_metric[milvus]`.
        kind: `"flat"` (default) compares every item and is exact. `"short"`, `"hnsw"`, `"ivf"`,
            `"pq"` and `"ivf-pq"` find candidates approximately and order them by exact distance.
            Filters hold without exception and distances are exact, but a neighbour can be missed.
            Below 10,000 items these kinds are exact as well.
        settings: dict for the kind, named as in FAISS, or None for the defaults. `short`: `dims`
            (a quarter of `dim`), `rerank` (candidates for each match, 10). `hnsw`: `M` (32),
            `ef_construction` (80), `ef_search` (64), `rerank` (2). `ivf`: `nlist` (about
            4 sqrt(items)), `nprobe` (a sixteenth of `nlist`), `rerank` (2). `pq`: `m` (one code for
            8 dimensions), `nbits` (8), `rerank` (20). `ivf-pq`: those of both. All: `train_at`
            (10,000 items).
        uri: for Milvus: a file name (embedded, one process) or a URL (server or cluster).
        token: for Milvus: `"user:password"` or a token, or None. Never saved.
        collection: for Milvus: name of the collection. Ignored by other stores.
        encoder: the Keras model that computes the embeddings, or None. The index stores its
            fingerprint, and `load(path, encoder=...)` and `check_encoder` reject another encoder.
        description: text for the index card: which data the index contains, and their source.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, or if both `dim` and `encoder` are None.
        ImportError: if the store is not installed, with the command that installs it.

    Example:
    >>> import numpy as np
    >>> from keras_metric.search import Index
    >>> index = Index(2, metric="euclidean")
    >>> ids = index.add([[0.0, 0.0], [3.0, 4.0]], ["ann", "bob"], attributes=[{"age": 40}, {}])
    >>> index.search([[0.0, 1.0]], k=1)
    [[Match(id=0, label='ann', distance=1.0, attributes={'age': 40})]]
    >>> index.identify([[0.0, 1.0], [9.0, 9.0]], threshold=2.0)[1].label is None
    True
    >>> index.remove(labels=["ann"])
    >>> len(index)
    1

    Reference:
        Douze et al. (2024), The Faiss library, https://arxiv.org/abs/2401.08281; Malkov and
        Yashunin (2016), HNSW, https://arxiv.org/abs/1603.09320; Jegou, Douze, Schmid (2011),
        Product Quantization for Nearest Neighbor Search.
    """

    def __init__(
        self,
        dim=None,
        metric="cosine",
        store="faiss",
        kind="flat",
        settings=None,
        uri=None,
        token=None,
        collection="keras_metric",
        encoder=None,
        description="",
    ):
        if dim is None:
            dim = encoder_width(encoder)
        check_count("dim", dim)
        if dim > _MAX_DIM:
            raise ValueError(f"`dim` must be at most {_MAX_DIM:,}. Received: dim={shown(dim)}")
        check_choice("metric", metric, METRICS)
        check_choice("store", store, _STORES)
        check_choice("kind", kind, SETTINGS)
        for name, value in (("collection", collection), ("description", description)):
            if not isinstance(value, str):
                raise TypeError(f"`{name}` must be a string. Received: {name}={shown(value)}")
        if encoder is not None and dim != (width := encoder_width(encoder)):
            raise ValueError(f"`dim` must be that of the encoder, {width}. Received: dim={dim}")
        self.dim = int(dim)
        self.metric = metric
        self.kind = kind
        self.store = store
        self.description = description
        self.settings = check_settings(kind, settings, self.dim)
        self.fingerprint = None if encoder is None else fingerprint(encoder)
        self.operating_points = {}
        self._lock = ReadWriteLock()
        self._kept = None
        if store == "faiss":
            if uri is not None or token is not None:
                given = "token" if uri is None else f"uri={shown(uri)}"
                raise ValueError(f'Only store="milvus" has an address. Received: {given}')
            self._store = FaissStore(self.dim, metric, kind, self.settings)
        else:
            from keras_metric.search.stores.milvus_store import MilvusStore

            self._store = MilvusStore(self.dim, metric, kind, self.settings, uri, token, collection)

    def __len__(self):
        with self._lock.read():
            return len(self._store)

    def __contains__(self, id):
        with self._lock.read():
            return bool(self._store.existing([as_name("id", id)]))

    def __iter__(self):
        """Iterate over the items, page by page; items removed meanwhile are left out."""
        with self._lock.read():
            ids = self._store.all_ids()
        for start in range(0, len(ids), _PAGE):
            with self._lock.read():
                page = self._store.get(ids[start : start + _PAGE])
            yield from page

    def __repr__(self):
        return (
            f"Index(dim={self.dim}, metric={self.metric!r}, store={self.store!r}, "
            f"kind={self.kind!r}) with {len(self):,} items"
        )

    def __getstate__(self):
        raise TypeError(
            "An Index has locks and open files, so it is neither copied nor pickled. `save` it, "
            "and call Index.load(path) in the other process."
        )

    @property
    def labels(self):
        """The enrolled labels, sorted, integers before strings."""
        with self._lock.read():
            labels = self._store.label_counts()
        return sorted(labels, key=lambda label: (isinstance(label, str), label))

    def ids(self, label=None):
        """The ids of all items, or of the items of one label, as a list."""
        with self._lock.read():
            if label is None:
                return self._store.all_ids()
            return self._store.ids_of([as_name("label", label)])

    def get(self, ids):
        """The items with these ids, as a list of `Item` in that order."""
        ids = as_names("ids", ids)
        with self._lock.read():
            items = self._store.get(ids)
            # Check after reading: in a cluster another process may remove items between two calls.
            if len(items) < len(ids):
                self._check_existing(ids)
        return items

    def add(self, embeddings, labels, ids=None, attributes=None):
        """Enrol items; after an error none of them is enrolled.

        Args:
            embeddings: finite array `(rows, dim)`.
            labels: a string or an integer for each row.
            ids: a string or an integer for each row, all of them new; None continues the count.
            attributes: list of dicts, or None. Values are strings, finite numbers, True or False,
                of one kind for each name.

        Returns:
            List of the ids.
        """
        ids, *content = self._checked("add", ids, embeddings, labels, attributes)
        with self._lock.write():
            if ids is None:
                ids = self._store.new_ids(len(content[0]))
            existing = self._store.existing(ids)
            if existing:
                raise ValueError(
                    f"`ids` must be new. Received {len(existing)} that the index has, the first "
                    f"{shown(existing[0])}. Nothing was changed. `replace` overwrites items."
                )
            self._write("add", ids, *content)
        return list(ids)

    def replace(self, embeddings, labels, ids, attributes=None):
        """Overwrite embedding, label and all attributes of items that the index has.

        The arguments are those of `add`. Replacement is atomic for concurrent readers.
        """
        ids, *content = self._checked(
            "replace", as_names("ids", ids), embeddings, labels, attributes
        )
        with self._lock.write():
            self._check_existing(ids)
            self._write("replace", ids, *content)

    def remove(self, ids=None, labels=None):
        """Remove items by id or by label; after an error none of them is removed.

        Their ids, labels, embeddings and attribute values are deleted from the index before this
        returns, and from its folder by the next `save` there. The approximate kinds retain a coarse
        copy of the embeddings until more than half of their entries belong to removed items.
        """
        if (ids is None) == (labels is None):
            raise ValueError(
                f"Pass either `ids` or `labels`. Received: ids={shown(ids)}, labels={shown(labels)}"
            )
        if ids is not None:
            ids = check_distinct(as_names("ids", ids))
        else:
            labels = as_names("labels", labels)
        with self._lock.write():
            if ids is None:
                for label in labels:
                    if not self._store.ids_of([label]):
                        raise ValueError(f"No item has this label. Received: {shown(label)}")
                ids = self._store.ids_of(labels)
            self._check_existing(ids)
            self._write("remove", ids)

    def enrol(self, embeddings, label, id=None, attributes=None):
        """Enrol several embeddings of one label as one item, their centroid.

        A centroid needs less memory and time than the embeddings and has less noise. Under the
        cosine metric each embedding has the same weight, whatever its length.

        Args:
            embeddings: array `(shots, dim)`, at least one row.
            label: string or integer.
            id: string or integer, or None to continue the count.
            attributes: dict, or None.

        Returns:
            The id.
        """
        vectors = as_vectors("embeddings", embeddings, self.dim, "enrol")
        if not len(vectors):
            raise ValueError("A centroid needs at least one embedding. Received none.")
        centroid = stored(vectors, self.metric).mean(axis=0, dtype="float64", keepdims=True)
        ids, rows = (None if value is None else [value] for value in (id, attributes))
        return self.add(centroid, [label], ids, rows)[0]

    def search(self, queries, k=5, where=None):
        """The `k` nearest items of each query.

        Args:
            queries: finite array `(queries, dim)`.
            k: integer of at least 1. Fewer matches are returned if fewer items fit.
            where: dict of conditions that every match fulfils: a value (equal), a tuple (closed
                range; None is an open end), or a list (any of its values). An item without the
                attribute never fits. Only items that fit are searched.

        Returns:
            For each query a list of `Match`, closest first.
        """
        queries = as_vectors("queries", queries, self.dim, "search")
        check_count("k", k)
        clauses = as_clauses(where)
        with self._lock.read():
            return self._store.search(queries, k, clauses)

    def staged_search(self, queries, stages, k=5, threshold=None):
        """Search in stages from narrow to wide, until a stage has a match within the threshold.

        Args:
            queries: finite array `(queries, dim)`.
            stages: list of `where` conditions, such as the own items, then a region, then None for
                all items.
            k: integer of at least 1.
            threshold: largest distance of a match; None takes that of `calibrate(rule="nearest")`.

        Returns:
            For each query a `StagedMatches`: the number of the stage and its matches within the
            threshold, or None and an empty list.
        """
        queries = as_vectors("queries", queries, self.dim, "staged_search")
        check_count("k", k)
        threshold = self._threshold("nearest", threshold)
        if not isinstance(stages, (list, tuple)) or not stages:
            raise TypeError(
                "`stages` must be a list of `where` conditions, such as "
                f'[{{"owner": "ann"}}, {{"region": "r3"}}, None]. Received: stages={shown(stages)}'
            )
        stages = [as_clauses(where) for where in stages]
        with self._lock.read():
            return search_stages(self._store.search, queries, stages, k, threshold)

    def verify(self, query, id, threshold=None):
        """Compare one query with the one enrolled item that it claims to be.

        Args:
            query: finite array `(dim,)` or `(1, dim)`.
            id: the item's id.
            threshold: largest distance of a match; None takes that of `calibrate(rule="verify")`.

        Returns:
            `Verification(same, distance)`.
        """
        query = as_array("query", query)
        query = as_vectors("query", query[None] if query.ndim == 1 else query, self.dim, "verify")
        if len(query) != 1:
            raise ValueError(f"`query` must be one embedding. Received: query.shape={query.shape}")
        threshold = self._threshold("verify", threshold)
        query, item = stored(query, self.metric), self.get([id])[0]
        distance = float(paired(query, item.embedding[None, None], self.metric)[0, 0])
        return Verification(distance <= threshold, distance)

    def identify(self, queries, rule="nearest", k=5, threshold=None, where=None):
        """Assign a label to each query, or None if no enrolled item is close enough.

        Args:
            queries: finite array `(queries, dim)`.
            rule: `"nearest"` (default): the label of the nearest item. `"vote"`: the most frequent
                label of the `k` nearest items, among equally frequent ones the closest, at the
                distance of its closest item. `"centroid"`: the label whose mean embedding is
                nearest; more accurate than single items where a label has several noisy ones.
            k: integer of at least 1: number of voting items. Only for the rule `"vote"`.
            threshold: largest distance of a match; None takes that of `calibrate(rule=rule)`;
                `float("inf")` accepts every query.
            where: as in `search`; centroids are then of the items that fit.

        Returns:
            For each query an `Identity`; its label is None for an unknown query.
        """
        queries = as_vectors("queries", queries, self.dim, "identify")
        check_choice("rule", rule, RULES)
        check_count("k", k)
        threshold = self._threshold(rule, threshold)
        clauses = as_clauses(where)
        with self._lock.read():
            if rule == "centroid":
                parts = self._store.centroids(clauses)
                found = by_centroids(queries, *parts, self.metric)
            else:
                matches = self._store.search(queries, k if rule == "vote" else 1, clauses)
                found = [by_matches(line, rule) for line in matches]
        return [
            Identity(label if distance <= threshold else None, distance)
            for label, distance in found
        ]

    def calibrate(
        self,
        embeddings=None,
        labels=None,
        false_accept_rate=0.001,
        rule="nearest",
        k=5,
        sample=2000,
        seed=0,
    ):
        """Find the threshold for a false accept rate (FAR), and its false reject rate (FRR).

        The queries are compared with the items enrolled now, so enrol first.

        For the rules of `identify`, FAR is the fraction of queries that would get a label if their
        own label were not enrolled; it grows with the number of enrolled labels. FRR is the
        fraction of queries of enrolled labels that get no label or a wrong one. For `"verify"`,
        every query is compared with single items: FAR is the fraction of accepted pairs of two
        labels, FRR the fraction of rejected pairs of one label.

        The result is stored in `operating_points[rule]`, saved with the index, and used by
        `identify` and `verify`.

        Args:
            embeddings: array `(queries, dim)` of items that are not in the index, preferably of
                labels that the encoder was not trained on. None takes the enrolled items, each
                compared with all the others.
            labels: a label for each query. FRR is measured on the queries of enrolled labels.
            false_accept_rate: above 0 and at most 1. It needs at least 1 / rate comparisons.
            rule: a rule of `identify`, or `"verify"`.
            k: integer of at least 1: number of voting items of the rule `"vote"`.
            sample: integer: number of enrolled items that are queries if `embeddings` is None; for
                `"verify"` also the number that are impostors.
            seed: integer: seed of the sample.

        Returns:
            `OperatingPoint`: threshold, rates and numbers of comparisons.
        """
        check_choice("rule", rule, (*RULES, "verify"))
        check_number("false_accept_rate", false_accept_rate, above=0, at_most=1)
        check_count("k", k)
        check_count("sample", sample)
        check_count("seed", seed, at_least=0)
        if (embeddings is None) != (labels is None):
            raise ValueError("Pass both `embeddings` and `labels`, or neither.")
        if embeddings is not None:
            embeddings = as_vectors("embeddings", embeddings, self.dim, "calibrate")
            labels = as_names("labels", labels, len(embeddings))
        store = self._store
        with self._lock.read():
            point = calibrated(
                store, self.metric, embeddings, labels, false_accept_rate, rule, k, sample, seed
            )
        self.operating_points[rule] = point
        return point

    def check_encoder(self, encoder):
        """Raise unless the encoder has the fingerprint that the index stores."""
        check_fingerprint(encoder, self.fingerprint)

    def save(self, path):
        """Write the index to the folder `path`; a kill at any time leaves the old or the new state.

        Data are written to new files and flushed to the disk; then one rename of `manifest.json`
        makes them the index. The folder also contains `card.md`, the index card. For a Milvus store
        only the manifest is written: the vectors stay in Milvus.
        """
        with self._lock.write():
            index_folder.save(self, path)

    @classmethod
    def load(cls, path, encoder=None, uri=None, token=None):
        """Read an index from a folder written by `save` or `keep`, also of earlier versions.

        Args:
            path: the folder.
            encoder: the encoder that computes the queries, or None. Raises unless it has the
                fingerprint that the index stores.
            uri: for Milvus: address of the data. None takes the address in the manifest if that is
                an existing file; the URL of a server must be passed.
            token: for Milvus.

        Raises:
            ValueError: for a missing, truncated or altered file, another encoder, or a newer
                version. Nothing on the disk is changed.
        """
        return index_folder.load(cls, path, encoder, uri, token)

    def keep(self, path):
        """Save, and write every later change to the disk before its call returns.

        For a service: after a kill, `load(path)` reads the saved index and all changes since.
        `save` to the same path merges them into the saved index, and writes the operating points of
        later calls of `calibrate`. One process at a time may keep a folder. After `os.fork` the
        child can search, but a change raises RuntimeError. A change raises FileNotFoundError if the
        folder was deleted, moved or replaced.
        """
        with self._lock.write():
            index_folder.keep(self, path)

    def close(self):
        """Release the folder of `keep` and the connection to Milvus; the index becomes unusable."""
        with self._lock.write(), self._lock.exclusive():
            if self._kept is not None:
                self._kept.close()
            self._store.close()

    def _checked(self, method, ids, embeddings, labels, attributes):
        """Ids or None, vectors, labels and table of attributes of `add` or `replace`."""
        vectors = as_vectors("embeddings", embeddings, self.dim, method)
        labels = as_names("labels", labels, len(vectors))
        table = as_table(attributes, len(vectors))
        if ids is not None:
            ids = check_distinct(as_names("ids", ids, len(vectors)))
        return ids, vectors, labels, table

    def _write(self, change, ids, vectors=None, labels=None, table=None):
        """Carry out a checked change; if the index is kept, write it to the disk first."""
        if table is not None:
            self._store.check_attributes(table)
        if self._kept is not None:
            self._kept.append(change, ids, vectors, labels, table)
        with self._lock.exclusive():
            self._apply(change, ids, vectors, labels, table)

    def _apply(self, change, ids, vectors=None, labels=None, table=None):
        content = () if change == "remove" else (vectors, labels, table)
        getattr(self._store, change)(ids, *content)

    def _check_existing(self, ids):
        if len(existing := set(self._store.existing(ids))) < len(set(ids)):
            missing = next(key for key in ids if key not in existing)
            raise ValueError(f"The index has no item with this id. Received: {shown(missing)}")

    def _threshold(self, rule, threshold):
        if threshold is not None:
            return as_threshold(threshold)
        if rule not in self.operating_points:
            raise ValueError(
                f"This index has no threshold for rule={rule!r}. Run calibrate(..., "
                f'rule={rule!r}) first, or pass threshold= a distance (float("inf") accepts all).'
            )
        return self.operating_points[rule].threshold
