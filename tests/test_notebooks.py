"""Notebooks are generated from the examples, complete and without outputs."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "make_notebooks.py")
maker = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(maker)
NAMES = maker.names()


def code_of(notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells]


def test_every_example_except_the_service_has_a_notebook():
    assert {"serve", *NAMES} == {path.stem for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_the_script(name):
    notebook = maker.notebook(name)
    *code, run, show = code_of(notebook)
    for piece in (*code, run, show):
        compile(piece, name, "exec")
    # The statements are equal except for the docstring and the guard at the end.
    script = ast.parse((ROOT / "examples" / f"{name}.py").read_text("utf-8")).body[1:-1]
    assert ast.dump(ast.parse("\n".join(code))) == ast.dump(ast.Module(script, []))
    # A cell has at most one function or class.
    kinds = (ast.FunctionDef, ast.ClassDef)
    for piece in code:
        statements = ast.parse(piece).body
        assert len(statements) == 1 or not any(isinstance(s, kinds) for s in statements)
    assert run.endswith("main()") and f'"{name}.py", "--short"' in run
    assert f'Path("runs/{name}")' in show
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_comments_are_kept(name):
    text = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    code = "\n".join(code_of(maker.notebook(name)))
    assert all(comment in code for comment in comments)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid(name):
    notebook = maker.notebook(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    pytest.importorskip("nbformat", reason="the schema of notebooks: pip install nbformat")
    import nbformat

    nbformat.validate(nbformat.from_dict(notebook))


def test_a_script_without_a_guard_is_refused():
    with pytest.raises(ValueError, match="__main__"):
        maker.pieces_of('"""Title."""\n\nprint("straight away")\n')


def test_notebooks_are_written(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_notebooks.py", "--out", "here", "attention", "text"])
    maker.main()
    assert sorted(path.name for path in Path("here").iterdir()) == ["attention.ipynb", "text.ipynb"]
    assert json.loads(Path("here/text.ipynb").read_text("utf-8")) == maker.notebook("text")


@pytest.mark.slow
def test_a_notebook_runs():
    # A replacement for IPython is enough to run the cells in order.
    shown = (
        "import sys, types\n"
        'module = types.ModuleType("IPython.display")\n'
        'module.Image, module.display = str, lambda path: print("shown:", path)\n'
        "module.version_info = (9, 0)\n"
        'sys.modules["IPython"] = sys.modules["IPython.display"] = module\n'
    )
    Path("cells.py").write_text("\n".join([shown, *code_of(maker.notebook("attention"))]), "utf-8")
    done = subprocess.run([sys.executable, "cells.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "shown: runs/attention/distances.png" in done.stdout
