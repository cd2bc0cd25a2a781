"""Guard the weights: a step with a non-finite or wildly large loss or gradient is not taken."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_scalars, tag
from lightning_stab.callbacks._trainer.step import (
    OptimizerStep,
    StepMember,
    run_phases,
    scaler_will_cure,
)
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks.guard import messages as messages
from lightning_stab.callbacks.guard.schedulers import scale_learning_rates
from lightning_stab.callbacks.guard.state import GuardRun
from lightning_stab.callbacks.guard.verdicts import (
    NONFINITE_GRADIENT,
    Judges,
    StepFacts,
    Verdict,
    nonfinite_verdict,
)
from lightning_stab.errors import InvalidArgumentError, UnstableStepError

POLICIES = ("ignore", "raise", "skip", "rewind")


class StepGuard(StepMember, Callback):
    """Keep one bad batch from ruining a run: at most the bad step is lost.

    Before each optimizer step it judges the loss, the norm of the true gradient, and the running
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
        on_spike: the policy for spikes; no rule tells every rare good step from a bad one.
        max_consecutive: bad steps in a row that stop the fit; scattered ones never add up.
        window: accepted steps that are remembered; ``min_window`` of them are needed to judge by.
        min_window: see ``window``; before that, only ``early_factor`` tells.
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

    _run: GuardRun  # of the current fit

    def __init__(
        self,
        on_nonfinite: str = "raise",
        on_spike: str = "ignore",
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
        self.on_nonfinite = one_of("on_nonfinite", on_nonfinite, POLICIES)
        self.on_spike = one_of("on_spike", on_spike, POLICIES)
        self.max_consecutive = integer("max_consecutive", max_consecutive, minimum=1)
        self._judges = Judges(
            window=window,
            min_window=min_window,
            deviations=deviations,
            loss_jump=loss_jump,
            gradient_factor=gradient_factor,
            early_factor=early_factor,
        )
        self.rewind_after = integer("rewind_after", rewind_after, minimum=1)
        self.snapshot_every_n_steps = snapshot_every_n_steps
        integer("snapshot_every_n_steps", snapshot_every_n_steps, minimum=1)
        if "rewind" in (on_nonfinite, on_spike) and rewind_after >= max_consecutive:
            raise InvalidArgumentError(messages.never_rewinds(rewind_after, max_consecutive))
        self.lr_factor = real("lr_factor", lr_factor, above=0, maximum=1)
        self.forensics = forensics
        self.num_skipped = self.num_rewound = 0
        self._consecutive: dict[int, int] = {}
        self._saved_snapshot: dict[str, Any] | None = None
        self._loaded = False

    @property
    def num_consecutive(self) -> int:
        """Bad steps in a row up to now, of the optimizer that has most of them."""
        return max(self._consecutive.values(), default=0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen whole."""
        if stage == "fit":
            refuse_partial_norms(trainer, self, "the gradient's norm")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with empty hands, and a first snapshot where rewinding may need one."""
        if not self._loaded and trainer.global_step == 0:
            self._judges.forget()
            self._consecutive, self.num_skipped, self.num_rewound = {}, 0, 0
        self._loaded = False
        undoes = bool({"skip", "rewind"} & {self.on_nonfinite, self.on_spike})
        self._run = GuardRun(pl_module, undoes=undoes, forensics=self.forensics)
        if "rewind" in (self.on_nonfinite, self.on_spike):
            self._run.start_snapshots(trainer, pl_module, self, self._saved_snapshot)
        self._saved_snapshot = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember what the batch may spoil."""
        self._run.hold.release(plateaus=True)
        self._run.begin_batch(batch, batch_idx)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Note the loss, on its device."""
        self._run.add_loss(trainer, loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        run_phases(self, trainer, pl_module, optimizer)
        self._run.end_window()

    def guard_step(self, step: OptimizerStep) -> None:
        """Judge the step, and let it pass, pass over it, or stop."""
        run = self._run
        facts = run.facts(step)
        if facts is None:
            return
        bad = nonfinite_verdict(facts)
        if bad is not None and bad.kind == NONFINITE_GRADIENT and scaler_will_cure(step):
            run.hold.hold(step.trainer, step.optimizer)
            return
        watches = self.on_spike != "ignore"
        if bad is None and watches:
            bad = self._judges.of(step.index).verdict(facts)
        policy = self.on_spike if bad is not None and bad.is_spike else self.on_nonfinite
        if bad is not None and policy != "ignore":
            self._refuse(run, bad, facts, step, policy)
            return
        if bad is None and watches:
            self._judges.of(step.index).learn(facts)
        self._consecutive[step.index] = 0
        run.accept(step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Let schedulers go on, rewind if that was decided, and take a snapshot when one is due."""
        run = self._run
        run.end_batch(trainer)
        if run.undo_ruined_searches():
            self.num_skipped += 1
            self._log(trainer, {})
        if run.rewind_due:
            self._rewind(run, trainer, pl_module)
        elif run.snapshots and run.num_accepted_since_snapshot >= self.snapshot_every_n_steps:
            run.keep_snapshot(trainer, pl_module, self)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let go of what was held back."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of what was held back."""
        if hasattr(self, "_run"):
            self._run.hold.release(plateaus=True)

    def state_dict(self) -> dict[str, Any]:
        """Return counts and windows, and for ``rewind`` the newest snapshot, if unsharded."""
        run = getattr(self, "_run", None)
        return {
            "num_skipped": self.num_skipped,
            "num_rewound": self.num_rewound,
            "num_consecutive": dict(self._consecutive),
            "judges": self._judges.state_dict(),
            "snapshot": self._saved_snapshot if run is None else run.newest_snapshot(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with saved counts, windows and snapshot."""
        self.num_skipped = state_dict["num_skipped"]
        self.num_rewound = state_dict["num_rewound"]
        self._consecutive = dict(state_dict["num_consecutive"])
        self._judges.load_state_dict(state_dict["judges"])
        self._saved_snapshot = state_dict["snapshot"]
        self._loaded = True

    def _refuse(
        self, run: GuardRun, bad: Verdict, facts: StepFacts, step: OptimizerStep, policy: str
    ) -> None:
        consecutive = self._consecutive.get(step.index, 0) + 1
        self._consecutive[step.index] = consecutive
        what = messages.describe(bad, facts, step, run.buffers)
        found = run.investigate(step, bad)
        if policy == "raise":
            raise UnstableStepError(messages.stop_sentence(what, found))
        if consecutive >= self.max_consecutive:
            raise UnstableStepError(messages.give_up_sentence(what, consecutive, found))
        run.reject(step)
        run.rewind_due |= policy == "rewind" and consecutive % self.rewind_after == 0
        self.num_skipped += 1
        self._log(step.trainer, {"loss": facts.loss, "grad_norm": facts.norm})
        if self.num_skipped == 1 or found:
            rank_zero_info(messages.skip_sentence(what, found))

    def _rewind(self, run: GuardRun, trainer: Trainer, module: LightningModule) -> None:
        before = run.rewind(trainer, module, self)
        self.num_rewound += 1
        scale_learning_rates(trainer, self.lr_factor ** (self.num_rewound - before))
        self._log(trainer, {})
        rank_zero_info(messages.rewind_sentence(self.num_consecutive, self.lr_factor))

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        counts = {"skipped": float(self.num_skipped), "rewound": float(self.num_rewound)}
        log_scalars(trainer, {tag("guard", name): v for name, v in {**counts, **values}.items()})
