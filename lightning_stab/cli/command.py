"""The command ``lightning-stab``: LightningCLI with the suite's defaults, and three more.

``fit``, ``validate``, ``test`` and ``predict`` take any module and any data module by class path
(``fit --model my_package.MyModule --data my_package.MyData``), and the suite's own classes,
callbacks and Lightning's by their short names. ``check``, ``diagnose`` and ``prescribe`` take
the same and save nothing but the cure that was found. ``report`` and ``compare`` make pages of the
logs of runs.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import redirect_stdout, suppress

from jsonargparse import set_parsing_settings
from torch import distributed

from _lightning_stab import answer, keep_help
from lightning_stab.cli.check import check
from lightning_stab.cli.compare import compare
from lightning_stab.cli.diagnose import diagnose
from lightning_stab.cli.parser import StabArgumentParser, StabCLI, own_error
from lightning_stab.cli.prescribe import prescribe
from lightning_stab.cli.report import report

OTHER_COMMANDS = {
    "check": check,
    "compare": compare,
    "diagnose": diagnose,
    "prescribe": prescribe,
    "report": report,
}


def main(args: list[str] | None = None) -> None:
    """Run the command line, for the installed script, where a result would be an exit code.

    Args:
        args: the words of the command line; those of the process by default.

    Raises:
        SystemExit: with code 2, if an argument is wrong or the suite refused to go on.
    """
    try:
        run(args)
    finally:
        known = distributed.is_available() and distributed.is_initialized()
        # threads of gloo that are left may abort a process that ends; Lightning closes NCCL's
        if known and distributed.get_backend() == "gloo":
            distributed.destroy_process_group()


def run(args: list[str] | None = None) -> StabCLI:
    """Run the command line and return it, with its ``model``, ``datamodule`` and ``trainer``.

    What the user can put right ends in one sentence and exit code 2; with ``--debug`` among the
    words it is raised, with its traceback.

    Args:
        args: the words of the command line; those of the process by default.

    Raises:
        SystemExit: with code 2, if an argument is wrong or the suite refused to go on; and after
            ``check``, ``diagnose`` and ``prescribe``, with their exit code.
    """
    # Like `python -m`, so that the user's own classes are found; last, so that they hide nothing.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Lightning's own use of torch, at every run: nothing that a user could change.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    words = sys.argv[1:] if args is None else list(args)
    code = answer(words)
    if code is not None:
        raise SystemExit(code)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    StabArgumentParser.debug, StabArgumentParser.output = debug, sys.stdout
    try:
        if words[0].startswith("--print_completion"):
            set_parsing_settings(add_print_completion_argument=True)
        if words[1:] in (["--help"], ["-h"]):
            _show_help(words)
        return _call(words)
    except Exception as error:
        own = own_error(error)
        if own is None or debug:
            raise
        sys.stderr.write(f"lightning-stab: {own}\n")
        raise SystemExit(2) from error
    finally:
        StabArgumentParser.debug, StabArgumentParser.output = False, None


def _call(words: list[str]) -> StabCLI:
    if words[0] in OTHER_COMMANDS:
        raise SystemExit(OTHER_COMMANDS[words[0]](words[1:]))
    return StabCLI(words)


def _show_help(words: list[str]) -> None:
    """Show the help of a command, and keep it for the next time."""
    StabArgumentParser.output = text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        _call(words)
    sys.stdout.write(text.getvalue())
    keep_help(words[0], text.getvalue())
    raise SystemExit(0)
