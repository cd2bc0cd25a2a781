"""The `LearningRateDecay` callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.exceptions import call_after_exception
from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start, is_validating_fit
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_scalars, tag
from lightning_stab.callbacks.decay.options import Combine, DecayOptions, Interval
from lightning_stab.callbacks.decay.param_groups import group_names, undo_first_write
from lightning_stab.callbacks.decay.state import DecayState, refuse_two_schedules
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.functional.decay import LossFunctionName, LossName, TimeName
from lightning_stab.functional.stopping import MinOrMax

_CHECKPOINT_KEY = "lightning_stab.decay"


class LearningRateDecay(Callback, options=DecayOptions):
    r"""Lets the learning rate fall with the epoch, the step or the loss, for any module.

    Every param group of every optimizer gets :math:`lr = lr_0 \cdot f`, with its own first rate
    :math:`lr_0`, as ``configure_optimizers`` gave it, and a factor f of the ``schedule``:

    By time, with torch's own schedulers; t counts epochs or steps: ``"exponential"``
    :math:`gamma^t`; ``"step"`` :math:`gamma^{\lfloor t/every \rfloor}`; ``"polynomial"``
    :math:`(1 - t/total)^{power}`; ``"inverse_sqrt"`` :math:`\sqrt{s/(s + t)}` with a time scale s;
    ``"cosine"`` :math:`(1 + \cos(\pi t/total))/2`; ``"cosine_restarts"`` the same, restarted.

    By loss: ``"loss"`` :math:`g(loss/loss_0)` with the first loss :math:`loss_0`; ``"plateau"``
    times gamma after ``patience`` observations without improvement; ``"oscillation"`` times gamma
    when the last ``window`` observations swing around a level without falling.

    Steps that a guard or the loss scaler skips do not count.

    Args:
        schedule: one of the names above. "exponential", because it needs no length of the run.
        interval: whether time is counted, and the loss observed, by "epoch" or "step".
        gamma: what a cut or a unit of time multiplies the rate by, in (0, 1); None: 0.95 for
            "exponential", 0.1 for "step", 0.5 for "plateau" and "oscillation".
        every: epochs or steps between cuts or restarts, >= 1.
        power: the power of "polynomial", > 0.
        total: epochs or steps until the end, >= 1, warm-up included; None: as the Trainer has it.
        time_scale: the time scale of "inverse_sqrt", >= 1; None: ``warmup_steps``.
        growth: how much longer each period between restarts is than the one before, >= 1.
        floor: the least factor, in [0, 1]; None: 0 by time, 0.01 by loss.
        ceiling: the largest factor of "loss"; 1 lets a rising loss not raise the rate.
        warmup_steps: optimizer steps in which the factor rises in equal parts to 1, >= 0.
        function: g of "loss": "linear", "sqrt", "square" or a function of one number.
        monitor: the metric to follow; None: the training loss, smoothed.
        mode: "min" if a smaller value is better, else "max".
        patience: observations without improvement before "plateau" cuts, >= 1.
        min_delta: how much an improvement must exceed for "plateau", >= 0.
        smoothing: of the training loss, in [0, 1); 0.98 averages about the last 50 batches.
        window: observations in the window of "oscillation", >= 4.
        amplitude: the least amplitude of a swing, as a fraction of its level.
        check_every_n_steps: optimizer steps between observations of the loss, by "step".
        reload_best: whether a cut also brings back the weights of the best observation so far.
        combine: with a scheduler of the module: "refuse", "multiply" both factors, or "replace" it.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: where the module has a scheduler and ``combine`` is "refuse".

    Example:
        >>> LearningRateDecay("cosine", interval="step", warmup_steps=500).state_dict()
        {}

    Robbins & Monro (1951) on why a rate must fall; Loshchilov & Hutter, "SGDR" (2017).
    """

    def __init__(
        self,
        schedule: TimeName | LossName = "exponential",
        *,
        interval: Interval = "epoch",
        gamma: float | None = None,
        every: int = 10,
        power: float = 1.0,
        total: int | None = None,
        time_scale: int | None = None,
        growth: int = 1,
        floor: float | None = None,
        ceiling: float = 1.0,
        warmup_steps: int = 0,
        function: LossFunctionName | Callable[[float], float] = "linear",
        monitor: str | None = None,
        mode: MinOrMax = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        smoothing: float = 0.98,
        window: int = 10,
        amplitude: float = 0.05,
        check_every_n_steps: int = 50,
        reload_best: bool = False,
        combine: Combine = "refuse",
    ) -> None:
        super().__init__()
        self.options = options_from(DecayOptions, locals())
        self._weights = BestWeights()
        self._state: DecayState | None = None
        self._loaded: dict[str, Any] = {}
        self._circumstances: dict[str, Any] = {}
        self._final: dict[str, Any] = {}
        self._logged: tuple[int, list[float]] = (-1, [])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to fight with the module's own scheduler."""
        refuse_two_schedules(trainer, pl_module, self.options.combine)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the rates of the optimizers, which every fit makes, or with a checkpoint's."""
        self._state = DecayState(self.options, trainer, self._weights)
        if fit_start(trainer) is not FitStart.RESUMED:
            self._loaded = {}  # what a finder restored is of an earlier fit
            self._weights.discard()
        self._weights.finish_loading(trainer)
        if self._loaded:
            self._state.load_state_dict({**self._loaded, **self._circumstances})
        elif self.options.combine == "replace":
            for optimizer in trainer.optimizers:
                undo_first_write(optimizer)
        self._loaded, self._logged = {}, (-1, [])
        self._state.attach()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates of the coming step, at intervals and where an epoch changed them."""
        if self._state is not None:
            self._state.leave_or_take_over(trainer)
            self._state.reload_if_due(trainer)
        step, (logged_step, logged) = trainer.global_step, self._logged
        if self._state is None or step == logged_step:
            return
        settings: Any = trainer  # Lightning sets it where a type checker does not see it
        is_due = step % max(1, settings.log_every_n_steps) == 0
        if is_due or batch_idx == 0:
            now = self._state.next_rates()
            if is_due or now != logged:
                names = group_names(self._state.optimizers)
                log_scalars(trainer, {tag("lr", n): r for n, r in zip(names, now, strict=True)})
            self._logged = step, now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Observe the training loss, if that is what the rate follows."""
        if self._state is not None:
            self._state.end_batch(trainer, outputs)
            self._state.reload_if_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the monitored metric as it is before."""
        if self._state is not None and is_validating_fit(trainer):
            self._state.begin_validation(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note which weights are measured."""
        monitor = self.options.monitor if self.options.reload_best else None
        if monitor and is_validating_fit(trainer):
            first = batch_idx == dataloader_idx == 0
            self._weights.begin_batch(trainer, monitor, is_first=first)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observe the monitored metric, where it comes from the validation."""
        if self._state is not None and is_validating_fit(trainer):
            if self.options.monitor:
                self._weights.end_validation(trainer, self.options.monitor)
            self._state.end_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch, and observe the loss or a metric of the training."""
        if self._state is not None:
            self._state.end_epoch(trainer)
            self._state.reload_if_due(trainer)

    def scale_learning_rates(self, factor: float) -> None:
        """Continue from rates that have been scaled by ``factor`` elsewhere."""
        if self._state is not None:
            self._state.scale(factor)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind when every callback has seen the exception."""
        call_after_exception(trainer, lambda: self.teardown(trainer, pl_module, "fit"))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the hooks from the optimizers, and free the copy of the weights."""
        self._weights.discard()
        if self._state is not None:
            self._circumstances = self._state.circumstances()
            self._final = self._state.state_dict()  # for a checkpoint saved after the fit
            self._state.detach()
            self._state = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves, as plain numbers and lists; the weights go apart."""
        if self._state is None:  # before the run begins that loaded it, or after the fit
            return dict(self._loaded or self._final)
        return self._state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state until the optimizers are ready."""
        self._loaded = state_dict

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the weights that a cut would reload."""
        self._weights.save_to_checkpoint(checkpoint, self.state_key, trainer)
        now = self._circumstances if self._state is None else self._state.circumstances()
        checkpoint.setdefault(_CHECKPOINT_KEY, {})[self.state_key] = now

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the weights that a cut would reload."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._circumstances = checkpoint.get(_CHECKPOINT_KEY, {}).get(self.state_key, {})
        if self.options.reload_best and trainer.state.fn == "fit":
            self._weights.load_from_checkpoint(checkpoint, self.state_key)
