"""CUB-200-2011: birds."""

from keras_metric.datasets.image_set import find_folder, read_rows, split_images


def read_cub_200_2011(root):
    """Read Caltech-UCSD Birds 200-2011 with the split of metric learning, by class.

    The first 100 species are for training (5,864 images), the other 100 for testing (5,924). The
    split of `train_test_split.txt` has every species in both parts, for classification. Only the
    lists are read; read the images batch by batch:

    ```text
    birds = datasets.read_cub_200_2011("CUB_200_2011")["train"]
    data.BalancedBatches(birds.paths, birds.labels, 16, 4, load=data.ImageLoader((224, 224)))
    ```

    Args:
        root: unpacked folder `CUB_200_2011`, or its parent folder. Its `images.txt`,
            `image_class_labels.txt` and `images` are used.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, species, from 0) and
        `groups` (None).

    Raises:
        ValueError: a list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_cub_200_2011
    >>> read_cub_200_2011("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder CUB_200_2011, which contains images.txt, ...

    Reference:
        Wah et al. (2011), The Caltech-UCSD Birds-200-2011 Dataset; the split: Song et al. (2016),
        Deep Metric Learning via Lifted Structured Feature Embedding.
    """
    folder = find_folder(root, "CUB_200_2011", "images.txt")
    names = _read_numbered(folder / "images.txt")
    species = _read_numbered(folder / "image_class_labels.txt", integers=[1])
    if names.keys() != species.keys():
        other = sorted(names.keys() ^ species.keys())[0]
        raise ValueError(
            "images.txt and image_class_labels.txt must number the same images. Received: image "
            f"{other!r} in only one of them, in {str(folder)!r}"
        )
    labels = [species[number] - 1 for number in names]
    return split_images(folder / "images", list(names.values()), labels, 100)


def _read_numbered(path, integers=()):
    rows = read_rows(path, 2, integers)
    found = dict(rows)
    if len(found) < len(rows):
        repeated = next(n for i, (n, _) in enumerate(rows) if n in dict(rows[:i]))
        raise ValueError(f"{str(path)!r} must list an image once. Received: {repeated!r} twice.")
    return found
