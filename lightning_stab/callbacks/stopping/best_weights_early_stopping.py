"""The `BestWeightsEarlyStopping` callback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_warn

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.exceptions import call_after_exception
from lightning_stab.callbacks._trainer.fit_state import (
    FitStart,
    fit_start,
    forgets_earlier_run,
    is_validating_fit,
)
from lightning_stab.callbacks._trainer.lightning_classes import EarlyStopping, callbacks_of
from lightning_stab.callbacks._trainer.logging import log_scalars, log_text, require_metrics, tag
from lightning_stab.callbacks._trainer.ranks import broadcast, first_rank_with
from lightning_stab.callbacks._trainer.strategies import (
    averages_weights,
    refuse_shared_state_key,
    refuse_unrestorable_weights,
)
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.callbacks.stopping.record import Stall, StoppingOptions, StoppingRecord
from lightning_stab.functional.stopping import MinOrMax, Position, Unit

_PATIENCE = EarlyStoppingReason.PATIENCE_EXHAUSTED
_REASONS_OF_VALUES = {  # for which a value by itself stops the run, regardless of its history
    EarlyStoppingReason.NON_FINITE_METRIC: "not_finite",
    EarlyStoppingReason.STOPPING_THRESHOLD: "threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence",
}
_log = logging.getLogger("lightning.pytorch.callbacks.early_stopping")  # with Lightning's handler
_without_trainer: WeakSet[BestWeightsEarlyStopping] = WeakSet()


class BestWeightsEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping`` that also brings the best weights and buffers back.

    Args:
        monitor: the metric, as the module logs it, or several. The first decides which are best.
        patience: how long to wait for an improvement, >= 0; 0 and 1 stop at the first check without
            one. 3 as in Lightning; noisy metrics want 5 to 20. It wins over a checkpoint's.
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
        restore_best: whether the best weights and buffers come back when training ends, also by an
            interrupt (Ctrl-C) or another exception.
        folder: where the best weights are kept as a file; None: in memory, on the CPU.
        check_every_n_steps: check after every so many optimizer steps, for metrics logged there;
            None: after validation or at the end of the epoch.
        verbose: whether each improvement is reported.
        strict: whether a missing metric is an error.
        check_finite: whether the first NaN or infinite value stops the run.
        stopping_threshold: a value so good that the run stops at once.
        divergence_threshold: a value so bad that the run stops at once.
        check_on_train_epoch_end: as in Lightning; None chooses by the Trainer's settings.
        log_rank_zero_only: whether only the first process reports improvements.

    Attributes:
        stop_reason: "patience", "rising", "oscillation", "never_finite", "not_finite",
            "threshold", "divergence", or "" if nothing asked for a stop.
        summary: why the run ended, which check was best and what was restored; one sentence.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: where the best weights cannot be restored, or a metric is missing.

    Example:
        >>> BestWeightsEarlyStopping("val_loss", patience=5)
        BestWeightsEarlyStopping(monitor='val_loss', patience=5)

    Prechelt, "Early Stopping - But When?" (1998).
    """

    options: StoppingOptions
    _instance: int  # among those with the same metric, mode and class, from 1

    def __init__(
        self,
        monitor: str | list[str],
        *,
        patience: int = 3,
        patience_unit: Unit = "checks",
        mode: MinOrMax | list[MinOrMax] = "min",
        min_delta: float = 0.0,
        relative_min_delta: bool = False,
        stall: Stall = "any",
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
        options = self.options = options_from(StoppingOptions, locals())
        super().__init__(
            monitor=options.leading,
            mode=options.modes[options.leading],
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            strict=strict,
            check_finite=check_finite,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
            check_on_train_epoch_end=check_on_train_epoch_end,
            log_rank_zero_only=log_rank_zero_only,
        )
        self.summary = ""
        self._checks_at_epoch_end = bool(check_on_train_epoch_end)
        self._weights = BestWeights(None if folder is None else Path(folder))
        self._restored = self._loaded = False
        self._validated = True
        self._reset()
        taken = {c._instance for c in _without_trainer if self._shares_key_with(c)}
        self._instance = next(n for n in range(1, len(taken) + 2) if n not in taken)
        _without_trainer.add(self)

    def _reset(self) -> None:
        self.best_score = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)
        self.wait_count = self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None
        self.stop_reason = ""
        self._record = StoppingRecord(self.options)
        self._stop_requested = False

    @property
    def restore_best(self) -> bool:
        """Whether the best weights and buffers come back when training ends."""
        return self.options.restore_best

    @property
    def state_key(self) -> str:
        """The key in a checkpoint: that of Lightning's class, so that each reads the other's."""
        is_own = type(self) is BestWeightsEarlyStopping
        name = "EarlyStopping" if is_own else type(self).__qualname__
        number = {"instance": self._instance} if self._instance > 1 else {}
        return name + repr({"monitor": self.monitor, "mode": self.mode, **number})

    def _shares_key_with(self, other: Any) -> bool:
        """Say whether only a number in the key tells another callback from this one."""
        same_class = type(self) is type(other)
        return same_class and (self.monitor, self.mode) == (other.monitor, other.mode)

    @property
    def best_position(self) -> Position:
        """When the leading metric was best: check, epoch and step, all 0 before there is a best."""
        return self._record.track(self.monitor).at

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, before the first step, and choose when to check."""
        super().setup(trainer, pl_module, stage)
        _without_trainer.discard(self)
        sharing = [c for c in callbacks_of(trainer) if self._shares_key_with(c)]
        self._instance = next((n for n, c in enumerate(sharing, start=1) if c is self), 1)
        refuse_shared_state_key(trainer, self)
        if stage == "fit" and self.restore_best:
            refuse_unrestorable_weights(trainer)
        chosen = self.options.check_on_train_epoch_end
        if chosen is None and averages_weights(trainer):
            # The average may move on between the validation and the end of the epoch.
            chosen = not trainer.enable_validation
        elif chosen is None:  # as Lightning's class
            settings: Any = trainer  # Lightning sets them where a type checker does not see it
            chosen = settings.val_check_interval == 1.0 and settings.check_val_every_n_epoch == 1
        self._checks_at_epoch_end = chosen

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with an empty record, or continue from the checkpoint's or the last fit's."""
        loaded, self._loaded = self._loaded, False
        self._validated = fit_start(trainer) is not FitStart.RESUMED
        if forgets_earlier_run(trainer, loaded=loaded):
            loaded = self._restored = False
            self._weights.discard()
            self._reset()
        elif not loaded:  # the same Trainer again: the best stays, and the wait for a better begins
            self._stop_requested = False
            self._record.begin_waiting()
        if not self._weights.finish_loading(trainer) and self._restored and self.restore_best:
            self._weights.store(trainer)  # the run starts from its best weights
        self._restored = False
        if loaded:
            self._reevaluate()
            self._request_stop(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check mid-epoch if asked to, and stop when the Trainer's minimum has been reached."""
        every, step = self.options.check_every_n_steps, trainer.global_step
        if every is not None and step % every == 0 and step > self._record.now.step:
            self._run_early_stopping_check(trainer)
        self._request_stop(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note which weights are measured."""
        if self.restore_best and is_validating_fit(trainer):
            first, late = batch_idx == dataloader_idx == 0, self._checks_at_epoch_end
            self._weights.begin_batch(trainer, self.monitor, is_first=first, checks_late=late)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, unless that is due at another time."""
        if is_validating_fit(trainer):
            self._validated = True
            self._weights.end_validation(trainer, self.monitor)
            self._end_phase(trainer, is_due=not self._checks_at_epoch_end)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, unless that is due at another time."""
        self._end_phase(trainer, is_due=self._checks_at_epoch_end)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the best weights back, and report why the run ended."""
        if self.restore_best and self._weights:
            self._weights.restore(trainer)
            self._restored = True
        if self._record.now.check:
            why = (self.stopping_reason_message or "") if self._stop_requested else ""
            self._report(trainer, self._record.ending(why))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if somebody has changed the weights since they were restored."""
        restored = [c for c in callbacks_of(trainer) if getattr(c, "_restored", False)]
        is_last = [c for c in restored if isinstance(c, BestWeightsEarlyStopping)][-1:] == [self]
        if is_last and self._weights and not self._weights.are_in(pl_module):
            rank_zero_warn(
                "The module does not end with its best weights: something changed them in "
                f"`on_train_end` after `{type(self).__name__}`; put this callback last."
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Bring the best weights back when every callback has seen the exception."""
        call_after_exception(trainer, lambda: self._end_by(exception, trainer))

    def _end_by(self, exception: BaseException, trainer: Trainer) -> None:
        try:
            if self._weights and not self._restored:
                self._weights.restore(trainer)
                self._restored = True
            if self._weights:
                self._report(trainer, f"The run was ended by {type(exception).__name__}")
        except Exception as error:  # of any kind: the one that ended the run is to be reported
            say(trainer, f"The best weights could not be restored: {error}")
        self._weights.discard()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the copy of the best weights, and remove its file."""
        self._weights.discard()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's class keeps, and the record of every metric; the weights go apart."""
        own = {"stop_reason": self.stop_reason, "record": self._record.state_dict()}
        return {**super().state_dict(), **own, "restored": self._restored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.stop_reason = state_dict.get("stop_reason", "")
        if "record" in state_dict:
            self._record.load_state_dict(state_dict["record"])
        else:
            self._record.load_lightning_state(float(self.best_score), self.wait_count)
        self._restored = state_dict.get("restored", False)
        self._loaded = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the best weights to the checkpoint, which grows by one copy of the module."""
        self._weights.save_to_checkpoint(checkpoint, self.state_key, trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the best weights in the checkpoint."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if self.restore_best and trainer.state.fn == "fit":
            self._weights.load_from_checkpoint(checkpoint, self.state_key)

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
        """Check now. Named as in Lightning's class, for those who call or replace it there."""
        # a run that was resumed behind a validation has its metrics from the next one on
        is_known = self._validated or not trainer.enable_validation
        strict, verbose = self.strict and is_known, self.verbose
        if getattr(trainer, "fast_dev_run", False):
            return
        if not require_metrics(trainer, self.options.modes, strict=strict, verbose=verbose):
            return
        stop, message = self._judge(trainer)
        improved = broadcast(trainer, self._record.improved)  # all keep weights of the same check
        if improved and self.restore_best:
            self._weights.store(trainer)
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

    def _judge(self, trainer: Trainer) -> tuple[bool, str | None]:
        """Observe the metrics; return whether to stop, and the reason or the improvement.

        Lightning's class judges the value by itself, in the one private method of it that is used.
        """
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
            self.stop_reason = _REASONS_OF_VALUES.get(self.stopping_reason, "")
            if self.stop_reason == "not_finite":
                value = f"{float(current):g}"
                return True, f"the monitored metric {self.monitor} = {value} is not finite"
            message = (message or "").removesuffix(" Signaling Trainer to stop.").removesuffix(".")
            return True, message
        why = self._judge_history()
        return why is not None, why or (message if record.improved else None)

    def _judge_history(self) -> str | None:
        """Note whether the record gives a reason to stop; return it in words."""
        self.stop_reason, why = self._record.reason_to_stop() or ("", None)
        self.stopping_reason = _PATIENCE if why else EarlyStoppingReason.NOT_STOPPED
        return why

    def _reevaluate(self) -> None:
        """Judge a checkpoint's record by the present options: its reason to stop may be gone."""
        if self.stop_reason in _REASONS_OF_VALUES.values():
            self._stop_requested = True
            return
        why = self.stopping_reason_message = self._judge_history()
        self._stop_requested = why is not None
        self.stopped_epoch = max(0, self._record.now.epoch - 1) if why else 0

    def _report(self, trainer: Trainer, ended: str) -> None:
        self.summary = self._record.summarize(ended, restored=self._restored)
        say(trainer, self.summary)
        log_text(trainer, tag("stopping", "summary"), self.summary)
        best = self._record.track(self.monitor)
        values = {"best": best.best, "best_check": best.at.check, "best_step": best.at.step}
        log_scalars(trainer, {tag("stopping", name): value for name, value in values.items()})
