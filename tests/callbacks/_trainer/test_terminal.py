"""Texts beside a progress bar stand on the screen when the bar has ended."""

import io
import logging
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from lightning_stab.callbacks._trainer.terminal import LIGHTNING, beside_bar, say

CODES = re.compile(r"\x1b\[\??(\d*)(?:;\d+)*([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """Return the lines as they stand there: rich moves up (A) and erases lines (K)."""
        lines, row, column = [""], 0, 0
        for number, code, back, new, text in CODES.findall(self.getvalue()):
            if text:
                line = lines[row].ljust(column)
                lines[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
            elif new:
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            elif back:
                column = 0
            elif code == "A":
                row -= int(number or 1)
            elif code == "K":
                lines[row] = ""
        return [line.rstrip() for line in lines if line.strip()]


class RichProgressBar:
    def __init__(self, terminal):
        console = Console(file=terminal, force_terminal=True, width=60, legacy_windows=False)
        self.progress = Progress("steps", console=console, auto_refresh=False)
        self.progress.add_task("fit", total=2)
        self.is_enabled = True


class TQDMProgressBar:
    def __init__(self, is_open):
        self.is_enabled = True
        self.train_progress_bar = SimpleNamespace(disable=not is_open)


def terminal_of(monkeypatch):
    """Put a terminal in place of both streams, within a test: pytest sets its own before it."""
    opened = Terminal()
    monkeypatch.setattr(sys, "stdout", opened)
    monkeypatch.setattr(sys, "stderr", opened)
    # as Lightning's own handler, it keeps the terminal, and not what rich puts in its place
    monkeypatch.setattr(LIGHTNING, "handlers", [logging.StreamHandler(opened)])
    return opened


def trainer_with(bar, is_first=True):
    return SimpleNamespace(progress_bar_callback=bar, is_global_zero=is_first)


def test_a_text_stays_when_rich_draws_its_bar_again(monkeypatch):
    terminal = terminal_of(monkeypatch)
    bar = RichProgressBar(terminal)
    bar.progress.start()
    say(trainer_with(bar), "In the middle.\nIts second line.")
    assert bar.progress.live.is_started
    bar.progress.refresh()
    say(trainer_with(bar), "The last.", is_last=True)
    bar.progress.stop()  # as Lightning does when all is torn down
    assert terminal.screen() == [
        "steps",
        "In the middle.",
        "Its second line.",
        "steps",
        "The last.",
    ]


def test_the_bar_goes_on_where_a_text_fails(monkeypatch):
    terminal_of(monkeypatch)
    bar = RichProgressBar(sys.stderr)
    bar.progress.start()

    def fail():
        with beside_bar(trainer_with(bar), LIGHTNING):
            assert not bar.progress.live.is_started
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert bar.progress.live.is_started
    bar.progress.stop()


@pytest.mark.parametrize(("is_open", "begins"), [(True, "\nA text."), (False, "A text.")])
def test_the_line_of_an_open_bar_of_tqdm_is_ended(monkeypatch, is_open, begins):
    terminal = terminal_of(monkeypatch)
    say(trainer_with(TQDMProgressBar(is_open)), "A text.")
    assert terminal.getvalue() == f"{begins}\n"


def test_nothing_is_written_where_nothing_is_said(monkeypatch, caplog):
    terminal = terminal_of(monkeypatch)
    say(trainer_with(TQDMProgressBar(True), is_first=False), "A text.")
    with caplog.at_level(logging.WARNING, LIGHTNING.name):
        say(trainer_with(TQDMProgressBar(True)), "A text.")
    assert terminal.getvalue() == ""
