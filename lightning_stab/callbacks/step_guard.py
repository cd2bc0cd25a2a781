"""Guard the weights: a step with a non-finite or wildly large loss or gradient is not taken."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.callbacks._guard_judge import (
    NONFINITE_GRADIENT,
    Judges,
    StepFacts,
    Verdict,
    gather_facts,
    nonfinite_verdict,
)
from lightning_stab.callbacks._guard_messages import describe, give_up_sentence, stop_sentence
from lightning_stab.callbacks._guard_run import GuardRun
from lightning_stab.callbacks._guard_schedulers import scale_learning_rates
from lightning_stab.callbacks._lightning import Callback
from lightning_stab.callbacks._logging import log_scalars, tag
from lightning_stab.callbacks._regimes import refuse_flat_shards, refuse_hidden_gradients
from lightning_stab.callbacks._step import (
    OptimizerStep,
    run_phases,
    scaler_will_cure,
)
from lightning_stab.errors import InvalidArgumentError, UnstableStepError

POLICIES = ("ignore", "raise", "skip", "rewind")


class StepGuard(Callback):
    """Keep one bad batch from ruining a run: at most the bad step is lost.

    Before each optimizer step the loss, the norm of the true gradient and the running statistics
    of batch normalisation are judged, which a batch can ruin although its loss is finite. A step is
    bad if one of them is NaN or infinite, or if it is a spike: beyond ``deviations`` standard
    deviations above the mean of the last ``window`` accepted steps, with a rise that matters.
    Before the window holds ``min_window`` steps, a value beyond ``early_factor`` times the median
    is a spike. Rejected steps never enter the window.

    ========== ====================================================================================
    policy     what happens to a bad step
    ========== ====================================================================================
    ``ignore`` it is taken
    ``raise``  the fit stops with `UnstableStepError`, which names the first bad parameter
    ``skip``   weights, buffers, moments and step counts of the optimizer stay as if the batch had
               not been, and step-wise schedulers wait; only the Trainer's ``global_step`` advances
    ``rewind`` as ``skip``; after ``rewind_after`` bad steps in a row, when not the batch but the
               weights are to blame, the newest snapshot of model, optimizers, schedulers, scaler
               and clipping history comes back, and the learning rate is multiplied by
               ``lr_factor``
    ========== ====================================================================================

    Under a loss scaler an overflow that a smaller scale cures is the scaler's business and is no
    bad step. All ranks decide alike. Logged when it happens: ``guard/skipped``, ``guard/rewound``
    (counts), ``guard/loss``, ``guard/grad_norm``.

    Args:
        on_nonfinite: the policy for NaN and infinities in loss or gradient.
        on_spike: the policy for spikes; ``ignore`` by default, because it costs good steps too:
            measured, up to 5 of 2,225 healthy ones.
        max_consecutive: bad steps in a row after which the fit stops all the same, >= 1.
            Scattered ones never add up.
        window: accepted steps that are remembered.
        min_window: how many of them the window's rule needs.
        deviations: standard deviations above the mean that make a spike, > 0.
        loss_jump: the least rise of a loss that matters, in units of the first loss, >= 0.
        gradient_factor: the least ratio of a gradient norm to the window's median that matters.
        early_factor: the ratio to the median that is a spike before the window is filled.
        rewind_after: bad steps in a row that show the weights to be at fault, >= 1. A single bad
            batch is passed over: its step was never taken, so there is nothing to take back.
        snapshot_every_n_steps: accepted steps between snapshots, for ``rewind`` only.
        lr_factor: what a rewind multiplies the learning rates by, in (0, 1].
        forensics: on the first non-finite step, run the batch again with hooks to name the first
            module whose output or gradient is not finite, and save the batch beside the logs.

    Raises:
        InvalidArgumentError: for an unknown policy or a number outside its range.
        ConflictError: at the start of a fit under DeepSpeed or FSDP1.
        UnstableStepError: during the fit, by the policy ``raise`` or after ``max_consecutive``.

    Example:
        >>> guard = StepGuard(on_nonfinite="skip", on_spike="skip")
        >>> guard.num_skipped
        0
    """

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
            window=integer("window", window, minimum=2),
            minimum=_at_most("min_window", min_window, window),
            deviations=real("deviations", deviations, above=0),
            loss_jump=real("loss_jump", loss_jump, minimum=0),
            gradient_factor=real("gradient_factor", gradient_factor, minimum=1),
            early_factor=real("early_factor", early_factor, above=1),
        )
        self.rewind_after = integer("rewind_after", rewind_after, minimum=1)
        self.snapshot_every_n_steps = integer(
            "snapshot_every_n_steps", snapshot_every_n_steps, minimum=1
        )
        self.lr_factor = real("lr_factor", lr_factor, above=0, maximum=1)
        self.forensics = forensics
        self.num_skipped = 0
        self.num_rewound = 0
        self._consecutive: dict[int, int] = {}
        self._saved_snapshot: dict[str, Any] | None = None
        self._run: GuardRun | None = None

    @property
    def num_consecutive(self) -> int:
        """Bad steps in a row up to now, of the optimizer that has most of them."""
        return max(self._consecutive.values(), default=0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen whole."""
        if stage == "fit":
            refuse_hidden_gradients(trainer, self)
            refuse_flat_shards(trainer, self, "the gradient's norm")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with empty hands, and a first snapshot where rewinding may need one."""
        policies = {self.on_nonfinite, self.on_spike}
        undoes = bool({"skip", "rewind"} & policies)
        self._run = GuardRun(pl_module, undoes=undoes, forensics=self.forensics)
        if "rewind" in policies:
            self._run.start_snapshots(trainer, pl_module, self, self._saved_snapshot)
            self._saved_snapshot = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember what the batch may spoil."""
        if self._run is not None:
            self._run.hold.release(plateaus=True)
            self._run.begin_batch(batch, batch_idx)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Note the loss, on its device."""
        if self._run is not None:
            self._run.add_loss(trainer, loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        run_phases(self, trainer, pl_module, optimizer)
        if self._run is not None:
            self._run.end_window()

    def guard_step(self, step: OptimizerStep) -> None:
        """Judge the step, and let it pass, pass over it, or stop."""
        run = self._run
        if run is None:
            return
        loss = run.take_loss()
        if run.is_line_search(step):
            return
        running = run.buffers.running_norm()
        facts = gather_facts(step.trainer, loss, step.total_value, running, step.total.device)
        bad = nonfinite_verdict(facts)
        if bad is not None and bad.kind == NONFINITE_GRADIENT and scaler_will_cure(step):
            run.hold.hold(step.trainer, step.optimizer)
            return
        watches = self.on_spike != "ignore"
        if bad is None and watches:
            bad = self._judges.of(step.index).verdict(facts)
        if bad is not None and self._policy(bad) != "ignore":
            self._refuse(run, bad, facts, step)
            return
        if bad is None and watches:
            self._judges.of(step.index).learn(facts)
        self._consecutive[step.index] = 0
        run.accept(step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Let schedulers go on, rewind if that was decided, and take a snapshot when one is due."""
        run = self._run
        if run is None:
            return
        run.hold.release(plateaus=False)
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
        if self._run is not None:
            self._run.hold.release(plateaus=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of what was held back."""
        if self._run is not None:
            self._run.hold.release(plateaus=True)

    def state_dict(self) -> dict[str, Any]:
        """Return counts and windows, and for ``rewind`` the newest snapshot, if unsharded."""
        run = self._run
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

    def _refuse(self, run: GuardRun, bad: Verdict, facts: StepFacts, step: OptimizerStep) -> None:
        consecutive = self._consecutive.get(step.index, 0) + 1
        self._consecutive[step.index] = consecutive
        policy = self._policy(bad)
        what = describe(bad, facts, step, run.buffers)
        forensics = run.forensics
        looks = forensics is not None and not forensics.done and not bad.is_spike
        found = forensics.investigate(step.trainer, step.module) if looks and forensics else ""
        if policy == "raise":
            raise UnstableStepError(stop_sentence(what, found))
        if consecutive >= self.max_consecutive:
            raise UnstableStepError(give_up_sentence(what, consecutive, found))
        run.reject(step)
        run.rewind_due |= policy == "rewind" and consecutive % self.rewind_after == 0
        self.num_skipped += 1
        self._log(step.trainer, {"loss": facts.loss, "grad_norm": facts.norm})
        if self.num_skipped == 1 or found:
            rank_zero_info(
                f"`StepGuard` passed over a step: {what}.{found} Later ones are counted."
            )

    def _rewind(self, run: GuardRun, trainer: Trainer, module: LightningModule) -> None:
        before = run.rewind(trainer, module, self)
        self.num_rewound += 1
        scale_learning_rates(trainer, self.lr_factor ** (self.num_rewound - before))
        self._log(trainer, {})
        rank_zero_info(
            f"`StepGuard` went back to an earlier snapshot of the weights after"
            f" {self.num_consecutive} bad steps in a row and multiplied the learning rates by"
            f" {self.lr_factor:g}."
        )

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        counts = {"skipped": float(self.num_skipped), "rewound": float(self.num_rewound)}
        log_scalars(trainer, {tag("guard", name): v for name, v in {**counts, **values}.items()})

    def _policy(self, verdict: Verdict) -> str:
        return self.on_spike if verdict.is_spike else self.on_nonfinite


def _at_most(name: str, value: int, window: int) -> int:
    if integer(name, value, minimum=2) > window:
        raise InvalidArgumentError(
            f"`{name}` must be <= `window`, which is {window}, got {value}. The window never holds"
            " more steps than its size."
        )
    return value
