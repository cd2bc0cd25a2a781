"""Lightning's `EarlyStopping` that judges the whole history of its metrics, not one value."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from lightning_stab.callbacks._trainer.lightning_classes import EarlyStopping
from lightning_stab.callbacks.stopping.rules import StoppingRecord, StoppingRules
from lightning_stab.callbacks.stopping.trainer import (
    agree_on_improvement,
    agree_on_stop,
    next_position,
    require_metrics,
)

_PATIENCE = EarlyStoppingReason.PATIENCE_EXHAUSTED
_LIGHTNINGS_OWN = {
    EarlyStoppingReason.NON_FINITE_METRIC: "not_finite",
    EarlyStoppingReason.STOPPING_THRESHOLD: "threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence",
}


class JudgingEarlyStopping(EarlyStopping):
    """Lightning's class where it judges a value by itself; the record where it judges a history.

    Attributes:
        stop_reason: the name of the reason, "" while there is none.
    """

    def __init__(self, rules: StoppingRules, **lightning: Any) -> None:
        leading = rules.leading
        super().__init__(monitor=leading, mode=rules.modes[leading], **lightning)
        self._rules = rules
        self._clear()

    def _clear(self) -> None:
        worst = torch.tensor(torch.inf)
        self.best_score = worst if self.mode == "min" else -worst
        self.wait_count = self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None
        self.stop_reason = ""
        self._record = StoppingRecord()
        self._wants_stop = False

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's class keeps, and the record of every metric."""
        own = {"stop_reason": self.stop_reason, "record": self._record.state()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.stop_reason = state_dict.get("stop_reason", "")
        if "record" in state_dict:
            self._record = StoppingRecord.from_state(state_dict["record"])
        else:
            best = float(self.best_score)
            self._record = StoppingRecord.from_lightning(self.monitor, best, self.wait_count)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or not self._has_metrics(trainer):  # type: ignore[attr-defined]
            return
        logs, record = trainer.callback_metrics, self._record
        record.begin(next_position(trainer, record.now.check), logs, self._rules)
        stop, reason = self._evaluate_stopping_criteria(logs[self.monitor].squeeze())
        if agree_on_improvement(trainer, record.improved):
            self._on_improvement(trainer)
        told = (reason, self.stop_reason, self.stopping_reason)
        stop, told = agree_on_stop(trainer, stop, told)
        if stop:
            reason, self.stop_reason, self.stopping_reason = told
        self._wants_stop = stop
        self.stopped_epoch = trainer.current_epoch if stop else 0
        self.stopping_reason_message = reason if stop else None
        if reason and self.verbose:
            self._log_info(trainer, reason, self.log_rank_zero_only)

    def _on_improvement(self, trainer: Trainer) -> None:
        """Do what an improvement of the leading metric calls for; it is agreed by all processes."""

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        """Let Lightning's class judge the value by itself, and judge its history here."""
        best, sign = self.best_score, 1 if self.mode == "max" else -1
        self.min_delta = sign * self._record.margin(self.monitor, self._rules)
        stop, reason = super()._evaluate_stopping_criteria(current)
        self.best_score = current if self._record.observe(self._rules) else best
        self.wait_count = self._record.waited(self.monitor, "checks")
        if stop and self.stopping_reason is not _PATIENCE:
            self.stop_reason = _LIGHTNINGS_OWN.get(self.stopping_reason, "")
            return True, self._shorten(reason, current)
        verdict = self._record.verdict(self._rules)
        if verdict is None:
            self.stop_reason, self.stopping_reason = "", EarlyStoppingReason.NOT_STOPPED
            return False, reason if self._record.improved else None
        self.stop_reason, self.stopping_reason = verdict[0], _PATIENCE
        return True, verdict[1]

    def _shorten(self, reason: str | None, current: Tensor) -> str:
        if self.stop_reason == "not_finite":
            return f"the monitored metric {self.monitor} = {float(current):g} is not finite"
        return (reason or "").removesuffix(" Signaling Trainer to stop.").removesuffix(".")

    def _has_metrics(self, trainer: Trainer) -> bool:
        if self.strict:
            require_metrics(trainer, self._rules.modes)
        logs = trainer.callback_metrics
        return self._validate_condition_metric(logs) and all(n in logs for n in self._rules.modes)

    def _should_skip_check(self, trainer: Trainer) -> bool:
        return super()._should_skip_check(trainer) or self._rules.every_n_steps is not None

    def _renew_wish(self) -> None:
        """Judge a checkpoint's record by the present settings; what ended that run may still."""
        if self.stop_reason in _LIGHTNINGS_OWN.values():
            self._wants_stop = True
            return
        name, why = self._record.verdict(self._rules) or ("", None)
        self._wants_stop, self.stop_reason, self.stopping_reason_message = bool(name), name, why
        self.stopping_reason = _PATIENCE if name else EarlyStoppingReason.NOT_STOPPED
        self.stopped_epoch = max(0, self._record.now.epoch - 1) if name else 0
