"""Watch the true gradients at the optimizer step, and log them as one event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lightning_stab.arguments import check_choices, integer, options_from, strings
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, Leaving, is_remote
from lightning_stab.callbacks._trainer.fit_state import forgets_earlier_run
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import (
    is_due,
    keep_metrics,
    log_events,
    log_step,
    tag,
    tensorboard_writers,
)
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks.gradients.statistics import (
    DepthProfile,
    GradientCosine,
    NoiseScale,
    UpdateRatio,
    entry_scalars,
    norm_scalars,
    write_histograms,
)

Statistic = Literal[
    "rms",
    "max_abs",
    "zero_fraction",
    "nonfinite_fraction",
    "update_ratio",
    "cosine",
    "depth",
    "noise_scale",
]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
DEFAULT_STATISTICS: tuple[Statistic, ...] = STATISTICS[3:]
HELD_SECONDS = 1.0  # events of many steps cost less where they are written together


@dataclass(frozen=True, kw_only=True)
class GradientMonitorOptions:
    """The arguments of `GradientMonitor`, where each is explained; checked as it says."""

    every_n_steps: int = 50
    dense_steps: int = 10
    per_parameter: Sequence[str] = ()
    statistics: Sequence[Statistic] = DEFAULT_STATISTICS
    histogram_every_n_steps: int | None = None
    progress_bar: bool = False

    def __post_init__(self) -> None:
        integer("every_n_steps", self.every_n_steps, minimum=1)
        integer("dense_steps", self.dense_steps, minimum=0)
        for name in ("per_parameter", "statistics"):
            object.__setattr__(self, name, strings(name, getattr(self, name)))
        check_choices(self)
        if self.histogram_every_n_steps is not None:
            integer("histogram_every_n_steps", self.histogram_every_n_steps, minimum=1)


class GradientMonitor(StepMember, Callback, options=GradientMonitorOptions):
    """Log the norms of the gradients that the optimizer really gets, a few values per layer.

    It reads unscaled, accumulated gradients before and after the suite's own clipping, and never
    changes a run. All values of a step leave as one event, those of a second together.

    ========================== =====================================================
    logged name                what it is
    ========================== =====================================================
    ``grad_norm/total``        2-norm of the whole gradient before clipping
    ``grad_norm/<layer>``      2-norm over a layer's parameters
    ``grad_norm_clipped/...``  the same after clipping, beside a `GradientClipping`
    ``grad_rms/<layer>``       norm / sqrt(number of entries)
    ``grad_max_abs/<layer>``   the greatest magnitude of an entry
    ``grad_zero_fraction/...`` fraction of entries that are exactly 0
    ``grad_nonfinite_fraction/...`` fraction of entries that are NaN or infinite, if any is
    ``update_ratio/<layer>``   norm of the weights' change over the norm of the weights
    ``grad_cosine/previous``   cosine with the gradient of the step before
    ``preactivation_grad/...`` RMS of the gradient of each layer's output, in execution order
    ``depth/first_last_log10`` log10 of its ratio, first to last hidden layer: -3 has vanished
    ``grad_noise/scale``       batch size at which noise equals signal, with accumulation only
    ========================== =====================================================

    With several optimizers, totals carry ``_opt0``, ``_opt1``.

    Args:
        every_n_steps: log at the end of each interval of so many optimizer steps, independent of
            the Trainer's ``log_every_n_steps``.
        dense_steps: also log the norms alone at each of so many first steps, where runs fail.
        per_parameter: patterns of parameter names whose own norms are logged, e.g. ``["*"]``.
        statistics: what is logged besides norms, any of ``rms``, ``max_abs``, ``zero_fraction``,
            ``nonfinite_fraction``, ``update_ratio``, ``cosine``, ``depth``, ``noise_scale``.
        histogram_every_n_steps: interval of TensorBoard histograms (expensive); None: never.
        progress_bar: show the total norm in the progress bar.

    Raises:
        InvalidArgumentError: if an interval is below 1, ``dense_steps`` below 0, or a statistic is
            not known.
        ConflictError: at the start of a fit under DeepSpeed or FSDP1.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GradientMonitor(every_n_steps=10)], logger=False)
    """

    options: GradientMonitorOptions

    def __init__(
        self,
        every_n_steps: int = 50,
        dense_steps: int = 10,
        *,
        per_parameter: Sequence[str] = (),
        statistics: Sequence[Statistic] = DEFAULT_STATISTICS,
        histogram_every_n_steps: int | None = None,
        progress_bar: bool = False,
    ) -> None:
        self.options = options_from(GradientMonitorOptions, locals())
        # Lightning asks for it at every hook of every step, so it is built once
        self._state_key = self._generate_state_key(
            every_n_steps=self.options.every_n_steps, dense_steps=self.options.dense_steps
        )
        self._pending: list[DeviceScalars] = []
        self._leaving: Leaving | None = None
        self._unwritten: list[tuple[int, dict[str, float]]] = []  # the events of some steps
        self._next_write = 0.0
        self._update_ratio = UpdateRatio()
        self._cosine = GradientCosine()
        self._depth = DepthProfile()
        self._noise = NoiseScale()
        self._loaded = False

    @property
    def state_key(self) -> str:
        """Distinguish monitors of different intervals in a checkpoint."""
        return self._state_key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._loaded = False
            refuse_partial_norms(trainer, self, "gradient norms")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, unless this one continues it."""
        super().on_train_start(trainer, pl_module)
        if forgets_earlier_run(trainer, loaded=self._loaded):
            self._noise = NoiseScale()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a batch whose step will be read in full."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not self._is_full(log_step(trainer)):
            return
        if self._wants("depth"):
            self._depth.start(trainer, pl_module)
        if self._wants("noise_scale") and trainer.accumulate_grad_batches > 1:
            self._noise.start_batch(batch)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the first micro-batch of a window."""
        self._noise.after_backward(trainer, pl_module)

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether this step, or the next one's cosine with it, is read."""
        at = log_step(trainer)
        soon = self._wants("cosine") and self._is_full(at + 1)
        return self._is_due(at) or soon or self._wants_histogram(at)

    def needs_verdict(self, trainer: Trainer) -> bool:
        """Say whether the step is logged: one that is not taken has no update and no clipping."""
        return self._is_due(log_step(trainer))

    def begin_step(self, trainer: Trainer, optimizer: Optimizer, index: int) -> None:
        """Copy the weights, before an optimizer that evaluates several times moves them."""
        if self._wants("update_ratio") and self._is_full(log_step(trainer)):
            self._update_ratio.begin_step(optimizer)

    def measure_step(self, step: OptimizerStep) -> None:
        """Read the gradients as they are before anything guards or clips them."""
        at = log_step(step.trainer)
        if self._is_due(at):
            patterns = self.options.per_parameter
            self._pending.append(norm_scalars(step, step.norms, "grad_norm", patterns))
        if self._is_full(at):
            self._pending.extend(entry_scalars(step, self.options.statistics))
            self._pending.extend(self._noise.scalars(step))
            if self._wants("update_ratio"):
                self._update_ratio.select(step)
        compare, keep = self._is_full(at), self._is_full(at + 1)
        if self._wants("cosine") and (compare or keep) and not step.is_repeated:
            self._pending.extend(self._cosine.scalars(step, compare=compare, keep=keep))
        if self._wants_histogram(at):
            write_histograms(step, list(tensorboard_writers(step.trainer)), at)

    def record_step(self, step: OptimizerStep) -> None:
        """Read the norms after clipping, if a clipper was there and the step stands."""
        if step.rejected:
            self._update_ratio.drop(step)
        elif step.clipped and self._is_due(log_step(step.trainer)):
            self._pending.append(norm_scalars(step, step.norms_now(), "grad_norm_clipped"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log everything that this batch's steps gave, as one event, written within a second.

        On a GPU that happens after the next batch: by then the numbers have arrived by themselves.
        """
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        self._emit(trainer)
        if self._pending or self._depth.is_on:
            later = self._update_ratio.scalars() + self._depth.scalars(trainer)
            if self._pending:  # a batch without a step takes the hooks off all the same
                self._pending.extend(later)
            self._leave(trainer)
        if self._unwritten and monotonic() >= self._next_write:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is still on its way."""
        self._emit(trainer)
        self._write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is still on its way, before a validation's metrics are judged."""
        self._emit(trainer)
        self._write(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Log what was read before the failure, and take the hooks off."""
        self._emit(trainer)
        self._leave(trainer)
        self._emit(trainer)
        self._write(trainer)
        super().on_exception(trainer, pl_module, exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        super().teardown(trainer, pl_module, stage)
        self._clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the averages of the noise scale."""
        self._settle()
        return {"noise_scale": self._noise.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the averages of the noise scale."""
        self._settle()
        self._noise.load_state_dict(state_dict["noise_scale"])
        self._loaded = True

    def _settle(self) -> None:
        """Let the averages learn what is on its way, before they are saved or replaced."""
        if self._leaving is not None:
            self._leaving.scalars()

    def _leave(self, trainer: Trainer) -> None:
        """Send what was measured on its way; log it at once where nothing has to be waited for."""
        pending, self._pending = self._pending, []
        if pending:
            self._leaving = Leaving(pending, log_step(trainer))
            if not is_remote(pending[0].values):
                self._emit(trainer)

    def _emit(self, trainer: Trainer) -> None:
        """Let what was on its way be monitored and shown, and keep it for the loggers."""
        leaving, self._leaving = self._leaving, None
        if leaving is None:
            return
        scalars = leaving.scalars()
        if scalars:
            self._unwritten.append((leaving.step, scalars))
            keep_metrics(trainer, scalars)
        if self.options.progress_bar:
            total = tag("grad_norm", "total")
            shown = {name: v for name, v in scalars.items() if name.startswith(total)}
            trainer.progress_bar_metrics.update(shown)

    def _write(self, trainer: Trainer) -> None:
        """Send the events of some steps to the loggers."""
        unwritten, self._unwritten = self._unwritten, []
        log_events(trainer, unwritten)
        self._next_write = monotonic() + HELD_SECONDS

    def _clear(self) -> None:
        self._pending, self._leaving, self._unwritten, self._next_write = [], None, [], 0.0
        self._depth.stop()
        self._noise.forget()
        self._update_ratio = UpdateRatio()
        self._cosine = GradientCosine()

    def _wants(self, statistic: str) -> bool:
        return statistic in self.options.statistics

    def _is_full(self, step: int) -> bool:
        return is_due(step, self.options.every_n_steps)

    def _is_due(self, step: int) -> bool:
        return step < self.options.dense_steps or self._is_full(step)

    def _wants_histogram(self, step: int) -> bool:
        every = self.options.histogram_every_n_steps
        return every is not None and is_due(step, every)
