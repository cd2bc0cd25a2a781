"""Docstrings as the reference shows them: examples as code, plain tables as Markdown's."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_RULE = re.compile(r"^={3,}(?: +={3,})+$")
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_ROW = re.compile(r"(``.+?``|\S+) +(.+)")


def as_markdown(docstring: str) -> str:
    r"""Return a docstring whose tables are Markdown's, and whose example is a section.

    Example:
        >>> print(as_markdown("=== ====\nlog what\n=== ====\n``a`` b\n=== ===="))
        | log | what |
        | --- | --- |
        | ``a`` | b |
    """
    lines: list[str] = []
    rules = 0
    for line in docstring.splitlines():
        row = _ROW.match(line) if rules % 3 else None
        if _RULE.match(line):
            rules += 1
            lines += ["| --- | --- |"] if rules % 3 == 2 else []
        else:
            lines.append(f"| {row[1]} | {row[2]} |" if row else line)
    return _EXAMPLE.sub("Examples:", "\n".join(lines))


class Docstrings(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
