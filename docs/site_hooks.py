"""MkDocs hooks that add files outside of docs/ to the site.

The links of pages are valid in the repository, such as `../benchmarks/results/fit.md`. The hooks
copy these files to the site and rewrite the links. Python scripts and images are copied unchanged.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
# MkDocs uses a README as the index page of its folder; the site has another index page.
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
    """Add the files of the repository that pages link to."""
    paths = [ROOT / name for name in MOVED]
    for folder in FOLDERS:
        paths += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        target = MOVED.get(name, name)
        if path.is_file() and files.get_file_from_path(target) is None:
            file = File.generated(config, target, abs_src_path=str(path))
            # Pages link to these files; the navigation does not contain them.
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Replace links inside the repository by links inside the site."""
    back = {target: name for name, target in MOVED.items()}
    here = page.file.src_uri
    home = back.get(here, here)
    # Pages of docs/ are at the top level of the site.
    if home not in MOVED and not home.startswith(FOLDERS):
        home = f"docs/{home}"

    def moved(match):
        target = match.group(2)
        if re.match(r"[a-z]+:", target):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        destination = MOVED.get(path, path.removeprefix("docs/"))
        if (ROOT / path).is_dir():
            # The site has no listings of folders; link to a README.
            destination = MOVED.get(f"{path}/README.md", "readme.md")
        return match.group(1) + posixpath.relpath(destination, posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
