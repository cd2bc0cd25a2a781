"""The command ``lightning-stab``."""

from lightning_stab.cli.command import main, run
from lightning_stab.cli.parser import StabCLI, own_error

__all__ = ["StabCLI", "main", "own_error", "run"]
