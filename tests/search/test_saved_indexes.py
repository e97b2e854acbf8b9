"""Indexes saved by keras_metric 0.1.0 load, search and change as before."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from expected_results import content

from keras_metric.search import Index

SAVED = Path(__file__).resolve().parents[1] / "saved_by_0.1.0"
EXPECTED = json.loads((SAVED / "search.json").read_text())
# The settings that 0.1.0 saved under other names, with the values of the saved indexes.
SETTINGS = {
    "hnsw": {"M", "ef_construction", "ef_search"},
    "ivf": {"nlist", "nprobe"},
    "pq": {"m", "nbits"},
    "ivf-pq": {"nlist", "nprobe", "m", "nbits"},
}


def ids(index):
    return [[match.id for match in matches] for matches in index.search(EXPECTED["queries"], k=5)]


@pytest.mark.parametrize("kind", EXPECTED["results"])
def test_an_index_of_0_1_0_is_searched_and_changed(kind):
    shutil.copytree(SAVED / f"index_{kind}", "index")
    index = Index.load("index")
    assert ids(index) == EXPECTED["results"][kind]
    assert index.kind == kind and set(index.settings) >= SETTINGS.get(kind, set())
    point = index.operating_points["nearest"]
    assert (point.target, point.num_impostors, point.false_accept_rate) == (0.1, 60, 0.1)
    assert index.identify(EXPECTED["queries"][:1])[0].distance > 0
    saved = json.loads(Path("index/manifest.json").read_text())["body"]
    if kind == "flat":
        # Its journal has the removal of one item.
        assert saved["journal"] is not None and len(index) == saved["items"] - 1
    else:
        assert len(index) == saved["items"]
        assert list(saved["settings"].values()) == list(index.settings.values())

    vectors = np.array(EXPECTED["queries"])
    added = index.add(vectors, ["new"] * 5, ["a", "b", "c", "d", "e"], [{"age": 3}] * 5)
    index.remove(["e", index.ids()[0]])
    assert [line[0] for line in ids(index)[:4]] == added[:4]
    index.save("index")
    again = Index.load("index")
    assert content(again) == content(index) and ids(again) == ids(index)
    assert again.settings == index.settings and again.operating_points == index.operating_points


@pytest.mark.parametrize("kind", EXPECTED["results"])
def test_an_index_of_0_1_0_is_kept(kind):
    shutil.copytree(SAVED / f"index_{kind}", "index")
    index = Index.load("index")
    index.keep("index")
    index.add(np.array(EXPECTED["queries"]), ["new"] * 5, ["a", "b", "c", "d", "e"])
    index.remove(["a"])
    index.close()
    again = Index.load("index")
    assert content(again) == content(index) and sorted(again.ids("new")) == list("bcde")
