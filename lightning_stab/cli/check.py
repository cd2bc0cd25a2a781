"""``lightning-stab check``: the gradient check alone, with an exit code."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from itertools import islice

from lightning.pytorch.cli import LightningArgumentParser

from lightning_stab.arguments import integer
from lightning_stab.callbacks.gradcheck.check_gradients import check_batches, training_batches
from lightning_stab.cli.parser import StabCLI, add_fit_arguments


class CheckCLI(StabCLI):
    """Builds module and data as ``fit`` does, and runs nothing.

    Args:
        args: the words after ``check``.
    """

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            args,
            run=False,
            save_config_callback=None,
            parser_kwargs={"prog": "lightning-stab check"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the check's own options, and those that a saved configuration of ``fit`` holds."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--batches", type=int, default=1, help="training batches to check")
        parser.add_argument("--json", action="store_true", help="print json instead of a table")
        add_fit_arguments(parser)


def check(args: list[str]) -> int:
    """Check the gradients of a module on its first training batches.

    Args:
        args: the words after ``check``.

    Returns:
        0 if no gradient is wrong, 1 otherwise.
    """
    with redirect_stdout(sys.stderr):  # Lightning's messages must not get into the json
        cli = CheckCLI(args)
        number = integer("batches", cli.config["batches"], minimum=1)
        if cli.datamodule is not None:
            batches = training_batches(cli.datamodule, number)
        else:
            batches = list(islice(cli.model.train_dataloader(), number))
    return check_batches(cli.model, batches, as_json=cli.config["json"])
