"""The command ``lightning-stab``: LightningCLI with the suite's defaults, and three more.

``fit``, ``validate``, ``test`` and ``predict`` take any module and any data module by class path
(``fit --model my_package.MyModule --data my_package.MyData``), and the suite's own classes,
callbacks and Lightning's by their short names. ``check``, ``diagnose`` and ``prescribe`` take
the same and save nothing but the cure that was found.
"""

from __future__ import annotations

import os
import sys
import warnings

from lightning_stab.cli.check import check
from lightning_stab.cli.diagnose import diagnose
from lightning_stab.cli.parser import StabCLI, own_error
from lightning_stab.cli.prescribe import prescribe

OTHER_COMMANDS = {"check": check, "diagnose": diagnose, "prescribe": prescribe}


def main(args: list[str] | None = None) -> None:
    """Run the command line, for the installed script, where a result would be an exit code.

    Args:
        args: the words of the command line; those of the process by default.

    Raises:
        SystemExit: with code 2, if an argument is wrong or the suite refused to go on.
    """
    run(args)


def run(args: list[str] | None = None) -> StabCLI:
    """Run the command line and return it, with its ``model``, ``datamodule`` and ``trainer``.

    What the user can put right ends in one sentence and exit code 2.

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
    try:
        if words[:1] and words[0] in OTHER_COMMANDS:
            raise SystemExit(OTHER_COMMANDS[words[0]](words[1:]))
        return StabCLI(args)
    except Exception as error:
        own = own_error(error)
        if own is None:
            raise
        sys.stderr.write(f"lightning-stab: {own}\n")
        raise SystemExit(2) from error
