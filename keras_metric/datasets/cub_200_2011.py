"""CUB-200-2011: birds."""

import numpy as np

from keras_metric.datasets.image_set import find_folder, image_set, rows_of


def read_cub_200_2011(root):
    """Read Caltech-UCSD Birds 200-2011 as metric learning splits it: by class.

    The first 100 species are for training (5,864 images), the other 100 for testing (5,924); the
    split of `train_test_split.txt`, with every species in both parts, is for classification.
    Nothing but lists is read: the images come batch by batch, with

    ```text
    birds = datasets.read_cub_200_2011("CUB_200_2011")["train"]
    data.BalancedBatches(birds.paths, birds.labels, 16, 4, load=data.ImageLoader((224, 224)))
    ```

    Args:
        root: Folder `CUB_200_2011` as it is unpacked, or the one above. Its `images.txt`,
            `image_class_labels.txt` and `images` are used.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, the species from 0 up) and
        `groups` (None).

    Raises:
        ValueError: a list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_cub_200_2011
    >>> read_cub_200_2011("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder CUB_200_2011, which holds images.txt, ...

    Reference:
        Wah et al. (2011), The Caltech-UCSD Birds-200-2011 Dataset; the split: Song et al. (2016),
        Deep Metric Learning via Lifted Structured Feature Embedding.
    """
    folder = find_folder(root, "CUB_200_2011", "images.txt")
    names = _by_number(folder / "images.txt")
    species = _by_number(folder / "image_class_labels.txt", integers=[1])
    if names.keys() != species.keys():
        other = sorted(names.keys() ^ species.keys())[0]
        raise ValueError(
            "images.txt and image_class_labels.txt must number the same images. Received: image "
            f"{other!r} in one of them alone, in {str(folder)!r}"
        )
    labels = np.array([species[number] - 1 for number in names])
    return {
        part: image_set(folder / "images", np.array(list(names.values()))[rows], labels[rows])
        for part, rows in {"train": labels < 100, "test": labels >= 100}.items()
    }


def _by_number(path, integers=()):
    rows = rows_of(path, 2, integers)
    found = dict(rows)
    if len(found) < len(rows):
        numbers = [number for number, _ in rows]
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(
            f"Every image must be in {str(path)!r} once. Received: image {twice!r} twice."
        )
    return found
