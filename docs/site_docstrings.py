"""Lets the site show the examples of docstrings as code.

The docstrings write `Example:` with the code below it, indented or not, and `Reference:`;
mkdocstrings wants `Examples:` with an indented block.
"""

import re

import griffe

EXAMPLE = re.compile(r"^( *)Examples?:[ ]*\n((?:.*\n?)*?)(?=^ *Reference:|\Z)", re.M)


class Examples(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj, **kwargs):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(rewritten, obj.docstring.value)


def rewritten(match):
    """`Examples:` and its block, indented by four."""
    indent, block = match.groups()
    lines = block.strip("\n").splitlines()
    depth = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    lines = [f"{indent}    {line[depth:]}" if line.strip() else "" for line in lines]
    return "\n".join([f"{indent}Examples:", *lines, "", ""])
