"""Omniglot: characters of fifty alphabets."""

from keras_metric.datasets.image_set import check_images, find_folder, image_set


def read_omniglot(root):
    """Read Omniglot with its own split, by alphabet.

    964 characters of 30 alphabets (the background set, 19,280 drawings) are for training, 659 of
    20 others (13,180) for testing. Papers on few-shot learning mix them instead, 1,200 characters
    for training, with rotations as further classes: join the two and use `split_by_class`.

    Args:
        root: Folder with `images_background` and `images_evaluation`, or the one above.

    Returns:
        Dict with "train" and "test"; each has `paths`, `labels` (int32; the characters are numbered
        from 0 up in the order of their paths, those of "test" after those of "train") and `groups`
        (None).

    Raises:
        ValueError: a folder is missing.

    Example:
    >>> from keras_metric.datasets import read_omniglot
    >>> read_omniglot("nowhere")
    Traceback (most recent call last):
    ValueError: `root` must be the unpacked folder omniglot, which holds images_background, ...

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
            drawings = sorted(character.glob("[!.]*.png"))
            names += [path.relative_to(folder).as_posix() for path in drawings]
            labels += [count] * len(drawings)
            count += 1
        check_images(names, folder / name)
        result[part] = image_set(folder, names, labels)
    return result
