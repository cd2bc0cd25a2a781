"""The `BestWeightsEarlyStopping` callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_stab.callbacks._trainer.logging import log_scalars, log_text, tag
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.callbacks.stopping.early_stopping import JudgingEarlyStopping
from lightning_stab.callbacks.stopping.rules import StoppingRules, summarize
from lightning_stab.callbacks.stopping.trainer import (
    first_free_number,
    has_averaging,
    is_fresh,
    may_stop,
    place_among_twins,
    refuse_unrestorable,
)
from lightning_stab.functional.stopping import Position

_in_no_trainer_yet: WeakSet[BestWeightsEarlyStopping] = WeakSet()


class BestWeightsEarlyStopping(JudgingEarlyStopping):
    """Lightning's ``EarlyStopping`` that also brings the best weights and buffers back.

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
        rules = StoppingRules.make(
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
        self.summary = ""
        self._restored = self._resumed = False
        super().__init__(
            rules,
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
        self.restore_best = restore_best
        self._weights = BestWeights(None if folder is None else Path(folder))
        self._instance = first_free_number(self, _in_no_trainer_yet)
        _in_no_trainer_yet.add(self)

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
            self._restored = False
        if not self._weights.take_up(trainer) and self._restored and self.restore_best:
            self._weights.keep(trainer)  # the run starts from its best weights
        if self._resumed:
            self._renew_wish()
            self._pass_on(trainer)
        self._restored = self._resumed = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check mid-epoch if asked to, and stop when the Trainer's minimum has been reached."""
        if self._rules.checks_at(trainer.global_step, self._record.now.step):
            self._run_early_stopping_check(trainer)
        self._pass_on(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, where Lightning does so after the validation."""
        super().on_validation_end(trainer, pl_module)
        self._pass_on(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, where Lightning does so after the epoch."""
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
        return {**super().state_dict(), "restored": self._restored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict(state_dict)
        self._restored = state_dict.get("restored", False)
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

    def _on_improvement(self, trainer: Trainer) -> None:
        if self.restore_best:
            self._weights.keep(trainer)

    def _pass_on(self, trainer: Trainer) -> None:
        # Only where the Trainer may stop: before `min_epochs` it would remember the wish for ever,
        # and until then the metric may recover.
        if self._wants_stop and may_stop(trainer):
            trainer.should_stop = True

    def _tell(self, trainer: Trainer) -> None:
        why = (self.stopping_reason_message or "") if self._wants_stop else ""
        self.summary = summarize(self._record, self._rules, why, restored=self._restored)
        rank_zero_info(self.summary)
        log_text(trainer, tag("stopping", "summary"), self.summary)
        best = self._record.track(self.monitor)
        values = {"best": best.best, "best_check": best.at.check, "best_step": best.at.step}
        log_scalars(trainer, {tag("stopping", name): value for name, value in values.items()})
