"""Market-1501: images of people by six cameras."""

import re

from keras_metric.datasets.image_set import check_images, find_folder, image_set

# Person, camera, sequence, frame, box: 0002_c1s1_000451_03.jpg
_NAME = re.compile(r"(-?\d+)_c(\d+)s\d+_\d+_\d+\.jpg")


def read_market_1501(root):
    """Read Market-1501 with its official split.

    12,936 images of 751 people are for training; 3,368 queries are searched in a gallery of 15,913
    images: 750 other people, and distractors, which all have the label 0. The 3,819 junk images,
    labelled -1, are omitted, since the protocol ignores them. It also ignores images of the same
    person by the same camera as the query:

    ```text
    retrieval_metrics(q, query.labels, g, gallery.labels, k=(1, 5, 10),
                      groups=query.groups, gallery_groups=gallery.groups)
    ```

    Args:
        root: unpacked folder `Market-1501-v15.09.15`, or its parent folder. Its
            `bounding_box_train`, `query` and `bounding_box_test` are used.

    Returns:
        Dict with "train", "query" and "gallery"; each has `paths`, `labels` (int32, person) and
        `groups` (int32, camera).

    Raises:
        ValueError: a folder is missing, or an image has another kind of name.

    Example:
    >>> from keras_metric.datasets import read_market_1501
    >>> read_market_1501("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder Market-1501-v15.09.15, ...

    Reference:
        Zheng et al. (2015), Scalable Person Re-identification: A Benchmark.
    """
    folder = find_folder(root, "Market-1501-v15.09.15", "bounding_box_train")
    parts = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    return {part: _part(find_folder(folder, "", name) / name) for part, name in parts.items()}


def _part(folder):
    names, people, cameras = [], [], []
    for path in sorted(folder.glob("[!.]*.jpg")):
        match = _NAME.fullmatch(path.name)
        if not match:
            raise ValueError(
                "Images must be named as 0002_c1s1_000451_03.jpg: person, camera and sequence, "
                f"frame, box. Received: {str(path)!r}"
            )
        person, camera = int(match[1]), int(match[2])
        if person >= 0:
            names.append(path.name)
            people.append(person)
            cameras.append(camera)
    check_images(names, folder)
    return image_set(folder, names, people, cameras)
