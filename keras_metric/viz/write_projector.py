"""Files for TensorBoard's embedding projector."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from keras_metric._text import visible
from keras_metric._validation import as_array, as_path, check_count
from keras_metric.viz._pixels import as_pixels, resize_to_fit
from keras_metric.viz._plot_inputs import as_labels, as_matrix, check_length, sample
from keras_metric.viz._plot_style import readable

PROJECTOR_NAME = r"[\w.-]+"  # ASCII
LARGEST_THUMBNAIL = 64  # pixels of a side
_LARGEST_SPRITE = 8192  # pixels of a side; the projector rejects more
_CONFIG = "projector_config.pbtxt"


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

    `tensorboard --logdir LOG_DIR` shows them under "Projector": points that can be rotated,
    searched and coloured by label, and projected by PCA, t-SNE or UMAP. Writing needs the package
    `tensorboard`, not TensorFlow. TensorBoard's menu lists all names of a folder; writing a name
    again replaces it (restart a running TensorBoard, which has cached it).

    Files, with `name` as NAME: `NAME_tensor.bytes` (float32, little-endian, row by row) or, for the
    few tensors whose bytes TensorBoard would read as text, `NAME_tensor.tsv`; with labels or
    metadata `NAME_metadata.tsv`; with images `NAME_sprite.png`; and `projector_config.pbtxt`,
    which lists all names. Each file is replaced atomically.

    Args:
        log_dir: Folder; created if missing.
        embeddings: `(items, dim)`.
        labels: Optional `(items,)`, of any kind; the column "label".
        images: Optional images of the items, see `plot_neighbors`. They are shrunk to at most 64
            pixels a side, and further if the sprite image of all would exceed 8,192 pixels.
        metadata: Optional dict from column names to `(items,)` values, columns next to the label.
            Control characters are written as escapes such as `\t`. Values may start with "=", which
            spreadsheet programs read as formulas.
        name: Letters, digits, `.`, `_` and `-`.
        max_points: Number of items to write; the projector is slow beyond 10,000. More are sampled
            uniformly with `seed`, in their order, the same at every call.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling.

    Returns:
        The path of `projector_config.pbtxt`.

    Raises:
        ImportError: `tensorboard` is not installed.
        ValueError: A name with other characters, or columns that are not as long as the embeddings.

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
                f"`metadata` must have unique column names. Received: {column!r} two times, or "
                "together with `labels`, which is the column 'label'."
            )
        columns[str(column)] = as_labels(f"metadata[{column!r}]", values, num_items)
    if images is not None:
        arrays = np.atleast_1d(as_array("images", images))
        check_length("images", arrays, num_items, "embeddings")
    kept = sample(num_items, max_points, seed)
    with np.errstate(over="ignore"):
        tensor = embeddings[kept].astype("<f4")
    if not np.isfinite(tensor).all():
        raise ValueError(
            "`embeddings` must fit into float32, which the projector reads. Received: values up to "
            f"{np.abs(embeddings).max():.3g}"
        )
    # Convert only the kept images, because all may not fit into memory; and convert them before
    # anything is written, because a failure must leave the folder unchanged.
    pixels = None if images is None else as_pixels(images, rows=kept)
    config = _config_without(name, log_dir / _CONFIG)
    log_dir.mkdir(parents=True, exist_ok=True)
    entry = config.embeddings.add(tensor_name=name, tensor_shape=tensor.shape)
    entry.tensor_path = _write_tensor(log_dir, name, tensor)
    if columns:
        entry.metadata_path = f"{name}_metadata.tsv"
        _replace_file(log_dir / entry.metadata_path, _table(columns, kept).encode())
    if pixels is not None:
        entry.sprite.image_path = f"{name}_sprite.png"
        size = _write_sprite(log_dir / entry.sprite.image_path, pixels)
        entry.sprite.single_image_dim.extend(size)
    _replace_file(log_dir / _CONFIG, str(config).encode())
    return log_dir / _CONFIG


def _write_tensor(log_dir, name, tensor):
    data = tensor.tobytes()
    # TensorBoard first reads a file as text, line by line, and reads it as raw numbers from the
    # first byte that is not UTF-8. Zeros, for example, are valid text.
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
    _replace_file(log_dir / path, data)
    (log_dir / stale).unlink(missing_ok=True)
    return path


def _table(columns, kept):
    escaped = [[_escape(values[item]) for item in kept] for values in columns.values()]
    # The projector reads the first row as a header if it has a tab, else as data.
    header = [[_escape(column) for column in columns]] if len(columns) > 1 else []
    return "".join("\t".join(row) + "\n" for row in [*header, *zip(*escaped)])


def _escape(value):
    text = visible(value)
    # The projector drops blank lines, which would shift all later labels.
    return text if text.strip() else "(empty)"


def _write_sprite(path, pixels):
    side = int(np.ceil(np.sqrt(len(pixels))))
    small = resize_to_fit(pixels, min(LARGEST_THUMBNAIL, _LARGEST_SPRITE // side))
    height, width = small.shape[1:3]
    sheet = np.zeros((side * side, *small.shape[1:]), "uint8")
    sheet[: len(small)] = small
    sheet = sheet.reshape(side, side, height, width, -1).swapaxes(1, 2)
    sheet = sheet.reshape(side * height, side * width, -1)
    image = Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
    _replace_file(path, lambda file: image.save(file, format="png"))
    return width, height


def _config_without(name, path):
    """Return the `ProjectorConfig` of a file, if it exists, without the embeddings `name`."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = ProjectorConfig()
    try:
        if path.exists():
            text_format.Parse(path.read_text("utf-8"), config)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(
            f"{str(path)!r} must be a projector configuration of TensorBoard. Received: {error}. "
            "Remove the file."
        ) from None
    for number in reversed(range(len(config.embeddings))):
        if config.embeddings[number].tensor_name == name:
            del config.embeddings[number]
    return config


def _replace_file(path, content):
    """Write bytes, or let `content(file)` write them; replacement is atomic for readers."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        # Temporary files are private; TensorBoard may run as another user.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
