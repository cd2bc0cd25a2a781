"""``lightning-stab check``: the gradient check alone, with an exit code."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from itertools import islice

from lightning.pytorch.cli import LightningArgumentParser

from lightning_stab.arguments import integer
from lightning_stab.callbacks.gradcheck.check_gradients import check_batches, training_batches
from lightning_stab.cli.parser import UnsavedCLI


class CheckCLI(UnsavedCLI):
    """`UnsavedCLI` with the check's own option."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add how many batches are checked."""
        parser.add_argument("--batches", type=int, default=1, help="training batches to check")
        super().add_arguments_to_parser(parser)


def check(args: list[str]) -> int:
    """Check the gradients of a module on its first training batches.

    Args:
        args: the words after ``check``.

    Returns:
        0 if every check was made and no gradient is wrong, 1 otherwise.
    """
    with redirect_stdout(sys.stderr):  # Lightning's messages must not get into the json
        cli = CheckCLI(args, prog="lightning-stab check")
        number = integer("batches", cli.config["batches"], minimum=1)
        if cli.datamodule is not None:
            batches = training_batches(cli.datamodule, number)
        else:
            batches = list(islice(cli.model.train_dataloader(), number))
    return check_batches(cli.model, batches, as_json=cli.config["json"])
