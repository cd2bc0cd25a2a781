"""The command ``lightning-stab``. Torch is loaded with the first name that is asked for."""

from typing import TYPE_CHECKING

from lightning_stab._lazy import lazy

HOMES = {"StabCLI": ".parser", "main": ".command", "own_error": ".parser", "run": ".command"}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, HOMES)
else:
    from lightning_stab.cli.command import main, run
    from lightning_stab.cli.parser import StabCLI, own_error

__all__ = ["StabCLI", "main", "own_error", "run"]
