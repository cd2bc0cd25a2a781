"""The `BestWeightsEarlyStopping` callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_stab.callbacks._best_weights import BestWeights
from lightning_stab.callbacks._lightning_early_stopping import EarlyStopping
from lightning_stab.callbacks._logging import log_scalars, log_text, tag
from lightning_stab.callbacks._stopping_rules import StoppingRecord, StoppingRules, summarize
from lightning_stab.callbacks._stopping_trainer import (
    agree_on_improvement,
    agree_on_stop,
    first_free_number,
    has_averaging,
    is_fresh,
    may_stop,
    next_position,
    place_among_twins,
    refuse_unrestorable,
    require_metrics,
)
from lightning_stab.functional.stopping import Position

_LIGHTNINGS_OWN = {
    EarlyStoppingReason.NON_FINITE_METRIC: "not_finite",
    EarlyStoppingReason.STOPPING_THRESHOLD: "threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence",
}
_in_no_trainer_yet: WeakSet[BestWeightsEarlyStopping] = WeakSet()


class BestWeightsEarlyStopping(EarlyStopping):
    """Stops when a metric stops improving, and brings the best weights and buffers back.

    It is Lightning's ``EarlyStopping`` with what that leaves out.

    Args:
        monitor: the metric, as the module logs it, or several. The first decides which are best.
        patience: how long to wait for an improvement, at least 1. 3 as in Lightning; noisy metrics
            want 5 to 20. Given anew it wins over the one in a checkpoint.
        patience_unit: what ``patience`` counts: "checks", "epochs" or "steps" of the optimizer.
        mode: "min" if smaller is better, "max" if larger is; one for all metrics, or one for each.
        min_delta: what counts as an improvement must be larger than this, >= 0.
        relative_min_delta: whether ``min_delta`` is a fraction of the best value's absolute value.
        stall: with several metrics, whether "any" of them must stall or "all".
        warmup_checks: checks that count nothing against the metric, >= 0.
        warmup_steps: optimizer steps in which nothing counts against the metric, >= 0.
        rising_checks: stop if the metric got worse this many checks in a row; None: never for it.
        oscillation_window: stop if the metric swings around a level for this many checks, at least
            4, better 10; None: never for it.
        oscillation_amplitude: the least amplitude of such a swing, as a fraction of the level.
        restore_best: whether the best weights and buffers come back when training ends.
        folder: where the best weights wait as a file; None: in memory, on the CPU.
        check_every_n_steps: check after every so many optimizer steps, for metrics logged there;
            None: after validation or at the end of the epoch.
        verbose: whether Lightning tells of each improvement.
        strict: whether a missing metric is an error.
        check_finite: whether the first NaN or infinite value stops the run.
        stopping_threshold: a value so good that the run stops at once.
        divergence_threshold: a value so bad that the run stops at once.
        check_on_train_epoch_end: as in Lightning; None chooses by the Trainer's settings.
        log_rank_zero_only: whether only the first process tells of improvements.

    Attributes:
        stop_reason: "patience", "rising", "oscillation", "never_finite", "not_finite",
            "threshold", "divergence", or "" if nothing asked for a stop.
        summary: why the run ended, which check was best and what was restored; one sentence.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: where the best weights cannot be restored, or a metric is missing.

    Example:
        >>> stopping = BestWeightsEarlyStopping("val_loss", patience=5)
        >>> stopping.state_key
        "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"

    Prechelt, "Early Stopping - But When?" (1998).
    """

    def __init__(
        self,
        monitor: str | list[str],
        *,
        patience: int = 3,
        patience_unit: str = "checks",
        mode: str | list[str] = "min",
        min_delta: float = 0.0,
        relative_min_delta: bool = False,
        stall: str = "any",
        warmup_checks: int = 0,
        warmup_steps: int = 0,
        rising_checks: int | None = None,
        oscillation_window: int | None = None,
        oscillation_amplitude: float = 0.05,
        restore_best: bool = True,
        folder: str | None = None,
        check_every_n_steps: int | None = None,
        verbose: bool = False,
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        self._rules = StoppingRules.make(
            monitor,
            mode,
            patience=patience,
            unit=patience_unit,
            stall=stall,
            min_delta=min_delta,
            relative=relative_min_delta,
            warmup_checks=warmup_checks,
            warmup_steps=warmup_steps,
            rising=rising_checks,
            window=oscillation_window,
            amplitude=oscillation_amplitude,
            every_n_steps=check_every_n_steps,
        )
        super().__init__(
            monitor=self._rules.leading,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode=self._rules.modes[self._rules.leading],
            strict=strict,
            check_finite=check_finite,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
            check_on_train_epoch_end=check_on_train_epoch_end,
            log_rank_zero_only=log_rank_zero_only,
        )
        self.restore_best = restore_best
        self._weights = BestWeights(None if folder is None else Path(folder))
        self._instance = first_free_number(self, _in_no_trainer_yet)
        _in_no_trainer_yet.add(self)
        self._clear()

    def _clear(self) -> None:
        worst = torch.tensor(torch.inf)
        self.best_score = worst if self.mode == "min" else -worst
        self.wait_count = self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None
        self.stop_reason = self.summary = ""
        self._record = StoppingRecord()
        self._wants_stop = self._restored = self._resumed = False

    @property
    def state_key(self) -> str:
        """The key in a checkpoint: that of Lightning's class, so that each reads the other's."""
        own = type(self) is BestWeightsEarlyStopping
        name = "EarlyStopping" if own else type(self).__qualname__
        twin = {"instance": self._instance} if self._instance > 1 else {}
        return name + repr({"monitor": self.monitor, "mode": self.mode, **twin})

    @property
    def best_position(self) -> Position:
        """When the leading metric was best: check, epoch and step, all 0 before there is a best."""
        return self._record.track(self.monitor).at

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, before the first step."""
        _in_no_trainer_yet.discard(self)
        self._instance = place_among_twins(self, trainer)
        if stage == "fit" and self.restore_best:
            refuse_unrestorable(trainer)
        if self._check_on_train_epoch_end is None and has_averaging(trainer):
            # The average may move on between the validation and the end of the epoch.
            self._check_on_train_epoch_end = not trainer.enable_validation
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a clean record, or go on where the checkpoint left off."""
        if is_fresh(trainer):
            self._weights.discard()
            self._clear()
        if not self._weights.take_up(trainer) and self._restored:
            self._weights.keep(trainer)  # the run starts from its best weights
        if self._resumed and self._still_wants_stop():
            self._wants_stop = True
            self._pass_on(trainer)
        self._restored = self._resumed = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check mid-epoch if asked to, and stop when the Trainer's minimum has been reached."""
        if self._rules.checks_at(trainer.global_step, self._record.now.step):
            self._run_early_stopping_check(trainer)
        self._pass_on(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, as Lightning does, and stop when the Trainer's minimum has been reached."""
        super().on_train_epoch_end(trainer, pl_module)
        self._pass_on(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the best weights back, and say why the run ended."""
        if self.restore_best and self._weights:
            self._weights.restore(trainer)
            self._restored = True
        if self._record.now.check:
            self._tell(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the copy of the best weights, and remove its file."""
        self._weights.discard()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Free the copy of the best weights, and remove its file; the module stays as it is."""
        self._weights.discard()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's class keeps, and the record of every metric; the weights go apart."""
        more = {"stop_reason": self.stop_reason, "restored": self._restored}
        return {**super().state_dict(), **more, "record": self._record.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.stop_reason = state_dict.get("stop_reason", "")
        self._restored = state_dict.get("restored", False)
        if "record" in state_dict:
            self._record = StoppingRecord.from_state(state_dict["record"])
        else:
            best = float(self.best_score)
            self._record = StoppingRecord.from_lightning(self.monitor, best, self.wait_count)
        self._resumed = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the best weights to the checkpoint, which grows by one copy of the module."""
        self._weights.save_to(checkpoint, self.state_key, trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the best weights in the checkpoint."""
        if self.restore_best and trainer.state.fn == "fit":
            self._weights.read_from(checkpoint, self.state_key)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or not self._has_metrics(trainer):  # type: ignore[attr-defined]
            return
        logs, record = trainer.callback_metrics, self._record
        record.begin(next_position(trainer, record.now.check), logs, self._rules)
        stop, reason = self._evaluate_stopping_criteria(logs[self.monitor].squeeze())
        if agree_on_improvement(trainer, record.improved) and self.restore_best:
            self._weights.keep(trainer)
        told = (reason, self.stop_reason, self.stopping_reason)
        stop, told = agree_on_stop(trainer, stop, told)
        if stop:
            reason, self.stop_reason, self.stopping_reason = told
        self._wants_stop = stop
        self.stopped_epoch = trainer.current_epoch if stop else 0
        self.stopping_reason_message = reason if stop else None
        self._pass_on(trainer)
        if reason and self.verbose:
            self._log_info(trainer, reason, self.log_rank_zero_only)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        """Let Lightning's class judge the value by itself, and judge its history here."""
        best, sign = self.best_score, 1 if self.mode == "max" else -1
        self.min_delta = sign * self._record.margin(self.monitor, self._rules)
        stop, reason = super()._evaluate_stopping_criteria(current)
        self.best_score = current if self._record.observe(self._rules) else best
        self.wait_count = self._record.waited(self.monitor, "checks")
        if stop and self.stopping_reason is not EarlyStoppingReason.PATIENCE_EXHAUSTED:
            self.stop_reason = _LIGHTNINGS_OWN.get(self.stopping_reason, "")
            return True, self._shorten(reason, current)
        verdict = self._record.verdict(self._rules)
        if verdict is None:
            self.stop_reason, self.stopping_reason = "", EarlyStoppingReason.NOT_STOPPED
            return False, reason if self._record.improved else None
        self.stop_reason, self.stopping_reason = verdict[0], EarlyStoppingReason.PATIENCE_EXHAUSTED
        return True, verdict[1]

    def _shorten(self, reason: str | None, current: Tensor) -> str:
        if self.stop_reason == "not_finite":
            return f"the monitored metric {self.monitor} = {float(current)} is not finite"
        return (reason or "").removesuffix(" Signaling Trainer to stop.").removesuffix(".")

    def _has_metrics(self, trainer: Trainer) -> bool:
        if self.strict:
            require_metrics(trainer, self._rules.modes)
        logs = trainer.callback_metrics
        return self._validate_condition_metric(logs) and all(n in logs for n in self._rules.modes)

    def _should_skip_check(self, trainer: Trainer) -> bool:
        return super()._should_skip_check(trainer) or self._rules.every_n_steps is not None

    def _still_wants_stop(self) -> bool:
        """Say whether the checkpoint's reason to stop holds with the settings given now."""
        if self.stop_reason in _LIGHTNINGS_OWN.values():
            return True
        holds = bool(self.stop_reason) and self._record.verdict(self._rules) is not None
        if not holds:
            self.stop_reason, self.stopping_reason = "", EarlyStoppingReason.NOT_STOPPED
            self.stopping_reason_message, self.stopped_epoch = None, 0
        return holds

    def _pass_on(self, trainer: Trainer) -> None:
        # Only where the Trainer may stop: before `min_epochs` it would remember the wish for ever,
        # and here the metric may still recover.
        if self._wants_stop and may_stop(trainer):
            trainer.should_stop = True

    def _tell(self, trainer: Trainer) -> None:
        why = (self.stopping_reason_message or "") if self._wants_stop else ""
        self.summary = summarize(self._record, self._rules, why, restored=self._restored)
        rank_zero_info(self.summary)
        log_text(trainer, tag("stopping", "summary"), self.summary)
        best = self._record.track(self.monitor)
        log_scalars(
            trainer,
            {tag("stopping", "best"): best.best, tag("stopping", "best_step"): best.at.step},
        )
