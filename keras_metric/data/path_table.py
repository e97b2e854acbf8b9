"""Tables of files and their labels."""

import csv
import os

import numpy as np

from keras_metric._validation import as_path, is_missing

_ENDINGS = (".csv", ".parquet", ".tsv")


def path_table(path, path_column="path", label_column="label", root=None):
    r"""Return `(paths, labels)` of a table that names a file and its label in each row.

    Nothing but the two columns is read: give the paths to `BalancedBatches` with
    `load=ImageLoader(...)`, and the images are read batch by batch.

    Args:
        path: a file whose name ends in `.csv` (UTF-8, with a first line of column names), `.tsv`
            or `.parquet`, which needs pyarrow.
        path_column: name of the column that holds the paths. Default "path".
        label_column: name of the column that holds the labels. Default "label".
        root: folder that the paths start from. Default None: the folder of the table. Paths that
            begin with "/" stay as they are.

    Returns:
        `paths`, a list of strings; `labels`, a NumPy array `(rows,)`: integers where all labels of
        the file are, else strings.

    Raises:
        ValueError: the table is missing, damaged, has another ending, no such column or two, no
            rows, or a row without a path or a label.
        ImportError: a Parquet file, and pyarrow is not installed.

    Example:
    >>> import pathlib, tempfile
    >>> from keras_metric.data import path_table
    >>> table = pathlib.Path(tempfile.mkdtemp()) / "birds.csv"
    >>> count = table.write_text("path,label,camera\na/1.jpg,owl,3\nb/2.jpg,hen,1\n")
    >>> paths, labels = path_table(table, root="/data")
    >>> paths, labels
    (['/data/a/1.jpg', '/data/b/2.jpg'], array(['owl', 'hen'], dtype='<U3'))
    """
    path = as_path("path", path)
    if root is not None:
        as_path("root", root)
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(
            f"The name of a table must end in one of {list(_ENDINGS)}. Received: {str(path)!r}"
        )
    if not path.is_file():
        raise ValueError(f"`path` must be a table. Received: no file {str(path)!r}")
    wanted = (path_column, label_column)
    columns = _parquet(path, wanted) if ending == ".parquet" else _text(path, ending, wanted)
    paths, labels = columns
    if not len(paths):
        raise ValueError(f"The table must have rows. Received: none in {str(path)!r}")
    for name, values in zip(wanted, columns):
        empty = next((i for i, value in enumerate(values) if _is_empty(value)), None)
        if empty is not None:
            raise ValueError(
                "Every row must have a path and a label. Received: row "
                f"{empty + 1} of {str(path)!r} without {name!r}"
            )
    odd = next((i for i, one in enumerate(paths) if not isinstance(one, str)), None)
    if odd is not None:
        raise ValueError(
            f"The column {path_column!r} must hold paths, strings. Received: {paths[odd]!r} in row "
            f"{odd + 1} of {str(path)!r}"
        )
    root = str(path.parent if root is None else root)
    return [os.path.join(root, one) for one in paths], _as_labels(labels, path)


def _is_empty(value):
    return value is None or value == "" or (isinstance(value, float) and is_missing(value))


def _text(path, ending, wanted):
    paths, labels = [], []
    known = {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = _rows(csv.reader(file, delimiter="\t" if ending == ".tsv" else ","), path)
        header = next(rows, [])
        _check_columns(header, wanted, path)
        places = [header.index(name) for name in wanted]
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"Every line of {str(path)!r} must have {len(header)} columns. Received: "
                    f"{len(row)} in line {number}."
                )
            paths.append(row[places[0]])
            # Labels come again and again: one object for each.
            label = row[places[1]]
            labels.append(known.setdefault(label, label))
    return paths, labels


def _rows(rows, path):
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} must be a text file in UTF-8. Received: {error}") from None
    except csv.Error as error:
        raise ValueError(f"Line {rows.line_num} of {str(path)!r} must be CSV: {error}") from error


def _parquet(path, wanted):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'path_table needs pyarrow for Parquet files: pip install "keras_metric[parquet]". Or '
            "write the table as CSV."
        ) from error
    try:
        names = pyarrow.parquet.read_schema(path).names
        _check_columns(names, wanted, path)
        table = pyarrow.parquet.read_table(path, columns=list(dict.fromkeys(wanted)))
        return [table.column(name).to_pylist() for name in wanted]
    # pyarrow raises several errors for a damaged file; some of them are not a ValueError.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} must be a Parquet file. Received: {error}") from error


def _check_columns(header, wanted, path):
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ValueError(
            f"{str(path)!r} must have the columns {list(wanted)}. Received: {list(header)}. Pass "
            "path_column= and label_column=."
        )
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        raise ValueError(
            f"{str(path)!r} must have each column once. Received: {twice[0]!r} "
            f"{header.count(twice[0])} times. Rename one of them."
        )


def _as_labels(labels, path):
    if isinstance(labels[0], (list, dict)):
        raise ValueError(
            f"A row must have one label. Received: {labels[0]!r} in row 1 of {str(path)!r}"
        )
    if not isinstance(labels[0], str):
        array = np.asarray(labels)
        # Integers on both sides of 64 bits would become floats, and several of them one.
        whole = isinstance(labels[0], int) and array.dtype.kind == "f"
        return np.array(labels, dtype=object) if whole else array
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        return np.array(labels)
    # "007" is a name and no number.
    whole = all(str(number) == label for number, label in zip(numbers, labels))
    found = np.array(numbers) if whole else None
    # Beyond 64 bits they would become objects or floats.
    return found if whole and found.dtype.kind == "i" else np.array(labels)
