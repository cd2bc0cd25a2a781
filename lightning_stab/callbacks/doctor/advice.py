"""Advice for the run at hand: from the table of cures, beside the callbacks that are there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.step import first_group
from lightning_stab.diagnosis import Facts, Finding
from lightning_stab.diagnosis.cures import CURES, advice_for, estimates

NAMES = sorted({path.rpartition(".")[2] for cure in CURES for path, _ in cure.callbacks})


def momentum_of(optimizers: Sequence[Any]) -> float:
    """Return the momentum of the first parameter group, for Adam and its like the first beta."""
    group = first_group(optimizers)
    return float(group["betas"][0] if "betas" in group else group.get("momentum", math.nan))


def advise_beside(
    callbacks: Iterable[Any],
    finding: Finding,
    facts: Facts | None = None,
    gradient_norm: float = math.nan,
    steps: int = 0,
    optimizers: Sequence[Any] = (),
) -> Finding:
    """Return a finding with advice that fits the run.

    Its lines are those of the table of cures, with numbers estimated from the run; what a callback
    does that is there already is not advised, or only what is to be set in it.

    Args:
        callbacks: those of the Trainer.
        finding: what was found.
        facts: of the run.
        gradient_norm: the usual norm of its first gradients.
        steps: optimizer steps of the whole run.
        optimizers: of the run.
    """
    there = {name: vars(c.options) for c in callbacks if (name := inherits(c, *NAMES))}
    there |= {type(each).__name__: {} for each in optimizers}
    values = estimates(facts or Facts(), gradient_norm, steps, momentum_of(optimizers))
    return replace(finding, advice=advice_for(finding, values, there))
