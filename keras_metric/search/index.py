"""Index: who is this, among all that were enrolled."""

import numpy as np

from keras_metric._validation import as_array, check_choice, check_count, check_number, shown
from keras_metric.search.attributes import as_table
from keras_metric.search.calibration import measure
from keras_metric.search.fingerprint import check_fingerprint, encoder_width, fingerprint
from keras_metric.search.identification import RULES, by_centroids, by_matches
from keras_metric.search.ids import as_name, as_names, check_distinct
from keras_metric.search.read_write_lock import ReadWriteLock
from keras_metric.search.results import Identity, StagedMatches, Verification
from keras_metric.search.storage import folder
from keras_metric.search.stores.coarse import SETTINGS, check_settings
from keras_metric.search.stores.faiss_store import FaissStore
from keras_metric.search.stores.vectors import METRICS, as_vectors, paired, stored
from keras_metric.search.stores.where import as_clauses

_STORES = ("faiss", "milvus")
_PAGE = 1000
# Far beyond any encoder, and few enough for every array and every structure of FAISS.
_MOST_DIMS = 2**24


class Index:
    """Enrolled items, found by distance: search, verify, identify; enrol and forget while it runs.

    Reach for it when training is over: a person enrolled a minute ago is recognised without
    retraining, because all that is compared is embeddings. Every item has an id, a label, an
    embedding, and attributes by which a search can be narrowed before it begins.

    Any number of threads may read and write. Readers run while a change is written to the disk and
    wait only while it is applied; writers run in the order in which they arrive. What fails changes
    nothing.

    Distances are exact, in float64 from the stored float32 vectors, and smaller is closer:

    | metric | formula | range |
    | --- | --- | --- |
    | `cosine` | `1 - a.b / (norm(a) norm(b))`; 1 for a zero vector | 0 to 2 |
    | `euclidean` | `sqrt(sum((a - b)**2))` | 0 and up |
    | `squared_euclidean` | `sum((a - b)**2)` | 0 and up |
    | `dot` | `-a.b` | all reals |

    Args:
        dim: integer: length of the embeddings. None takes that of `encoder`.
        metric: one of the table. The default suits every encoder that normalises, as those of
            this package do.
        store: `"faiss"` (default) keeps everything in this process. `"milvus"` keeps it at `uri`;
            needs `pip install keras_metric[milvus]`.
        kind: `"flat"` (default) measures every item and is exact. `"short"`, `"hnsw"`, `"ivf"`,
            `"pq"` and `"ivf-pq"` find candidates coarsely and order them by exact distance:
            filters hold without exception, distances are exact, but a neighbour can be missed.
            They begin at 10,000 items; fewer are measured one by one.
        settings: dict for the kind, or None for its defaults. `short`: `dims` (a quarter),
            `rerank` (candidates for each match, 10). `hnsw`: `links` (32), `build_effort` (80),
            `search_effort` (64), `rerank` (2). `ivf`: `lists` (about 4 sqrt(items)), `probes`
            (a sixteenth of the lists), `rerank` (2). `pq`: `codes` (one for 8 dimensions), `bits`
            (8), `rerank` (20). `ivf-pq`: those of both. All: `train_at` (10,000 items).
        uri: for Milvus: a file name (embedded, one process) or a URL (server or cluster).
        token: for Milvus: `"user:password"` or a token, or None. Never saved.
        collection: for Milvus: name of the collection. Other stores have none and ignore it.
        encoder: the Keras model that makes the embeddings, or None. Its fingerprint is kept, and
            `load(path, encoder=...)` and `check_encoder` refuse another one.
        description: text for the index card: what data are in here, and from where.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a name that is not in its list, or neither `dim` nor `encoder`.
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
        if dim > _MOST_DIMS:
            raise ValueError(f"`dim` must be at most {_MOST_DIMS:,}. Received: dim={shown(dim)}")
        check_choice("metric", metric, METRICS)
        check_choice("store", store, _STORES)
        check_choice("kind", kind, SETTINGS)
        for name, value in (("collection", collection), ("description", description)):
            if not isinstance(value, str):
                raise TypeError(f"`{name}` must be a string. Received: {name}={shown(value)}")
        if encoder is not None and encoder_width(encoder) != dim:
            raise ValueError(
                f"The encoder gives embeddings of length {encoder_width(encoder)}. Received: "
                f"dim={dim}. Leave `dim` out."
            )
        self.dim = int(dim)
        self.metric = metric
        self.kind = kind
        self.store = store
        self.description = description
        self.settings = check_settings(kind, settings, self.dim)
        self.fingerprint = None if encoder is None else fingerprint(encoder)
        self.operating_points = {}
        self._lock = ReadWriteLock()
        self._journal = None
        if store == "faiss":
            if uri is not None or token is not None:
                given = "token" if uri is None else f"uri={shown(uri)}"
                raise ValueError(
                    'The store "faiss" lives in this process and has no address. Received: '
                    f'{given}. Pass store="milvus", or leave it out.'
                )
            self._store = FaissStore(self.dim, metric, kind, self.settings)
        else:
            from keras_metric.search.stores.milvus_store import MilvusStore

            self._store = MilvusStore(self.dim, metric, kind, self.settings, uri, token, collection)

    def __len__(self):
        with self._lock.read():
            return len(self._store)

    def __contains__(self, id):
        with self._lock.read():
            return bool(self._store.known([as_name("id", id)]))

    def __iter__(self):
        """Every item, read page by page; what is removed meanwhile is left out."""
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
            "An Index holds locks and open files, so it is neither copied nor pickled. `save` it, "
            "and call Index.load(path) where it is needed, as in a worker process."
        )

    @property
    def labels(self):
        """The labels that are enrolled, integers before strings."""
        with self._lock.read():
            return sorted(
                self._store.label_counts(), key=lambda name: (isinstance(name, str), name)
            )

    def ids(self, label=None):
        """The ids of all items, or of those with one label, as a list."""
        with self._lock.read():
            if label is None:
                return self._store.all_ids()
            return self._store.ids_of([as_name("label", label)])

    def get(self, ids):
        """The items with these ids, as a list of `Item` in that order."""
        ids = as_names("ids", ids)
        with self._lock.read():
            items = self._store.get(ids)
            # Asked for after the fact: in a cluster another process may remove between two calls.
            if len(items) < len(ids):
                self._check_known(ids)
        return items

    def add(self, embeddings, labels, ids=None, attributes=None):
        """Enrol items; all of them, or on any error none.

        Args:
            embeddings: finite array `(rows, dim)`.
            labels: a string or an integer for each row.
            ids: a string or an integer for each row, none of them known yet; None counts on.
            attributes: list of dicts, or None. Values are strings, finite numbers, True or False,
                of one kind for each name.

        Returns:
            List of the ids.
        """
        vectors = as_vectors("embeddings", embeddings, self.dim)
        labels = as_names("labels", labels, len(vectors))
        table = as_table(attributes, len(vectors))
        if ids is not None:
            ids = as_names("ids", ids, len(vectors))
            check_distinct(ids)
        with self._lock.write():
            if ids is None:
                ids = self._store.new_ids(len(vectors))
            known = self._store.known(ids)
            if known:
                raise ValueError(
                    f"`ids` must be new. Received {len(known)} that the index has, the first "
                    f"{shown(known[0])}. Nothing was changed. `replace` overwrites items."
                )
            self._store.check_attributes(table)
            self._write("add", ids, vectors, labels, table)
        return list(ids)

    def replace(self, embeddings, labels, ids, attributes=None):
        """Overwrite items that the index has: embedding, label and all attributes.

        Takes what `add` takes; all ids must be known. A reader sees an item as it was or as it
        will be, never without it.
        """
        vectors = as_vectors("embeddings", embeddings, self.dim, "replace")
        labels = as_names("labels", labels, len(vectors))
        table = as_table(attributes, len(vectors))
        ids = as_names("ids", ids, len(vectors))
        check_distinct(ids)
        with self._lock.write():
            self._check_known(ids)
            self._store.check_attributes(table)
            self._write("replace", ids, vectors, labels, table)

    def remove(self, ids=None, labels=None):
        """Remove items, by id or by label; all of them, or on any error none.

        Their ids, labels, embeddings and attribute values are gone from the index when this
        returns, and from its folder with the next `save` there. The approximate kinds keep a coarse
        copy of the embeddings until most of their entries are of removed items.
        """
        if (ids is None) == (labels is None):
            raise ValueError(
                f"Pass `ids` or `labels`, one of the two. Received: ids={shown(ids)}, "
                f"labels={shown(labels)}"
            )
        if ids is not None:
            ids = as_names("ids", ids)
            check_distinct(ids)
        else:
            labels = as_names("labels", labels)
        with self._lock.write():
            if ids is None:
                for label in labels:
                    if not self._store.ids_of([label]):
                        raise ValueError(
                            f"No item has this label. Received: {shown(label)}. Nothing was "
                            "changed."
                        )
                ids = self._store.ids_of(labels)
            self._check_known(ids)
            self._write("remove", ids)

    def enrol(self, embeddings, label, id=None, attributes=None):
        """Enrol several shots of one label as one item, their centroid.

        Less memory and time than all of them, and less noise than any of them; under the cosine
        metric each shot counts alike, whatever its length.

        Args:
            embeddings: array `(shots, dim)`, at least one.
            label: string or integer.
            id: string or integer, or None to count on.
            attributes: dict, or None.

        Returns:
            The id.
        """
        vectors = as_vectors("embeddings", embeddings, self.dim, "enrol")
        if not len(vectors):
            raise ValueError("A centroid needs at least one embedding. Received none.")
        centroid = stored(vectors, self.metric).mean(axis=0, dtype="float64", keepdims=True)
        return self.add(
            centroid,
            [label],
            None if id is None else [id],
            None if attributes is None else [attributes],
        )[0]

    def search(self, queries, k=5, where=None):
        """The `k` nearest items of each query.

        Args:
            queries: finite array `(queries, dim)`.
            k: integer of at least 1. Fewer matches come back if fewer items fit.
            where: dict of conditions, all of which hold for what is found: a value (equal), a
                tuple (closed range; None is an open end), or a list (any of its values). An item
                without the attribute never fits. Only what fits is searched.

        Returns:
            For each query a list of `Match`, closest first.
        """
        queries = as_vectors("queries", queries, self.dim, "search")
        check_count("k", k)
        clauses = as_clauses(where)
        with self._lock.read():
            return self._store.search(queries, k, clauses)

    def staged_search(self, queries, stages, k=5, threshold=None):
        """Search in stages and stop at the first that answers: own history, then region, then all.

        Args:
            queries: finite array `(queries, dim)`.
            stages: list of `where` conditions from narrow to wide; None is everything.
            k: integer of at least 1.
            threshold: distance within which a match is an answer; None takes that of
                `calibrate(rule="nearest")`.

        Returns:
            For each query a `StagedMatches`: the stage's number and its matches within the
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
        answers = [StagedMatches(None, [])] * len(queries)
        open_rows = np.arange(len(queries))
        with self._lock.read():
            for number, clauses in enumerate(stages):
                if not len(open_rows):
                    break
                found = self._store.search(queries[open_rows], k, clauses)
                for row, matches in zip(open_rows.tolist(), found, strict=True):
                    close = [match for match in matches if match.distance <= threshold]
                    if close:
                        answers[row] = StagedMatches(number, close)
                open_rows = np.array([row for row in open_rows if answers[row].stage is None], int)
        return answers

    def verify(self, query, id, threshold=None):
        """Compare one query with one enrolled item: is it who it claims to be?

        Args:
            query: finite array `(dim,)` or `(1, dim)`.
            id: the item's id.
            threshold: largest distance of a match; None takes that of `calibrate(rule="verify")`.

        Returns:
            `Verification(same, distance)`.
        """
        query = as_array("query", query)
        rows = query[None] if query.ndim == 1 else query
        query = as_vectors("query", rows, self.dim, "verify")
        if len(query) != 1:
            raise ValueError(
                f"`query` must be one embedding. Received: query.shape={query.shape}. `identify` "
                "takes many."
            )
        threshold = self._threshold("verify", threshold)
        item = self.get([id])[0]
        query = stored(query, self.metric)
        distance = float(paired(query, item.embedding[None, None], self.metric)[0, 0])
        return Verification(distance <= threshold, distance)

    def identify(self, queries, rule="nearest", k=5, threshold=None, where=None):
        """Name each query, or say that nobody enrolled is close enough.

        Args:
            queries: finite array `(queries, dim)`.
            rule: `"nearest"` (default): the label of the nearest item. `"vote"`: the most frequent
                label of the `k` nearest, of equals the closer one, at the distance of its closest
                item. `"centroid"`: the label whose mean embedding is nearest; better than single
                items where each label has several noisy ones.
            k: integer of at least 1: voters. Only for the rule `"vote"`.
            threshold: largest distance of a match; None takes that of `calibrate(rule=rule)`;
                `float("inf")` names everybody.
            where: as in `search`; centroids then are of what fits.

        Returns:
            For each query an `Identity`; its label is None for an unknown.
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
        false_match_rate=0.001,
        rule="nearest",
        k=5,
        sample=2000,
        seed=0,
    ):
        """Find the threshold for a false-match rate, and the miss rate to expect with it.

        The queries are compared with what is enrolled now, so enrol first. For `identify` a query
        counts as a stranger once its own label is hidden from it: the rate is the share of
        strangers that would be named, which grows with the number of labels enrolled. A miss is a
        query that is not named, or wrongly. For `"verify"` every query meets items of other
        labels one to one.

        The threshold is kept in `operating_points[rule]`, saved with the index, and used by
        `identify` and `verify`.

        Args:
            embeddings: array `(queries, dim)` of items that are not in the index, best of labels
                the encoder never trained on. None takes the enrolled items themselves, each
                compared with all the others.
            labels: a label for each query. Those that are enrolled tell the miss rate.
            false_match_rate: above 0 and at most 1. It takes 1 / rate comparisons to see it.
            rule: a rule of `identify`, or `"verify"`.
            k: integer of at least 1: voters of the rule `"vote"`.
            sample: integer: how many enrolled items are queries when `embeddings` is None; for
                `"verify"` also how many are impostors.
            seed: integer: which of them are drawn.

        Returns:
            `OperatingPoint`: threshold, rates, numbers of comparisons.
        """
        check_choice("rule", rule, (*RULES, "verify"))
        check_number("false_match_rate", false_match_rate, above=0, at_most=1)
        check_count("k", k)
        check_count("sample", sample)
        check_count("seed", seed, at_least=0)
        if (embeddings is None) != (labels is None):
            raise ValueError("Pass both `embeddings` and `labels`, or neither.")
        if embeddings is not None:
            embeddings = as_vectors("embeddings", embeddings, self.dim, "calibrate")
            labels = as_names("labels", labels, len(embeddings))
        with self._lock.read():
            point = measure(
                self._store, self.metric, embeddings, labels, false_match_rate, rule, k, sample,
                np.random.default_rng(seed),
            )  # fmt: skip
        self.operating_points[rule] = point
        return point

    def check_encoder(self, encoder):
        """Raise unless this is the encoder that the index was made with."""
        check_fingerprint(encoder, self.fingerprint, self.dim)

    def save(self, path):
        """Write the index into the folder `path`; a kill at any moment leaves the old or the new.

        Data go into new files, which are flushed to the disk; then one rename of `manifest.json`
        makes them the index. Beside them lies `card.md`, the index card. Of a Milvus store only
        the manifest is written: the vectors stay in Milvus.
        """
        with self._lock.write():
            folder.save(self, path)

    @classmethod
    def load(cls, path, encoder=None, uri=None, token=None):
        """Read an index that `save` wrote, or that `keep` kept.

        Args:
            path: the folder.
            encoder: the encoder that queries will come from; raises if it is not the one that
                the index was made with.
            uri: for Milvus: where the data are. None takes the address in the manifest if that is
                a file that exists; a server has to be named.
            token: for Milvus.

        Raises:
            ValueError: for a file that is missing, truncated or altered, another encoder, or a
                newer version. Nothing on the disk is changed.
        """
        return folder.load(cls, path, encoder, uri, token)

    def keep(self, path):
        """Save, and from now on write each change to the disk before the call returns.

        For a service: whoever was enrolled before a kill is there after `load(path)`, which reads
        the saved index and the changes since. `save` of the same path folds them in, and writes
        the operating points of a `calibrate` since. One process at a time may keep a folder: after
        `os.fork` the child can search, and a change there raises RuntimeError. A change raises
        FileNotFoundError once the folder was deleted, moved or replaced.
        """
        with self._lock.write():
            folder.keep(self, path)

    def close(self):
        """Let go of the journal's folder and of Milvus; the index is not used after."""
        with self._lock.write(), self._lock.alone():
            if self._journal is not None:
                self._journal.close()
            self._store.close()

    def _write(self, change, ids, vectors=None, labels=None, table=None):
        """Carry out a change that was checked; the disk first, where the index is kept."""
        if self._journal is not None:
            self._journal.append(change, ids, vectors, labels, table)
        with self._lock.alone():
            self._apply(change, ids, vectors, labels, table)

    def _apply(self, change, ids, vectors=None, labels=None, table=None):
        if change == "remove":
            self._store.remove(ids)
        elif change == "replace":
            self._store.replace(ids, vectors, labels, table)
        else:
            self._store.add(ids, vectors, labels, table)

    def _check_known(self, ids):
        if len(known := set(self._store.known(ids))) < len(set(ids)):
            missing = next(key for key in ids if key not in known)
            raise ValueError(f"The index has no item with this id. Received: {shown(missing)}")

    def _threshold(self, rule, threshold):
        if threshold is not None:
            if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)):
                raise TypeError(
                    f"`threshold` must be a number. Received: threshold={shown(threshold)}"
                )
            try:
                number = float(threshold)
            except OverflowError:
                # An integer that no float can hold.
                number = float("nan")
            if number != number:
                raise ValueError(
                    "`threshold` must not be NaN, nor an integer beyond the largest float. "
                    f"Received: threshold={shown(threshold)}"
                )
            return number
        if rule not in self.operating_points:
            raise ValueError(
                f"This index has no threshold for rule={rule!r}. Run calibrate(..., "
                f'rule={rule!r}) first, or pass threshold= a distance (float("inf") accepts all).'
            )
        return self.operating_points[rule].threshold
