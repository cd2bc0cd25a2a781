"""The `BestWeightsEarlyStopping` callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.fit_state import begin_fit, begins_anew, note_restore
from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of
from lightning_stab.callbacks._trainer.logging import log_scalars, log_text, tag
from lightning_stab.callbacks._trainer.strategies import refuse_unrestorable_weights
from lightning_stab.callbacks.stopping.best_weights import BestWeights
from lightning_stab.callbacks.stopping.early_stopping import HistoryEarlyStopping
from lightning_stab.callbacks.stopping.record import StoppingOptions
from lightning_stab.functional.stopping import Position

_without_trainer: WeakSet[BestWeightsEarlyStopping] = WeakSet()


class BestWeightsEarlyStopping(HistoryEarlyStopping):
    """Lightning's ``EarlyStopping`` that also brings the best weights and buffers back.

    Args:
        monitor: the metric, as the module logs it, or several. The first decides which are best.
        patience: how long to wait for an improvement, at least 1. 3 as in Lightning; noisy metrics
            want 5 to 20. The value given here wins over a checkpoint's.
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
        >>> stopping = BestWeightsEarlyStopping("val_loss", patience=5)
        >>> stopping.state_key
        "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"

    Prechelt, "Early Stopping - But When?" (1998).
    """

    _instance: int  # the place among those with the same metric, mode and class, from 1

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
        super().__init__(options_from(StoppingOptions, locals()))
        self.summary = ""
        self._weights = BestWeights(None if folder is None else Path(folder))
        self._restored = self._loaded = False
        taken = {c._instance for c in _without_trainer if self._shares_key_with(c)}
        self._instance = next(n for n in range(1, len(taken) + 2) if n not in taken)
        _without_trainer.add(self)

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
        """Refuse what cannot work, before the first step."""
        begin_fit(trainer, stage)
        _without_trainer.discard(self)
        sharing = [c for c in callbacks_of(trainer) if self._shares_key_with(c)]
        self._instance = next((n for n, c in enumerate(sharing, start=1) if c is self), 1)
        if stage == "fit" and self.restore_best:
            refuse_unrestorable_weights(trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with an empty record, or continue from the checkpoint's or the last fit's."""
        loaded, self._loaded = self._loaded, False
        if begins_anew(trainer, loaded=loaded):
            loaded = self._restored = False
            self._weights.discard()
            self._reset()
        if not self._weights.finish_loading(trainer) and self._restored and self.restore_best:
            self._weights.store(trainer)  # the run starts from its best weights
        self._restored = False
        if loaded:
            self._reevaluate()
            self._request_stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the best weights back, and report why the run ended."""
        if self.restore_best and self._weights:
            self._weights.restore(trainer)
            self._restored = True
        if self._record.now.check:
            self._report(trainer)

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
        """Load the state of this class or of Lightning's; the given ``patience`` stays."""
        super().load_state_dict(state_dict)
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
        note_restore(trainer, checkpoint)
        if self.restore_best and trainer.state.fn == "fit":
            self._weights.load_from_checkpoint(checkpoint, self.state_key)

    def _on_improvement(self, trainer: Trainer) -> None:
        if self.restore_best:
            self._weights.store(trainer)

    def _report(self, trainer: Trainer) -> None:
        why = (self.stopping_reason_message or "") if self._stop_requested else ""
        self.summary = self._record.summarize(why, restored=self._restored)
        rank_zero_info(self.summary)
        log_text(trainer, tag("stopping", "summary"), self.summary)
        best = self._record.track(self.monitor)
        values = {"best": best.best, "best_check": best.at.check, "best_step": best.at.step}
        log_scalars(trainer, {tag("stopping", name): value for name, value in values.items()})
