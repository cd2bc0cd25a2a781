"""Watch what the activation functions do, at intervals, and log it as one event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_stab.arguments import integer, strings
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import is_due, log_scalars, log_step
from lightning_stab.callbacks.activations.window import ActivationWindow


class ActivationMonitor(Callback):
    """Log mean, spread, dead units and saturation of every activation layer, at intervals.

    Its hooks exist only on the steps that are watched, so that all others cost nothing, and it
    never changes a run. All values of a step leave as one event.

    =============================== ================================================
    logged name                     what it is
    =============================== ================================================
    ``activation_mean/<layer>``     mean of the outputs
    ``activation_std/<layer>``      standard deviation of the outputs
    ``dead_fraction/<layer>``       fraction of units that were zero on EVERY sample of the window
    ``saturated_fraction/<layer>``  fraction of entries with abs(f'(z)) < 0.02 max abs(f')
    ``depth/activation_std_log10``  log10 of the last layer's deviation over the first's
    =============================== ================================================

    A layer is an activation module, or a function such as ``torch.relu``, named by the module that
    calls it (``encoder.relu``). A module that is called after several layers counts several times:
    ``relu``, ``relu_2``. Outputs of the net are no activations. ReLU, GELU and their kind can be
    dead; sigmoid, tanh and their kind, and ELU below 0, can be saturated.

    A unit is a channel after a convolution, and an entry of the last dimension elsewhere. Where
    units were zero on a whole batch, the window goes on over the next batches, and the layer's
    ``dead_fraction`` is logged when it has seen enough.

    Args:
        every_n_steps: log at the end of each interval of so many optimizer steps, independent of
            the Trainer's ``log_every_n_steps``.
        window: samples on all of which a unit has to be zero to be dead, or as many batches as an
            epoch has, whichever is less. Fewer accuse units that are only rare.
        include: patterns of the names of the layers that are logged.
        exclude: patterns of the names of layers that are not.

    Raises:
        InvalidArgumentError: if ``every_n_steps`` or ``window`` is below 1, or a pattern is no
            string.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ActivationMonitor(every_n_steps=10)], logger=False)

    Source: dead units are those of Lu et al. 2019, over a window; saturation follows Glorot &
    Bengio 2010, with a bound on the derivative.
    """

    def __init__(
        self,
        every_n_steps: int = 200,
        *,
        window: int = 1000,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        self.every_n_steps = integer("every_n_steps", every_n_steps, minimum=1)
        self.window = integer("window", window, minimum=1)
        self.include = strings("include", include)
        self.exclude = strings("exclude", exclude)
        self.unseen = ""
        self._window: ActivationWindow | None = None
        self._step = -1
        self._num_windows = 0
        # Lightning asks for it at every hook of every step, so it is built once
        self._state_key = self._generate_state_key(
            every_n_steps=self.every_n_steps,
            window=self.window,
            include=self.include,
            exclude=self.exclude,
        )

    @property
    def state_key(self) -> str:
        """Tell monitors of different settings apart in a checkpoint."""
        return self._state_key

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self._stop()
        self.unseen = ""
        self._num_windows = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a step that is logged, or go on with a window."""
        at = log_step(trainer)
        due = is_due(at, self.every_n_steps)
        if not trainer.is_global_zero or not (due or self._window):
            return
        if self._window is None:
            self._window = ActivationWindow(self.window, self.include, self.exclude)
            self._window.probe.install(pl_module)
        else:
            if due and at != self._step:
                self._window.probe.forget_statistics()
            self._window.probe.begin_batch(full=due)
        self._step = at

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Look away: the forward pass is over."""
        if self._window is not None:
            self._window.probe.pause()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look again where the module itself goes on, under manual optimisation."""
        if self._window is not None and not pl_module.automatic_optimization:
            self._window.probe.resume()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what is certain; take the hooks off as soon as nothing is left open."""
        if self._window is None:
            return
        self._window.probe.pause()
        final = self._window.end_batch(trainer.num_training_batches)
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        due = is_due(self._step, self.every_n_steps)
        if due or final or self._window.is_worth_reading():
            log_scalars(trainer, self._window.read(statistics=due, final=final))
            self._tell(self._window.probe.unseen)
        if self._window.is_over:
            self._num_windows += 1
            self._stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look away, also where the module has skipped the rest of an epoch."""
        if self._window is not None:
            self._window.probe.pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the dead units of a run that was too short for one whole window."""
        if self._window is not None and self._num_windows == 0:
            scalars = self._window.read(statistics=False, final=True)
            log_scalars(trainer, scalars, step=self._step)
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks off."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._stop()

    def _stop(self) -> None:
        if self._window is not None:
            self._window.probe.remove()
        self._window = None

    def _tell(self, unseen: str) -> None:
        """Say once what cannot be seen."""
        if unseen and not self.unseen:
            self.unseen = unseen
            tell = rank_zero_info if self._window and self._window.probe.layers else rank_zero_warn
            tell(f"`ActivationMonitor`: {unseen}")
