"""Tables of file paths and labels: CSV, TSV and Parquet."""

import csv
import os

import numpy as np

from keras_metric._validation import as_path, is_missing

_ENDINGS = (".csv", ".parquet", ".tsv")


def path_table(path, path_column="path", label_column="label", root=None):
    r"""Return `(paths, labels)` of a table with a file path and a label in each row.

    Only these two columns are read: pass the paths to `BalancedBatches` with
    `load=ImageLoader(...)`, which reads the images batch by batch.

    Args:
        path: a file whose name ends in `.csv` (UTF-8, with a first line of column names), `.tsv`
            or `.parquet`, which needs pyarrow.
        path_column: name of the column of the paths. Default "path".
        label_column: name of the column of the labels. Default "label".
        root: folder that the paths are relative to. Default None: the folder of the table.
            Absolute paths are not changed.

    Returns:
        `paths`, a list of strings; `labels`, a NumPy array `(rows,)`: integers if all labels of
        the file are integers, else strings.

    Raises:
        ValueError: the table is missing or damaged; has another extension, no rows, or a row
            without a path or a label; or has a column not once.
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
        raise ValueError(f"A table must end in one of {list(_ENDINGS)}. Received: {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"`path` must be a table. Received: no file {str(path)!r}")
    names = (path_column, label_column)
    read = _read_parquet if ending == ".parquet" else _read_text
    paths, labels = columns = read(path, names)
    if not len(paths):
        raise ValueError(f"The table must have rows. Received: none in {str(path)!r}")
    for name, values in zip(names, columns):
        empty = next((i for i, value in enumerate(values) if _is_empty(value)), None)
        if empty is not None:
            raise ValueError(
                "Every row must have a path and a label. Received: row "
                f"{empty + 1} of {str(path)!r} without {name!r}"
            )
    other = next((i for i, one in enumerate(paths) if not isinstance(one, str)), None)
    if other is not None:
        raise ValueError(
            f"The column {path_column!r} must hold paths, strings. Received: {paths[other]!r} in "
            f"row {other + 1} of {str(path)!r}"
        )
    root = str(path.parent if root is None else root)
    return [os.path.join(root, one) for one in paths], _as_labels(labels, path)


def _is_empty(value):
    return value is None or value == "" or (isinstance(value, float) and is_missing(value))


def _read_text(path, names):
    paths, labels, unique = [], [], {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = _rows(csv.reader(file, delimiter=delimiter), path)
        header = next(rows, [])
        _check_columns(header, names, path)
        path_index, label_index = map(header.index, names)
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"Every line of {str(path)!r} must have {len(header)} columns. Received: "
                    f"{len(row)} in line {number}."
                )
            paths.append(row[path_index])
            # Labels repeat: store one object for each.
            labels.append(unique.setdefault(row[label_index], row[label_index]))
    return paths, labels


def _rows(rows, path):
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} must be a text file in UTF-8. Received: {error}") from None
    except csv.Error as error:
        raise ValueError(f"Line {rows.line_num} of {str(path)!r} must be CSV: {error}") from error


def _read_parquet(path, names):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'path_table needs pyarrow for Parquet files: pip install "keras_metric[parquet]". Or '
            "write the table as CSV."
        ) from error
    try:
        _check_columns(pyarrow.parquet.read_schema(path).names, names, path)
        table = pyarrow.parquet.read_table(path, columns=list(dict.fromkeys(names)))
        return [table.column(name).to_pylist() for name in names]
    # pyarrow raises several types for a damaged file.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} must be a Parquet file. Received: {error}") from error


def _check_columns(header, names, path):
    missing = [name for name in names if name not in header]
    if missing:
        raise ValueError(
            f"{str(path)!r} must have the columns {list(names)}. Received: {list(header)}. Pass "
            "path_column= and label_column=."
        )
    for name in names:
        if header.count(name) > 1:
            raise ValueError(
                f"{str(path)!r} must have each column once. Received: {name!r} "
                f"{header.count(name)} times. Rename one of them."
            )


def _as_labels(labels, path):
    if isinstance(labels[0], (list, dict)):
        raise ValueError(f"A row must have one label. Received: {labels[0]!r} in {str(path)!r}")
    if not isinstance(labels[0], str):
        array = np.asarray(labels)
        # Integers outside the range of 64 bits become floats, which merges some of them.
        rounded = isinstance(labels[0], int) and array.dtype.kind == "f"
        return np.array(labels, dtype=object) if rounded else array
    try:
        found = np.array([int(label) for label in labels])
    except ValueError:
        return np.array(labels)
    # "007" is a name, and integers outside the range of 64 bits are not stored as integers.
    is_exact = found.dtype.kind == "i" and found.astype(str).tolist() == labels
    return found if is_exact else np.array(labels)
