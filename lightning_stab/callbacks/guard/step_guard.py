"""Guard the weights: a step with a non-finite or wildly large loss or gradient is not taken."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.fit_state import forgets_earlier_run
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_scalars, tag
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember, scaler_will_cure
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.guard.deferred import defer
from lightning_stab.callbacks.guard.options import GuardOptions, Policy
from lightning_stab.callbacks.guard.restoring import num_groups, scale_learning_rates
from lightning_stab.callbacks.guard.state import GuardState
from lightning_stab.callbacks.guard.verdicts import (
    OptimizerSpikeDetector,
    StepFacts,
    Verdict,
    gather_facts,
    moment,
    nonfinite_verdict,
    place_of,
)
from lightning_stab.errors import UnstableStepError


class StepGuard(StepMember, Callback, options=GuardOptions):
    """Keep one bad batch from ruining a run: at most the bad step is lost.

    Before each optimizer step it examines the loss, the norm of the true gradient, and the running
    statistics of batch normalisation, which a batch can ruin although its loss is finite. A step is
    bad if one of them is NaN or infinite, or a spike: out of line with the last accepted steps.

    * ``ignore``: the step is taken.
    * ``raise``: the fit stops, and the message names the first bad parameter.
    * ``skip``: weights, buffers, optimizer state and step-wise schedulers stay as if the batch had
      not been; only the Trainer's ``global_step`` advances.
    * ``rewind``: as ``skip``; after ``rewind_after`` bad steps in a row the newest snapshot of all
      training state comes back, and the learning rates are multiplied by ``lr_factor``.
    An overflow that a loss scaler can cure is no bad step. All ranks decide alike. Logged at bad
    steps: ``guard/skipped`` and ``guard/rewound`` (counts), ``guard/loss``, ``guard/grad_norm``.

    Args:
        on_nonfinite: the policy for NaN and infinities in loss or gradient.
        on_spike: the policy for spikes; no rule separates every rare good step from a bad one.
        max_consecutive: bad steps in a row that stop the fit; scattered ones never add up.
        window: accepted steps that are remembered; the rule needs ``min_window`` of them.
        min_window: see ``window``; before that, only ``early_factor`` counts.
        deviations: standard deviations above the mean that make a spike, > 0.
        loss_jump: the least rise of a loss that matters, in units of the first loss, >= 0.
        gradient_factor: the least ratio of a gradient norm to the window's median that matters.
        early_factor: the ratio to the median that is a spike before the window is filled.
        rewind_after: bad steps in a row that show the weights, not a batch, to be at fault.
        snapshot_every_n_steps: accepted steps between snapshots, for ``rewind`` only.
        lr_factor: what a rewind multiplies the learning rates by, in (0, 1].
        forensics: at the first non-finite step, name the module where it began, save the batch.

    Raises:
        InvalidArgumentError: for an unknown policy or a number outside its range.
        ConflictError: at the start of a fit under DeepSpeed or FSDP1.
        UnstableStepError: by the policy ``raise``, or after ``max_consecutive`` bad steps.

    Example:
        >>> StepGuard(on_nonfinite="skip", on_spike="skip").num_skipped
        0
    """

    options: GuardOptions

    def __init__(
        self,
        on_nonfinite: Policy = "raise",
        on_spike: Policy = "ignore",
        *,
        max_consecutive: int = 10,
        window: int = 128,
        min_window: int = 64,
        deviations: float = 6.0,
        loss_jump: float = 0.2,
        gradient_factor: float = 5.0,
        early_factor: float = 100.0,
        rewind_after: int = 3,
        snapshot_every_n_steps: int = 50,
        lr_factor: float = 0.5,
        forensics: bool = False,
    ) -> None:
        self.options = options_from(GuardOptions, locals())
        self.num_skipped = self.num_rewound = 0
        new = partial(OptimizerSpikeDetector, self.options)
        self._spike_detectors: dict[int | str, OptimizerSpikeDetector] = defaultdict(new)
        self._consecutive: dict[int, int] = {}
        self._consecutive_before = 0  # the present step
        self._saved_snapshot: dict[str, Any] | None = None
        self._loaded = False
        self._state: GuardState | None = None  # of the running fit

    @property
    def num_consecutive(self) -> int:
        """Bad steps in a row up to now, of the optimizer that has most of them."""
        return max(self._consecutive.values(), default=0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen whole."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._loaded = False
            refuse_partial_norms(trainer, self, "the gradient's norm")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, unless this one continues it; take a snapshot of the start."""
        super().on_train_start(trainer, pl_module)
        saved = self._saved_snapshot if self._loaded else None
        if forgets_earlier_run(trainer, loaded=self._loaded):
            self._spike_detectors.clear()
            self._consecutive, self.num_skipped, self.num_rewound = {}, 0, 0
            saved = None
        self._saved_snapshot = None
        self._state = GuardState(trainer, pl_module, self.options)
        if self.options.rewinds:
            self._state.keep_snapshot(trainer, pl_module, self)
            if saved is not None:
                self._state.add_saved_snapshot(saved)

    def renew_snapshot(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the snapshot of the start again: the weights have been drawn at the first batch."""
        if self._state is not None and self._state.snapshots:
            self._state.snapshots.clear()
            self._state.keep_snapshot(trainer, pl_module, self)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep what a bad batch would change."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._fit.schedulers.release(plateaus=True)
        self._fit.begin_batch(batch, batch_idx)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Note the loss, on its device."""
        if self._state is not None:  # nobody is to be guarded where a loop is run by hand
            self._state.add_loss(trainer, loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if self._state is not None:
            self._state.end_window()

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether a fit goes on."""
        return self._state is not None

    def begin_step(self, trainer: Trainer, optimizer: Optimizer, index: int) -> None:
        """Keep what a step changes before it is judged."""
        if self._state is not None:
            self._state.begin_step(optimizer, index)

    def needs_verdict(self, trainer: Trainer) -> bool:
        """Say that the guard itself can wait for its verdict."""
        return False

    def guard_step(self, step: OptimizerStep) -> None:
        """Examine the step, and let it be taken, skip it, or stop the fit."""
        if self._state is None:  # another callback wanted the step of a loop that is run by hand
            return
        self._settle(step.trainer)
        state, detects = self._fit, self.options.on_spike != "ignore"
        quantities = state.quantities(step)
        if quantities is None:
            return
        if not step.is_repeated:
            self._consecutive_before = self._consecutive.get(step.index, 0)
        # SAM's second gradient is another quantity than its first
        key = f"{step.index}.{step.evaluation}" if step.is_repeated else step.index
        if self._can_defer(step):
            limits = self._spike_detectors[key].limits() if detects else {}
            policies = (self.options.on_nonfinite, self.options.on_spike)
            state.defer(defer(step, quantities, limits, policies), step)
            return
        facts = gather_facts(step, quantities)
        bad = nonfinite_verdict(facts)
        if bad is not None and bad.is_overflow(facts) and scaler_will_cure(step):
            state.schedulers.hold(step.trainer, step.optimizer)
            return
        if bad is None and detects:
            bad = self._spike_detectors[key].verdict(facts)
        if bad is not None:
            policy = self.options.on_spike if bad.is_spike else self.options.on_nonfinite
            if policy != "ignore":
                self._handle_bad_step(step, bad, facts, policy)
                return
        elif detects:
            self._spike_detectors[key].learn(facts)
        self._consecutive[step.index] = 0
        state.accept(is_repeated=step.is_repeated)

    def end_step(self, trainer: Trainer, optimizer: Optimizer, index: int) -> None:
        """Put back what a rejected step has changed, or one that went wrong by itself."""
        if self._state is not None and self._state.end_step(trainer, index):
            self.num_skipped += 1
            self._log(trainer, {})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Let schedulers go on, rewind if that was decided, and take a snapshot when one is due."""
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        state, every = self._fit, self.options.snapshot_every_n_steps
        if state.deferred is not None:
            state.deferred.schedules.note_advanced()
            if state.snapshots and state.num_accepted_since_snapshot + 1 >= every:
                self._settle(trainer)
        if state.end_batch(trainer):
            self.num_skipped += 1
            self._log(trainer, {})
        if state.rewind_due:
            self._rewind(trainer, pl_module)
        elif state.snapshots and state.num_accepted_since_snapshot >= every:
            state.keep_snapshot(trainer, pl_module, self)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the verdict that is still on its way."""
        self._settle(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the verdict that is still on its way."""
        self._settle(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the schedulers; a checkpoint saved after the fit still has the snapshot."""
        super().teardown(trainer, pl_module, stage)
        with suppress(UnstableStepError):  # another failure has ended the fit already
            self._settle(trainer)
        if self._state is not None:
            self._state.schedulers.release(plateaus=True)
            self._saved_snapshot = self._state.newest_snapshot()
            self._state = None

    def state_dict(self) -> dict[str, Any]:
        """Return counts and windows, and for ``rewind`` the newest snapshot, if unsharded."""
        state = self._state
        if state is not None and state.deferred is not None:
            self._settle(state.trainer)  # before optimizers and schedulers are saved
        return {
            "num_skipped": self.num_skipped,
            "num_rewound": self.num_rewound,
            "num_consecutive": dict(self._consecutive),
            "judges": {index: d.state_dict() for index, d in self._spike_detectors.items()},
            "snapshot": self._saved_snapshot if state is None else state.newest_snapshot(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with saved counts, windows and snapshot."""
        self.num_skipped = state_dict["num_skipped"]
        self.num_rewound = state_dict["num_rewound"]
        self._consecutive = dict(state_dict["num_consecutive"])
        self._spike_detectors.clear()
        for index, saved in state_dict["judges"].items():
            self._spike_detectors[index].load_state_dict(saved)
        self._saved_snapshot = state_dict["snapshot"]
        self._loaded = True

    @property
    def _fit(self) -> GuardState:
        assert self._state is not None  # every hook that asks comes after ``on_train_start``
        return self._state

    def _can_defer(self, step: OptimizerStep) -> bool:
        """Say whether the verdict on this step may reach the host after it.

        Not within a row of bad steps, which a budget or a rewind may end, and not before spikes are
        judged by a whole window, so that a run's delicate first steps are judged by all before.
        """
        options = self.options
        detector = self._spike_detectors[step.index] if options.on_spike != "ignore" else None
        return (
            not self._consecutive_before
            and not (options.rewinds and options.rewind_after == 1)
            and (detector is None or detector.is_filled)
            and self._fit.can_defer(step)
        )

    def _settle(self, trainer: Trainer) -> None:
        """Read the verdict on the step before, if the device has decided about it."""
        state = self._state
        deferred = state.take_deferred() if state is not None else None
        if deferred is None or state is None:
            return
        facts, bad, is_rejected = deferred.read()
        if bad is None or not is_rejected:
            if bad is None and self.options.on_spike != "ignore":
                self._spike_detectors[deferred.index].learn(facts)
            self._consecutive[deferred.index] = 0
            state.accept()
            return
        what = bad.describe(facts, deferred.at, "" if bad.is_spike else deferred.where())
        self._consecutive[deferred.index] = self._consecutive.get(deferred.index, 0) + 1
        policy = self.options.on_spike if bad.is_spike else self.options.on_nonfinite
        deferred.schedules.restore()
        self._stop_if_asked(self._consecutive[deferred.index], what, policy)
        self._note_skip(trainer, facts, what, step=deferred.log_step)

    def _handle_bad_step(
        self, step: OptimizerStep, bad: Verdict, facts: StepFacts, policy: str
    ) -> None:
        state = self._fit
        consecutive = self._consecutive_before + 1
        self._consecutive[step.index] = consecutive
        place = place_of(bad, step, state.buffers)
        what = bad.describe(facts, moment(step.trainer), place)
        found = state.investigate(step, bad)
        self._stop_if_asked(consecutive, what, policy, found)
        if not state.can_put_back(step):
            raise UnstableStepError(
                f"`StepGuard` stopped the fit: {what}, at a further evaluation of a"
                f" `{type(step.optimizer).__name__}` that had evaluated once in each of its first"
                " steps, so that the weights were not kept. Go back to a checkpoint."
            )
        state.reject(step)
        state.rewind_due |= policy == "rewind" and consecutive % self.options.rewind_after == 0
        self._note_skip(step.trainer, facts, what, found)

    def _stop_if_asked(self, consecutive: int, what: str, policy: str, found: str = "") -> None:
        if policy == "raise":
            raise UnstableStepError(
                f"`StepGuard` stopped the fit before the optimizer step: {what}.{found} Look at the"
                " batch, lower the learning rate or clip the gradients;"
                " `StepGuard(on_nonfinite='skip')` passes over such steps, `forensics=True` names"
                " the module where it began."
            )
        if consecutive >= self.options.max_consecutive:
            raise UnstableStepError(
                f"`StepGuard` stopped the fit after {consecutive} bad steps in a row"
                f" (`max_consecutive`): the latest was a {what}.{found} So many in a row come from"
                " the weights or from the data as a whole, not from one batch: look at the data"
                " and the initialisation, or lower the learning rate."
            )

    def _note_skip(
        self,
        trainer: Trainer,
        facts: StepFacts,
        what: str,
        found: str = "",
        step: int | None = None,
    ) -> None:
        self.num_skipped += 1
        self._log(trainer, {"loss": facts.loss, "grad_norm": facts.norm}, step)
        if self.num_skipped == 1 or found:
            say(trainer, f"`StepGuard` passed over a step: {what}.{found} Later ones are counted.")

    def _rewind(self, trainer: Trainer, module: LightningModule) -> None:
        snapshot = self._fit.rewind(trainer, module, self)
        self.num_rewound += 1
        factor = self.options.lr_factor
        times = self.num_rewound - int(snapshot["num_rewound"])
        scale_learning_rates(trainer, factor, times, num_groups(snapshot))
        self._log(trainer, {})
        say(
            trainer,
            "`StepGuard` went back to an earlier snapshot of the weights after"
            f" {self.num_consecutive} bad steps in a row and multiplied the learning rates by"
            f" {factor:g}.",
        )

    def _log(self, trainer: Trainer, values: dict[str, float], step: int | None = None) -> None:
        counts = {"skipped": float(self.num_skipped), "rewound": float(self.num_rewound)}
        logged = {tag("guard", name): v for name, v in {**counts, **values}.items()}
        log_scalars(trainer, logged, step, as_metrics=True)
