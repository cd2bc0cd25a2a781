"""``lightning-stab prescribe``: cures tried against the untreated program, then what helps."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lightning_stab.cli.parser import UnsavedCLI
from lightning_stab.prescription import prescribe as find_cures
from lightning_stab.prescription.prescription import FILE_NAME, WIDTH
from lightning_stab.prescription.traceless import LEFT_OUT, quietly, traceless_arguments

OPTIONS: dict[str, tuple[Any, Any, str]] = {  # type, default, help
    "metric": (str, "val_loss", "the logged metric by which cures are judged"),
    "mode": (str, "min", "min or max: whether a smaller or a larger value is better"),
    "max_cost": (float, 5.0, "all trials, in times the run itself"),
    "seeds": (int, 2, "runs of the program as it is, and of the best cure"),
    "jobs": (int, 1, "trials at a time"),
    "engine": (str, "local", "local, or ray"),
    "cures": (list[str] | None, None, "ids of the cures to try, in their order"),
    "output": (str, FILE_NAME, "the file for the overlay, written where a cure is found"),
}


class PrescribeCLI(UnsavedCLI):
    """Builds module, data and the Trainer's arguments as ``fit`` does, and no Trainer."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            args,
            prog="lightning-stab prescribe",
            description="Try cures against the program as it is, and say which one helps.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of `lightning_stab.prescribe`."""
        for name, (kind, default, text) in OPTIONS.items():
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        super().add_arguments_to_parser(parser)

    def before_instantiate_classes(self) -> None:
        """Take the loggers away before they are made: some of them start with that."""
        self.config["trainer"]["logger"] = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Keep the arguments; each trial makes a Trainer of its own."""
        given = dict(self.config_init["trainer"])
        callbacks = given.pop("callbacks") or []
        listed = callbacks if isinstance(callbacks, list) else [callbacks]
        kept = [each for each in listed if not isinstance(each, LEFT_OUT)]
        self.trainer_arguments = {**given, "callbacks": kept}
        silent = traceless_arguments(os.devnull)
        return Trainer(**{**silent, "logger": False, "accelerator": "cpu", "devices": 1})


@dataclass(frozen=True)
class FromWords:
    """Builds one part of the program from the words of a command line; may go to a process.

    Attributes:
        words: of the command line.
        part: ``model`` or ``datamodule``.
    """

    words: tuple[str, ...]
    part: str

    def __call__(self) -> Any:
        """Return the part, new; the caller seeds."""
        with quietly():
            cli = PrescribeCLI([*self.words, "--seed_everything=false"])
        part = getattr(cli, self.part)
        return () if part is None else part  # a module may have loaders of its own


def prescribe(args: list[str]) -> int:
    """Try cures and print what came of it.

    Args:
        args: the words after ``prescribe``.

    Returns:
        0 if the program is healthy or a cure was found, 1 if it is not cured. What could not be
        tried ends with code 2.
    """
    with quietly():
        cli = PrescribeCLI(args)
    options = {name: cli.config[name] for name in OPTIONS if name != "output"}
    words = tuple(args)
    found = find_cures(
        FromWords(words, "model"),
        FromWords(words, "datamodule"),
        trainer_kwargs=cli.trainer_arguments,
        **options,
    )
    if found.overlay is not None:
        found.to_yaml(cli.config["output"])
    if cli.config["json"]:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
        return found.exit_code
    from rich.console import Console

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
    output = cli.config["output"]
    found.show(console, _command(words, output) if found.overlay else "", output)
    return found.exit_code


def _command(words: tuple[str, ...], output: str) -> str:
    """Return the command that trains with the overlay."""
    kept: list[str] = []
    own = {f"--{name}" for name in (*OPTIONS, "json")}
    skip = False
    for word in words:
        name, equals, _ = word.partition("=")
        if skip:
            skip = False
        elif name in own:
            skip = not equals and name != "--json"
        else:
            kept.append(word)
    return shlex.join(["lightning-stab", "fit", *kept, "--config", output])
