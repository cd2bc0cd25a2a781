"""The state of `LearningRateDecay` in one fit: clocks, rates, and the value it decays by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start
from lightning_stab.callbacks._trainer.logging import require_metrics
from lightning_stab.callbacks._trainer.losses import loss_of_output
from lightning_stab.callbacks._trainer.ranks import mean
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.decay.options import Combine, DecayClock, DecayOptions
from lightning_stab.callbacks.decay.param_groups import (
    GroupRates,
    call_after_steps,
    has_rate,
    learning_rates,
    scale_during_steps,
)
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.errors import ConflictError
from lightning_stab.functional.decay import NEEDS_TOTAL, smooth
from lightning_stab.functional.norms import wide_dtype
from lightning_stab.functional.stopping import improves


class DecayState:
    """One clock and one set of rates for each optimizer, and one value for all of them."""

    def __init__(self, options: DecayOptions, trainer: Trainer, weights: BestWeights) -> None:
        total = total_length(trainer, options)
        self.options = options
        self.optimizers = list(trainer.optimizers)
        self.clocks = [DecayClock(options, total) for _ in self.optimizers]
        self.own_rates = [GroupRates(optimizer) for optimizer in self.optimizers]
        self._loss = SmoothedLoss(options.smoothing)
        self._weights = weights
        self._best = math.nan
        self._metric_at = ""  # where the monitored metric is logged: "validation" or "epoch"
        self._validated = False
        self._before_validation: Tensor | None = None
        self._observed_at = 0  # steps of the first optimizer at the last observation of the loss
        self._handles: list[RemovableHandle] = []
        # the module's own scheduler sets the rates, and the factor is in them only during a step
        self._multiplies = options.combine == "multiply"
        self._is_reload_due = False
        self._is_left = False  # to a scheduler that was installed in mid-run

    def attach(self) -> None:
        """Follow the optimizers' steps, and write the first rates."""
        for place, optimizer in enumerate(self.optimizers):
            if self._multiplies:
                self._handles += scale_during_steps(optimizer, self.clocks[place])
            self._handles.append(call_after_steps(optimizer, partial(self._count_step, place)))
        pairs = zip(self.clocks, self.own_rates, strict=True)
        if not all(own.is_written(clock.factor) for clock, own in pairs):
            self.write()

    def detach(self) -> None:
        """Remove the hooks from the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _count_step(self, place: int) -> None:
        self.clocks[place].step()
        if not self._multiplies and not self._is_left:
            self.own_rates[place].write(self.clocks[place].factor)

    def write(self) -> None:
        """Write the present rates into the optimizers."""
        if not self._multiplies and not self._is_left:
            for clock, own in zip(self.clocks, self.own_rates, strict=True):
                own.write(clock.factor)

    def leave_or_take_over(self, trainer: Trainer) -> None:
        """Leave the rates to a scheduler that somebody installs in mid-run, while it is there."""
        configs = trainer.lr_scheduler_configs
        if self._multiplies or bool(configs) == self._is_left:
            return
        self._is_left = bool(configs)
        if configs:
            say(
                trainer,
                "`LearningRateDecay` leaves the learning rates to "
                f"{type(configs[0].scheduler).__name__}, installed at step {trainer.global_step}.",
            )
        self.write()

    def next_rates(self) -> list[float]:
        """Return the rate of every param group as the next step will use it."""
        factors = [clock.factor if self._multiplies else 1.0 for clock in self.clocks]
        pairs = zip(self.optimizers, factors, strict=True)
        return [rate * factor for o, factor in pairs for rate in learning_rates(o)]

    def end_batch(self, trainer: Trainer, outputs: Any) -> None:
        """Observe the training loss, if that is what the rates follow."""
        options = self.options
        if not options.by_loss or options.monitor is not None:
            return
        self._loss.add(outputs)
        steps = self.clocks[0].steps
        is_due = steps % options.check_every_n_steps == 0 and steps > self._observed_at
        if options.interval == "step" and is_due:
            self._observed_at = steps
            self._observe_loss(trainer)

    def begin_validation(self, trainer: Trainer) -> None:
        """Note the monitored metric as it is before the validation."""
        self._before_validation = trainer.callback_metrics.get(self.options.monitor or "")

    def end_validation(self, trainer: Trainer) -> None:
        """Observe the monitored metric if the validation has logged it."""
        name, before = self.options.monitor or "", self._before_validation
        if self._metric_at != "epoch" and trainer.callback_metrics.get(name) is not before:
            self._observe_metric(trainer, name)
            self._metric_at = "validation"
        self._validated, self._before_validation = True, None

    def end_epoch(self, trainer: Trainer) -> None:
        """Count the epoch, and observe the loss or a metric of the training."""
        for clock in self.clocks:
            clock.epoch()
        options = self.options
        # before any validation there are metrics of the training only
        is_known = self._validated or not trainer.enable_validation
        is_known = is_known or options.monitor in trainer.callback_metrics
        if options.monitor is not None and self._metric_at != "validation" and is_known:
            require_metrics(trainer, [options.monitor])
            self._observe_metric(trainer, options.monitor)
            self._metric_at = "epoch"
        elif options.by_loss and options.monitor is None and options.interval == "epoch":
            self._observe_loss(trainer)
        self.write()

    def _observe_metric(self, trainer: Trainer, name: str) -> None:
        self._observe(trainer, mean(trainer, trainer.callback_metrics[name].squeeze()))

    def _observe_loss(self, trainer: Trainer) -> None:
        value = self._loss.value
        if value is None:
            raise ConflictError(
                f"`schedule={self.options.schedule!r}` follows the loss that `training_step` "
                "returns, and it returned none; return it, or set `monitor` to a logged metric."
            )
        self._observe(trainer, mean(trainer, value))

    def _observe(self, trainer: Trainer, value: float) -> None:
        are_cut = [clock.observe(value) for clock in self.clocks]
        if self.options.reload_best:
            if improves(value, self._best, mode=self.options.mode):
                self._best = value
                self._weights.store(trainer)
            elif any(are_cut) and self._weights:
                self._is_reload_due = True
        self.write()

    def reload_if_due(self, trainer: Trainer) -> None:
        """Bring the best weights back after a cut, when no validation has others in the module."""
        if self._is_reload_due:
            self._weights.restore(trainer)
            self._is_reload_due = False

    def scale(self, factor: float) -> None:
        """Scale the first rates, because the optimizers' own have been scaled."""
        for own in self.own_rates:
            own.scale(factor)
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that moves, as plain numbers and lists."""
        return {
            "clocks": [clock.state_dict() for clock in self.clocks],
            "rates": [own.state_dict() for own in self.own_rates],
            "loss": self._loss.state_dict(),
            "best": None if math.isnan(self._best) else self._best,
            "metric_at": self._metric_at,
            "looked_at": self._observed_at,
        }

    def circumstances(self) -> dict[str, Any]:
        """Return what a run with other settings must know besides, as plain numbers and lists."""
        return {
            "epochs": [clock.epochs for clock in self.clocks],
            "left": self._is_left,
            "reload": self._is_reload_due,
            "follows": [self.options.monitor, self.options.mode],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ConflictError: if the module has got another number of optimizers.
        """
        if len(state["clocks"]) != len(self.clocks):
            raise ConflictError(
                f"The checkpoint's learning rate decay is that of {len(state['clocks'])} "
                f"optimizers, and the module has {len(self.clocks)}; start without `ckpt_path`."
            )
        follows = [self.options.monitor, self.options.mode]
        same_value = list(state.get("follows", follows)) == follows
        both = list(zip(self.clocks, state["clocks"], strict=True))
        epochs = [{"epochs": number} for number in state.get("epochs", [])] or [{}] * len(
            self.clocks
        )
        both = [(clock, {**saved, **e}) for (clock, saved), e in zip(both, epochs, strict=True)]
        goes_on = [clock.load_state_dict(saved, same_value=same_value) for clock, saved in both]
        if not all(goes_on):
            rank_zero_info(
                "`LearningRateDecay`: in the checkpoint's run the rate followed something else, so "
                f"`schedule={self.options.schedule!r}` begins with the first rates."
            )
        for own, saved in zip(self.own_rates, state["rates"], strict=True):
            own.load_state_dict(saved)
            if self._multiplies:
                own.put_back()
        self._loss.load_state_dict(state["loss"])
        if same_value:
            self._best = math.nan if state["best"] is None else state["best"]
            self._metric_at = state["metric_at"]
        self._observed_at, self._is_left = state["looked_at"], state.get("left", False)
        self._is_reload_due = state.get("reload", False)


class SmoothedLoss:
    """The exponential mean of the training loss, kept on the device until it is read."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._mean_and_weight: tuple[Tensor, Tensor] | None = None

    @property
    def value(self) -> Tensor | None:
        """The mean, NaN before there is a finite loss; None before there is any loss."""
        if self._mean_and_weight is None:
            return None
        total, weight = self._mean_and_weight
        return total / weight

    @torch.no_grad()
    def add(self, outputs: Any) -> None:
        """Add the loss in what ``training_step`` returned; without one, nothing happens."""
        loss = loss_of_output(outputs)
        if loss is None:
            return
        loss = loss.detach().to(wide_dtype(loss.device)).mean()
        total, weight = self._mean_and_weight or (torch.zeros_like(loss), torch.zeros_like(loss))
        total, weight = total.to(loss), weight.to(loss)
        self._mean_and_weight = smooth(total, weight, loss, self._smoothing)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean and its weight as plain numbers."""
        if self._mean_and_weight is None:
            return {}
        total, weight = self._mean_and_weight
        return {"mean": float(total), "weight": float(weight)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        if state:
            both = torch.tensor([state["mean"], state["weight"]], dtype=torch.float64)
            self._mean_and_weight = both[0], both[1]


def refuse_two_schedules(trainer: Trainer, module: LightningModule, combine: Combine) -> None:
    """Refuse a scheduler of the module, or leave it out, as ``combine`` says.

    Raises:
        ConflictError: before the first step.
    """
    for optimizer in trainer.optimizers:
        if not all(map(has_rate, optimizer.param_groups)):
            raise ConflictError(
                "`LearningRateDecay` scales the `lr` of each param group, and "
                f"{type(optimizer).__name__} has a group without one (`lr` missing or "
                "None), because it chooses its steps itself; give it a learning rate, "
                "or leave the callback out."
            )
    configs = trainer.lr_scheduler_configs
    if not configs:
        return
    name = type(configs[0].scheduler).__name__
    if combine == "refuse":
        raise ConflictError(
            f"`configure_optimizers` already returns a learning rate scheduler, {name}; set "
            "`combine='multiply'` to apply both, `combine='replace'` to leave it out, or remove "
            "one of them."
        )
    if combine == "replace":
        if not module.automatic_optimization:
            raise ConflictError(
                f"`combine='replace'` cannot leave out {name}, because under manual optimisation "
                "the module steps it by itself; use `combine='multiply'` or remove it."
            )
        for config in configs:  # a cyclic one has written its lowest rate
            highest = getattr(config.scheduler, "max_lrs", ())
            for group, rate in zip(config.scheduler.optimizer.param_groups, highest, strict=False):
                group["max_lr"] = rate
        trainer.strategy.lr_scheduler_configs = []


def total_length(trainer: Trainer, options: DecayOptions) -> int:
    """Return how many epochs or steps the schedule has after the warm-up.

    Raises:
        ConflictError: if it is needed and the length of the fit is not known.
    """
    if options.schedule not in NEEDS_TOTAL:
        return 1
    steps = trainer.estimated_stepping_batches
    steps = steps if steps > 0 else math.inf  # -1 for data without a length
    # a further fit of one Trainer has new optimizers: its schedule spans what is left of the run
    is_continued = fit_start(trainer) is FitStart.CONTINUED
    done = (trainer.global_step, trainer.current_epoch) if is_continued else (0, 0)
    if options.interval == "step":
        total, before = (options.total or steps - done[0]), options.warmup_steps
    else:
        per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        per_epoch = max(1, math.ceil(per_epoch)) if math.isfinite(per_epoch) else math.inf
        epochs = trainer.max_epochs or -1
        is_known = max(steps, per_epoch) < math.inf
        by_steps = max(1, math.ceil(steps / per_epoch)) if is_known else math.inf
        length = min(epochs, by_steps) if epochs > 0 else by_steps
        total = options.total or length - done[1]
        before = int(options.warmup_steps // per_epoch)
    if total == math.inf:
        raise ConflictError(
            f"`total` must be given for `schedule={options.schedule!r}`, because the Trainer has "
            f"neither `max_epochs` nor `max_steps`, or the data has no length; it counts "
            f"{options.interval}s."
        )
    return max(1, int(total) - before)
