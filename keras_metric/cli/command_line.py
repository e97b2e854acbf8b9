"""The arguments of every command, and `main`, which runs one of them."""

import argparse
import inspect
import sys

from keras_metric.cli.evaluate import evaluate
from keras_metric.cli.index import index
from keras_metric.cli.messages import UserError, one_line
from keras_metric.cli.project import project
from keras_metric.cli.run_folder import RUN
from keras_metric.cli.search import find
from keras_metric.cli.train import BACKBONES, ENOUGH_CLASSES, train


def main(arguments=None):
    """Run the command line and return its exit code.

    Args:
        arguments: List of strings; None takes those of the process.

    Returns:
        0, or 2 for what the user can put right, which one line on stderr tells, or 130 if
        interrupted.
    """
    chosen = None
    try:
        chosen = _parser().parse_args(arguments)
        chosen.command(chosen)
    except SystemExit as end:  # argparse ends the process, also after --help
        return end.code or 0
    except KeyboardInterrupt:
        sys.stderr.write("\nkeras-metric: interrupted\n")
        return 130
    except (UserError, ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if getattr(chosen, "debug", False):
            raise
        sys.stderr.write(f"keras-metric: error: {one_line(error)}\n")
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} ({self.prog} --help explains)\n")


def _parser():
    parser = _Parser(
        prog="keras-metric",
        description="Train an encoder on a folder of images and find images with it.",
        epilog="A folder holds one folder of images for each class: photos/ann/1.jpg, ...\n\n"
        "examples, in this order:\n"
        "  keras-metric train photos\n"
        "  keras-metric evaluate\n"
        "  keras-metric index photos\n"
        "  keras-metric search new.jpg\n"
        "  keras-metric project photos",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(function, name, *examples):
        line = inspect.getdoc(function).partition("\n")[0]
        made = commands.add_parser(
            name,
            help=line,
            description=line,
            epilog="examples:\n" + "\n".join(f"  keras-metric {name}{e}" for e in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=function)
        made.add_argument("--run", default=RUN, help=f"folder of the encoder (default: {RUN})")
        made.add_argument("--debug", action="store_true", help="show where an error comes from")
        return made

    add = command(
        train, "train", " photos", " photos --epochs 40 --loss ArcFaceLoss --run runs/arc"
    ).add_argument
    add("folder", metavar="FOLDER", help="one folder of images for each class")
    add("--overwrite", action="store_true", help="replace the encoder in --run")
    add("--epochs", type=_count, default=20, help="default: 20")
    add("--steps", type=_count, help="batches of an epoch (default: by the number of images)")
    add("--image-size", type=_count, help="pixels of a side (default: that of the images, <= 96)")
    add("--color", choices=("auto", "rgb", "grayscale"), default="auto")
    add(
        "--backbone",
        default="small",
        help=f"small (default), {', '.join(BACKBONES)}, or a .keras file with preprocessing inside",
    )
    add("--weights", default="none", help="none (default), imagenet (downloads), or a file")
    add("--embedding-dim", type=_count, default=128, help="default: 128")
    add("--loss", default="TripletLoss", help="a loss of keras_metric.losses (TripletLoss)")
    add("--learning-rate", type=_rate, help="default: 0.001; 0.0001 for a large backbone")
    add("--classes-per-batch", type=_count, help="default: 16, or all classes if fewer")
    add("--samples-per-class", type=_count, help="default: so many that a batch has about 64")
    add("--augment", choices=("light", "none"), default="light", help="shift, turn, zoom a little")
    add("--flip", action="store_true", help="also mirror images; not for letters or digits")
    add(
        "--split",
        choices=("auto", "classes", "images"),
        default="auto",
        help=f"hold out a quarter of the classes (auto: from {ENOUGH_CLASSES} classes on) or of "
        "the images of each",
    )
    add("--seed", type=_seed, default=0, help="default: 0")

    add = command(evaluate, "evaluate", "", " other_photos --json").add_argument
    add("folder", metavar="FOLDER", nargs="?", help="default: the images held out in training")
    add("--json", action="store_true", help="print JSON")

    command(index, "index", " photos").add_argument("folder", metavar="FOLDER")

    add = command(find, "search", " new.jpg", " a.png b.png -k 3 --json").add_argument
    add("image", metavar="IMAGE", nargs="+")
    add("-k", type=_count, default=5, help="neighbours to show (default: 5)")
    add("--json", action="store_true", help="print JSON")

    add = command(project, "project", " photos", " photos --method tsne").add_argument
    add("folder", metavar="FOLDER")
    add("--method", choices=("pca", "tsne", "umap"), default="pca", help="of the picture")
    add("--max-points", type=_count, default=5000, help="default: 5000")
    return parser


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return value


def _rate(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, received {text}")
    return value


def _seed(text):
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 4294967295, received {text}")
    return value


_rate.__name__, _seed.__name__ = "number", "whole number"
_count.__name__ = "whole number"  # argparse names the type in its message
