"""How a gradient check goes about it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.gradcheck.verdicts import TOLERANCE

MODES = ("auto", "tensor", "group", "model")


@dataclass(frozen=True)
class CheckSettings:
    """The settings of a gradient check, validated.

    Args:
        mode: what one random direction spans: each ``"tensor"``, a ``"group"`` of tensors with
            gradients of like size, or the whole ``"model"``; ``"auto"`` takes tensors for up to
            32 of them, and groups beyond.
        coordinates: None for random directions; a number of sampled coordinates of each tensor,
            or ``"all"`` of them, for the plain formula one coordinate after another.
        num_directions: how many directions each part gets; one may miss a fault by chance.
        tolerance: the largest relative error of a right gradient.
        seed: of the private generator.

    Raises:
        InvalidArgumentError: for an unknown mode, or a number out of range.

    Example:
        >>> CheckSettings(mode="model").num_directions
        2
    """

    mode: str = "auto"
    coordinates: int | str | None = None
    num_directions: int = 2
    tolerance: float = TOLERANCE
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
        integer("num_directions", self.num_directions, minimum=1)
        integer("seed", self.seed, minimum=0)
        real("tolerance", self.tolerance, minimum=1e-10, maximum=1e-2)
        if isinstance(self.coordinates, int):
            integer("coordinates", self.coordinates, minimum=1)
        elif self.coordinates not in (None, "all"):
            raise InvalidArgumentError(
                f'`coordinates` must be "all", an integer >= 1 or None, got {self.coordinates!r}. '
                "Leave it out for random directions, which find more in less time."
            )
