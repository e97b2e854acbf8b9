"""Convert the examples to notebooks.

    python docs/make_notebooks.py              # into build/notebooks
    python docs/make_notebooks.py --out FOLDER mnist faces

A notebook has the docstring of its script, a cell for each function, a cell that sets the command
line and runs `main`, and a cell that shows the plots. Notebooks have no outputs and are not in the
repository; the tests run the scripts.
"""

import argparse
import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# A service runs until it is stopped.
EXCLUDED = {"serve"}
RUN = """import sys

# Arguments of the command line, such as "--help". Without "--short" it takes minutes.
sys.argv = ["{name}.py", "--short"]
main()"""
SHOW = """from IPython.display import Image, display

for path in sorted(Path("runs/{name}").rglob("*.png")):
    if "_sprite" not in path.name:
        display(Image(path))"""


def names():
    """Return the names of the examples that are converted."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in EXCLUDED)


def pieces_of(text):
    """Return the docstring of a script and its code in pieces.

    The first piece is the code before the first function, each further piece a function or class.
    The last statement, which calls `main`, is removed. Comments stay with the code below them.
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
    """Return the notebook of an example as a dict to write as JSON."""
    docstring, code = pieces_of((EXAMPLES / f"{name}.py").read_text("utf-8"))
    title, _, rest = docstring.partition("\n")
    cells = [("markdown", f"# {title.rstrip('.')}\n{rest}")]
    cells += [("code", piece) for piece in code]
    cells += [
        ("markdown", "## Run it"),
        ("code", RUN.format(name=name)),
        ("markdown", "## Plots"),
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
    """Return one cell of format 4.5 without outputs."""
    common = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return common | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def main():
    """Write the notebooks of the examples in the arguments, or of all."""
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
