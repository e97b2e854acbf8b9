"""split_by_class and check_no_leak."""

import numpy as np
import pytest

from keras_metric.data import check_no_leak, split_by_class


@pytest.mark.parametrize("trial", range(8))
def test_parts_are_disjoint_and_complete(trial):
    rng = np.random.default_rng(trial)
    y = rng.choice([f"id{i}" for i in range(20)], size=200)
    parts = split_by_class(y, test_size=0.3, validation_size=4, seed=trial)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(200))
    classes = [set(y[part]) for part in parts]
    assert [len(c) for c in classes] == [10, 4, 6]
    assert not (classes[0] & classes[1] or classes[0] & classes[2] or classes[1] & classes[2])
    assert all((np.diff(part) > 0).all() for part in parts)
    check_no_leak(*parts, y=y)


def test_seeds_and_sizes():
    y = np.repeat(np.arange(10) + 2**50, 3)
    one, same, other = (split_by_class(y, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one[1], same[1]) and not np.array_equal(one[1], other[1])
    assert len(np.unique(y[one[1]])) == 5
    assert len(np.unique(y[split_by_class(y, test_size=1)[1]])) == 1
    assert len(np.unique(y[split_by_class(y, test_size=0.01)[1]])) == 1


@pytest.mark.parametrize("trial", range(8))
def test_groups_stay_together(trial):
    rng = np.random.default_rng(trial)
    y = rng.integers(0, 40, 150)
    groups = np.array([f"g{i}" for i in np.where(rng.random(150) < 0.2, y // 4, 100 + y)])
    train, test = split_by_class(y, test_size=0.4, groups=groups, seed=trial)
    assert not set(y[train]) & set(y[test]) and not set(groups[train]) & set(groups[test])
    assert 0 < len(set(y[test])) <= round(0.4 * len(set(y)))
    check_no_leak(train, test, y=y, groups=groups)


def test_a_long_chain_of_links_is_one_set():
    n = 300
    y = np.repeat(np.arange(n), 2)[1:-1]  # 0 1 1 2 2 ... : group i holds classes i and i + 1
    groups = np.repeat(np.arange(n - 1), 2)
    order = np.random.default_rng(0).permutation(len(y))
    with pytest.raises(ValueError, match="in 1 connected sets of up to 300"):
        split_by_class(y[order], groups=groups[order])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_size": 1.0}, "fraction below 1"),
        ({"test_size": 0}, "at least 1"),
        ({"test_size": 4}, "must keep at least one class"),
        ({"test_size": 2, "validation_size": 2}, "must keep at least one class"),
        ({"groups": [1, 2]}, r"len\(groups\)=2, len\(y\)=8"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        split_by_class(np.repeat(np.arange(4), 2), **changes)


def test_leaks_are_found():
    y = np.array(["a", "a", "b", "b", "c"])
    groups = np.array([1, 1, 2, 2, 1])
    x = np.arange(15.0).reshape(5, 3)
    check_no_leak([0, 1], [2, 3], [4], y=y, x=x)
    with pytest.raises(ValueError, match="have no row in common. Received: rows 1 and 1"):
        check_no_leak([0, 1], [1, 2])
    with pytest.raises(ValueError, match="no class in common. Received: class 'b' in rows 2"):
        check_no_leak([0, 2], [3, 4], y=y)
    with pytest.raises(ValueError, match="0 and 2 must have no group in common.*1 in rows 0 and 4"):
        check_no_leak([0, 1], [2, 3], [4], groups=groups)
    x[4] = x[0]
    with pytest.raises(ValueError, match="no copy of a sample in common. Received: rows 0 and 4"):
        check_no_leak([0, 1], [2, 3, 4], y=y, x=x)
    check_no_leak([0, 1], [2, 3, 4], y=y, x={"image": x, "row": np.arange(5)})
    check_no_leak([0, 4], [1, 2], x=x)  # Copies inside a part are no leak.
    check_no_leak([], [0], y=y, x=x)
    # Copies are equal in every input of the model: "ab" and "c" are none of "a" and "bc".
    check_no_leak([0], [1], x=[np.array(["ab", "a"]), np.array(["c", "bc"])])
    # Rows of objects are compared by their values, not by where these are in memory.
    objects = np.array([["key", 2**70], ["".join(["k", "ey"]), 2**70]], dtype=object)
    for copies in (objects, ["".join(["k", "ey"]), "key"]):
        with pytest.raises(ValueError, match="copy of a sample in common.*rows 0 and 1"):
            check_no_leak([0], [1], x=copies)
    with pytest.raises(ValueError, match="`x` must have rows. Received: x=3"):
        check_no_leak([0], [1], x=3)
    with pytest.raises(ValueError, match="at least two parts"):
        check_no_leak([0, 1])
    with pytest.raises(TypeError, match="np.flatnonzero"):
        check_no_leak(y == "a", y == "b")
