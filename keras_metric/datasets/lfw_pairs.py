"""Pairs of Labeled Faces in the Wild, for verification."""

from typing import NamedTuple

import numpy as np

from keras_metric._validation import as_path
from keras_metric.datasets.image_set import as_integer, image_set, read_lines


class ImagePairs(NamedTuple):
    """Pairs of images: `first` and `second`, lists of paths; `same`, booleans; `folds`, int32."""

    first: list
    second: list
    same: np.ndarray
    folds: np.ndarray


def read_lfw_pairs(pairs_file, root):
    """Read a list of pairs in the format of Labeled Faces in the Wild.

    `pairs.txt` has ten folds of 300 pairs of the same person and 300 of different people. The
    protocol is

    ```text
    pairs = read_lfw_pairs("pairs.txt", "lfw")
    distances = ...  # of pairs.first[i] and pairs.second[i]
    verification_metrics(distances, pairs.same, folds=pairs.folds)["fold_accuracy"]
    ```

    `pairsDevTrain.txt` and `pairsDevTest.txt`, with one fold, are for model selection.

    Args:
        pairs_file: path of the list. Its first line is the number of folds and the number of pairs
            of each kind in a fold, or only the latter. Then each fold has lines `name 1 4` for two
            images of a person, and as many lines `name 1 other 2`.
        root: folder with one folder of images `name/name_0001.jpg` for each person.

    Returns:
        A tuple of `first` and `second`, lists of paths; `same`, booleans `(pairs,)`; and `folds`,
        int32 `(pairs,)`, from 0.

    Raises:
        ValueError: a line of another form, another number of lines, or a missing image.

    Example:
    >>> import pathlib, tempfile
    >>> from keras_metric.datasets import read_lfw_pairs
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("Ann_1", "Ann_2", "Bob_1"):
    ...     (root / name[:3]).mkdir(exist_ok=True)
    ...     _ = (root / name[:3] / f"{name[:3]}_000{name[4]}.jpg").write_bytes(b"")
    >>> lines = ["1", "Ann 1 2", "Ann 2 Bob 1"]
    >>> _ = (root / "pairs.txt").write_text(chr(10).join(lines))
    >>> pairs = read_lfw_pairs(root / "pairs.txt", root)
    >>> pairs.same.tolist(), pathlib.Path(pairs.second[1]).name
    ([True, False], 'Bob_0001.jpg')

    Reference:
        Huang, Ramesh, Berg, Learned-Miller (2007), Labeled Faces in the Wild.
    """
    path = as_path("pairs_file", pairs_file)
    if not path.is_file():
        raise ValueError(f"`pairs_file` must be a file. Received: pairs_file={str(pairs_file)!r}")
    (_, head), *lines = read_lines(path) or [(1, [])]
    if len(head) not in (1, 2) or not all(word.isdecimal() and int(word) for word in head):
        raise ValueError(
            f"The first line of {str(path)!r} must be the number of folds and the number of pairs "
            f"of each kind in a fold, or only the latter. Received: {' '.join(head)!r}"
        )
    num_folds, each = (int(number) for number in ([1, *head] if len(head) == 1 else head))
    count = 2 * num_folds * each
    if len(lines) != count:
        raise ValueError(f"{str(path)!r} must have {count} pairs. Received: {len(lines)} lines.")
    first, second, same = [], [], []
    for index, (number, words) in enumerate(lines):
        is_same = index % (2 * each) < each
        if len(words) != (3 if is_same else 4):
            raise ValueError(
                f"A pair of {'one person has 3' if is_same else 'two people has 4'} words. "
                f"Received: {words!r} as line {number} of {str(path)!r}."
            )
        name, image, *rest = words
        other, other_image = [name, *rest] if is_same else rest
        first.append(f"{name}/{name}_{as_integer(image, path, number):04}.jpg")
        second.append(f"{other}/{other}_{as_integer(other_image, path, number):04}.jpg")
        same.append(is_same)
    root = as_path("root", root)
    parts = (image_set(root, names, np.zeros(len(names))).paths for names in (first, second))
    return ImagePairs(
        *parts, np.array(same), np.repeat(np.arange(num_folds, dtype="int32"), 2 * each)
    )
