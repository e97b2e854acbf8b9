"""Cars-196: models of cars."""

import numpy as np

from keras_metric.datasets.image_set import find_folder, split_images


def read_cars_196(root):
    """Read Stanford Cars with the split of metric learning, by class.

    The first 98 models are for training (8,054 images), the other 98 for testing (8,131). The
    original parts have every model in both, for classification, and are joined here.

    Args:
        root: folder with `cars_annos.mat` and `car_ims` (one archive), or with `cars_train`,
            `cars_test` and `devkit`, which must contain `cars_train_annos.mat` and
            `cars_test_annos_withlabels.mat` (which may also be next to `devkit`).
            SciPy reads the `.mat` files, and a damaged one can end the process: read only archives
            from the publisher.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, model, from 0) and
        `groups` (None).

    Raises:
        ValueError: a list or an image is missing.

    Example:
    >>> from keras_metric.datasets import read_cars_196
    >>> read_cars_196("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder ...

    Reference:
        Krause, Stark, Deng, Fei-Fei (2013), 3D Object Representations for Fine-Grained
        Categorization; the split: Song et al. (2016), Deep Metric Learning via Lifted Structured
        Feature Embedding.
    """
    try:
        folder = find_folder(root, "cars", "cars_annos.mat")
    except ValueError:
        folder = find_folder(root, "stanford_cars", "devkit")
        names, labels = _read_two_parts(folder)
    else:
        names, labels = _read_annotations(folder / "cars_annos.mat", "relative_im_path")
    return split_images(folder, names, labels, 98)


def _read_two_parts(folder):
    names, labels = [], []
    for part, file in (
        ("cars_train", "cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        paths = [path for path in (folder / "devkit" / file, folder / file) if path.exists()]
        if not paths:
            raise ValueError(
                f"The models of {part} are in {file}. Received: no such file in {str(folder)!r}. "
                "The labels of the test part are a separate archive."
            )
        found, classes = _read_annotations(paths[0], "fname")
        names += [f"{part}/{name}" for name in found]
        labels += classes
    return names, labels


def _read_annotations(path, name_field):
    """Return file names, and classes from 0."""
    from scipy.io import loadmat  # no other code of the package needs scipy.io

    try:
        rows = np.atleast_1d(loadmat(path, squeeze_me=True)["annotations"])
        return [str(row[name_field]) for row in rows], [int(row["class"]) - 1 for row in rows]
    except Exception as error:  # SciPy raises many types for a damaged or different file.
        raise ValueError(
            f"{str(path)!r} must be a list of Stanford Cars, with `annotations` that have "
            f"{name_field!r} and 'class'. Received: {type(error).__name__}: {error}"
        ) from error
