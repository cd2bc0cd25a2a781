"""What is done when a fit ends in an exception: after every callback has seen it.

A callback that writes a checkpoint in ``on_exception``, as ``OnExceptionCheckpoint`` does, comes
after some callbacks and before others. It must find the weights of the last step and the state of
every callback; so nothing is put back or freed before the last of them.
"""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Trainer


def call_after_exception(trainer: Trainer, act: Callable[[], None]) -> None:
    """Call ``act`` once, when every callback's ``on_exception`` has run.

    The strategy's own ``on_exception`` comes next, and only an instance's attribute can follow it.
    """
    strategy = trainer.strategy
    before = vars(strategy).get("on_exception")

    def on_exception(exception: BaseException) -> None:
        vars(strategy).pop("on_exception", None)
        if before is not None:  # of another callback, or a user's
            vars(strategy)["on_exception"] = before
        try:
            strategy.on_exception(exception)
        finally:
            act()

    vars(strategy)["on_exception"] = on_exception
