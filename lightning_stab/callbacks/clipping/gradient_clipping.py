"""Clip the true gradients by a named rule, and say what was clipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.nn import Parameter

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, to_host
from lightning_stab.callbacks._trainer.fit_state import forgets_earlier_run
from lightning_stab.callbacks._trainer.lightning_classes import Callback, callbacks_of, is_automatic
from lightning_stab.callbacks._trainer.logging import is_due, log_scalars, log_step
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember
from lightning_stab.callbacks._trainer.strategies import (
    refuse_hidden_gradients,
    refuse_partial_norms,
)
from lightning_stab.callbacks.clipping.options import ClippingOptions, Method, Rule, Threshold
from lightning_stab.callbacks.clipping.output_layer import OutputLayer
from lightning_stab.callbacks.clipping.rules import (
    ClipInput,
    ClipResult,
    ClipSummary,
    clip_by_history,
    clip_norm,
    clip_units,
    clip_values,
    transposed_unit_dims,
)
from lightning_stab.errors import ConflictError
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norm_history import NormHistory, PercentileHistory, ZScoreHistory


class GradientClipping(StepMember, Callback, options=ClippingOptions):
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
        method: how ``history`` finds the bound, ``zscore`` or ``percentile``.
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

    options: ClippingOptions

    def __init__(
        self,
        rule: Rule = "norm",
        threshold: float | dict[int, float] | Callable[[int], float] | None = None,
        *,
        method: Method = "zscore",
        per_parameter_group: bool = False,
        exclude: Sequence[str] = (),
        exclude_output: bool = True,
        every_n_steps: int = 50,
    ) -> None:
        self.options = own = options_from(ClippingOptions, locals())
        # Lightning asks for it at every hook of every step, so it is built once
        self._state_key = self._generate_state_key(
            rule=own.rule, method=own.method, exclude=list(own.exclude)
        )
        self._histories: dict[str, NormHistory[Any]] = {}
        self._summaries: dict[str, ClipSummary] = {}
        self._pending: list[DeviceScalars] = []
        self._output = OutputLayer()
        self._unit_dims: dict[int, int] = {}
        self._excluded: set[int] = set()
        self._suffix = ""
        self._loaded = False

    @property
    def threshold(self) -> Threshold:
        """What was given, or the default of the rule."""
        return self.options.threshold_or_default

    @property
    def state_key(self) -> str:
        """Distinguish clippers of different rules or parameters in a checkpoint."""
        return self._state_key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to clip beside the Trainer, or where whole norms cannot be had."""
        if stage != "fit":
            return
        super().setup(trainer, pl_module, stage)
        self._loaded = False
        if trainer.gradient_clip_val:
            raise ConflictError(
                "`GradientClipping` and the Trainer's `gradient_clip_val` would both clip, got"
                f" `gradient_clip_val={trainer.gradient_clip_val}`. Remove one of them."
            )
        name = "configure_gradient_clipping"  # of a method of either package's class
        own = getattr(getattr(pl_module, name, None), "__qualname__", "")  # a plain module has none
        if is_automatic(trainer, pl_module) and own not in ("", f"LightningModule.{name}"):
            rank_zero_warn(
                f"`GradientClipping` and `{type(pl_module).__name__}.{name}` both change the"
                " gradients: the callback first, the method after it, which the values under"
                " `clip/` do not show. Remove one of them, if both clip.",
                category=RuntimeWarning,
            )
        if self.options.rule == "value":
            refuse_hidden_gradients(trainer, self)
        else:
            refuse_partial_norms(trainer, self, f'rule="{self.options.rule}"')

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the parameters once: they are built and moved by now."""
        super().on_train_start(trainer, pl_module)
        named = [(plain_name(n), p) for n, p in pl_module.named_parameters()]
        patterns = self.options.exclude
        self._excluded = {id(p) for n, p in named if any(fnmatchcase(n, x) for x in patterns)}
        self._unit_dims = transposed_unit_dims(pl_module)
        self._output = OutputLayer()
        self._pending, self._summaries = [], {}  # of an earlier fit that failed
        if forgets_earlier_run(trainer, loaded=self._loaded):
            self._histories = {}
        clippers = [c for c in callbacks_of(trainer) if isinstance(c, GradientClipping)]
        several = len(clippers) > 1  # their logged values need different names
        self._suffix = f"_{clippers.index(self)}_{self.options.rule}" if several else ""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch the first batch for the output layers, where the rule leaves them alone."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._excludes_output:
            self._output.watch(pl_module)

    def needs_verdict(self, trainer: Trainer) -> bool:
        """Say whether a step that is not taken must not be learnt from, or is logged."""
        logs = is_due(log_step(trainer), self.options.every_n_steps)
        return logs or self.options.rule == "history"

    def clip_step(self, step: OptimizerStep) -> None:
        """Clip the gradients of a step that no guard rejected."""
        if step.rejected:
            return
        excluded = self._excluded
        if self._excludes_output:
            excluded = excluded | self._output.parameters(step)
        again, step.clipped = step.clipped, True
        by_group = self.options.per_parameter_group
        for number, params in enumerate(step.groups if by_group else [step.params]):
            kept = [p for p in params if id(p) not in excluded]
            if kept:
                group = f"_group{number}" if by_group else ""
                self._clip(step, kept, self._suffix + step.suffix + group, again=again)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what an interval's last step gave, as one event, and take the hooks off."""
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        self._output.stop()
        pending, self._pending = self._pending, []
        log_scalars(trainer, to_host(pending), as_metrics=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        super().teardown(trainer, pl_module, stage)
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

    @property
    def _excludes_output(self) -> bool:
        return self.options.rule == "adaptive" and self.options.exclude_output

    def _clip(
        self, step: OptimizerStep, params: Sequence[Parameter], key: str, *, again: bool
    ) -> None:
        at = log_step(step.trainer)
        measure = is_due(at, self.options.every_n_steps)
        bounds_norm = self.options.rule in ("norm", "history")
        total = None
        if measure or bounds_norm:  # another clipper may have changed what was measured first
            total = step.total_of(params, step.norms_now() if again else step.norms)
        given = ClipInput(params, total, self.options.threshold_at(at), measure)
        result = self._apply_rule(given, key, learns=not step.is_repeated)
        summary = self._summaries.setdefault(key, ClipSummary(per_step=bounds_norm))
        if not step.is_repeated:
            summary.add(result, step.bad)
        if measure and total is not None and summary.num_steps:
            after = step.total_of(params, step.norms_now())
            self._pending.append(summary.scalars(key, total, after, result))

    def _apply_rule(self, given: ClipInput, key: str, *, learns: bool) -> ClipResult:
        if self.options.rule == "history":
            return clip_by_history(given, self._history(key), learns=learns)
        if self.options.rule == "adaptive":
            return clip_units(given, self._unit_dims)
        return clip_values(given) if self.options.rule == "value" else clip_norm(given)

    def _history(self, key: str) -> NormHistory[Any]:
        kind = ZScoreHistory if self.options.method == "zscore" else PercentileHistory
        return self._histories.setdefault(key, kind(self.options.threshold_at(0)))
