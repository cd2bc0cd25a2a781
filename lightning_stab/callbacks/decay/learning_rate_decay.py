"""The `LearningRateDecay` callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_scalars, tag
from lightning_stab.callbacks.decay.param_groups import group_names
from lightning_stab.callbacks.decay.rules import DecayRules
from lightning_stab.callbacks.decay.state import DecayRun
from lightning_stab.callbacks.decay.trainer import refuse_two_schedules
from lightning_stab.callbacks.stopping.best_weights import BestWeights


class LearningRateDecay(Callback):
    r"""Lets the learning rate fall with the epoch, the step or the loss, for any module.

    Every param group of every optimizer gets :math:`lr = lr_0 \cdot f`, with its own first rate
    :math:`lr_0`, as ``configure_optimizers`` gave it, and a factor f of the ``schedule``:

    By time, with torch's own schedulers; t counts epochs or steps: ``"exponential"``
    :math:`gamma^t`; ``"step"`` :math:`gamma^{\lfloor t/every \rfloor}`; ``"polynomial"``
    :math:`(1 - t/total)^{power}`; ``"inverse_sqrt"`` :math:`\sqrt{s/(s + t)}` with a time scale s;
    ``"cosine"`` :math:`(1 + \cos(\pi t/total))/2`; ``"cosine_restarts"`` the same again and again.

    By loss: ``"loss"`` :math:`g(loss/loss_0)` with the first loss :math:`loss_0`; ``"plateau"``
    times gamma after ``patience`` looks without improvement; ``"oscillation"`` times gamma when the
    last ``window`` looks swing around a level without falling.

    Steps that a guard or the loss scaler skips do not count.

    Args:
        schedule: one of the names above. "exponential", because it needs no length of the run.
        interval: whether time is counted, and the loss looked at, by "epoch" or "step".
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
        monitor: the metric to look at; None: the training loss, smoothed.
        mode: "min" if a smaller value is better, else "max".
        patience: looks without improvement before "plateau" cuts, >= 1.
        min_delta: how much an improvement must exceed for "plateau", >= 0.
        smoothing: of the training loss, in [0, 1); 0.98 averages about the last 50 batches.
        window: looks in the window of "oscillation", >= 4.
        amplitude: the least amplitude of a swing, as a fraction of its level.
        check_every_n_steps: optimizer steps between looks at the loss, by "step".
        reload_best: whether a cut also brings back the weights of the best look so far.
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
        schedule: str = "exponential",
        *,
        interval: str = "epoch",
        gamma: float | None = None,
        every: int = 10,
        power: float = 1.0,
        total: int | None = None,
        time_scale: int | None = None,
        growth: int = 1,
        floor: float | None = None,
        ceiling: float = 1.0,
        warmup_steps: int = 0,
        function: str | Callable[[float], float] = "linear",
        monitor: str | None = None,
        mode: str = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        smoothing: float = 0.98,
        window: int = 10,
        amplitude: float = 0.05,
        check_every_n_steps: int = 50,
        reload_best: bool = False,
        combine: str = "refuse",
    ) -> None:
        super().__init__()
        self._rules = DecayRules(
            schedule=schedule,
            interval=interval,
            gamma=gamma,
            every=every,
            power=power,
            total=total,
            time_scale=time_scale,
            growth=growth,
            floor=floor,
            ceiling=ceiling,
            warmup_steps=warmup_steps,
            function=function,
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            smoothing=smoothing,
            window=window,
            amplitude=amplitude,
            check_every_n_steps=check_every_n_steps,
            reload_best=reload_best,
            combine=combine,
        )
        self._weights = BestWeights()
        self._run: DecayRun | None = None
        self._loaded: dict[str, Any] = {}
        self._left: dict[str, Any] = {}
        self._logged: tuple[int, list[float]] = (-1, [])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to fight with the module's own scheduler."""
        refuse_two_schedules(trainer, pl_module, self._rules.combine)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the first rates, or go on where the checkpoint left off."""
        self._run = DecayRun(self._rules, trainer, self._weights)
        self._weights.take_up(trainer)
        if self._loaded:
            self._run.load(self._loaded)
        self._loaded, self._logged = {}, (-1, [])
        self._run.attach()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates of the coming step, at intervals and where an epoch changed them."""
        if self._run is None:
            return
        step, (logged_step, logged) = trainer.global_step, self._logged
        if step == logged_step:
            return
        due = step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if due or batch_idx == 0:
            now = self._run.present()
            if due or now != logged:
                names = group_names(self._run.optimizers)
                log_scalars(trainer, {tag("lr", n): r for n, r in zip(names, now, strict=True)})
            self._logged = step, now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the training loss, if that is what the rate follows."""
        if self._run is not None:
            self._run.end_batch(trainer, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the monitored metric, where it comes from the validation."""
        if self._run is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._run.end_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch, and take in the loss or a metric of the training."""
        if self._run is not None:
            self._run.end_epoch(trainer)

    def scale_learning_rates(self, factor: float) -> None:
        """Go on from rates that somebody else has scaled by ``factor``."""
        if self._run is not None:
            self._run.scale(factor)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks away from the optimizers, and free the copy of the weights."""
        self._leave()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks away from the optimizers, and free the copy of the weights."""
        self._leave()

    def _leave(self) -> None:
        self._weights.discard()
        if self._run is not None:
            self._left = self._run.state()  # for a checkpoint saved after the fit
            self._run.detach()
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves, as plain numbers and lists; the weights go apart."""
        return dict(self._left) if self._run is None else self._run.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state until the optimizers are ready."""
        self._loaded = state_dict

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the weights that a cut would reload."""
        self._weights.save_to(checkpoint, self.state_key, trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the weights that a cut would reload."""
        if self._rules.reload_best and trainer.state.fn == "fit":
            self._weights.read_from(checkpoint, self.state_key)
