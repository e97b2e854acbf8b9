"""Stanford Online Products: images of products."""

from keras_metric.datasets.image_set import find_folder, image_set, read_rows


def read_stanford_online_products(root):
    """Read Stanford Online Products with its official split, by class.

    11,318 products with 59,551 images are for training, 11,316 with 60,502 for testing.

    Args:
        root: unpacked folder `Stanford_Online_Products`, or its parent folder. Its
            `Ebay_train.txt`, `Ebay_test.txt` and the folders next to them are used.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, product, from 0) and
        `groups` (None).

    Raises:
        ValueError: a list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_stanford_online_products
    >>> read_stanford_online_products("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder Stanford_Online_Products, ...

    Reference:
        Song, Xiang, Jegelka, Savarese (2016), Deep Metric Learning via Lifted Structured Feature
        Embedding, https://arxiv.org/abs/1511.06452.
    """
    folder = find_folder(root, "Stanford_Online_Products", "Ebay_train.txt")
    result = {}
    for part in ("train", "test"):
        # image_id class_id super_class_id path
        rows = read_rows(folder / f"Ebay_{part}.txt", 4, integers=[1], skip=1)
        labels = [row[1] - 1 for row in rows]
        result[part] = image_set(folder, [row[3] for row in rows], labels)
    return result
