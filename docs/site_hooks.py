"""What MkDocs needs beside docs/: files of the repository that the pages link to.

Pages link as they must in the repository, `../benchmarks/results/fit.md`; in the site the same
files lie beside them. Python scripts and pictures are copied as they are.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
# A README is the first page of a folder, and the site has one already.
MOVED = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/index.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "licence.txt",
}
FOLDERS = ("benchmarks", "examples", "keras_metric")
SUFFIXES = {".md", ".png", ".py", ".json"}
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_files(files, config):
    """Add the files of the repository that a page may link to."""
    paths = [ROOT / name for name in MOVED]
    for folder in FOLDERS:
        paths += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        place = MOVED.get(name, name)
        if path.is_file() and files.get_file_from_path(place) is None:
            file = File.generated(config, place, abs_src_path=str(path))
            # Reached by links; no need of a place in the navigation.
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links inside the repository into links inside the site."""
    back = {place: name for name, place in MOVED.items()}
    here = page.file.src_uri
    home = back.get(here, here)
    # Where the page lies in the repository: pages of docs/ are at the top of the site.
    if home not in MOVED and not home.startswith(FOLDERS):
        home = f"docs/{home}"

    def moved(match):
        target = match.group(2)
        if re.match(r"[a-z]+:", target):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        place = MOVED.get(path, path.removeprefix("docs/"))
        if (ROOT / path).is_dir():
            # The nearest there is to a listing.
            place = MOVED.get(f"{path}/README.md", "readme.md")
        return match.group(1) + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
