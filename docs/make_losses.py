"""Write the sections of docs/losses.md, one a loss, from the docstrings.

    python docs/make_losses.py

What stands above the line that begins with `<!-- below` is written by hand and stays.
"""

import inspect
import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parent / "losses.md"
LINE = "<!-- below: written by docs/make_losses.py from the docstrings -->"
HEADINGS = ("Args", "Raises", "Example", "Reference", "Call arguments", "Returns")


def parts_of(docstring):
    """The paragraphs under each heading of a docstring; the first are under None."""
    parts, heading = {None: []}, None
    for line in inspect.cleandoc(docstring).splitlines():
        if line.rstrip(":") in HEADINGS and line.endswith(":"):
            heading = line[:-1]
            parts[heading] = []
        else:
            parts[heading].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip("\n") for name, lines in parts.items()}


def bullets(text):
    """Lines `name: what it is`, with what is indented below, as a list."""
    items = re.split(r"\n(?=\S)", text)
    return "\n".join("- " + re.sub(r"^(\w+):", r"`\1`:", item) for item in items)


def section(loss):
    """One loss as Markdown."""
    parts = parts_of(loss.__doc__)
    signature = ", ".join(str(p) for p in inspect.signature(loss).parameters.values())
    text = [f"## {loss.__name__}", parts[None]]
    text.append(f"```text\nlosses.{loss.__name__}({signature})\n```")
    text += [bullets(parts[name]) for name in ("Args",) if name in parts]
    if "Example" in parts:
        text.append(f"```pycon\n{parts['Example']}\n```")
    if "Reference" in parts:
        text.append("Paper: " + " ".join(parts["Reference"].split()))
    return "\n\n".join(text)


def sections():
    """All losses of the package, in alphabetical order."""
    from keras_metric import losses

    found = [getattr(losses, name) for name in sorted(losses.__all__)]
    return "\n\n".join(section(loss) for loss in found if inspect.isclass(loss)) + "\n"


def main():
    """Replace the sections of the page."""
    top, _, _ = PAGE.read_text("utf-8").partition(LINE)
    PAGE.write_text(f"{top}{LINE}\n\n{sections()}", "utf-8")
    print(f"{PAGE}: sections written")


if __name__ == "__main__":
    main()
