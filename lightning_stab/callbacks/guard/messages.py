"""What the guard says, in whole sentences."""

from __future__ import annotations

from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.callbacks.guard.buffers import BufferKeeper
from lightning_stab.callbacks.guard.verdicts import (
    GRADIENT_SPIKE,
    LOSS_SPIKE,
    NONFINITE_STATISTICS,
    STATISTICS_SPIKE,
    StepFacts,
    Verdict,
)
from lightning_stab.functional.norms import first_nonfinite

WHAT = {
    LOSS_SPIKE: "loss",
    GRADIENT_SPIKE: "gradient norm",
    STATISTICS_SPIKE: "norm of the running statistics",
}


def describe(verdict: Verdict, facts: StepFacts, step: OptimizerStep, buffers: BufferKeeper) -> str:
    """Return what is wrong with a step, and where: read it before anything is put back."""
    at = f"step {step.trainer.global_step} (epoch {step.trainer.current_epoch})"
    seen = f"loss {facts.loss:.6g}, " if facts.has_loss else ""
    numbers = f"{seen}gradient norm {facts.norm:.6g}"
    if verdict.is_spike:
        return (
            f"{verdict.kind} at {at}: the {WHAT[verdict.kind]} is {verdict.value:.6g}, and the"
            f" run's own past allows up to {verdict.limit:.6g} ({numbers})"
        )
    place = _first_bad_parameter(step)
    where = f"; first non-finite gradient in {place}" if place else ""
    if verdict.kind == NONFINITE_STATISTICS:
        where = f"; first in {buffers.first_nonfinite()!r}"
    return f"{verdict.kind} at {at} ({numbers}){where}"


def stop_sentence(what: str, found: str) -> str:
    """Return the message of the policy ``raise``."""
    return (
        f"`StepGuard` stopped the fit before the optimizer step: {what}.{found} Look at the batch,"
        " lower the learning rate or clip the gradients; `StepGuard(on_nonfinite='skip')` passes"
        " over such steps, `forensics=True` names the module where it began."
    )


def never_rewinds(rewind_after: int, max_consecutive: int) -> str:
    """Return why a guard that gives up before it rewinds is refused."""
    return (
        f"`rewind_after` must be < `max_consecutive`, which is {max_consecutive}, got"
        f" {rewind_after}: the fit would stop before it rewinds. Raise `max_consecutive`."
    )


def skip_sentence(what: str, found: str) -> str:
    """Return what is said of the first step that is passed over."""
    return f"`StepGuard` passed over a step: {what}.{found} Later ones are counted."


def rewind_sentence(consecutive: int, lr_factor: float) -> str:
    """Return what is said of every rewind."""
    return (
        f"`StepGuard` went back to an earlier snapshot of the weights after {consecutive} bad"
        f" steps in a row and multiplied the learning rates by {lr_factor:g}."
    )


def give_up_sentence(what: str, consecutive: int, found: str) -> str:
    """Return the message for too many bad steps in a row."""
    return (
        f"`StepGuard` stopped the fit after {consecutive} bad steps in a row"
        f" (`max_consecutive`): the latest was a {what}.{found} So many in a row come from the"
        " weights or from the data as a whole, not from one batch: look at the data and the"
        " initialisation, or lower the learning rate."
    )


def _first_bad_parameter(step: OptimizerStep) -> str:
    index = first_nonfinite(step.gradients)
    if index is None:
        return ""
    return f"{step.names()[index]!r} of shape {tuple(step.params[index].shape)}"
