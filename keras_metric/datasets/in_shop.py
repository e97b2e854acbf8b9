"""In-Shop Clothes Retrieval: garments of DeepFashion."""

from keras_metric.datasets.image_set import find_folder, image_set, read_lines, read_rows


def read_in_shop(root):
    """Read DeepFashion's In-Shop Clothes Retrieval Benchmark with its official split.

    25,882 images of 3,997 garments are for training; 14,218 queries are searched in a gallery of
    12,612 images of the same 3,985 other garments.

    Args:
        root: folder with `list_eval_partition.txt` or `Eval/list_eval_partition.txt`, and the
            images in `img` or `Img/img`.

    Returns:
        Dict with "train", "query" and "gallery"; each has `paths`, `labels` (int32, garment) and
        `groups` (None).

    Raises:
        ValueError: the list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_in_shop
    >>> read_in_shop("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder Eval, which contains list_eval_partition.txt, ...

    Reference:
        Liu, Luo, Qiu, Wang, Tang (2016), DeepFashion.
    """
    lists = find_folder(root, "Eval", "list_eval_partition.txt")
    parent = lists.parent if lists.name == "Eval" else lists
    folder = parent / "Img" if (parent / "Img").is_dir() else parent
    parts = {"train": ([], []), "query": ([], []), "gallery": ([], [])}
    # A count, a header, then: image_name item_id evaluation_status
    path = lists / "list_eval_partition.txt"
    rows = read_rows(path, 3, skip=2)
    count = read_lines(path)[:1]
    if not count or count[0] != (1, [str(len(rows))]):
        raise ValueError(
            f"The first line of {str(path)!r} must be the number of its images. Received: "
            f"{' '.join(count[0][1])[:80] if count else ''!r} for {len(rows)} images. Is the file "
            "truncated?"
        )
    for name, garment, part in rows:
        item = garment.removeprefix("id_")
        if part not in parts or not item.isdecimal():
            raise ValueError(
                f"Every image of {str(path)!r} must have an item such as id_00000001 and be of one "
                f"of {list(parts)}. Received: {garment!r} and {part!r} for {name!r}"
            )
        names, labels = parts[part]
        names.append(name)
        labels.append(int(item))
    return {part: image_set(folder, *lists) for part, lists in parts.items()}
