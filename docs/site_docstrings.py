"""MkDocs extension that shows the examples of docstrings as code.

The docstrings have a heading `Example:` followed by code, indented or not; mkdocstrings requires
`Examples:` with an indented block.
"""

import re

import griffe

EXAMPLE = re.compile(r"^( *)Examples?:[ ]*\n((?:.*\n?)*?)(?=^ *Reference:|\Z)", re.M)


class Examples(griffe.Extension):
    """Rewrites each docstring before mkdocstrings parses it."""

    def on_object(self, *, obj, **kwargs):
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(rewritten, obj.docstring.value)


def rewritten(match):
    """Return `Examples:` and its block, indented by four spaces."""
    indent, block = match.groups()
    lines = block.strip("\n").splitlines()
    depth = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    lines = [f"{indent}    {line[depth:]}" if line.strip() else "" for line in lines]
    return "\n".join([f"{indent}Examples:", *lines, "", ""])
