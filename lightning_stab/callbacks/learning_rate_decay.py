"""The `LearningRateDecay` callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks._best_weights import BestWeights
from lightning_stab.callbacks._decay_rates import (
    GroupRates,
    group_names,
    on_taken_step,
    rates,
    scaled_during_steps,
)
from lightning_stab.callbacks._decay_rules import DecayClock, DecayRules
from lightning_stab.callbacks._decay_signal import SmoothedLoss, mean_over_processes
from lightning_stab.callbacks._decay_trainer import refuse_two_schedules, total_length
from lightning_stab.callbacks._lightning import Callback
from lightning_stab.callbacks._logging import log_scalars, tag
from lightning_stab.callbacks._stopping_trainer import require_metrics
from lightning_stab.functional.stopping import improves


class LearningRateDecay(Callback):
    r"""Lets the learning rate fall with the epoch, the step or the loss, for any module.

    Every param group of every optimizer gets :math:`lr_0 \cdot factor`, with its own first rate
    :math:`lr_0`. ``configure_optimizers`` stays as it is.
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
        self._clocks: list[DecayClock] = []
        self._rates: list[GroupRates] = []
        self._handles: list[RemovableHandle] = []
        self._loss = SmoothedLoss(smoothing)
        self._weights = BestWeights()
        self._best = math.nan
        self._metric_at = ""
        self._validated = False
        self._observed_step = 0
        self._loaded: dict[str, Any] = {}
        self._logged: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to fight with the module's own scheduler."""
        refuse_two_schedules(trainer, pl_module, self._rules.combine)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the first rates, or go on where the checkpoint left off."""
        total = total_length(trainer, self._rules)
        self._clocks = [DecayClock(self._rules, total) for _ in trainer.optimizers]
        self._rates = [GroupRates(optimizer) for optimizer in trainer.optimizers]
        self._loss, self._best = SmoothedLoss(self._rules.smoothing), math.nan
        self._take_up(trainer)
        for place, optimizer in enumerate(trainer.optimizers):
            if self._rules.combine == "multiply":
                self._handles += scaled_during_steps(optimizer, self._clocks[place])
            self._handles.append(on_taken_step(optimizer, partial(self._count_step, place)))
        self._write()

    def _count_step(self, place: int) -> None:
        self._clocks[place].step()
        if self._rules.combine != "multiply":
            self._rates[place].write(self._clocks[place].factor)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates of the coming step, now and then and when they have changed."""
        due = trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        rare = self._rules.interval == "epoch" and not any(c.warming for c in self._clocks)
        now = self._present(trainer)
        if due or (rare and now != self._logged):
            names = group_names(trainer.optimizers)
            log_scalars(trainer, {tag("lr", n): r for n, r in zip(names, now, strict=True)})
            self._logged = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the training loss, if that is what the rate follows."""
        rules = self._rules
        if not rules.by_loss or rules.monitor is not None:
            return
        self._loss.add(outputs)
        steps = self._clocks[0].steps
        due = steps % rules.check_every_n_steps == 0 and steps > self._observed_step
        if rules.interval == "step" and due:
            self._observed_step = steps
            self._observe(trainer, self._loss.read(trainer))
            self._write()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the monitored metric, where it comes from the validation."""
        if self._rules.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._metric_at != "epoch" and self._rules.monitor in trainer.callback_metrics:
            self._observe_metric(trainer, self._rules.monitor)
            self._metric_at = "validation"
            self._write()
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch, and take in the loss or a metric of the training."""
        for clock in self._clocks:
            clock.epoch()
        rules = self._rules
        if rules.by_loss and rules.monitor is None and rules.interval == "epoch":
            self._observe(trainer, self._loss.read(trainer))
        known = self._validated or not trainer.enable_validation
        if rules.monitor is not None and self._metric_at != "validation" and known:
            require_metrics(trainer, [rules.monitor])
            self._observe_metric(trainer, rules.monitor)
            self._metric_at = "epoch"
        self._write()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks away from the optimizers."""
        self._remove_hooks()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks away from the optimizers."""
        self._remove_hooks()

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves, as plain numbers and lists."""
        if not self._clocks:
            return dict(self._loaded)
        return {
            "clocks": [clock.state() for clock in self._clocks],
            "rates": [own.state() for own in self._rates],
            "loss": self._loss.state(),
            "best": self._best,
            "metric_at": self._metric_at,
            "observed_step": self._observed_step,
        }

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

    def _take_up(self, trainer: Trainer) -> None:
        self._weights.take_up(trainer)
        state, self._loaded = self._loaded, {}
        if not state:
            return
        for clock, saved in zip(self._clocks, state["clocks"], strict=True):
            clock.load(saved)
        for own, saved in zip(self._rates, state["rates"], strict=True):
            own.load(saved)
        self._loss.load(state["loss"])
        self._best, self._metric_at = state["best"], state["metric_at"]
        self._observed_step = state["observed_step"]

    def _observe_metric(self, trainer: Trainer, name: str) -> None:
        value = trainer.callback_metrics[name].squeeze()
        self._observe(trainer, mean_over_processes(trainer, value))

    def _observe(self, trainer: Trainer, value: float) -> None:
        cut = [clock.observe(value) for clock in self._clocks]
        if not self._rules.reload_best:
            return
        if improves(value, self._best, mode=self._rules.mode):
            self._best = value
            self._weights.keep(trainer)
        elif any(cut) and self._weights:
            self._weights.restore(trainer)

    def _present(self, trainer: Trainer) -> list[float]:
        if self._rules.combine == "multiply":
            pairs = zip(trainer.optimizers, self._clocks, strict=True)
            return [rate * clock.factor for o, clock in pairs for rate in rates(o)]
        return [rate for optimizer in trainer.optimizers for rate in rates(optimizer)]

    def _write(self) -> None:
        if self._rules.combine != "multiply":
            for clock, own in zip(self._clocks, self._rates, strict=True):
                own.write(clock.factor)

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
