"""Lightning's `EarlyStopping` that judges the whole history of its metrics, not one value."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from lightning_stab.callbacks._trainer.fit_state import is_validating_fit
from lightning_stab.callbacks._trainer.lightning_classes import EarlyStopping
from lightning_stab.callbacks._trainer.logging import require_metrics
from lightning_stab.callbacks._trainer.ranks import broadcast, first_rank_with
from lightning_stab.callbacks._trainer.strategies import averages_weights
from lightning_stab.callbacks.stopping.record import StoppingOptions, StoppingRecord
from lightning_stab.functional.stopping import Position

_PATIENCE = EarlyStoppingReason.PATIENCE_EXHAUSTED
_REASONS_BY_VALUE = {  # for which Lightning's class stops without looking at the history
    EarlyStoppingReason.NON_FINITE_METRIC: "not_finite",
    EarlyStoppingReason.STOPPING_THRESHOLD: "threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence",
}
_log = logging.getLogger("lightning.pytorch.callbacks.early_stopping")  # with Lightning's handler


class HistoryEarlyStopping(EarlyStopping):
    """Lightning's class where a value by itself decides, the record where the history does.

    It is an `EarlyStopping` for the Trainer and for checkpoints, and decides by itself when to
    check. Of Lightning's private methods it calls one, `_evaluate_stopping_criteria`, for the
    verdict on a value by itself; `_run_early_stopping_check` is the name under which a check is
    called or replaced from outside.

    Attributes:
        options: the arguments of the constructor, as they were given.
        stop_reason: the name of the reason, "" while there is none.
    """

    options: StoppingOptions

    def __init__(self, options: StoppingOptions) -> None:
        super().__init__(
            monitor=options.leading,
            mode=options.modes[options.leading],
            min_delta=options.min_delta,
            patience=options.patience,
            verbose=options.verbose,
            strict=options.strict,
            check_finite=options.check_finite,
            stopping_threshold=options.stopping_threshold,
            divergence_threshold=options.divergence_threshold,
            check_on_train_epoch_end=options.check_on_train_epoch_end,
            log_rank_zero_only=options.log_rank_zero_only,
        )
        self.options = options
        self._checks_at_epoch_end = bool(options.check_on_train_epoch_end)
        self._reset()

    def _reset(self) -> None:
        worst = torch.tensor(torch.inf)
        self.best_score = worst if self.mode == "min" else -worst
        self.wait_count = self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None
        self.stop_reason = ""
        self._record = StoppingRecord(self.options)
        self._stop_requested = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose between the end of the validation and that of the epoch, as Lightning does."""
        chosen = self.options.check_on_train_epoch_end
        if chosen is None and averages_weights(trainer):
            # The average may move on between the validation and the end of the epoch.
            chosen = not trainer.enable_validation
        elif chosen is None:
            settings: Any = trainer  # Lightning sets them where a type checker does not see it
            chosen = settings.val_check_interval == 1.0 and settings.check_val_every_n_epoch == 1
        self._checks_at_epoch_end = chosen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check mid-epoch if asked to, and stop when the Trainer's minimum has been reached."""
        every, step = self.options.check_every_n_steps, trainer.global_step
        if every is not None and step % every == 0 and step > self._record.now.step:
            self._run_early_stopping_check(trainer)
        self._request_stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, unless that is due at another time."""
        if is_validating_fit(trainer):
            self._end_phase(trainer, is_due=not self._checks_at_epoch_end)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, unless that is due at another time."""
        self._end_phase(trainer, is_due=self._checks_at_epoch_end)

    def _end_phase(self, trainer: Trainer, *, is_due: bool) -> None:
        if is_due and self.options.check_every_n_steps is None:
            self._run_early_stopping_check(trainer)
        self._request_stop(trainer)

    def _request_stop(self, trainer: Trainer) -> None:
        # Only where the Trainer may stop: before `min_epochs` it would remember the request for
        # ever, and until then the metric may recover.
        progress: Any = trainer.fit_loop.epoch_progress.current  # typed too narrowly
        enough_epochs = progress.processed >= (trainer.min_epochs or 0)
        may_stop = enough_epochs and trainer.global_step >= (trainer.min_steps or 0)
        if self._stop_requested and may_stop:
            trainer.should_stop = True

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        settings: Any = trainer  # Lightning sets it where a type checker does not see it
        strict, verbose = self.strict, self.verbose
        if settings.fast_dev_run:
            return
        if not require_metrics(trainer, self.options.modes, strict=strict, verbose=verbose):
            return
        stop, message = self._judge(trainer)
        if broadcast(trainer, self._record.improved):  # so that all keep weights of the same check
            self._on_improvement(trainer)
        first = first_rank_with(trainer, stop)
        self._stop_requested = first is not None
        self.stopped_epoch, self.stopping_reason_message = 0, None
        if first is not None:  # every rank stops, for the reason of the first that has one
            reason = message, self.stop_reason, self.stopping_reason
            message, self.stop_reason, self.stopping_reason = broadcast(trainer, reason, first)
            self.stopped_epoch, self.stopping_reason_message = trainer.current_epoch, message
        if message and verbose and not (self.log_rank_zero_only and trainer.global_rank):
            prefix = f"[rank: {trainer.global_rank}] " if trainer.world_size > 1 else ""
            _log.info(prefix + message)

    def _on_improvement(self, trainer: Trainer) -> None:
        """Act on an improvement of the leading metric; all processes agree on it."""

    def _judge(self, trainer: Trainer) -> tuple[bool, str | None]:
        """Observe the metrics; return whether to stop, and the reason or the improvement."""
        metrics, record, best = trainer.callback_metrics, self._record, self.best_score
        current = metrics[self.monitor].squeeze()
        self.min_delta = record.margin(self.monitor) * (1 if self.mode == "max" else -1)
        stop, message = self._evaluate_stopping_criteria(current)
        is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        epochs = trainer.current_epoch + is_last_batch
        record.observe(Position(record.now.check + 1, epochs, trainer.global_step), metrics)
        self.best_score = current if record.improved else best
        self.wait_count = record.waited(self.monitor, "checks")
        if stop and self.stopping_reason is not _PATIENCE:
            self.stop_reason = _REASONS_BY_VALUE.get(self.stopping_reason, "")
            if self.stop_reason == "not_finite":
                value = f"{float(current):g}"
                return True, f"the monitored metric {self.monitor} = {value} is not finite"
            message = (message or "").removesuffix(" Signaling Trainer to stop.").removesuffix(".")
            return True, message
        return self._judge_history() or (False, message if record.improved else None)

    def _judge_history(self) -> tuple[bool, str] | None:
        """Note whether the record gives a reason to stop; return it in words."""
        name, why = self._record.reason_to_stop() or ("", "")
        self.stop_reason = name
        self.stopping_reason = _PATIENCE if name else EarlyStoppingReason.NOT_STOPPED
        return (True, why) if name else None

    def _reevaluate(self) -> None:
        """Judge a checkpoint's record by the present options: its reason to stop may be gone."""
        if self.stop_reason in _REASONS_BY_VALUE.values():
            self._stop_requested = True
            return
        self._stop_requested, why = self._judge_history() or (False, None)
        self.stopping_reason_message = why
        self.stopped_epoch = max(0, self._record.now.epoch - 1) if why else 0

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's class keeps, and the record of every metric."""
        own = {"stop_reason": self.stop_reason, "record": self._record.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.stop_reason = state_dict.get("stop_reason", "")
        if "record" in state_dict:
            self._record.load_state_dict(state_dict["record"])
        else:
            self._record.load_lightning_state(float(self.best_score), self.wait_count)
