"""What Python's entry points name: it costs nothing until there is something to do.

Importing anything of ``lightning_stab`` loads torch and Lightning, which takes seconds. The script
``lightning-stab`` answers at once what needs neither: the version, the list of commands, a misspelt
command. The callbacks of the variable ``LIGHTNING_STAB`` are made only where it is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

PROGRAM = "lightning-stab"
COMMANDS = {  # what each does, and an example
    "fit": (
        "Train, with the suite's callbacks and any others.",
        "fit --model my_package.MyModule --data my_package.MyData --trainer.max_epochs 10",
    ),
    "validate": (
        "Measure a checkpoint on the validation data.",
        "validate --config RUN_DIR/config.yaml --ckpt_path RUN_DIR/checkpoints/NAME.ckpt",
    ),
    "test": (
        "Measure a checkpoint on the test data.",
        "test --config RUN_DIR/config.yaml --ckpt_path RUN_DIR/checkpoints/NAME.ckpt",
    ),
    "predict": (
        "Predict with a checkpoint.",
        "predict --config RUN_DIR/config.yaml --ckpt_path RUN_DIR/checkpoints/NAME.ckpt",
    ),
    "check": (
        "Check the gradients of a module against central differences. Saves nothing.",
        "check --model my_package.MyModule --data my_package.MyData --batches 2",
    ),
    "diagnose": (
        "Watch a short fit that saves nothing, and say what is wrong.",
        "diagnose --config my.yaml --steps 500",
    ),
    "report": (
        "Make a page of a run from its logs: what is wrong, where, since when.",
        "report runs/version_0",
    ),
    "compare": (
        "Make a page of several runs: what was set differently, and what tells them apart.",
        "compare runs/version_0 runs/version_1",
    ),
}
HELP = """\
usage: lightning-stab COMMAND [options]

Train PyTorch Lightning modules, and find and cure what keeps them from training.

commands:
{commands}

  --help, --version     of the program; lightning-stab COMMAND --help lists a command's options
  --debug               after a command: show the traceback of an error, not its sentence alone
  --print_completion shtab-bash
                        print a shell's completion script (shtab-zsh and others too; needs shtab)

examples:
  lightning-stab fit                                   the suite's own model on handwritten digits
  lightning-stab fit --model my_package.MyModule --data my_package.MyData
  lightning-stab diagnose --model my_package.MyModule --data my_package.MyData
  lightning-stab fit --config my.yaml --trainer.callbacks+=GradientMonitor
"""


def main() -> None:
    """Run the command line of the process."""
    words = sys.argv[1:]
    answered = answer(words)
    if answered is not None:
        raise SystemExit(answered)
    from lightning_stab.cli import main as run

    run(words)


def attach() -> list[object]:
    """Return the callbacks that ``LIGHTNING_STAB`` names, for every Trainer that is made."""
    text = os.environ.get("LIGHTNING_STAB", "").strip()
    if not text:
        return []
    from lightning_stab.attach import from_environment

    return from_environment(text)


def answer(words: Sequence[str]) -> int | None:
    """Answer what needs no torch, and return the exit code; None where a command shall run.

    Example:
        >>> answer(["fit", "--model.depth=3"])
    """
    first = words[0] if words else "--help"
    if first == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"{PROGRAM} {version(PROGRAM)}\n")
        return 0
    if first in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:10} {what}" for name, (what, _) in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=commands))
        return 0 if words else 2
    if first.startswith("-") or first in COMMANDS:
        return None
    near = get_close_matches(first, COMMANDS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(COMMANDS)}."
    sys.stderr.write(f"{PROGRAM}: there is no command {first!r}. {hint}\n")
    return 2


if __name__ == "__main__":
    main()
