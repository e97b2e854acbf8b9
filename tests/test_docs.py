"""Every code block of README.md, docs/*.md and the docstrings runs and prints what is stated."""

import ast
import contextlib
import doctest
import importlib
import importlib.util
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from test_architecture import public_modules

import keras_metric

PACKAGE = Path(keras_metric.__file__).parent
ROOT = PACKAGE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if re.search(r">>> |```python", path.read_text("utf-8"))
)
# A ```text block directly after a ```python block is what the code prints. A comment between the
# two gives the tolerance of its numbers where training results differ between machines.
TEXT = r"(?:\n\s*?(?:^\1<!-- within ([\d.]+) -->\n\s*)?^\1```text\n(.*?)^\1```)?"
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```" + TEXT, re.M | re.S)
# A block that needs packages which the tests do not install names them in a comment above it.
NEEDS = re.compile(
    r"^<!-- needs: ([\w, ]+) -->\n+( *)```python\n.*?^\2```" + TEXT.replace(r"\1", r"\2"),
    re.M | re.S,
)
NUMBER = r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?![\w.])"
# Scripts for another package, on the migration pages: shown, not run.
OLD = re.compile(r"^```py\n(.*?)^```", re.M | re.S)
NEEDING = [path for path in PAGES if NEEDS.search(path.read_text("utf-8"))]
MIGRATIONS = {
    "migrate-pytorch-metric-learning.md": "pytorch_metric_learning",
    "migrate-tensorflow-addons.md": "tensorflow_addons",
    "migrate-tensorflow-similarity.md": "tensorflow_similarity",
}


def python_blocks(text):
    """Each ```python block as (first line, code, stated output, tolerance of its numbers)."""
    for match in FENCE.finditer(text):
        indent, code, within, output = match.groups()
        code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        yield text.count("\n", 0, match.start(2)) + 1, code, output or "", within and float(within)


def run_blocks(text, filename, namespace):
    """Run the blocks in order in one namespace and compare what each prints."""
    for line, code, output, within in python_blocks(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # The empty lines give a traceback the line numbers of the page.
            exec(compile("\n" * (line - 1) + code, filename, "exec"), namespace)
        fault = output_fault(output, printed.getvalue(), within)
        assert not fault, f"{filename}, block of line {line}: {fault}"


def output_fault(stated, printed, within=None):
    """Describe the fault of a stated output, or return None.

    Whitespace counts as one space, `...` stands for any text, and integers are exact. Other numbers
    may differ by `within`, or else by 1 % and one unit of the last stated digit.
    """
    tokens = re.split(rf"(\.\.\.|{NUMBER}|\s+)", stated.strip())
    rule = ""
    for token in tokens:
        if re.fullmatch(NUMBER, token):
            rule += f"({NUMBER})"
        else:
            rule += ".*?" if token == "..." else r"\s+" if token.isspace() else re.escape(token)
    match = re.fullmatch(rule, printed.strip(), re.S)
    if match is None:
        return f"the page states\n{stated}\nand the code prints\n{printed[-2000:]}"
    for expected, found in zip(re.findall(NUMBER, stated), match.groups(), strict=True):
        digits, _, exponent = expected.partition("e")
        if digits.lstrip("+-").isdigit() and not exponent:
            same = expected == found
        else:
            unit = 10.0 ** (int(exponent or 0) - (len(digits.partition(".")[2]) or 1))
            allowed = unit + 0.01 * abs(float(expected)) if within is None else within
            same = abs(float(expected) - float(found)) <= allowed
        if not same:
            return f"the page states {expected} and the code prints {found}:\n{printed[-2000:]}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages(page):
    # Empty lines replace the blocks that `test_blocks_that_need_more` runs.
    text = NEEDS.sub(lambda match: "\n" * match.group().count("\n"), page.read_text("utf-8"))
    run_blocks(text, str(page), {"__name__": "__main__"})


# Warnings of other packages are not ours.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", NEEDING, ids=lambda path: path.name)
def test_blocks_that_need_more(page, backend):
    if backend != "tensorflow":
        pytest.skip("TensorFlow writes these files: tested on TensorFlow only")
    text = page.read_text("utf-8")
    needed = ", ".join(match[1] for match in NEEDS.finditer(text))
    for name in sorted(set(needed.split(", "))):
        pytest.importorskip(name, reason=f"{page.name} needs {name}: make docs-more")
    run_blocks(text, str(page), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_script_for_torch_processes(tmp_path):
    pytest.importorskip("torch")
    text = (ROOT / "docs" / "scale.md").read_text("utf-8")
    ((script, output),) = re.findall(r"^```py\n(.*?)^```\n\n```text\n(.*?)^```", text, re.M | re.S)
    (tmp_path / "train.py").write_text(script)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "no_proxy": "127.0.0.1,localhost"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "UserWarning" not in done.stderr
    assert not (fault := output_fault(output, done.stdout)), fault
    assert (tmp_path / "model.keras").exists()


def test_links_inside_the_repository():
    links = [(p, t) for p in PAGES for t in re.findall(r"\]\(([^)#\s]+)", p.read_text("utf-8"))]
    inside = [(page, target) for page, target in links if not re.match(r"[a-z]+:", target)]
    assert len(inside) > 50
    missing = [f"{p.name}: {target}" for p, target in inside if not (p.parent / target).exists()]
    assert not missing, f"Links to missing files: {missing}"


def test_readme_begins_with_code_of_under_ten_lines():
    _, code, *_ = next(python_blocks((ROOT / "README.md").read_text("utf-8")))
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 10, f"The first block of README.md has {len(lines)} lines of code."


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        report = io.StringIO()
        runner.run(test, out=report.write)
        assert not report.getvalue(), report.getvalue()
        run_blocks(test.docstring, test.name, {"__name__": "__main__"})


@pytest.mark.parametrize("page", MIGRATIONS)
def test_a_migration_page_has_one_script_before_and_after(page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    (old,) = OLD.findall(text)
    ast.parse(old)
    assert f"import {MIGRATIONS[page]}" in old or f"from {MIGRATIONS[page]}" in old
    _, new, *_ = next(python_blocks(text))
    assert "keras_metric" in new and MIGRATIONS[page] not in new


@pytest.mark.parametrize("page", MIGRATIONS)
def test_calls_on_a_migration_page_exist(page):
    """Code between backticks names existing objects and passes arguments that they accept."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    cells = "\n".join(re.findall(r"^\| .*? \| (.*) \|$", text, re.M))
    names = "|".join(keras_metric.__all__)
    found = re.findall(rf"`((?:{names})\b[\w.]*(?:\(.*?\))?)`", cells)
    assert len(found) >= 10
    for code in set(found):
        tree = ast.parse(code, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else None
        thing = eval(ast.unparse(call.func if call else tree), vars(keras_metric))
        if call and call.args + call.keywords and callable(thing):
            given = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(thing).bind_partial(*[None] * len(call.args), **given)


def test_one_changed_line_replaces_tensorflow_addons():
    text = (ROOT / "docs" / "migrate-tensorflow-addons.md").read_text("utf-8")
    (old,), (_, new, *_) = OLD.findall(text), next(python_blocks(text))
    changed = "import tensorflow_addons as tfa", "import keras_metric.addons as tfa"
    assert old.replace(*changed) == new != old


def test_the_table_names_every_loss():
    page = (ROOT / "docs" / "losses.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)\(", page, re.M))
    public = (getattr(keras_metric.losses, name) for name in keras_metric.losses.__all__)
    found = {loss.__name__ for loss in public if issubclass(loss, keras.losses.Loss)}
    assert named == found - {"MetricLoss"}


def test_every_public_name_is_on_a_page_of_the_site():
    """A page shows all exports of a module but functions with a file's name: these need a line."""
    for module in public_modules():
        name = module.__name__
        text = (ROOT / "docs" / "api" / f"{name.rpartition('.')[2]}.md").read_text("utf-8")
        assert f"::: {name}\n" in text
        for key in module.__all__:
            if (ROOT / name.replace(".", "/") / f"{key}.py").exists():
                assert f"::: {name}.{key}.{key}\n" in text, f"Add {key} to docs/api."


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in text


PRINTS = "print('recall@1', {'loss': 0.123, 'steps': 40})\nprint('end')"


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("recall@1 {'loss': 0.1238, 'steps': 40}\nend", True),
        ("recall@1 {'loss': 1.23e-1,\n 'steps': 40}\nend", True),
        ("recall@1 {..., 'steps': 40}\n...", True),
        ("recall@1 {'loss': 0.133, 'steps': 40}\nend", False),
        ("recall@1 {'loss': 0.123, 'steps': 41}\nend", False),
        ("recall@2 {'loss': 0.123, 'steps': 40}\nend", False),
        ("recall@1 {'loss': 0.123, 'steps': 40}\nend\nand a line", False),
        ("", False),
    ],
)
def test_stated_output_is_compared(output, right):
    """Also of an indented block, and after a block that needs a package, which does not run."""
    code, stated = f"```python\n{PRINTS}\n```\n", f"\n```text\n{output}\n```\n"
    indented = "".join(f"  {line}" for line in (code + stated).splitlines(keepends=True))
    needs = f"\n<!-- needs: some_package -->\n\n{code}"
    for page in (code + stated, indented, NEEDS.sub("", needs + code + stated)):
        expected = pytest.raises(AssertionError, match="page.md, block of line .* the page states")
        with contextlib.nullcontext() if right else expected:
            run_blocks(page, "page.md", {})


@pytest.mark.parametrize(("tolerance", "right"), [("1", True), ("0.1", False)])
def test_a_tolerance_is_stated_above_the_output(tolerance, right):
    page = f"```python\nprint(1.5)\n```\n\n<!-- within {tolerance} -->\n\n```text\n1.0\n```\n"
    with contextlib.nullcontext() if right else pytest.raises(AssertionError, match="the page st"):
        run_blocks(page, "page.md", {})
