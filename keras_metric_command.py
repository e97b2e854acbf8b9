"""The command `keras-metric`: its arguments, the checks without Keras, and `main`.

This module is outside the package because importing the package imports Keras, which takes
seconds. It parses and checks the arguments with the standard library only, and imports the package
afterwards: `--help` and usage errors appear immediately. The commands are in `keras_metric.cli`.
`python -m keras_metric_command` runs the command where it is not installed.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import re
import sys
import warnings

from keras_metric_startup import hide_tensorflow_startup_messages

RUN = "keras_metric_run"

# The losses of keras_metric.losses that train on classes. A test checks that the list is complete.
LOSSES = (
    *("AdaFaceLoss", "AngularLoss", "ArcFaceLoss", "CenterLoss", "CircleLoss", "ContrastiveLoss"),
    *("CosFaceLoss", "DynamicSoftMarginLoss", "FastAPLoss", "GeneralizedLiftedStructureLoss"),
    *("HistogramLoss", "InstanceLoss", "IntraPairVarianceLoss", "LargeMarginSoftmaxLoss"),
    *("LiftedStructureLoss", "ManifoldLoss", "MarginLoss", "MultiSimilarityLoss", "NCALoss"),
    *("NPairsLoss", "NTXentLoss", "NormalizedSoftmaxLoss", "P2SGradLoss", "PNPLoss"),
    *("PrototypicalLoss", "ProxyAnchorLoss", "ProxyNCALoss", "QuadrupletLoss", "RankedListLoss"),
    *("RecallAtKSurrogateLoss", "SignalToNoiseRatioLoss", "SmoothAPLoss"),
    *("SoftNearestNeighborLoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"),
    *("SupConLoss", "ThresholdConsistentMarginLoss", "TripletLoss", "TupletMarginLoss"),
)
# Networks of keras.applications that include their preprocessing.
BACKBONES = ("ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV3Large", "MobileNetV3Small")
ENOUGH_CLASSES = 20  # `--split auto` holds out whole classes if there are at least as many


def main(arguments=None):
    """Run the command line and return its exit code.

    Args:
        arguments: list of strings; None for those of the process.

    Returns:
        0; or 2 for an error that the user can correct, with one line on stderr; 1 for any other
        error; 130 if interrupted; 141 if the program that reads stdout has ended.
    """
    chosen = None
    _prepare_streams()
    try:
        chosen = _parser().parse_args(arguments)
        chosen.check(chosen)
        hide_tensorflow_startup_messages()
        module, function = chosen.command
        with _warnings_as_notes():
            getattr(importlib.import_module(f"keras_metric.cli.{module}"), function)(chosen)
    except SystemExit as end:  # argparse ends the process, also after --help
        return end.code or 0
    except KeyboardInterrupt:
        _write_error("\nkeras-metric: interrupted")
        return 130
    except BrokenPipeError:
        # Python would raise again when it flushes stdout at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if getattr(chosen, "debug", False):
            raise
        if isinstance(error, (ValueError, TypeError, OSError, ImportError, MemoryError)):
            _write_error(f"keras-metric: error: {_one_line(error)}")
            return 2
        kind = type(error).__name__
        _write_error(f"keras-metric: error: {kind}: {_one_line(error)} (--debug shows where)")
        return 1
    return 0


def _prepare_streams():
    """Replace closed standard streams; escape characters that the terminal cannot encode."""
    # Otherwise a file that the command opens gets the number of a closed stream and its output.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _warnings_as_notes():
    """Print each warning once, as one line without its location in the code."""
    shown = set()

    def show(message, *_):
        text = _one_line(message)
        if text.startswith("Glyph "):  # matplotlib warns for each character of each plot
            text = "plots show boxes for characters that are missing in their font"
        if text not in shown:
            shown.add(text)
            _write_error(f"keras-metric: note: {text}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _write_error(text):
    """Write a line to stderr, if possible."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _one_line(error):
    """Return the text of an error without line breaks and control codes."""
    text = re.sub(r"\x1b\[[01]m", "", str(error))  # Keras formats parts of its messages in bold
    text = " ".join(text.split()) or type(error).__name__
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: ascii(found[0])[1:-1], text)


class _Parser(argparse.ArgumentParser):
    """ArgumentParser that reports errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see {self.prog} --help)\n")


def _parser():
    parser = _Parser(
        prog="keras-metric",
        description="Train an encoder on a folder of images and find images with it.",
        epilog="FOLDER holds one folder of images for each class: photos/ann/1.jpg, ...\n"
        "For index and project it may also hold images without classes: photos/1.jpg, ...\n\n"
        "examples, in this order:\n"
        "  keras-metric train photos\n"
        "  keras-metric evaluate\n"
        "  keras-metric index photos\n"
        "  keras-metric search new.jpg\n"
        "  keras-metric project photos",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name, line, examples, check, module=None, function=None):
        made = commands.add_parser(
            name,
            help=line,
            description=line,
            epilog="\n".join(["examples:", *(f"  keras-metric {name}{e}" for e in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=(module or name, function or name), check=check)
        add = made.add_argument
        add("--run", default=RUN, help=f"folder of the encoder (default: {RUN})")
        add("--skip-broken", action="store_true", help="omit unreadable images and empty classes")
        add("--debug", action="store_true", help="show the traceback of an error")
        return add

    line = "Train an encoder on a folder that has one folder of images for each class."
    examples = (" photos", " photos --epochs 40 --loss ArcFaceLoss --run runs/arc")
    add = command("train", line, examples, _check_train)
    add("folder", metavar="FOLDER", help="one folder of images for each class")
    add("--overwrite", action="store_true", help="replace the encoder in --run")
    add("--epochs", type=_count, default=20, help="default: 20")
    add("--steps", type=_count, help="batches per epoch (default: depends on the number of images)")
    add("--image-size", type=_count, help="pixels of a side (default: as the images, <= 96)")
    add("--color", choices=("auto", "rgb", "grayscale"), default="auto")
    names = f"small (default), {', '.join(BACKBONES)}, or a .keras file with preprocessing inside"
    add("--backbone", default="small", help=names)
    add("--weights", default="none", help="none (default), imagenet (downloads), or a file")
    add("--embedding-dim", type=_count, default=128, help="default: 128")
    add("--loss", default="TripletLoss", help="a loss of keras_metric.losses (TripletLoss)")
    add("--learning-rate", type=_rate, help="default: 0.001; 0.0001 for a large backbone")
    add("--classes-per-batch", type=_count, help="default: 16, or all classes if fewer")
    add("--samples-per-class", type=_count, help="default: for about 64 images per batch")
    add("--augment", choices=("light", "none"), default="light", help="small shifts, turns, zooms")
    add("--flip", action="store_true", help="also flip horizontally; not for letters or digits")
    how = f"a quarter of the classes (auto: if there are {ENOUGH_CLASSES} or more)"
    split = f"hold out {how} or of the images of each"
    add("--split", choices=("auto", "classes", "images"), default="auto", help=split)
    add("--seed", type=_seed, default=0, help="default: 0")

    line = "Evaluate a trained encoder next to raw pixels and the untrained encoder."
    add = command("evaluate", line, ("", " other_photos --json"), _check_evaluate)
    add("folder", metavar="FOLDER", nargs="?", help="default: the images held out in training")
    add("--json", action="store_true", help="print JSON")

    line = "Enrol every image of a folder, so that `search` finds it."
    add = command("index", line, (" photos",), _check_index, module="image_index")
    add("folder", metavar="FOLDER")

    line = "Print the enrolled images that are nearest to each given one."
    examples = (" new.jpg", " a.png b.png -k 3 --json")
    add = command("search", line, examples, _check_search, "image_index", "find")
    add("image", metavar="IMAGE", nargs="+")
    add("-k", type=_count, default=5, help="neighbours to show (default: 5)")
    add("--json", action="store_true", help="print JSON")
    add("--picture", metavar="FILE", help="plot each IMAGE and its neighbours in a .png file")

    line = "Plot the embeddings of a folder, and write them for TensorBoard's projector."
    add = command("project", line, (" photos", " photos --method tsne"), _check_project)
    add("folder", metavar="FOLDER")
    add("--method", choices=("pca", "tsne", "umap"), default="pca", help="projection of the plot")
    add("--max-points", type=_count, default=5000, help="default: 5000")
    return parser


def _check_train(chosen):
    _check_folder(chosen.folder, "train")
    try:
        chosen.run.encode()
    except UnicodeEncodeError:  # not supported by HDF5
        raise ValueError(f"--run must be a path in UTF-8. Received: {chosen.run}") from None
    if os.path.exists(chosen.run) and not os.path.isdir(chosen.run):
        raise ValueError(f"--run must be a folder. Received: {chosen.run}, which is a file.")
    if os.path.exists(os.path.join(chosen.run, "encoder.keras")) and not chosen.overwrite:
        raise ValueError(f"{chosen.run} has an encoder: add --overwrite, or choose another --run.")
    if chosen.loss not in LOSSES:
        raise ValueError(f"--loss must be one of {', '.join(LOSSES)}. Received: {chosen.loss}")
    is_file = chosen.backbone.endswith(".keras")
    if chosen.backbone not in ("small", *BACKBONES) and not is_file:
        names = f"small, {', '.join(BACKBONES)} or a .keras file"
        raise ValueError(f"--backbone must be {names}. Received: {chosen.backbone}")
    if is_file and not os.path.exists(chosen.backbone):
        raise ValueError(f"--backbone {chosen.backbone}: there is no such file.")
    if chosen.weights != "none":
        if chosen.backbone == "small":
            raise ValueError("--weights needs a --backbone other than small, which has none.")
        if is_file:
            raise ValueError("--weights needs a named --backbone; a .keras file contains weights.")
        if chosen.weights != "imagenet" and not os.path.isfile(chosen.weights):
            expected = "--weights must be none, imagenet or a file"
            raise ValueError(f"{expected}. Received: {chosen.weights}, which is not a file.")
    if chosen.backbone in BACKBONES and chosen.color == "grayscale":
        raise ValueError(f"{chosen.backbone} needs RGB images: remove --color grayscale.")


def _check_evaluate(chosen):
    _check_run(chosen.run)
    if chosen.folder is not None:
        _check_folder(chosen.folder, "evaluate")


def _check_index(chosen):
    _check_run(chosen.run)
    _check_folder(chosen.folder)


def _check_search(chosen):
    _check_run(chosen.run)
    if not os.path.isdir(os.path.join(chosen.run, "index")):
        raise ValueError(f"There is no index in {chosen.run}: run keras-metric index FOLDER first.")
    missing = [path for path in chosen.image if not os.path.isfile(path)]
    if missing and not (chosen.skip_broken and len(missing) < len(chosen.image)):
        more = f" and {len(missing) - 10:,} more" if len(missing) > 10 else ""
        named = ", ".join(missing[:10])
        raise ValueError(f"IMAGE must be the path of an image file. Not found: {named}{more}.")
    path = chosen.picture or "neighbors.png"
    if not (path.endswith(".png") and os.path.isdir(os.path.dirname(path) or ".")):
        raise ValueError(f"--picture must be a .png file in an existing folder. Received: {path}")


def _check_project(chosen):
    _check_run(chosen.run)
    _check_folder(chosen.folder)
    if chosen.method == "umap" and importlib.util.find_spec("umap") is None:
        raise ValueError("--method umap needs: pip install umap-learn. Or pass --method tsne.")


def _check_run(run):
    if not all(os.path.exists(os.path.join(run, name)) for name in ("encoder.keras", "run.json")):
        way_out = "run keras-metric train FOLDER first, or pass its folder as --run"
        raise ValueError(f"There is no trained encoder in {run}: {way_out}.")


def _check_folder(folder, needs_classes=None):
    if not os.path.isdir(folder):
        found = "is a file" if os.path.exists(folder) else "does not exist"
        raise ValueError(f"FOLDER must be a folder. Received: {folder}, which {found}.")
    with os.scandir(folder) as entries:
        classes = any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    if needs_classes and not classes:
        raise ValueError(
            f"FOLDER {folder} has no class folders: {needs_classes} needs one folder of images for "
            f"each class, such as {os.path.join(folder, 'ann', '1.jpg')}. Use a FOLDER without "
            "classes with index, search and project."
        )


def _whole_number(low, high):
    def number(text):
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, received {text}")
        if value > high:
            raise argparse.ArgumentTypeError(f"must be at most {high}, received {text}")
        return value

    number.__name__ = "whole number"  # argparse shows the name of the type
    return number


def _rate(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, received {text}")
    return value


_rate.__name__ = "number"
_count, _seed = _whole_number(1, 2**31 - 1), _whole_number(0, 2**32 - 1)


if __name__ == "__main__":
    sys.exit(main())
