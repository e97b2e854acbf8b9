"""Turn the examples into notebooks.

    python docs/make_notebooks.py              # into build/notebooks
    python docs/make_notebooks.py --out FOLDER mnist faces

A notebook has the text of its script, a cell for each function, and at the end a cell with the
command line, which runs it, and one that shows the pictures. They hold no outputs and are not kept
in the repository: the scripts are what is tested.
"""

import argparse
import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# A service runs until it is stopped: nothing for a notebook.
LEFT_OUT = {"serve"}
RUN = """import sys

# What would stand on the command line, such as "--help". Without "--short" it takes minutes.
sys.argv = ["{name}.py", "--short"]
main()"""
SHOW = """from IPython.display import Image, display

for picture in sorted(Path("runs/{name}").rglob("*.png")):
    if "_sprite" not in picture.name:
        display(Image(picture))"""


def names():
    """The examples that become notebooks."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in LEFT_OUT)


def pieces_of(text):
    """The docstring of a script, and its code: all before the first function, then each by itself.

    The guard that calls `main` is left out. Comments stay with what stands below them.
    """
    tree, lines = ast.parse(text), text.splitlines()
    guard = tree.body.pop()
    if not (isinstance(guard, ast.If) and "__name__" in ast.unparse(guard.test)):
        raise ValueError('The last statement must be `if __name__ == "__main__":`.')
    ends, begin = [], tree.body[0].end_lineno
    for before, node in zip([None, *tree.body[1:]], tree.body[1:]):
        own = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if before is not None and (own or isinstance(before, (ast.FunctionDef, ast.ClassDef))):
            ends.append(before.end_lineno)
    ends.append(tree.body[-1].end_lineno)
    code = []
    for end in ends:
        code.append("\n".join(lines[begin:end]).strip("\n"))
        begin = end
    return ast.get_docstring(tree), code


def notebook(name):
    """The notebook of an example, as what its JSON holds."""
    docstring, code = pieces_of((EXAMPLES / f"{name}.py").read_text("utf-8"))
    title, _, rest = docstring.partition("\n")
    cells = [("markdown", f"# {title.rstrip('.')}\n{rest}")]
    cells += [("code", piece) for piece in code]
    cells += [
        ("markdown", "## Run it"),
        ("code", RUN.format(name=name)),
        ("markdown", "## What it drew"),
        ("code", SHOW.format(name=name)),
    ]
    return {
        "cells": [cell(kind, text, number) for number, (kind, text) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell(kind, text, number):
    """One cell of format 4.5, never with outputs."""
    common = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return common | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def main():
    """Write what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *names()], help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "notebooks")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or names():
        path = arguments.out / f"{name}.ipynb"
        path.write_text(json.dumps(notebook(name), indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(path)


if __name__ == "__main__":
    main()
