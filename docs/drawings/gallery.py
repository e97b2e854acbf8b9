"""Reduce plots of the examples for the gallery of examples/README.md.

Run the examples, then `python docs/drawings/gallery.py` in the folder that contains `runs`. To use
other folders: `gallery.py faces=elsewhere/faces text=runs/short`.
"""

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "pictures"
WIDTH, COLORS = 560, 200
# The plot of each example, and the part of its height that is shown.
PLOTS = {
    "attention": ("distances.png", 0, 1),
    "faces": ("neighbors.png", 3 / 8, 6 / 8),
    "features": ("synthetic.png", 0, 1),
    "mnist": ("embeddings.png", 0, 1),
    "omniglot": ("neighbors.png", 0, 3 / 8),
    "recommend": ("items.png", 0, 1),
    "selfsupervised": ("neighbors.png", 0, 3 / 8),
    "text": ("questions.png", 0, 1),
    "transfer": ("neighbors.png", 0, 3 / 8),
    "two_towers": ("captions.png", 0, 0.515),
}


def shrink(path, top, bottom):
    """Return a part of a plot, reduced in size and number of colors."""
    with Image.open(path) as plot:
        box = (0, int(top * plot.height), plot.width, int(bottom * plot.height))
        plot = plot.convert("RGB").crop(box)
    plot.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    return plot.quantize(COLORS)


def main():
    """Write the plots of the examples in the arguments, or of all."""
    folders = {name: Path("runs", name) for name in PLOTS}
    if sys.argv[1:]:
        folders = {
            name: Path(folder) for name, _, folder in (a.partition("=") for a in sys.argv[1:])
        }
    FOLDER.mkdir(exist_ok=True)
    for name, folder in folders.items():
        file, *part = PLOTS[name]
        path = FOLDER / f"{name}.png"
        shrink(folder / file, *part).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
