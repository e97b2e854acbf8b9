"""Thumbnails of the figures of the examples, for the gallery of examples/README.md.

Run the examples, then `python docs/drawings/gallery.py` in the folder that has `runs`, or pass the
folders: `gallery.py faces=elsewhere/faces text=runs/short`.
"""

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "pictures"
WIDTH, COLOURS = 560, 200
# The figure of each example, and the part of its height to show: many rows are similar.
FIGURES = {
    "attention": ("distances.png", 0, 1),
    "faces": ("neighbors.png", 3 / 8, 6 / 8),
    "features": ("drawn.png", 0, 1),
    "mnist": ("embeddings.png", 0, 1),
    "omniglot": ("neighbors.png", 0, 3 / 8),
    "recommend": ("items.png", 0, 1),
    "selfsupervised": ("neighbors.png", 0, 3 / 8),
    "text": ("questions.png", 0, 1),
    "transfer": ("neighbors.png", 0, 3 / 8),
    "two_towers": ("captions.png", 0, 0.515),
}


def shrink(path, top, bottom):
    """Return a part of an image, small and with few colours."""
    with Image.open(path) as image:
        box = (0, int(top * image.height), image.width, int(bottom * image.height))
        image = image.convert("RGB").crop(box)
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    return image.quantize(COLOURS)


def main():
    """Write the thumbnails that the command line names, else all."""
    folders = {name: Path("runs", name) for name in FIGURES}
    if sys.argv[1:]:
        folders = {
            name: Path(folder) for name, _, folder in (a.partition("=") for a in sys.argv[1:])
        }
    FOLDER.mkdir(exist_ok=True)
    for name, folder in folders.items():
        file, *part = FIGURES[name]
        path = FOLDER / f"{name}.png"
        shrink(folder / file, *part).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
