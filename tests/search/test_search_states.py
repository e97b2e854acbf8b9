"""Random sequences of calls of an index, compared with a plain dict and NumPy."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from expected_results import fits
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keras_metric.search import Index

DIM = 3
# Few values, so that ties, replaced ids and shared attributes are frequent.
COORDINATES = st.integers(-4, 4).map(float)
VECTORS = st.tuples(*[COORDINATES] * DIM)
# Untrusted names: strings that could be parsed as a part of an expression.
ODD = ['zz" or id < "', '" or label != "', "\\", "\x00"]
IDS = st.one_of(st.integers(-3, 20), st.sampled_from(["a", "b", "1", "é", *ODD]))
LABELS = st.sampled_from([0, 1, 2, "1", "ann", *ODD[:2]])
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "age": st.integers(0, 5),
        "height": st.sampled_from([1.5, 1.75, 2.0]),
        "region": st.sampled_from(["r1", "r2", "r3", *ODD]),
        "hat": st.booleans(),
    },
)
ROWS = st.lists(st.tuples(IDS, VECTORS, LABELS, ATTRIBUTES), max_size=8, unique_by=lambda r: str(r))
AGES = st.integers(0, 5)
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "age": st.one_of(
            AGES, st.tuples(AGES, AGES).map(lambda ends: tuple(sorted(ends))), st.lists(AGES)
        ),
        "height": st.sampled_from([1.75, (1.6, None), (None, 1.75), [1.5, 2]]),
        "region": st.sampled_from(["r1", ["r1", "r3"], ("r2", "r3"), ODD, ODD[0], tuple(ODD[1:3])]),
        "hat": st.booleans(),
    },
)


def parts(rows):
    """The arguments of `add` and `replace` for some rows."""
    ids, vectors, labels, attributes = zip(*rows, strict=True) if rows else [()] * 4
    return np.reshape(vectors, (-1, DIM)), labels, ids, attributes


class Calls(RuleBasedStateMachine):
    """The expected state is `self.items`: id -> (vector, label, attributes)."""

    arguments = {}
    number = 0

    @initialize()
    def begin(self):
        type(self).number += 1
        self.folder = Path(tempfile.mkdtemp())
        self.items = {}
        self.index = self.new_index()

    def new_index(self):
        return Index(DIM, "euclidean", **self.arguments)

    def loaded(self):
        return Index.load(self.folder / "index")

    def teardown(self):
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)

    @rule(rows=ROWS)
    def add(self, rows):
        ids = [row[0] for row in rows]
        if len(set(ids)) < len(ids) or set(ids) & set(self.items):
            with pytest.raises(ValueError, match="Nothing was changed"):
                self.index.add(*parts(rows))
            return
        self.index.add(*parts(rows))
        self.items |= {key: rest for key, *rest in rows}

    @rule(rows=ROWS)
    def replace(self, rows):
        rows = list({row[0]: row for row in rows if row[0] in self.items}.values())
        self.index.replace(*parts(rows))
        self.items |= {key: rest for key, *rest in rows}

    @rule(ids=st.lists(IDS, max_size=4, unique=True))
    def remove(self, ids):
        if set(ids) <= set(self.items):
            self.index.remove(ids)
            for key in ids:
                del self.items[key]
        else:
            with pytest.raises(ValueError, match="no item with this id"):
                self.index.remove(ids)

    @rule(label=LABELS)
    def remove_label(self, label):
        ids = [key for key, item in self.items.items() if item[1] == label]
        if ids:
            self.index.remove(labels=[label])
        for key in ids:
            del self.items[key]

    @rule(
        queries=st.lists(VECTORS, min_size=1, max_size=25), k=st.integers(1, 12), where=CONDITIONS
    )
    def search(self, queries, k, where):
        # For an attribute that only removed items had, a store may raise or find nothing.
        present = {name for item in self.items.values() for name in item[2]}
        where = {name: condition for name, condition in where.items() if name in present}
        found = self.index.search(np.array(queries), k, where)
        rows = {key: item for key, item in self.items.items() if fits(item[2], where)}
        for query, matches in zip(queries, found, strict=True):
            distances = {
                key: float(np.linalg.norm(np.array(query) - item[0])) for key, item in rows.items()
            }
            assert [m.distance for m in matches] == pytest.approx(sorted(distances.values())[:k])
            assert len({(type(m.id), m.id) for m in matches}) == len(matches)
            for match in matches:
                assert match.distance == pytest.approx(distances[match.id])
                assert (match.label, match.attributes) == (rows[match.id][1], rows[match.id][2])

    @rule(query=VECTORS)
    def identify(self, query):
        identity = self.index.identify(np.array([query]), "centroid", threshold=float("inf"))[0]
        distances = {}
        for label in {item[1] for item in self.items.values()}:
            rows = [item[0] for item in self.items.values() if item[1] == label]
            distances[label] = np.linalg.norm(np.mean(rows, axis=0) - query)
        assert identity.distance == pytest.approx(min(distances.values(), default=np.inf), abs=1e-6)
        if distances:
            assert distances[identity.label] == pytest.approx(identity.distance, abs=1e-6)

    @rule()
    def save_and_load(self):
        self.index.save(self.folder / "index")
        self.index.close()
        self.index = self.loaded()

    @invariant()
    def has_the_expected_items(self):
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.items)
        found = {item.id: item for item in self.index}
        assert set(found) == set(self.items)
        for key, (vector, label, attributes) in self.items.items():
            assert type(found[key].id) is type(key)
            assert found[key].embedding.tolist() == list(vector)
            assert (found[key].label, found[key].attributes) == (label, attributes)


class CallsWithJournal(Calls):
    """Every change is in the journal, and loading is not preceded by a save."""

    def new_index(self):
        index = super().new_index()
        index.keep(self.folder / "index")
        return index

    @rule()
    def save_and_load(self):
        self.index.close()
        self.index = self.loaded()
        self.index.keep(self.folder / "index")


class CallsOfApproximateKind(Calls):
    """An IVF structure that is built at once; all items of its one list are candidates."""

    settings = {"nlist": 1, "nprobe": 1, "train_at": 4, "rerank": 100}
    arguments = {"kind": "ivf", "settings": settings}

    def new_index(self):
        index = super().new_index()
        index._store.exact_up_to = 1
        return index

    def loaded(self):
        index = super().loaded()
        index._store.exact_up_to = 1
        return index


class CallsOnMilvus(Calls):
    uri = None

    @property
    def arguments(self):
        return {"store": "milvus", "uri": self.uri, "collection": f"calls{self.number}"}


COMMON = {"deadline": None, "derandomize": True, "database": None}
COMMON["suppress_health_check"] = list(HealthCheck)


@pytest.mark.parametrize("calls", [Calls, CallsWithJournal, CallsOfApproximateKind])
def test_random_calls(calls):
    case = calls.TestCase
    case.settings = settings(max_examples=50, stateful_step_count=20, **COMMON)
    case().runTest()


@pytest.mark.milvus
def test_random_calls_on_milvus(uri):
    CallsOnMilvus.uri = uri
    case = CallsOnMilvus.TestCase
    case.settings = settings(max_examples=12, stateful_step_count=15, **COMMON)
    case().runTest()
