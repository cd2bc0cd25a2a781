"""What Python's entry points name: it costs nothing until there is something to do.

Importing anything of ``lightning_stab`` loads torch and Lightning, which takes seconds. The script
``lightning-stab`` answers at once what needs neither: the version, the list of commands, a misspelt
command. The callbacks of the variable ``LIGHTNING_STAB`` are made only where it is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size

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
    "prescribe": (
        "Try cures against the program as it is, and hand over the one that is proven as YAML.",
        "prescribe --config my.yaml",
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
PAGES = ("report", "compare")  # commands that need no torch
OPTIONS = ("--help", "--version", "--config", "--print_completion")  # before a command
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
    if words[0] in PAGES and words[1:] not in (["--help"], ["-h"]):
        raise SystemExit(_write_page(words))
    from lightning_stab.cli import main as run

    run(words)


def _write_page(words: Sequence[str]) -> int:
    """Run a command that reads nothing but logs, without torch and Lightning."""
    from lightning_stab.errors import StabError

    arguments = [word for word in words[1:] if word != "--debug"]
    try:
        if words[0] == "compare":
            from lightning_stab.cli.compare import compare

            return compare(arguments)
        from lightning_stab.cli.report import report

        return report(arguments)
    except StabError as error:
        if "--debug" in words:
            raise
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 2


def attach() -> list[object]:
    """Return the callbacks that ``LIGHTNING_STAB`` names, for every Trainer that is made."""
    text = os.environ.get("LIGHTNING_STAB", "").strip()
    if not text:
        return []
    from lightning_stab.attach import from_environment

    return from_environment(text)


def shown_help(command: str) -> tuple[Path, str]:
    """Return where the help of a command is kept, and the first line that it has if it is current.

    Making it loads torch and Lightning, and it changes with their releases, with this package and
    with the width of the terminal.
    """
    from importlib.metadata import version

    parts = [version(name) for name in (PROGRAM, "lightning", "torch", "jsonargparse")]
    package = Path(__file__).parent / "lightning_stab"
    changed = max((file.stat().st_mtime_ns for file in package.rglob("*.py")), default=0)
    parts += [sys.version, str(changed), str(get_terminal_size().columns), str(package)]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / PROGRAM / f"{command}.txt", " ".join(" ".join(parts).split())


def keep_help(command: str, text: str) -> None:
    """Keep the help of a command for the next time, where the user's cache can be written."""
    path, key = shown_help(command)
    with suppress(OSError):  # a home that is read-only: the help is made again each time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{key}\n{text}", encoding="utf-8")


def _kept_help(command: str) -> str:
    path, key = shown_help(command)
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):  # not kept yet, or not by this program
        return ""
    return text if first == key else ""


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
    if first in COMMANDS and list(words[1:]) in (["--help"], ["-h"]):
        text = _kept_help(first)
        sys.stdout.write(text)
        return 0 if text else None
    word, is_option = first.split("=")[0], first.startswith("-")
    if word in COMMANDS or word in OPTIONS:
        return None
    known = OPTIONS if is_option else COMMANDS
    near = get_close_matches(word, known, n=1)
    if is_option and not near:
        return None
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
    kind = "option" if is_option else "command"
    sys.stderr.write(f"{PROGRAM}: there is no {kind} {word!r}. {hint}\n")
    return 2


if __name__ == "__main__":
    main()
