"""In-Shop Clothes Retrieval: garments of DeepFashion."""

from keras_metric.datasets.image_set import find_folder, image_set, lines_of, rows_of


def read_in_shop(root):
    """Read DeepFashion's In-Shop Clothes Retrieval Benchmark with its own split.

    25,882 images of 3,997 garments are for training; 14,218 queries are searched in a gallery of
    12,612 images of the same other 3,985.

    Args:
        root: Folder with `list_eval_partition.txt`, itself or in its folder `Eval`, and the images
            in `img`, itself or in its folder `Img`.

    Returns:
        Dict with "train", "query" and "gallery"; each has `paths`, `labels` (int32, the number of
        the garment) and `groups` (None).

    Raises:
        ValueError: the list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_in_shop
    >>> read_in_shop("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder Eval, which holds list_eval_partition.txt, ...

    Reference:
        Liu, Luo, Qiu, Wang, Tang (2016), DeepFashion.
    """
    lists = find_folder(root, "Eval", "list_eval_partition.txt")
    above = lists.parent if lists.name == "Eval" else lists
    folder = above / "Img" if (above / "Img").is_dir() else above
    parts = {"train": ([], []), "query": ([], []), "gallery": ([], [])}
    # A count, a header, then: image_name item_id evaluation_status
    path = lists / "list_eval_partition.txt"
    rows = rows_of(path, 3, skip=2)
    count = lines_of(path)[:1]
    if not count or count[0] != (1, [str(len(rows))]):
        raise ValueError(
            f"The first line of {str(path)!r} must be the number of its images. Received: "
            f"{' '.join(count[0][1])[:80] if count else ''!r} for {len(rows)} images. Was the file "
            "cut off?"
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
