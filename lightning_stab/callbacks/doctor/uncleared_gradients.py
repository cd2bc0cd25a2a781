"""Whether gradients are cleared between two steps: what adds up for ever explodes."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer


class StaleGradients:
    """Follows the gradient of one parameter of each optimizer from one step to the next.

    Before some backward pass between the two it has to be gone. Only what lies between two steps
    after a look is followed, because looking at values waits for the device.
    """

    def __init__(self) -> None:
        self._cleared: dict[Optimizer, bool | None] = {}  # None before a backward pass is seen
        self._stale = 0.0
        self._known = False

    def before_backward(self) -> None:
        """Look whether the gradients of the steps before are gone."""
        for optimizer, cleared in self._cleared.items():
            if not cleared:
                gradient = _gradient(optimizer)
                self._cleared[optimizer] = gradient is None or not bool(gradient.any())

    def before_step(self, optimizer: Optimizer, *, watch: bool) -> None:
        """Judge the gradient that the step uses; follow the next one if told to.

        Args:
            optimizer: that is about to step.
            watch: whether what comes until its next step is followed.
        """
        cleared = self._cleared.pop(optimizer, None)
        if cleared is not None:
            self._known = True
            self._stale = float(not cleared)
        gradient = _gradient(optimizer) if watch else None
        if gradient is not None and bool(gradient.any()):
            self._cleared[optimizer] = None

    def forget(self) -> None:
        """Let go of the optimizers."""
        self._cleared.clear()

    def facts(self) -> dict[str, float]:
        """Return whether the latest gradient that was followed was still there."""
        return {"stale_gradients": self._stale} if self._known else {}


def _gradient(optimizer: Optimizer) -> Tensor | None:
    """Return the gradient of the smallest parameter that has one."""
    params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    return min(params, key=lambda p: p.numel()).grad if params else None
