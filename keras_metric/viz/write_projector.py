"""Files for TensorBoard's embedding projector."""

import re

import numpy as np
from PIL import Image

from keras_metric._text import visible
from keras_metric._validation import as_array, as_path, check_count
from keras_metric.viz._pixels import as_pixels, shrink
from keras_metric.viz._projector_config import replace_file, update_config
from keras_metric.viz._style import as_labels, as_matrix, readable, sample

PROJECTOR_NAME = r"[\w.-]+"  # ASCII
_LARGEST_SPRITE = 8192  # pixels of a side; the projector refuses more
_LARGEST_THUMBNAIL = 64


def write_projector(
    log_dir,
    embeddings,
    labels=None,
    images=None,
    metadata=None,
    name="embeddings",
    max_points=10_000,
    class_names=None,
    seed=0,
):
    r"""Write embeddings for TensorBoard's projector, with labels and thumbnails.

    Then `tensorboard --logdir LOG_DIR` shows them under "Projector": points that can be turned,
    searched and coloured by label, and projected by PCA, t-SNE or UMAP. Needs neither
    TensorFlow nor TensorBoard to write. Several names in one folder stand side by side in
    TensorBoard's menu; the same name again replaces the earlier one (a running TensorBoard has
    cached it: restart it).

    Files, NAME being `name`: `NAME_tensor.bytes` (float32, little-endian, row by row) or, for the
    few tensors whose bytes TensorBoard would take for text, `NAME_tensor.tsv`; with labels or
    metadata `NAME_metadata.tsv`; with images `NAME_sprite.png`; and `projector_config.pbtxt`,
    which lists all names. Each is replaced in one step, so a reader never sees half a file.

    Args:
        log_dir: Folder, made if missing.
        embeddings: `(items, dim)`.
        labels: Optional `(items,)`, of any kind; the column "label".
        images: Optional images of the items, see `plot_neighbors`. They are shrunk to at
            most 64 pixels a side, and further where the sheet of all of them would pass
            8,192 pixels.
        metadata: Optional dict from column names to `(items,)` values, beside the label. Control
            characters are written as escapes such as `\t`; "=" and the like at the beginning of a
            value are kept, and a spreadsheet program may take them for formulas.
        name: Letters, digits, `.`, `_` and `-`.
        max_points: Items to keep; the projector gets slow beyond 10,000. Of more items, so
            many are drawn evenly with `seed`, in their order, the same at every call.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for that draw.

    Returns:
        The path of `projector_config.pbtxt`.

    Raises:
        ValueError: for a name with other characters, or columns that are not as long as the
            embeddings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_metric.viz import write_projector
        >>> folder = tempfile.mkdtemp()
        >>> config = write_projector(folder, np.eye(4), ["ant", "bee", "bee", "cat"])
        >>> print((config.parent / "embeddings_metadata.tsv").read_text(), end="")
        ant
        bee
        bee
        cat
    """
    check_count("max_points", max_points)
    log_dir = as_path("log_dir", log_dir)
    if not isinstance(name, str) or not re.fullmatch(PROJECTOR_NAME, name, re.ASCII):
        raise ValueError(
            f"`name` must be letters, digits, '.', '_' and '-'. Received: name={name!r}"
        )
    embeddings = as_matrix("embeddings", embeddings)
    num_items = len(embeddings)
    columns = {}
    if labels is not None:
        labels = as_labels("labels", labels, num_items)
        columns["label"] = [readable(label, class_names) for label in labels]
    if metadata is not None and not hasattr(metadata, "items"):
        raise TypeError(
            "`metadata` must be a dict from column names to values. Received: metadata of type "
            f"{type(metadata).__name__}"
        )
    for column, values in (metadata or {}).items():
        if str(column) in columns:
            raise ValueError(
                f"`metadata` must have names of its own for its columns. Received: {column!r} "
                "twice, or beside `labels`, which is the column 'label'."
            )
        columns[str(column)] = as_labels(f"metadata[{column!r}]", values, num_items)
    if images is not None and np.ndim(as_array("images", images)) == 0:
        raise ValueError(f"`images` must hold images. Received: images={images!r}")
    if images is not None and len(images) != num_items:
        raise ValueError(
            f"`images` must hold one image for each of {num_items} embeddings. "
            f"Received: {len(images)}"
        )
    kept = sample(num_items, max_points, seed)
    with np.errstate(over="ignore"):
        tensor = embeddings[kept].astype("<f4")
    if not np.isfinite(tensor).all():
        raise ValueError(
            "`embeddings` must fit into float32, which the projector reads. Received: values up to "
            f"{np.abs(embeddings).max():.3g}"
        )
    # Only what is kept is converted: the rest may not fit memory as pictures. And before anything
    # is written: a failure leaves the folder as it is.
    pixels = None if images is None else as_pixels(images, rows=kept)
    log_dir.mkdir(parents=True, exist_ok=True)
    entry = {"tensor_name": name, "tensor_shape": tensor.shape}
    entry["tensor_path"] = _write_tensor(log_dir, name, tensor)
    if columns:
        entry["metadata_path"] = f"{name}_metadata.tsv"
        replace_file(log_dir / entry["metadata_path"], _table(columns, kept).encode())
    if pixels is not None:
        entry["sprite_path"] = f"{name}_sprite.png"
        entry["sprite_size"] = _write_sprite(log_dir / entry["sprite_path"], pixels)
    return update_config(log_dir, entry)


def _write_tensor(log_dir, name, tensor):
    data = tensor.tobytes()
    # TensorBoard tries a file as text first, line by line, and takes it for raw numbers at the
    # first byte that is no UTF-8. Zeros, for one, are valid text.
    first = next(filter(None, data.split(b"\n")), b"")
    path, stale = f"{name}_tensor.bytes", f"{name}_tensor.tsv"
    try:
        first.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        path, stale = stale, path
        rows = ("\t".join(f"{value:.9g}" for value in row) for row in tensor)
        data = "".join(f"{row}\n" for row in rows).encode()
    replace_file(log_dir / path, data)
    (log_dir / stale).unlink(missing_ok=True)
    return path


def _table(columns, kept):
    escaped = [[_escape(values[item]) for item in kept] for values in columns.values()]
    # The projector takes the first row for a header if it has a tab, and for data if not.
    header = [[_escape(column) for column in columns]] if len(columns) > 1 else []
    return "".join("\t".join(row) + "\n" for row in [*header, *zip(*escaped)])


def _escape(value):
    text = visible(value)
    # The projector drops blank lines, and every label after one would move up.
    return text if text.strip() else "(empty)"


def _write_sprite(path, pixels):
    side = int(np.ceil(np.sqrt(len(pixels))))
    height, width = pixels.shape[1:3]
    room = min(_LARGEST_THUMBNAIL, _LARGEST_SPRITE // side)
    factor = min(1.0, room / max(height, width))
    height, width = max(1, int(factor * height)), max(1, int(factor * width))
    small = shrink(pixels, height, width)
    sheet = np.zeros((side * side, *small.shape[1:]), "uint8")
    sheet[: len(small)] = small
    sheet = sheet.reshape(side, side, height, width, -1).swapaxes(1, 2)
    sheet = sheet.reshape(side * height, side * width, -1)
    picture = Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
    replace_file(path, lambda file: picture.save(file, format="png"))
    return width, height
