"""Every code block that a reader can copy runs: README.md, docs/*.md and the docstrings."""

import contextlib
import doctest
import importlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

import keras_metric

PACKAGE = Path(keras_metric.__file__).parent
ROOT = PACKAGE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```", re.M | re.S)


def python_blocks(text):
    """Each ```python block as (number of its first line, code)."""
    for match in FENCE.finditer(text):
        indent, code = match.groups()
        code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        yield text.count("\n", 0, match.start(2)) + 1, code


def run_blocks(text, filename, namespace):
    """Run the blocks one after another in one namespace and return what they printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for line, code in python_blocks(text):
            # The empty lines make a traceback name the line of the page.
            exec(compile("\n" * (line - 1) + code, filename, "exec"), namespace)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages(page):
    run_blocks(page.read_text("utf-8"), str(page), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_inside_the_repository(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}: not there."


def test_readme_begins_with_code_of_under_ten_lines():
    _, code = next(python_blocks((ROOT / "README.md").read_text("utf-8")))
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


def test_the_page_of_losses_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_losses", ROOT / "docs" / "make_losses.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    _, line, sections = maker.PAGE.read_text("utf-8").partition(maker.LINE)
    assert line and sections.strip() == maker.sections().strip(), "Run python docs/make_losses.py"


def test_the_table_names_every_loss():
    page = (ROOT / "docs" / "losses.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)\(", page, re.M))
    assert named == set(keras_metric.losses.__all__)


def test_a_false_page_fails():
    page = "Text\n\n```python\na = 1\n```\n\n- item\n\n  ```python\n  assert a == 2\n  ```\n"
    assert [line for line, _ in python_blocks(page)] == [4, 10]
    with pytest.raises(AssertionError):
        run_blocks(page, "page.md", {})
