"""What `LearningRateDecay` keeps during one run: clocks, rates, and the value it decays by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks.decay.param_groups import (
    GroupRates,
    on_taken_step,
    rates,
    scaled_during_steps,
)
from lightning_stab.callbacks.decay.rules import DecayClock, DecayRules
from lightning_stab.callbacks.decay.signal import SmoothedLoss, mean_over_processes
from lightning_stab.callbacks.decay.trainer import total_length
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.callbacks.stopping.trainer import require_metrics
from lightning_stab.errors import ConflictError
from lightning_stab.functional.stopping import improves


class DecayRun:
    """One clock and one set of rates for each optimizer, and one value for all of them."""

    def __init__(self, rules: DecayRules, trainer: Trainer, weights: BestWeights) -> None:
        total = total_length(trainer, rules)
        self.rules = rules
        self.optimizers = list(trainer.optimizers)
        self.clocks = [DecayClock(rules, total) for _ in self.optimizers]
        self.own_rates = [GroupRates(optimizer) for optimizer in self.optimizers]
        self._loss = SmoothedLoss(rules.smoothing)
        self._weights = weights
        self._best = math.nan
        self._metric_at = ""
        self._validated = False
        self._looked_at = 0
        self._handles: list[RemovableHandle] = []

    @property
    def multiplies(self) -> bool:
        """Whether the module's own scheduler sets the rates, and the factor is only lent."""
        return self.rules.combine == "multiply"

    def attach(self) -> None:
        """Watch the optimizers' steps, and write the first rates."""
        for place, optimizer in enumerate(self.optimizers):
            if self.multiplies:
                self._handles += scaled_during_steps(optimizer, self.clocks[place])
            self._handles.append(on_taken_step(optimizer, partial(self._count_step, place)))
        self.write()

    def detach(self) -> None:
        """Take the hooks away from the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _count_step(self, place: int) -> None:
        self.clocks[place].step()
        if not self.multiplies:
            self.own_rates[place].write(self.clocks[place].factor)

    def write(self) -> None:
        """Write the present rates into the optimizers."""
        if not self.multiplies:
            for clock, own in zip(self.clocks, self.own_rates, strict=True):
                own.write(clock.factor)

    def present(self) -> list[float]:
        """Return the rate of every param group as the next step will use it."""
        pairs = zip(self.optimizers, self.clocks, strict=True)
        lent = [(o, clock.factor if self.multiplies else 1.0) for o, clock in pairs]
        return [rate * factor for optimizer, factor in lent for rate in rates(optimizer)]

    def end_batch(self, trainer: Trainer, outputs: Any) -> None:
        """Take in the training loss, if that is what the rates follow."""
        rules = self.rules
        if not rules.by_loss or rules.monitor is not None:
            return
        self._loss.add(outputs)
        steps = self.clocks[0].steps
        due = steps % rules.check_every_n_steps == 0 and steps > self._looked_at
        if rules.interval == "step" and due:
            self._looked_at = steps
            self._observe_loss(trainer)

    def end_validation(self, trainer: Trainer) -> None:
        """Take in the monitored metric if it is there by now."""
        name = self.rules.monitor
        if name is not None and self._metric_at != "epoch" and name in trainer.callback_metrics:
            self._observe_metric(trainer, name)
            self._metric_at = "validation"
        self._validated = True

    def end_epoch(self, trainer: Trainer) -> None:
        """Count the epoch, and take in the loss or a metric of the training."""
        for clock in self.clocks:
            clock.epoch()
        rules = self.rules
        known = self._validated or not trainer.enable_validation
        if rules.monitor is not None and self._metric_at != "validation" and known:
            require_metrics(trainer, [rules.monitor])
            self._observe_metric(trainer, rules.monitor)
            self._metric_at = "epoch"
        elif rules.by_loss and rules.monitor is None and rules.interval == "epoch":
            self._observe_loss(trainer)
        self.write()

    def _observe_metric(self, trainer: Trainer, name: str) -> None:
        value = trainer.callback_metrics[name].squeeze()
        self._observe(trainer, mean_over_processes(trainer, value))

    def _observe_loss(self, trainer: Trainer) -> None:
        if not self._loss.seen:
            raise ConflictError(
                f"`schedule={self.rules.schedule!r}` follows the loss that `training_step` "
                "returns, and it returned none; return it, or set `monitor` to a logged metric."
            )
        self._observe(trainer, self._loss.read(trainer))

    def _observe(self, trainer: Trainer, value: float) -> None:
        cut = [clock.observe(value) for clock in self.clocks]
        if self.rules.reload_best:
            if improves(value, self._best, mode=self.rules.mode):
                self._best = value
                self._weights.keep(trainer)
            elif any(cut) and self._weights:
                self._weights.restore(trainer)
        self.write()

    def scale(self, factor: float) -> None:
        """Scale the first rates, because somebody scaled the optimizers' own."""
        for own in self.own_rates:
            own.scale(factor)
        self.write()

    def state(self) -> dict[str, Any]:
        """Return everything that moves, as plain numbers and lists."""
        return {
            "clocks": [clock.state() for clock in self.clocks],
            "rates": [own.state() for own in self.own_rates],
            "loss": self._loss.state(),
            "best": None if math.isnan(self._best) else self._best,
            "metric_at": self._metric_at,
            "looked_at": self._looked_at,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` described.

        Raises:
            ConflictError: if the module has got another number of optimizers.
        """
        if len(state["clocks"]) != len(self.clocks):
            raise ConflictError(
                f"The checkpoint's learning rate decay is that of {len(state['clocks'])} "
                f"optimizers, and the module has {len(self.clocks)}; start without `ckpt_path`."
            )
        for clock, saved in zip(self.clocks, state["clocks"], strict=True):
            clock.load(saved)
        for own, saved in zip(self.own_rates, state["rates"], strict=True):
            own.load(saved)
        self._loss.load(state["loss"])
        self._best = math.nan if state["best"] is None else state["best"]
        self._metric_at, self._looked_at = state["metric_at"], state["looked_at"]
