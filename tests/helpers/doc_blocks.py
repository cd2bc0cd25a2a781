"""The code blocks of the pages: found, run in the order of their page, and their output compared.

A block whose first line says ``# not run by the tests: REASON`` is left out; the reader sees why.
A block with ``title="Output"`` is an excerpt of what the Python block before it prints or logs.
"""

import io
import logging
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from lightning.pytorch import seed_everything

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
    for page in ROOT.glob(pattern)
    if "```" in page.read_text()
)
_BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"\s*# not run by the tests\b[^:\n]*: (.{10,})")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass
class Block:
    """A fenced block: its language and attributes, its text, and where it begins."""

    page: Path
    info: str
    text: str
    line: int

    @property
    def language(self):
        return self.info.split(" ")[0]

    @property
    def is_output(self):
        return 'title="Output"' in self.info

    @property
    def reason(self):
        found = _REASON.match(self.text)
        return found and found[1]

    def compiled(self):
        """Return the code, whose errors then name the line of the page."""
        return compile("\n" * self.line + self.text, str(self.page), "exec")


def blocks(page):
    """Return the blocks of a page in their order."""
    text = page.read_text()
    return [
        Block(page, m[2].strip(), dedent(m[3]), text[: m.start()].count("\n") + 1)
        for m in _BLOCK.finditer(text)
    ]


def runnable(page, language):
    """Return the blocks of a language that no visible reason leaves out."""
    return [b for b in blocks(page) if b.language == language and not b.reason]


def words_and_numbers(text):
    """Return a text's words with a mark for each number, and the numbers."""
    text = " ".join(text.split())
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(text)]
    return _NUMBER.sub("<number>", text), numbers


def assert_shown(shown, printed):
    """Fail unless the lines that a page shows are among those printed, but for small changes.

    Numbers may differ by a fifth or by 0.05, because another processor rounds otherwise. Where a
    page leaves out something (``...``), words alone are compared.
    """
    lines = [line for line in map(str.strip, printed.splitlines()) if line]
    wanted = [line for line in map(str.strip, shown.splitlines()) if line]
    words, numbers = words_and_numbers("\n".join(wanted))
    pattern = ".*".join(map(re.escape, words.split("...")))
    for first in range(len(lines) - len(wanted) + 1):
        found = words_and_numbers("\n".join(lines[first : first + len(wanted)]))
        alike = found[1] == pytest.approx(numbers, rel=0.2, abs=0.05)
        if re.fullmatch(pattern, found[0]) and (alike or "..." in words):
            return
    pytest.fail(f"The page shows\n{shown}\nbut this was printed:\n{printed}")


def run_page(page, namespace):
    """Run the Python blocks of a page one after the other, and compare what they print."""
    printed = ""
    for block in blocks(page):
        if block.language == "python" and not block.reason:
            printed = _printed_by(block, namespace)
        elif block.is_output:
            assert_shown(block.text, printed)


def _printed_by(block, namespace):
    stream = io.StringIO()
    log, handler = logging.getLogger("lightning_stab"), logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        with redirect_stdout(stream):
            exec(block.compiled(), namespace)
    finally:
        log.removeHandler(handler)
    return stream.getvalue()


def given_names():
    """Return what the pages call the reader's own: a module, data, a batch, and their makers."""
    from lightning_stab.data import DigitsDataModule
    from lightning_stab.models import MLPClassifier

    def make_module():
        return MLPClassifier(depth=2, width=16)

    seed_everything(0, verbose=False)
    module, datamodule = make_module(), DigitsDataModule()
    return {
        "__name__": "page",
        "module": module,
        "datamodule": datamodule,
        "batch": (torch.randn(16, 64), torch.randint(10, (16,))),
        "make_module": make_module,
        "make_data": DigitsDataModule,
        "optimizer": torch.optim.SGD(module.parameters(), lr=0.01),
    }
