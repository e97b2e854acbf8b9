"""Store in Milvus: embedded in a file, or a server or cluster at a URL."""

import contextlib
import uuid
from collections import Counter
from pathlib import Path

import numpy as np

from keras_metric.search.index_inputs import MISSING, check_kind, kind_of, rows_of
from keras_metric.search.results import Item, Match
from keras_metric.search.stores.attribute_columns import unknown_attribute
from keras_metric.search.stores.exact_distances import paired, stored
from keras_metric.search.stores.milvus_expressions import (
    LONGEST,
    condition,
    key_of,
    name_of,
    quoted,
    with_keys,
)

# Milvus's own limit of matches of one search.
_MAX_MATCHES = 16384
# Rows in one message; gRPC limits a message to 64 MB.
_PAGE = 1000
# Candidates beyond k: Milvus ranks in float32, and exact distances may reverse near-ties.
_SPARE = 6

# Milvus's name of each kind.
_KINDS = {"flat": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT", "ivf-pq": "IVF_PQ"}


class MilvusStore:
    """The methods of `FaissStore` for a Milvus collection.

    Every call uses strong consistency: a search finds all earlier additions of every process.
    """

    def __init__(self, dim, metric, kind, settings, uri, token, collection):
        if kind not in _KINDS:
            expected = f'With store="milvus", `kind` must be one of {sorted(_KINDS)}'
            raise ValueError(f"{expected}. Received: kind={kind!r}")
        self.metric, self.kind, self.settings = metric, kind, settings
        self.uri, self.collection = _checked_uri(uri), collection
        self._client = _connect(self.uri, token)
        self._attribute_kinds = {}
        if self._client.has_collection(collection):
            self._check_collection(dim)
            self._client.load_collection(collection)
            self._check_lengths()
        else:
            self._create(dim)

    def __len__(self):
        answer = self._client.query(self.collection, filter="", output_fields=["count(*)"])
        return int(answer[0]["count(*)"])

    def __str__(self):
        return f"The collection {self.collection!r} at {self.uri!r}"

    def close(self):
        self._client.close()

    def address(self):
        return {"uri": self.uri, "collection": self.collection}

    def summary(self):
        return {"items": f"{len(self):,}", "collection": f"{self.collection} at {self.uri}"}

    def existing(self, ids):
        keys = [key_of(name) for name in ids]
        found = {row["id"] for row in self._rows(keys, ["id"])}
        return [name for name, key in zip(ids, keys, strict=True) if key in found]

    def all_ids(self):
        return [name_of(row["id"]) for row in self._scan("", ["id"])]

    def new_ids(self, count):
        """Random integers of 62 bits, so that processes do not create the same id."""
        return [uuid.uuid4().int >> 66 for _ in range(count)]

    def label_counts(self):
        return Counter(name_of(row["label"]) for row in self._scan("", ["label"]))

    def ids_of(self, labels):
        keys = quoted([key_of(label) for label in labels])
        return [name_of(row["id"]) for row in self._scan(f"label in {keys}", ["id"])]

    def check_attributes(self, table):
        for name, (kind, values) in table.items():
            check_kind(name, kind, self._kind(name) or kind)
            if kind == "string":
                quoted([value for value in values if value is not MISSING])

    def add(self, ids, vectors, labels, table):
        rows = self._entities(ids, vectors, labels, table)
        try:
            for start in range(0, len(rows), _PAGE):
                self._client.insert(self.collection, rows[start : start + _PAGE])
            self._attribute_kinds |= {name: kind for name, (kind, _) in table.items()}
        except BaseException:
            # Undo the pages before the error, so that all items are added or none.
            with contextlib.suppress(Exception):
                self.remove(ids)
            raise

    def replace(self, ids, vectors, labels, table):
        rows = self._entities(ids, vectors, labels, table)
        for start in range(0, len(rows), _PAGE):
            self._client.upsert(self.collection, rows[start : start + _PAGE])
        self._attribute_kinds |= {name: kind for name, (kind, _) in table.items()}

    def remove(self, ids):
        keys = [key_of(name) for name in ids]
        for start in range(0, len(keys), _PAGE):
            self._client.delete(self.collection, filter=with_keys(keys[start : start + _PAGE]))

    def get(self, ids):
        keys = [key_of(name) for name in ids]
        found = {row["id"]: row for row in self._rows(keys, ["label", "vector", "attributes"])}
        return [_item(found[key]) for key in keys if key in found]

    def search(self, queries, k, clauses=(), other_than=None):
        expression = self._expression(clauses)
        if expression is None or not len(queries):
            return [[] for _ in queries]
        parts = [f"({expression})"] if expression else []
        if other_than is not None:
            parts.append(f"label != {quoted(key_of(other_than[0]))}")
        limit = min(k + _SPARE, _MAX_MATCHES)
        if limit < k + _SPARE and limit < len(self) + _SPARE:
            raise ValueError(f"Milvus returns at most {limit - _SPARE:,} matches. Received: k={k}")
        queries = np.ascontiguousarray(stored(queries, self.metric))
        # The number of queries whose matches fit into one message.
        page = max(1, min(_PAGE, 10**6 // limit))
        result = []
        for start in range(0, len(queries), page):
            block = queries[start : start + page]
            found = self._client.search(
                self.collection,
                data=list(block),
                filter=" and ".join(parts),
                limit=limit,
                output_fields=["label", "vector", "attributes"],
                search_params={"params": self._parameters(limit)[1]},
                anns_field="vector",
            )
            result += [self._matches(*pair, k) for pair in zip(block, found, strict=True)]
        return result

    def centroids(self, clauses=()):
        expression = self._expression(clauses)
        sums, counts = {}, Counter()
        if expression is not None:
            for row in self._scan(expression, ["label", "vector"]):
                label = name_of(row["label"])
                sums[label] = sums.get(label, 0) + np.array(row["vector"], "float64")
                counts[label] += 1
        return list(sums), np.array(list(sums.values())), np.array(list(counts.values()), int)

    def _matches(self, query, hits, k):
        if not hits:
            return []
        items = [_item({"id": hit["id"], **hit["entity"]}) for hit in hits]
        vectors = np.array([item.embedding for item in items])
        distances = paired(query[None], vectors[None], self.metric)[0]
        order = np.argsort(distances, kind="stable")[:k]
        return [
            Match(items[i].id, items[i].label, float(distances[i]), items[i].attributes)
            for i in order
        ]

    def _parameters(self, limit=0):
        """Milvus's parameters to create, and to search, an index of this kind."""
        settings = self.settings
        if self.kind == "flat":
            return {}, {}
        if self.kind == "hnsw":
            create = {"M": settings["M"], "efConstruction": settings["ef_construction"]}
            return create, {"ef": max(settings["ef_search"], limit)}
        create = {"nlist": settings["nlist"] or 1024}
        search = {"nprobe": settings["nprobe"] or max(1, create["nlist"] // 16)}
        if self.kind == "ivf-pq":
            create |= {"m": settings["m"], "nbits": settings["nbits"]}
        return create, search

    def _entities(self, ids, vectors, labels, table):
        vectors, attributes = stored(vectors, self.metric), rows_of(table, len(ids))
        parts = zip(map(key_of, ids), vectors, map(key_of, labels), attributes, strict=True)
        return [dict(zip(("id", "vector", "label", "attributes"), row)) for row in parts]

    def _rows(self, keys, fields):
        for start in range(0, len(keys), _PAGE):
            yield from self._client.query(
                self.collection,
                filter=with_keys(keys[start : start + _PAGE]),
                output_fields=fields,
                limit=_PAGE,
            )

    def _scan(self, expression, fields):
        """Yield the items that fit an expression, in the order of their keys, page by page."""
        # The client's own iterator inserts the last id of a page into the next expression without
        # escaping it, so an id could select any item. The options are those of that iterator.
        options = {"limit": _PAGE, "iterator": "True", "reduce_stop_for_best": "True"}
        page = [{"id": ""}]
        while page:
            rest = f"id > {quoted(page[-1]['id'])}"
            page = self._client.query(
                self.collection,
                filter=f"{rest} and ({expression})" if expression else rest,
                output_fields=fields,
                **options,
            )
            # A server returns the time of the first page; later pages read the state of that time.
            if moment := page.extra.get("iterator_session_ts"):
                options.setdefault("guarantee_timestamp", moment)
            yield from page

    def _kind(self, name):
        """The kind of an attribute, from the first item that has it; None if none has."""
        if name not in self._attribute_kinds:
            found = self._client.query(
                self.collection,
                filter=f"exists attributes[{quoted(name)}]",
                output_fields=["attributes"],
                limit=1,
            )
            if not found:
                return None
            self._attribute_kinds[name] = kind_of(found[0]["attributes"][name])
        return self._attribute_kinds[name]

    def _expression(self, clauses):
        """The Milvus expression of conditions, "" for none; None if no item can fit."""
        parts = []
        for clause in clauses:
            kind = self._kind(clause.name)
            if kind is None:
                if len(self):
                    raise ValueError(unknown_attribute(clause.name, self._attribute_kinds))
                return None
            if clause.kind is None:
                return None
            check_kind(clause.name, clause.kind, kind)
            parts.append(condition(clause))
        return " and ".join(f"({part})" for part in parts)

    def _create(self, dim):
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        names = {"datatype": DataType.VARCHAR, "max_length": LONGEST}
        schema.add_field("id", is_primary=True, **names)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("label", **names)
        schema.add_field("attributes", DataType.JSON)
        structure = self._client.prepare_index_params()
        structure.add_index(
            "vector",
            index_type=_KINDS[self.kind],
            metric_type=_metric(self.metric),
            params=self._parameters()[0],
        )
        self._client.create_collection(
            self.collection, schema=schema, index_params=structure, consistency_level="Strong"
        )

    def _check_collection(self, dim):
        fields = {f["name"]: f for f in self._client.describe_collection(self.collection)["fields"]}
        if not {"id", "vector", "label", "attributes"} <= set(fields):
            raise ValueError(f"{self} was not created by keras_metric. Pass another collection=.")
        length = fields["vector"]["params"]["dim"]
        if int(length) != dim:
            raise ValueError(f"{self} holds vectors of length {length}. Received: dim={dim}")
        metric = self._client.describe_index(self.collection, "vector")["metric_type"]
        if metric != _metric(self.metric):
            needed = f"metric={self.metric!r}, which needs {_metric(self.metric)}"
            raise ValueError(f"{self} ranks by {metric}. Received: {needed}")

    def _check_lengths(self):
        """Raise if the metric is "cosine" and the stored vectors do not have length 1."""
        if self.metric != "cosine":
            return
        some = self._client.query(self.collection, filter="", limit=10, output_fields=["vector"])
        lengths = [float(np.linalg.norm(row["vector"])) for row in some]
        if any(abs(length - 1) > 1e-3 and length for length in lengths):
            raise ValueError(f'{self} was made with metric="dot". Received: metric="cosine"')


def _metric(metric):
    return "IP" if metric in ("cosine", "dot") else "L2"


def _checked_uri(uri):
    if not isinstance(uri, (str, Path)) or not str(uri):
        raise ValueError(
            'store="milvus" needs `uri`: a file name that ends in .db, or a URL such as '
            f"http://localhost:19530. Received: uri={uri!r}"
        )
    uri = str(uri)
    if "://" not in uri:
        if not uri.endswith(".db"):
            raise ValueError(f"A file for Milvus must end in .db. Received: uri={uri!r}")
        # An absolute path, which the manifest can use from any working folder.
        path = Path(uri).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        uri = str(path)
    return uri


def _connect(uri, token):
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ImportError(
            'store="milvus" needs Milvus\'s client: pip install "keras_metric[milvus]"'
        ) from error
    return MilvusClient(uri, token=token or "")


def _item(row):
    vector = np.array(row["vector"], "float32")
    return Item(name_of(row["id"]), name_of(row["label"]), vector, row["attributes"])
