"""Watch the true gradients at the optimizer step, and log them as one event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lightning_stab.arguments import integer, one_of, strings
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, to_host
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import (
    is_due,
    log_scalars,
    log_step,
    tag,
    tensorboard_writers,
)
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember, run_phases
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks.gradients.noise_scale import NoiseScale
from lightning_stab.callbacks.gradients.statistics import (
    DepthProfile,
    GradientCosine,
    UpdateRatio,
    entry_readings,
    norm_reading,
    write_histograms,
)

STATISTICS = (
    "rms",
    "max_abs",
    "zero_fraction",
    "nonfinite_fraction",
    "update_ratio",
    "cosine",
    "depth",
    "noise_scale",
)


class GradientMonitor(StepMember, Callback):
    """Log the norms of the gradients that the optimizer really gets, a few values per layer.

    It reads unscaled, accumulated gradients before and after the suite's own clipping, and never
    changes a run. All values of a step leave as one event.

    ========================== =====================================================
    logged name                what it is
    ========================== =====================================================
    ``grad_norm/total``        2-norm of the whole gradient before clipping
    ``grad_norm/<layer>``      2-norm over a layer's parameters
    ``grad_norm_clipped/...``  the same after clipping, beside a `GradientClipping`
    ``grad_rms/<layer>``       norm / sqrt(number of entries)
    ``grad_max_abs/<layer>``   the greatest magnitude of an entry
    ``grad_zero_fraction/...`` fraction of entries that are exactly 0
    ``grad_nonfinite_fraction/...`` fraction of entries that are NaN or infinite
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
        histogram_every_n_steps: interval of TensorBoard histograms, which are dear; None: never.
        progress_bar: show the total norm in the progress bar.

    Raises:
        InvalidArgumentError: if an interval is below 1, ``dense_steps`` below 0, or a statistic is
            not known.
        ConflictError: at the start of a fit under DeepSpeed or FSDP1.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GradientMonitor(every_n_steps=10)], logger=False)
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        dense_steps: int = 10,
        *,
        per_parameter: Sequence[str] = (),
        statistics: Sequence[str] = (
            "nonfinite_fraction",
            "update_ratio",
            "cosine",
            "depth",
            "noise_scale",
        ),
        histogram_every_n_steps: int | None = None,
        progress_bar: bool = False,
    ) -> None:
        self.every_n_steps = integer("every_n_steps", every_n_steps, minimum=1)
        self.dense_steps = integer("dense_steps", dense_steps, minimum=0)
        self.per_parameter = strings("per_parameter", per_parameter)
        self.statistics = tuple(
            one_of("statistics", name, STATISTICS) for name in strings("statistics", statistics)
        )
        self.histogram_every_n_steps = histogram_every_n_steps
        if histogram_every_n_steps is not None:
            integer("histogram_every_n_steps", histogram_every_n_steps, minimum=1)
        self.progress_bar = progress_bar
        self._readings: list[DeviceScalars] = []
        self._update_ratio = UpdateRatio()
        self._cosine = GradientCosine()
        self._depth = DepthProfile()
        self._noise = NoiseScale()
        self._loaded = False

    @property
    def state_key(self) -> str:
        """Tell monitors of different intervals apart in a checkpoint."""
        return self._generate_state_key(
            every_n_steps=self.every_n_steps, dense_steps=self.dense_steps
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen."""
        if stage == "fit":
            refuse_partial_norms(trainer, self, "gradient norms")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, unless this one continues it."""
        if not self._loaded and trainer.global_step == 0:
            self._noise = NoiseScale()
        self._loaded = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a batch whose step will be read in full."""
        if not self._is_full(log_step(trainer)):
            return
        if self._wants("depth"):
            self._depth.start(pl_module)
        if self._wants("noise_scale") and trainer.accumulate_grad_batches > 1:
            self._noise.start_batch(batch)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the first micro-batch of a window."""
        self._noise.after_backward(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        run_phases(self, trainer, pl_module, optimizer)

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether this step, or the next one's cosine with it, is read."""
        at = log_step(trainer)
        soon = self._wants("cosine") and self._is_full(at + 1)
        return self._is_due(at) or soon or self._wants_histogram(at)

    def measure_step(self, step: OptimizerStep) -> None:
        """Read the gradients as they are before anything guards or clips them."""
        at = log_step(step.trainer)
        if self._is_due(at):
            self._readings.append(norm_reading(step, step.norms, "grad_norm", self.per_parameter))
        if self._is_full(at):
            self._measure_in_full(step)
        elif self._wants("cosine") and self._is_full(at + 1):
            self._cosine.remember(step)
        if self._wants_histogram(at):
            write_histograms(step, list(tensorboard_writers(step.trainer)), at)

    def record_step(self, step: OptimizerStep) -> None:
        """Read the norms after clipping, if a clipper was there and the step stands."""
        if step.rejected:
            self._update_ratio.drop(step)
        if self._is_due(log_step(step.trainer)) and step.clipped and not step.rejected:
            norms = step.norms_now()
            self._readings.append(norm_reading(step, norms, "grad_norm_clipped", ()))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log everything that this batch's steps gave, as one event."""
        if not (self._readings or self._depth.is_on):
            return
        later = self._update_ratio.readings() + self._depth.readings(trainer)
        if self._readings:  # a batch without a step takes the hooks off all the same
            self._readings.extend(later)
        self._emit(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Log what was read before the failure, and take the hooks off."""
        self._emit(trainer)
        self._clear()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the averages of the noise scale."""
        return {"noise_scale": self._noise.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the averages of the noise scale."""
        self._noise.load_state_dict(state_dict["noise_scale"])
        self._loaded = True

    def _measure_in_full(self, step: OptimizerStep) -> None:
        self._readings.extend(entry_readings(step, self.statistics))
        if self._wants("cosine"):
            self._readings.extend(self._cosine.readings(step))
            if self._is_full(log_step(step.trainer) + 1):
                self._cosine.remember(step)
        self._readings.extend(self._noise.readings(step))
        if self._wants("update_ratio"):
            self._update_ratio.before_step(step)

    def _emit(self, trainer: Trainer) -> None:
        readings, self._readings = self._readings, []
        scalars = to_host(readings)
        totals = {k: v for k, v in scalars.items() if k.startswith(tag("grad_norm", "total"))}
        log_scalars(trainer, scalars)
        if self.progress_bar:
            trainer.progress_bar_metrics.update(totals)

    def _clear(self) -> None:
        self._readings = []
        self._depth.stop()
        self._noise.forget()
        self._update_ratio = UpdateRatio()
        self._cosine = GradientCosine()

    def _wants(self, statistic: str) -> bool:
        return statistic in self.statistics

    def _is_full(self, step: int) -> bool:
        return is_due(step, self.every_n_steps)

    def _is_due(self, step: int) -> bool:
        return step < self.dense_steps or self._is_full(step)

    def _wants_histogram(self, step: int) -> bool:
        every = self.histogram_every_n_steps
        return every is not None and is_due(step, every)
