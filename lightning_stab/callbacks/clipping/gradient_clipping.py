"""Clip the true gradients by a named rule, and say what was clipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.nn import Parameter
from torch.optim import Optimizer

from lightning_stab.arguments import integer, one_of, strings
from lightning_stab.callbacks._trainer.device_values import Reading, cross
from lightning_stab.callbacks._trainer.intervals import is_due
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_scalars, log_step
from lightning_stab.callbacks._trainer.step import OptimizerStep, run_phases
from lightning_stab.callbacks._trainer.strategies import refuse_flat_shards, refuse_hidden_gradients
from lightning_stab.callbacks.clipping.output_layer import OutputLayer
from lightning_stab.callbacks.clipping.rules import (
    Clipped,
    Target,
    clip_by_history,
    clip_norm,
    clip_units,
    clip_values,
    transposed_unit_dims,
)
from lightning_stab.callbacks.clipping.summary import ClipSummary
from lightning_stab.callbacks.clipping.thresholds import checked_method, checked_threshold
from lightning_stab.errors import ConflictError
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norm_history import NormHistory, PercentileHistory, ZScoreHistory

RULES = {"value": 100.0, "norm": 1.0, "adaptive": 0.01, "history": None}
METHODS = {"zscore": 2.5, "percentile": 10.0}


class GradientClipping(Callback):
    """Bound the gradients right before the optimizer step, by one of four rules.

    ============ ======================================================= ==================
    rule         what is bounded                                          default threshold
    ============ ======================================================= ==================
    ``value``    every entry: beyond the threshold it becomes the threshold 100
    ``norm``     the 2-norm of all gradients together                      1.0
    ``adaptive`` each unit's gradient by the norm of its weights (AGC)      0.01
    ``history``  the norm by its own past: ``method="zscore"`` (2.5 deviations, ZClip) or
                 ``method="percentile"`` (the 10th, AutoClip)
    ============ ======================================================= ==================

    It sees unscaled, accumulated gradients, works under manual optimisation and for each
    optimizer apart, and under FSDP2 with the norm of the whole gradient. A NaN norm is left for
    the scaler or a `StepGuard`, and never enters the history.

    Logged at intervals: ``clip/norm_before``, ``clip/norm_after``, ``clip/coefficient`` and
    ``clip/fraction`` (of elements for value, of units for adaptive, of the interval's steps for
    norm and history).

    Args:
        rule: ``value``, ``norm``, ``adaptive`` or ``history``.
        threshold: in the unit of the rule, > 0: a number, a table from step to number such as
            ``{0: 10.0, 1000: 1.0}``, or a function of the optimizer step. None: the rule's default.
        method: how ``history`` judges, ``zscore`` or ``percentile``.
        per_parameter_group: apply the rule to each parameter group of an optimizer by itself.
        exclude: patterns of parameter names that are not clipped and count for no norm.
        exclude_output: whether ``adaptive`` leaves the output layer alone, as its source does;
            the output layer is the last one that runs.
        every_n_steps: optimizer steps between logged statistics.

    Raises:
        InvalidArgumentError: for an unknown rule or method, or a threshold that is not > 0.
        ConflictError: at the start of a fit, beside the Trainer's ``gradient_clip_val``, under
            DeepSpeed, and under FSDP1 unless the rule is ``value``.

    Example:
        >>> clipping = GradientClipping(rule="norm", threshold=0.5)
        >>> clipping.rule
        'norm'

    Source: Pascanu et al., 2013 (norm); Brock et al., 2021 (adaptive); Seetharaman et al., 2020
    and Kumar et al., 2025 (history).
    """

    def __init__(
        self,
        rule: str = "norm",
        threshold: float | dict[int, float] | Callable[[int], float] | None = None,
        *,
        method: str = "zscore",
        per_parameter_group: bool = False,
        exclude: Sequence[str] = (),
        exclude_output: bool = True,
        every_n_steps: int = 50,
    ) -> None:
        self.rule = one_of("rule", rule, RULES)
        self.method = one_of("method", method, METHODS)
        self.threshold = _default(rule, method) if threshold is None else threshold
        self._threshold_at = checked_threshold(self.threshold)
        checked_method(rule, method, self.threshold)
        self.per_parameter_group = per_parameter_group
        self.exclude = strings("exclude", exclude)
        self.exclude_output = exclude_output
        self.every_n_steps = integer("every_n_steps", every_n_steps, minimum=1)
        self._histories: dict[str, NormHistory] = {}
        self._summaries: dict[str, ClipSummary] = {}
        self._readings: list[Reading] = []
        self._output = OutputLayer()
        self._unit_dims: dict[int, int] = {}
        self._excluded: set[int] = set()
        self._suffix = ""
        self._loaded = False

    @property
    def state_key(self) -> str:
        """Tell clippers of different rules or parameters apart in a checkpoint."""
        return self._generate_state_key(
            rule=self.rule, method=self.method, exclude=list(self.exclude)
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to clip beside the Trainer, or where whole norms cannot be had."""
        if stage != "fit":
            return
        if trainer.gradient_clip_val:
            raise ConflictError(
                "`GradientClipping` and the Trainer's `gradient_clip_val` would both clip, got"
                f" `gradient_clip_val={trainer.gradient_clip_val}`. Remove one of them."
            )
        refuse_hidden_gradients(trainer, self)
        if self.rule != "value":
            refuse_flat_shards(trainer, self, f'rule="{self.rule}"')

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the parameters once: they are built and moved by now."""
        named = [(plain_name(n), p) for n, p in pl_module.named_parameters()]
        self._excluded = {id(p) for n, p in named if any(fnmatchcase(n, x) for x in self.exclude)}
        self._unit_dims = transposed_unit_dims(pl_module)
        self._output = OutputLayer()
        self._readings, self._summaries = [], {}  # of an earlier fit that failed
        if not self._loaded and trainer.global_step == 0:
            self._histories = {}
        self._loaded = False
        self._suffix = self._place_among(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch the first batch for the output layers, where the rule leaves them alone."""
        if self.rule == "adaptive" and self.exclude_output:
            self._output.watch(pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        run_phases(self, trainer, pl_module, optimizer)

    def clip_step(self, step: OptimizerStep) -> None:
        """Clip the gradients of a step that no guard rejected."""
        if step.rejected:
            return
        spared = self._excluded
        if self.rule == "adaptive" and self.exclude_output:
            spared = spared | self._output.parameters(step)
        again, step.clipped = step.clipped, True
        groups = step.groups if self.per_parameter_group else [step.params]
        for number, params in enumerate(groups):
            kept = [p for p in params if id(p) not in spared]
            if kept:
                group = f"_group{number}" if self.per_parameter_group else ""
                self._clip(step, kept, self._suffix + step.suffix + group, again=again)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what an interval's last step gave, as one event, and take the hooks off."""
        self._output.stop()
        if self._readings:
            readings, self._readings = self._readings, []
            log_scalars(trainer, cross(readings))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks off."""
        self._output.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._output.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the history of the norms."""
        histories = {key: history.state_dict() for key, history in self._histories.items()}
        return {"histories": histories}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with a saved history, and forget any other."""
        self._histories, self._loaded = {}, True
        for key, state in state_dict["histories"].items():
            self._history(key).load_state_dict(state)

    def _clip(
        self, step: OptimizerStep, params: Sequence[Parameter], key: str, *, again: bool
    ) -> None:
        at = log_step(step.trainer)
        measure = is_due(at, self.every_n_steps)
        bounds_norm = self.rule in ("norm", "history")
        total = None
        if measure or bounds_norm:  # another clipper may have changed what was measured first
            total = step.total_of(params, step.norms_now() if again else step.norms)
        rule = self._rule_of(key, learns=not step.is_line_search)
        clipped = rule(Target(params, total, self._threshold_at(at), measure))
        summary = self._summaries.setdefault(key, ClipSummary(per_step=bounds_norm))
        if not step.is_line_search:
            summary.add(clipped)
        if measure and total is not None and summary.num_steps:
            after = step.total_of(params, step.norms_now())
            self._readings.append(summary.reading(key, total, after, clipped))

    def _rule_of(self, key: str, *, learns: bool) -> Callable[[Target], Clipped]:
        if self.rule == "history":
            return clip_by_history(self._history(key), learns=learns)
        if self.rule == "adaptive":
            return clip_units(self._unit_dims)
        return clip_values if self.rule == "value" else clip_norm

    def _history(self, key: str) -> NormHistory:
        kind = ZScoreHistory if self.method == "zscore" else PercentileHistory
        return self._histories.setdefault(key, kind(self._threshold_at(0)))

    def _place_among(self, trainer: Trainer) -> str:
        """Return what tells this clipper's values from another's: nothing where it is alone."""
        clippers = [c for c in trainer.callbacks if isinstance(c, GradientClipping)]  # type: ignore[attr-defined]
        return f"_{clippers.index(self)}_{self.rule}" if len(clippers) > 1 else ""


def _default(rule: str, method: str) -> float:
    threshold = RULES[rule]
    return METHODS[method] if threshold is None else threshold
