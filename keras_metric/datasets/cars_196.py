"""Cars-196: models of cars."""

import numpy as np

from keras_metric.datasets.image_set import find_folder, image_set


def read_cars_196(root):
    """Read Stanford Cars as metric learning splits it: by class.

    The first 98 models are for training (8,054 images), the other 98 for testing (8,131); the
    data set's own parts, with every model in both, are for classification and are joined here.

    Args:
        root: Folder with `cars_annos.mat` and `car_ims` (one archive), or with `cars_train`,
            `cars_test` and `devkit`, which must hold `cars_train_annos.mat` and
            `cars_test_annos_withlabels.mat` (that one may also stand beside `devkit`).
            SciPy reads the `.mat` files, and a damaged one can end the process: read only archives
            of the publisher.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, the model from 0 up) and
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
        names, labels = _two_parts(folder)
    else:
        names, labels = _annotations(folder / "cars_annos.mat", "relative_im_path")
    names, labels = np.array(names), np.array(labels)
    return {
        part: image_set(folder, names[rows], labels[rows])
        for part, rows in {"train": labels < 98, "test": labels >= 98}.items()
    }


def _two_parts(folder):
    names, labels = [], []
    for part, file in (
        ("cars_train", "cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        path = folder / "devkit" / file
        if not path.exists():
            path = folder / file
        if not path.exists():
            raise ValueError(
                f"The models of {part} are in {file}. Received: no such file in {str(folder)!r}. "
                "The labels of the test part are an archive of their own."
            )
        found, classes = _annotations(path, "fname")
        names += [f"{part}/{name}" for name in found]
        labels += classes
    return names, labels


def _annotations(path, name_field):
    """Return file names and classes from 0 up."""
    # Late: scipy.io is wanted here alone.
    from scipy.io import loadmat

    try:
        rows = np.atleast_1d(loadmat(path, squeeze_me=True)["annotations"])
        return [str(row[name_field]) for row in rows], [int(row["class"]) - 1 for row in rows]
    # A file that is damaged, or of another kind, fails in scipy in many ways.
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} must be a list of Stanford Cars, with `annotations` that have "
            f"{name_field!r} and 'class'. Received: {type(error).__name__}: {error}"
        ) from error
