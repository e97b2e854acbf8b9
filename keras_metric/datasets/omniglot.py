"""Omniglot: characters of fifty alphabets."""

from keras_metric.datasets.image_set import check_images, find_folder, image_set


def read_omniglot(root):
    """Read Omniglot with its official split, by alphabet.

    964 characters of 30 alphabets (the background set, 19,280 images) are for training, 659
    characters of 20 other alphabets (13,180 images) for testing. Papers on few-shot learning mix
    them, with 1,200 characters for training and rotations as additional classes: join the two parts
    and use `split_by_class`.

    Args:
        root: folder with `images_background` and `images_evaluation`, or its parent folder.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32, character, from 0 in the
        order of the paths, "test" after "train") and `groups` (None).

    Raises:
        ValueError: a folder is missing.

    Example:
    >>> from keras_metric.datasets import read_omniglot
    >>> read_omniglot("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder omniglot, which contains images_background, ...

    Reference:
        Lake, Salakhutdinov, Tenenbaum (2015), Human-level Concept Learning through Probabilistic
        Program Induction; Vinyals et al. (2016), Matching Networks (the mixed split).
    """
    folder = find_folder(root, "omniglot", "images_background")
    find_folder(folder, "omniglot", "images_evaluation")
    result, count = {}, 0
    for part, name in (("train", "images_background"), ("test", "images_evaluation")):
        characters = sorted(path for path in (folder / name).glob("[!.]*/[!.]*") if path.is_dir())
        names, labels = [], []
        for character in characters:
            images = sorted(character.glob("[!.]*.png"))
            names += [path.relative_to(folder).as_posix() for path in images]
            labels += [count] * len(images)
            count += 1
        check_images(names, folder / name)
        result[part] = image_set(folder, names, labels)
    return result
