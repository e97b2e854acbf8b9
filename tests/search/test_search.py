"""`search.Index` on every store, compared with slow NumPy loops."""

import ast
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from expected_results import distance, fits, neighbours
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_metric import search
from keras_metric.search import Identity, Index, Match, StagedMatches
from keras_metric.search.stores.exact_search import nearest_rows

DIM = 8
METRICS = ["cosine", "dot", "euclidean", "squared_euclidean"]


MILVUS = pytest.param("milvus", marks=pytest.mark.milvus)
on_milvus = pytest.mark.parametrize("store", [MILVUS], indirect=True)


@pytest.fixture(params=["faiss", MILVUS])
def store(request):
    return request.param


@pytest.fixture
def make(store, request):
    """A function that creates independent indexes of the store under test."""
    made = []

    def new(dim=DIM, **arguments):
        if store == "milvus":
            uri = request.getfixturevalue("uri")
            arguments = {"uri": uri, "collection": f"c{len(made)}", **arguments}
        made.append(Index(dim, store=store, **arguments))
        return made[-1]

    yield new
    for index in made:
        if store == "milvus":
            index._store._client.drop_collection(index._store.collection)
        index.close()


@pytest.fixture
def items(rng):
    """Items with unequal classes, ids of both types, and attributes of every kind, some missing."""
    items = []
    for n in range(90):
        attributes = {"age": int(rng.integers(60)), "weight": float(rng.normal())}
        attributes |= {"region": f"r{rng.integers(4)}", "wears hat": bool(rng.integers(2))}
        for name in list(attributes):
            if rng.random() < 0.2:
                del attributes[name]
        item = {"id": n if n % 3 else f"item {n}", "x": rng.normal(size=DIM).astype("float32")}
        label = int(rng.zipf(1.6) % 9) if n % 2 else "ann"
        items.append({**item, "label": label, "attributes": attributes})
    return items


def fill(index, items, method=None):
    return (method or index.add)(
        np.array([item["x"] for item in items]),
        [item["label"] for item in items],
        ids=[item["id"] for item in items],
        attributes=[item["attributes"] for item in items],
    )


@pytest.fixture
def filled(make, items):
    """A function that creates an index with the items."""

    def new(**arguments):
        index = make(**arguments)
        fill(index, items)
        return index

    return new


def check_matches(found, expected, items, k):
    by_id = {item["id"]: item for item in items}
    assert len(found) == len(expected)
    for matches, line in zip(found, expected):
        assert len(matches) == min(k, len(line))
        assert [match.id for match in matches] == [key for _, key in line[:k]]
        for match, (expected_distance, key) in zip(matches, line):
            assert isinstance(match, Match)
            assert match.distance == pytest.approx(expected_distance, rel=1e-5, abs=1e-6)
            assert match.label == by_id[key]["label"]
            assert match.attributes == by_id[key]["attributes"]
            for name, value in match.attributes.items():
                assert type(value) is type(by_id[key]["attributes"][name])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 40])
def test_search_equals_the_loop(filled, items, rng, metric, queries):
    index = filled(metric=metric)
    queries = rng.normal(size=(queries, DIM)).astype("float32")
    for k in (1, 5, 1000):
        expected = neighbours(queries, items, metric)
        check_matches(index.search(queries, k=k), expected, items, k)


CONDITIONS = {
    "equal string": {"region": "r3"},
    "unknown string": {"region": "r9"},
    "any string": {"region": ["r1", "r9", "r0"]},
    "range of strings": {"region": ("r1", "r2")},
    "closed range": {"age": (20, 40)},
    "range without end": {"age": (20, None)},
    "range without start": {"weight": (None, 0.5)},
    "any number": {"age": [3, 4, 5, 6.0]},
    "flag": {"wears hat": True},
    "any flag": {"wears hat": [True, False]},
    "empty list": {"age": []},
    "no condition": {},
    "three": {"region": ["r1", "r2"], "age": (10, 50), "wears hat": False},
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("queries", [2, 30])
def test_filters_are_exact(filled, items, rng, name, queries):
    index = filled(metric="euclidean")
    queries = rng.normal(size=(queries, DIM)).astype("float32")
    expected = neighbours(queries, items, "euclidean", CONDITIONS[name])
    check_matches(index.search(queries, k=4, where=CONDITIONS[name]), expected, items, 4)


@pytest.mark.parametrize("count", [10, 60])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_selected_rows_are_searched_block_by_block(rng, count, k):
    vectors = rng.normal(size=(90, DIM)).astype("float32")
    queries = rng.normal(size=(30, DIM)).astype("float32")
    rows = np.sort(rng.permutation(90)[:count])
    largest = np.square(vectors).sum(axis=1).max()
    found, distances = nearest_rows(queries, vectors, k, "euclidean", largest, rows, block=16)
    expected = np.linalg.norm(queries[:, None].astype("float64") - vectors[rows], axis=2)
    assert (found == rows[np.argsort(expected, axis=1)[:, :k]]).all()
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], rtol=1e-12)


def test_the_faiss_setting_is_restored(items, rng, monkeypatch):
    """Matrix products for batches are a setting of the whole process."""
    faiss = pytest.importorskip("faiss")
    bound = faiss.cvar.distance_compute_blas_threshold
    during, search = [], faiss.knn_L2sqr

    def recorded(*arguments):
        during.append(faiss.cvar.distance_compute_blas_threshold)
        return search(*arguments)

    monkeypatch.setattr(faiss, "knn_L2sqr", recorded)
    index = Index(DIM, "euclidean")
    fill(index, items)
    for count in (1, 4, 5, 300):
        index.search(rng.normal(size=(count, DIM)), k=2)
    assert during == [bound, bound, 0, 0]
    assert faiss.cvar.distance_compute_blas_threshold == bound


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ({"regoin": "r3"}, ValueError, "'regoin'; the attributes are"),
        ({"region": 3}, TypeError, "kind 'string'"),
        ({"age": "3"}, TypeError, "kind 'number'"),
        ({"wears hat": 1}, TypeError, "kind 'flag'"),
        ({"age": (40, 20)}, ValueError, "must not be empty"),
        ({"age": (20,)}, ValueError, "closed range"),
        ({"age": (None, None)}, ValueError, "closed range"),
        ({"age": [1, "a"]}, TypeError, "of one kind"),
        ({"age": float("nan")}, ValueError, "finite number"),
        ({"wears hat": (False, True)}, TypeError, "no range"),
        ({"age": None}, ValueError, "age=None"),
        ([("age", 3)], TypeError, "must be a dict"),
        ({3: 3}, TypeError, "must be strings"),
    ],
)
def test_invalid_conditions_are_named(filled, where, error, message):
    index = filled()
    with pytest.raises(error, match=message):
        index.search(np.ones((1, DIM)), where=where)


def test_an_empty_index(make):
    index = make()
    assert len(index) == 0 and list(index) == [] and index.labels == []
    assert index.search(np.ones((2, DIM)), where={"age": 3}) == [[], []]
    assert index.identify(np.ones((1, DIM)), threshold=1) == [Identity(None, float("inf"))]
    assert index.identify(np.ones((1, DIM)), "centroid", threshold=1)[0].label is None
    assert index.search(np.empty((0, DIM))) == []
    assert index.add(np.empty((0, DIM)), []) == []


def test_items_are_returned_unchanged(make, items):
    index = make(metric="euclidean")
    assert fill(index, items) == [item["id"] for item in items]
    assert len(index) == len(items)
    assert "item 3" in index and 1 in index and "1" not in index and 3 not in index
    found = {item.id: item for item in index}
    assert len(found) == len(items)
    for item in items:
        assert found[item["id"]].label == item["label"]
        assert found[item["id"]].attributes == item["attributes"]
        np.testing.assert_array_equal(found[item["id"]].embedding, item["x"])
    assert [item.id for item in index.get(["item 9", 4])] == ["item 9", 4]
    assert sorted(map(str, index.ids("ann"))) == sorted(
        str(item["id"]) for item in items if item["label"] == "ann"
    )
    assert set(map(str, index.ids())) == {str(item["id"]) for item in items}
    numbers = sorted({i["label"] for i in items if i["label"] != "ann"})
    assert index.labels == [*numbers, "ann"]


# Strings that could be parsed as a part of an expression, a path or an escape sequence.
EXPRESSIONS = ['zz" or id < "', 'zz" or id > "" or id == "', '" or label != "', "' or id != '"]
EXPRESSIONS += ['"] or id != "', 'a"b\\c\n', "\\", '\\"', '"', "\\u0041", "\\x41", "a][b", '"a"']
EXPRESSIONS += ["_", "{name}", "$meta", "null", "true", "1", "i1", "s1", "\r\n", "\x00\x00", ""]
EXPRESSIONS += ["e\u0301", "%"]
# Every character of UTF-8: ASCII and line ends as single characters, the others in runs.
CHARACTERS = [*map(chr, range(0x80)), "\x85", "\u2028", "\u2029", "\ufeff", "\U0001f600"]
RUNS = [
    "".join(map(chr, range(start, min(start + 250, end))))
    for first, end in ((0x80, 0xD800), (0xE000, 0x110000))
    for start in range(first, end, 250)
]
ODD_NAMES = [*EXPRESSIONS, *CHARACTERS, "x" * 300, 1, -1, -(2**62)]


def test_names_with_any_characters(make, rng, tmp_path):
    """A name selects only the items that have it."""
    names = list(dict.fromkeys(ODD_NAMES))
    texts = [str(name) for name in names]
    index = make(metric="euclidean")
    index.add(
        np.arange(len(names))[:, None] * np.ones(DIM),
        names,
        ids=names,
        attributes=[{"text": text} for text in texts],
    )

    def check(index, names):
        assert len(index) == len(names)
        assert sorted(map(repr, index.ids())) == sorted(map(repr, names))
        for item in index:
            assert item.id == item.label == names[names.index(item.id)]
            assert item.attributes == {"text": str(item.id)}

    check(index, names)
    for name in names:
        assert index.ids(label=name) == [name] and name in index
        assert index.get([name])[0].id == name
        found = index.search(np.zeros((1, DIM)), k=5, where={"text": str(name)})[0]
        assert {match.id for match in found} == {key for key in names if str(key) == str(name)}
    removed = names[::2]
    for name in removed[:20]:
        index.remove(labels=[name])
    index.remove(removed[20:])
    check(index, names[1::2])
    rows = np.ones((len(removed), DIM)), removed, removed, [{"text": str(n)} for n in removed]
    index.add(*rows)
    index.replace(*rows)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    check(loaded, names)
    loaded.close()
    index.remove(labels=names)
    assert len(index) == 0


def test_attribute_names_with_any_characters(make):
    names = [name for name in dict.fromkeys([*EXPRESSIONS, *CHARACTERS]) if name]
    index = make(metric="euclidean")
    ids = list(range(len(names)))
    index.add(np.zeros((len(ids), DIM)), ids, ids, [{name: 1} for name in names])
    for row, name in enumerate(names):
        found = index.search(np.zeros((1, DIM)), k=5, where={name: 1})[0]
        assert [(match.id, match.attributes) for match in found] == [(row, {name: 1})]


def test_every_character_over_many_pages(make):
    index = make(dim=2)
    index.add(np.ones((len(RUNS), 2)), ["run"] * len(RUNS), RUNS)
    assert sorted(index.ids()) == sorted(index.ids(label="run")) == sorted(RUNS)
    assert [item.id for item in index.get(RUNS)] == RUNS
    index.remove(labels=["run"])
    assert len(index) == 0


def test_surrogates_are_stored_or_rejected(make, store, tmp_path):
    """JSON can store surrogates; UTF-8, and therefore Milvus, cannot."""
    odd = "a\ud800b"
    index = make(dim=2)
    index.add(np.ones((1, 2)), ["l"], ["plain"], [{"text": "t"}])
    calls = [
        lambda: index.add(np.ones((2, 2)), ["l", "l"], ["p", odd]),
        lambda: index.add(np.ones((2, 2)), ["l", odd], ["q", "r"]),
        lambda: index.add(np.ones((2, 2)), ["l", "l"], ["s", "t"], [{}, {"text": odd}]),
        lambda: index.replace(np.ones((1, 2)), ["l"], ["plain"], [{"text": odd}]),
        lambda: index.ids(label=odd),
        lambda: odd in index,
        lambda: index.search(np.ones((1, 2)), where={"text": ["t", odd]}),
    ]
    if store == "faiss":
        for call in calls:
            call()
        index.save(tmp_path / "index")
        index = Index.load(tmp_path / "index")
        assert odd in index and index.ids(label=odd) == ["r"]
        assert {m.id for m in index.search(np.ones((1, 2)), 9, {"text": odd})[0]} == {"t", "plain"}
        return
    calls.append(lambda: index.add(np.ones((2, 2)), ["l", "l"], ["u", "v"], [{}, {odd: 1}]))
    for call in calls:
        with pytest.raises(ValueError, match=r"no surrogate.*'a\\ud800b'.*nothing was changed"):
            call()
    assert index.ids() == ["plain"] and index.get(["plain"])[0].attributes == {"text": "t"}


@on_milvus
def test_collections_of_earlier_versions_load(make):
    """Ids and labels are stored in Milvus with the prefix "i" or "s"."""
    index = make(dim=2, metric="euclidean")
    ids = {"s": "", 'szz" or id < "': 'zz" or id < "', "s1": "1", "i1": 1, "i-5": -5, "sa\n": "a\n"}
    index._store._client.insert(
        index._store.collection,
        [
            {"id": key, "vector": [n, 0], "label": key, "attributes": {'q"': str(name)}}
            for n, (key, name) in enumerate(ids.items())
        ],
    )
    assert sorted(map(repr, index.ids())) == sorted(map(repr, ids.values()))
    for n, name in enumerate(ids.values()):
        assert index.ids(label=name) == [name]
        match = index.search([[n, 0]], 1, where={'q"': str(name)})[0][0]
        assert (match.id, match.label, match.distance) == (name, name, 0)
    index.remove(list(ids.values()))
    assert len(index) == 0


@on_milvus
def test_later_pages_read_the_state_of_the_first(make, monkeypatch):
    """A server returns the time of the first page, and later pages request that time."""
    calls, index = [], make(dim=2)

    class Page(list):
        extra = {"iterator_session_ts": 7}

    def query(collection, **options):
        calls.append(options)
        return Page([{"id": f"s{len(calls)}"}] if len(calls) < 3 else [])

    monkeypatch.setattr(index._store._client, "query", query)
    assert index.ids() == ["1", "2"]
    assert [call["filter"] for call in calls] == ['id > ""', 'id > "s1"', 'id > "s2"']
    assert [call.get("guarantee_timestamp") for call in calls] == [None, 7, 7]


TEXTS = st.one_of(st.text(max_size=8), st.text("\"\\' =<>or[]idlabe", max_size=8))
NAMES = st.one_of(TEXTS, st.integers())
CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=25, derandomize=True, database=None, **CHECKS)
@given(rows=st.dictionaries(NAMES, st.tuples(NAMES, TEXTS), min_size=1, max_size=12))
def test_random_names(make, rows):
    index = make(dim=2)
    ids = list(rows)
    labels, texts = zip(*rows.values(), strict=True)
    index.add(np.ones((len(ids), 2)), labels, ids, [{"text": text} for text in texts])
    assert {(item.id, item.label, item.attributes["text"]) for item in index} == {
        (key, *rest) for key, rest in rows.items()
    }
    for label in set(labels):
        assert set(index.ids(label=label)) == {key for key in ids if rows[key][0] == label}
    for text in set(texts):
        found = index.search(np.ones((1, 2)), 99, {"text": text})[0]
        assert {match.id for match in found} == {key for key in ids if rows[key][1] == text}
    index.remove(labels=[labels[0]])
    left = {key for key in ids if rows[key][0] != labels[0]}
    assert set(index.ids()) == left and labels[0] not in index.labels
    index.remove(sorted(left, key=repr))
    assert len(index) == 0


def test_new_ids_are_new(make, rng):
    index = make()
    first = index.add(rng.normal(size=(3, DIM)), [0, 0, 0])
    index.remove(first[:2])
    keys = list(first)
    for _ in range(3):
        keys += index.add(rng.normal(size=(1, DIM)), [0])
    assert len(set(keys)) == 6 and len(index) == 4
    assert all(type(key) is int for key in keys)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embeddings": np.full((2, DIM), np.nan)}, ValueError, "NaN or infinity in row 0"),
        ({"embeddings": np.array([[0.0] * DIM, [1e39] * DIM])}, ValueError, "in row 1"),
        ({"embeddings": np.ones((2, DIM + 1))}, ValueError, rf"rows, {DIM}\)"),
        ({"embeddings": np.ones(DIM)}, ValueError, r"vector\[None\]"),
        ({"embeddings": np.array([["a"] * DIM] * 2)}, TypeError, "must be numbers"),
        ({"ids": ["a", "a"]}, ValueError, "'a' more than once"),
        ({"ids": ["a"]}, ValueError, "must have 2"),
        ({"ids": ["a", 1.5]}, TypeError, "strings or integers"),
        ({"ids": ["a", True]}, TypeError, "strings or integers"),
        ({"ids": ["a", 1]}, ValueError, "must be new"),
        ({"ids": "ab"}, TypeError, "a list"),
        ({"labels": [1]}, ValueError, "must have 2"),
        ({"labels": [0.5, 1]}, TypeError, "strings or integers"),
        ({"labels": np.eye(2)}, ValueError, "argmax"),
        ({"attributes": [{}]}, ValueError, "must have 2"),
        ({"attributes": {"age": [1, 2]}}, TypeError, "list of dicts"),
        ({"attributes": [{"age": 1}, {"age": "1"}]}, TypeError, "one kind"),
        ({"attributes": [{"age": "1"}, {"age": "1"}]}, TypeError, "kind 'number'"),
        ({"attributes": [{"age": None}, {}]}, ValueError, "age=None"),
        ({"attributes": [{"age": float("nan")}, {}]}, ValueError, "finite number"),
        ({"attributes": [{"age": 2**53 + 1}, {}]}, ValueError, "as strings"),
        ({"attributes": [{"age": [1]}, {}]}, ValueError, "finite number"),
        ({"attributes": [{3: 1}, {}]}, TypeError, "must be strings"),
        ({"attributes": [3, {}]}, TypeError, "hold dicts"),
    ],
)
def test_a_failed_addition_changes_nothing(filled, change, error, message):
    index = filled()
    before = {item.id: item.embedding.tolist() for item in index}
    good = {"embeddings": np.ones((2, DIM)), "labels": [1, 2], "ids": ["a", "b"]}
    with pytest.raises(error, match=message):
        index.add(**{**good, **change})
    assert {item.id: item.embedding.tolist() for item in index} == before
    assert "region" in index.search(np.ones((1, DIM)), 1, where={"region": "r1"})[0][0].attributes


def test_unknown_ids_change_nothing(filled, items):
    index = filled()
    for call, message in (
        (lambda: index.remove([1, "unknown"]), "no item with this id.*'unknown'"),
        (lambda: index.replace(np.ones((2, DIM)), [0, 0], [1, "unknown"]), "'unknown'"),
        (lambda: index.remove(labels=["ann", "unknown"]), "has this label.*'unknown'"),
        (lambda: index.remove([1, 1]), "1 more than once"),
        (lambda: index.remove(), "either `ids` or `labels`"),
        (lambda: index.get(["unknown"]), "'unknown'"),
        (lambda: index.verify(np.ones(DIM), "unknown", threshold=1), "'unknown'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(index) == len(items)


@pytest.mark.parametrize("metric", METRICS)
def test_verify(filled, items, rng, metric):
    index = filled(metric=metric)
    query = rng.normal(size=DIM)
    for item in items[:5]:
        expected = distance(query, item["x"], metric)
        answer = index.verify(query, item["id"], threshold=expected + 1e-3)
        assert answer.same is True and answer.distance == pytest.approx(expected, abs=1e-5)
        assert index.verify(query[None], item["id"], threshold=expected - 1e-3).same is False
    with pytest.raises(ValueError, match="one embedding"):
        index.verify(np.ones((2, DIM)), items[0]["id"], threshold=1)


def identify_by_hand(query, items, metric, rule, k):
    line = sorted((distance(query, item["x"], metric), str(item["id"])) for item in items)
    label_of = {str(item["id"]): item["label"] for item in items}
    if rule == "nearest":
        return label_of[line[0][1]], line[0][0]
    if rule == "vote":
        votes = [label_of[key] for _, key in line[:k]]
        most = max(votes.count(label) for label in votes)
        label = next(label for label in votes if votes.count(label) == most)
        return label, next(d for d, key in line if label_of[key] == label)
    best = None
    for label in {item["label"] for item in items}:
        rows = np.array([item["x"] for item in items if item["label"] == label], "float64")
        if metric == "cosine":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found = distance(query, rows.mean(axis=0), metric), label
        best = found if best is None or found[0] < best[0] else best
    return best[1], best[0]


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("rule", ["nearest", "vote", "centroid"])
def test_identify(filled, items, rng, metric, rule):
    index = filled(metric=metric)
    queries = rng.normal(size=(30, DIM))
    expected = [identify_by_hand(query, items, metric, rule, 4) for query in queries]
    middle = float(np.median([d for _, d in expected]))
    found = index.identify(queries, rule=rule, k=4, threshold=middle + 1e-9)
    assert {identity.label is None for identity in found} == {True, False}
    for identity, (label, d) in zip(found, expected):
        assert identity.distance == pytest.approx(d, rel=1e-4, abs=1e-5)
        if abs(d - middle) > 1e-4:
            assert identity.label == (label if d < middle else None)
    # Centroids are updated by removals, additions and replacements.
    removed = [item["id"] for item in items if item["label"] == "ann"][5:]
    index.remove(removed)
    where = {"region": "r1"}
    more = [
        {"id": f"more {n}", "x": rng.normal(size=DIM), "label": label, "attributes": where}
        for n, label in enumerate([99, "ann", "ann", 1])
    ]
    fill(index, more)
    more[1]["x"], more[1]["label"] = rng.normal(size=DIM), 1
    index.replace(more[1]["x"][None], [1], ["more 1"], [more[1]["attributes"]])
    left = [item for item in items if item["id"] not in removed] + more
    for where in ({}, {"region": "r1"}):
        rows = [item for item in left if fits(item["attributes"], where)]
        found = index.identify(queries, rule, 4, float("inf"), where)
        expected = [identify_by_hand(query, rows, metric, rule, 4) for query in queries]
        assert [identity.label for identity in found] == [label for label, _ in expected]


def test_a_missing_threshold_is_an_error(filled):
    index = filled()
    for call in (
        lambda: index.identify(np.ones((1, DIM))),
        lambda: index.verify(np.ones(DIM), 1),
        lambda: index.staged_search(np.ones((1, DIM)), [None]),
    ):
        with pytest.raises(ValueError, match="Run calibrate"):
            call()
    with pytest.raises(ValueError, match="NaN"):
        index.identify(np.ones((1, DIM)), threshold=float("nan"))
    with pytest.raises(TypeError, match="must be a number"):
        index.identify(np.ones((1, DIM)), threshold="near")
    with pytest.raises(ValueError, match="rule"):
        index.identify(np.ones((1, DIM)), rule="best", threshold=1)


def test_enrol_is_the_mean(make, rng):
    shots = rng.normal(size=(5, DIM)) * np.array([[1], [9], [1], [1], [1]])
    for metric in ("cosine", "euclidean"):
        index = make(metric=metric)
        key = index.enrol(shots, "ann", attributes={"shots": 5})
        rows = shots / np.linalg.norm(shots, axis=1, keepdims=True) if metric == "cosine" else shots
        mean = rows.mean(axis=0)
        expected = mean / np.linalg.norm(mean) if metric == "cosine" else mean
        item = index.get([key])[0]
        np.testing.assert_allclose(item.embedding, expected, rtol=1e-5)
        assert (item.label, item.attributes, len(index)) == ("ann", {"shots": 5}, 1)
    with pytest.raises(ValueError, match="at least one"):
        index.enrol(np.empty((0, DIM)), "bob")


def test_staged_search_stops_at_the_first_match(filled, items, rng):
    index = filled(metric="euclidean")
    queries = rng.normal(size=(40, DIM))
    stages = [{"region": "r2", "age": (0, 20)}, {"region": ["r2", "r3"]}, None]
    threshold = 2.4
    found = index.staged_search(queries, stages, k=3, threshold=threshold)
    lines = [neighbours(queries, items, "euclidean", where) for where in stages]
    used_stages = set()
    for row, answer in enumerate(found):
        assert isinstance(answer, StagedMatches)
        close = [[key for d, key in line[row][:3] if d <= threshold] for line in lines]
        stage = next((n for n, keys in enumerate(close) if keys), None)
        used_stages.add(stage)
        assert answer.stage == stage
        assert [m.id for m in answer.matches] == (close[stage] if stage is not None else [])
    assert used_stages == {0, 1, 2, None}, "the data should use every stage"
    with pytest.raises(TypeError, match="list of `where`"):
        index.staged_search(queries, {"region": "r2"}, threshold=1)


class TestCalibrate:
    def classes(self, rng, sizes, spread=0.35):
        centres = rng.normal(size=(len(sizes), DIM))
        labels = np.repeat(np.arange(len(sizes)), sizes)
        return centres[labels] + spread * rng.normal(size=(len(labels), DIM)), labels

    def test_verify_is_a_point_of_the_roc(self, make, rng):
        from sklearn.metrics import roc_curve

        x, y = self.classes(rng, [3, 8, 1, 12, 5, 2])
        queries, labels = self.classes(np.random.default_rng(0), [6, 3, 4, 2, 7, 5])
        index = make(metric="euclidean")
        index.add(x, y, ids=np.arange(len(x)))
        point = index.calibrate(queries, labels, false_accept_rate=0.05, rule="verify")
        distances = np.array([[distance(q, v, "euclidean") for v in x] for q in queries])
        same = labels[:, None] == y
        assert (point.num_genuine, point.num_impostors) == (same.sum(), (~same).sum())
        rates, hits, _ = roc_curve(same.ravel(), -distances.ravel(), drop_intermediate=False)
        best = np.flatnonzero(rates <= 0.05)[-1]
        assert point.false_accept_rate == pytest.approx(rates[best])
        assert point.false_reject_rate == pytest.approx(1 - hits[best])
        assert np.mean(distances[~same] <= point.threshold) == pytest.approx(rates[best])
        assert index.verify(x[0], 0) == (True, 0) and not index.verify(x[0], 4).same

    def test_own_items_are_not_pairs_with_themselves(self, make, rng):
        x, y = self.classes(rng, [3, 8, 1])
        index = make(metric="euclidean")
        index.add(x, y)
        point = index.calibrate(false_accept_rate=0.1, rule="verify")
        assert point.num_genuine == 3 * 2 + 8 * 7
        assert point.num_impostors == 3 * 9 + 8 * 4 + 1 * 11

    @pytest.mark.parametrize("rule", ["nearest", "vote", "centroid"])
    @pytest.mark.parametrize("own", [False, True])
    def test_impostors_are_queries_with_their_label_hidden(self, make, rng, rule, own):
        x, y = self.classes(rng, [4, 9, 2, 7, 3, 6], spread=0.9)
        keys = list(range(len(x)))
        if own:
            queries, labels = x, y
        else:
            queries, labels = self.classes(np.random.default_rng(0), [9, 8, 7, 9, 9, 8, 9], 0.9)
        index = make(metric="euclidean")
        index.add(x, y, ids=keys)
        items = [{"id": f"{k:03}", "x": v, "label": int(n)} for k, v, n in zip(keys, x, y)]
        impostors, genuine = [], []
        for row, (query, label) in enumerate(zip(queries, labels)):
            others = [item for item in items if item["label"] != label]
            impostors.append(identify_by_hand(query, others, "euclidean", rule, 3)[1])
            rest = [item for item in items if not own or int(item["id"]) != row]
            if label in {item["label"] for item in rest}:
                found = identify_by_hand(query, rest, "euclidean", rule, 3)
                genuine.append(found[1] if found[0] == label else np.inf)
        given = () if own else (queries, labels)
        point = index.calibrate(*given, false_accept_rate=0.2, rule=rule, k=3)
        allowed = int(0.2 * len(impostors))
        assert sum(d <= point.threshold for d in impostors) == allowed
        assert point.false_accept_rate == pytest.approx(allowed / len(impostors))
        assert point.false_reject_rate == pytest.approx(
            np.mean(np.array(genuine) > point.threshold)
        )
        assert (point.num_impostors, point.num_genuine) == (len(impostors), len(genuine))
        assert index.operating_points[rule] == point
        assert 0 < point.false_reject_rate < 1, "some queries should be rejected, and some accepted"
        # Without `threshold`, this rule uses the calibrated one; other rules have none.
        explicit = index.identify(queries, rule=rule, k=3, threshold=point.threshold)
        assert index.identify(queries, rule=rule, k=3) == explicit
        with pytest.raises(ValueError, match="rule='verify'"):
            index.verify(x[0], 0)

    def test_ties_stay_below_the_rate(self, make):
        index = make(dim=1, metric="euclidean")
        index.add([[0.0], [0.0], [9.0]], ["a", "a", "b"])
        queries = np.array([[1.0], [2.0], [2.0], [2.0], [3.0]])
        point = index.calibrate(queries, ["x"] * 4 + ["a"], 0.5, "nearest")
        # Queries "x" are at distances 1, 2, 2, 2 from "a", and the query "a" at 6 from "b".
        assert point.false_accept_rate == 0.2 and point.threshold == 1.5
        assert point.false_reject_rate == 1

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"false_accept_rate": 1e-6}, ValueError, "it needs 1000000"),
            ({"false_accept_rate": 0}, ValueError, "greater than 0"),
            ({"rule": "best"}, ValueError, "rule"),
            ({"labels": None}, ValueError, "both"),
            ({"labels": ["unknown"] * 30}, ValueError, "false reject rate needs"),
            ({"embeddings": np.empty((0, DIM)), "labels": []}, ValueError, "needs enrolled items"),
        ],
    )
    def test_calibration_errors(self, make, rng, change, error, message):
        x, y = self.classes(rng, [6] * 5)
        index = make()
        index.add(x, y)
        good = {"embeddings": x, "labels": y, "false_accept_rate": 0.5}
        with pytest.raises(error, match=message):
            index.calibrate(**{**good, **change})
        assert index.operating_points == {}


def test_faiss_and_milvus_are_imported_only_when_used():
    for path in Path(search.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [a.name for a in getattr(node, "names", [])] + [getattr(node, "module", "")]
            heavy = {"faiss", "pymilvus", "milvus_lite"}
            assert not {str(name).split(".")[0] for name in names} & heavy, path


@pytest.mark.touches_keras
def test_keras_tensors_and_half_precision(rng):
    x = rng.normal(size=(5, DIM)).astype("float32")
    index = Index(DIM)
    index.add(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(np.arange(5)))
    found = index.search(keras.ops.convert_to_tensor(x.astype("float16")), k=1)
    assert [matches[0].label for matches in found] == [0, 1, 2, 3, 4]
    assert all(type(matches[0].label) is int for matches in found)


def test_zero_and_huge_vectors():
    index = Index(3)
    index.add([[0.0, 0, 0], [1e30, 1e30, 0], [1e-30, 0, 0]], ["zero", "huge", "tiny"])
    found = index.search([[1.0, 1, 0]], k=3)[0]
    assert [m.label for m in found] == ["huge", "tiny", "zero"]
    assert [m.distance for m in found] == pytest.approx([0, 1 - 0.5**0.5, 1], abs=1e-6)
    for queries in (1, 30):
        index = Index(2, metric="squared_euclidean")
        index.add([[1e30, 0.0], [3e30, 0.0], [0.0, 0.0]], ["a", "b", "zero"])
        for matches in index.search([[1e30, 1.0]] * queries, k=2):
            assert [m.label for m in matches] == ["a", "zero"]


@pytest.mark.parametrize("threshold", [1, 10**6])
def test_near_ties_far_from_zero_are_ranked_exactly(rng, monkeypatch, threshold):
    """A float32 matrix product, which FAISS uses for large batches, cannot order these."""
    import faiss

    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", threshold)
    items = (1000 + rng.normal(size=(200, 4)) * 0.05).astype("float32")
    queries = (1000 + rng.normal(size=(40, 4)) * 0.05).astype("float32")
    index = Index(4, metric="euclidean")
    index.add(items, [0] * 200)
    expected = np.linalg.norm(queries[:, None].astype("f8") - items[None], axis=2)
    for k in (1, 5, 200):
        for line, row in zip(index.search(queries, k=k), expected):
            assert [m.id for m in line] == np.argsort(row)[:k].tolist()
            np.testing.assert_allclose([m.distance for m in line], np.sort(row)[:k], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs `dim`"),
        ({"dim": 0}, ValueError, "at least 1"),
        ({"dim": 4, "metric": "l2"}, ValueError, "metric='l2'"),
        ({"dim": 4, "store": "redis"}, ValueError, "store='redis'"),
        ({"dim": 4, "kind": "annoy"}, ValueError, "kind='annoy'"),
        ({"dim": 4, "uri": "a.db"}, ValueError, 'store="milvus"'),
        ({"dim": 4, "settings": {"M": 3}}, ValueError, "M=3"),
        ({"dim": 4, "kind": "hnsw", "settings": {"M": 0}}, ValueError, "at least 1"),
        ({"dim": 4, "kind": "short", "settings": {"dims": 5}}, ValueError, "at most dim=4"),
        ({"dim": 4, "kind": "pq", "settings": {"m": 3}}, ValueError, "divide dim=4"),
        ({"dim": 4, "kind": "pq", "settings": {"nbits": 3}}, ValueError, "from 4 to 12"),
        *(
            ({"dim": 8, "kind": kind, "settings": settings}, ValueError, "`train_at` must be at l")
            for kind, settings in (
                ("ivf", {"nlist": 500, "train_at": 400}),
                ("pq", {"train_at": 100}),
                ("ivf", {"nlist": 20000}),
            )
        ),
    ],
)
def test_invalid_settings_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        Index(**arguments)


RAW = {
    "flat images": np.ones((3, 30), "float32"),
    "images": np.ones((3, 4, 4, 3), "uint8"),
    "texts": ["a red car", "a cat", "wine"],
    "a dict of inputs": {"token_ids": np.ones((3, 7), "int32")},
}
CALLS = {
    "add": lambda index, x: index.add(x, [0, 1, 2]),
    "replace": lambda index, x: index.replace(x, [0, 1, 2], ["a", "b", "c"]),
    "enrol": lambda index, x: index.enrol(x, 3),
    "search": lambda index, x: index.search(x),
    "staged_search": lambda index, x: index.staged_search(x, [None], threshold=1.0),
    "verify": lambda index, x: index.verify(x if isinstance(x, dict) else x[0], "a", threshold=1.0),
    "identify": lambda index, x: index.identify(x, threshold=1.0),
    "calibrate": lambda index, x: index.calibrate(x, [0, 1, 2], false_accept_rate=0.5),
}


@pytest.mark.parametrize("method", CALLS)
def test_raw_inputs_are_embedded_first(method):
    """The error proposes a line of code that runs."""
    # The default false accept rate needs 1,000 queries.
    names = {"labels": list(range(1000)), "label": 3, "id": "0", "stages": [None]}
    names |= {"ids": [str(label) for label in names["labels"]]}
    images = np.random.default_rng(0).normal(size=(1000, 30)).astype("float32")
    encoder = keras.Sequential([keras.Input((30,)), keras.layers.Dense(DIM)])
    index = Index(encoder=encoder)
    index.add(encoder.predict(images, verbose=0), names["labels"], names["ids"])
    for rule in ("nearest", "verify"):
        index.calibrate(encoder.predict(images, verbose=0), names["labels"], 0.5, rule)
    for raw in RAW.values():
        with pytest.raises((TypeError, ValueError), match="Embed raw inputs first: `") as error:
            CALLS[method](index, raw)
    line = re.search("`(index.*)`", str(error.value))[1]
    assert line.startswith(f"index.{method}(encoder.predict(")
    exec(line, {**names, "index": index, "encoder": encoder, "images": images, "image": images[0]})
