"""The command ``lightning-stab``."""

from lightning_stab.cli.command import StabCLI, main, own_error, run

__all__ = ["StabCLI", "main", "own_error", "run"]
