"""Watch what the activation functions do, at intervals, and log it as one event."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from textwrap import shorten
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_stab.arguments import integer, options_from, strings
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, to_host
from lightning_stab.callbacks._trainer.lightning_classes import Callback, is_automatic
from lightning_stab.callbacks._trainer.logging import is_due, log_scalars, log_step, tag
from lightning_stab.callbacks._trainer.step import will_step
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.activations.record import ActivationLayer
from lightning_stab.functional.gradient_statistics import log_ratio

MEAN, STD, DEAD, SATURATED = range(4)  # the first columns of the probe's table


@dataclass(frozen=True, kw_only=True)
class ActivationOptions:
    """The arguments of `ActivationMonitor`, checked."""

    every_n_steps: int = 200
    window: int = 1000
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        integer("every_n_steps", self.every_n_steps, minimum=1)
        integer("window", self.window, minimum=1)
        for name in ("include", "exclude"):
            object.__setattr__(self, name, strings(name, getattr(self, name)))

    def selects(self, layer: str) -> bool:
        """Say whether a layer is logged."""
        included = any(fnmatchcase(layer, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(layer, pattern) for pattern in self.exclude)


class ActivationMonitor(Callback, options=ActivationOptions):
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

    Attributes:
        unseen: what cannot be seen, as a sentence; empty if nothing is known to be missed.

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
        self.options = options_from(ActivationOptions, locals())
        # Lightning asks for it at every hook of every step, so it is built once
        self._state_key = self._generate_state_key(**vars(self.options))
        self.unseen = ""
        self._window: ActivationWindow | None = None
        self._step = -1  # the latest that was watched
        self._num_windows = 0

    @property
    def state_key(self) -> str:
        """Tell monitors of different settings apart in a checkpoint."""
        return self._state_key

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit; nothing is carried from one to the next."""
        self._stop()
        self.unseen, self._step, self._num_windows = "", -1, 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a step that is logged, or go on with a window."""
        at = log_step(trainer)
        due = is_due(at, self.options.every_n_steps)
        if not trainer.is_global_zero or not (due or self._window):
            return
        if self._window is None:
            self._window = ActivationWindow(self.options)
            self._window.probe.install(pl_module)
        else:
            if due and at != self._step:
                self._window.probe.record.forget_statistics()
            self._window.probe.begin_batch(full=due)
        self._step = at

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Pause: the forward pass is over."""
        if self._window is not None:
            self._window.probe.pause()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume where the module itself goes on, under manual optimisation."""
        if self._window is not None and not is_automatic(trainer, pl_module):
            self._window.probe.resume()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what is certain; take the hooks off as soon as nothing is left open."""
        window = self._window
        if window is None:
            return
        window.probe.pause()
        final = window.end_batch(trainer.num_training_batches)
        if not will_step(trainer):
            return
        due = is_due(self._step, self.options.every_n_steps)
        if due or final or window.is_worth_reading():
            log_scalars(trainer, window.read(statistics=due, final=final), as_metrics=True)
            if window.unseen and not self.unseen:
                self.unseen = window.unseen
                text = f"`ActivationMonitor`: {self.unseen}"
                if window.probe.layers:
                    say(trainer, text)
                else:
                    rank_zero_warn(text)
        if window.is_over:
            self._num_windows += 1
            self._stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause, also where the module has skipped the rest of an epoch."""
        if self._window is not None:
            self._window.probe.pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the dead units of a run too short for one whole window, or say why nothing was."""
        if self._window is not None and self._num_windows == 0:
            scalars = self._window.read(statistics=False, final=True)
            log_scalars(trainer, scalars, step=self._step, as_metrics=True)
        if trainer.is_global_zero and self._step < 0:
            say(
                trainer,
                "`ActivationMonitor`: nothing was logged, because no step of this fit ended an"
                f" interval of {self.options.every_n_steps}. Lower `every_n_steps`.",
            )
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._stop()

    def _stop(self) -> None:
        if self._window is not None:
            self._window.probe.remove()
        self._window = None


class ActivationWindow:
    """A probe that stays on from a logging step until it is certain which units are dead.

    A unit that was not zero once is not dead, so one batch decides about most layers. Only where
    units were zero on the whole batch does the window go on, and follows dead units alone.

    Attributes:
        probe: the probe.
        layers: those that are logged, as far as they have run.
        is_over: whether all layers are decided.
    """

    def __init__(self, options: ActivationOptions) -> None:
        self.probe = ActivationProbe()
        self.layers: list[ActivationLayer] = []
        self.is_over = False
        self._options = options
        self._decided: set[str] = set()
        self._batches = 0
        self._next_reading = 1

    @property
    def unseen(self) -> str:
        """What is not logged, as a sentence; empty if nothing is known to be missed."""
        names = ", ".join(f"`{layer.name}`" for layer in self.probe.layers)
        if names and not self.layers:
            return f"no layer is chosen by `include` and `exclude`, of {shorten(names, 200)}."
        return self.probe.unseen

    def end_batch(self, epoch: float) -> bool:
        """Count a batch, and say whether the window has seen all that it needs.

        Args:
            epoch: batches in an epoch, which are enough however few their samples.
        """
        self._batches += 1
        sites = self.probe.record.sites.values()
        can_be_dead = (site.samples for site in sites if site.peaks is not None)
        return self._batches >= epoch or min(can_be_dead, default=math.inf) >= self._options.window

    def is_worth_reading(self) -> bool:
        """Say whether reading again may end the window: after 1, 4, 16, ... batches."""
        return self._batches >= self._next_reading

    def read(self, *, statistics: bool, final: bool) -> dict[str, float]:
        """Return what can be logged now, moved to the host in one transfer.

        Args:
            statistics: whether this batch's means, deviations and saturation are to be logged;
                else only dead fractions that have become certain.
            final: whether no further sample is needed, or to be had.
        """
        self._next_reading = 4 * self._batches
        layers = [x for x in self.probe.layers if self._options.selects(x.name)]
        record = self.probe.record
        table = record.values(layers) if statistics else record.dead_fractions(layers)[:, None]
        width = table.shape[1]

        def to_scalars(numbers: list[float]) -> Mapping[str, float]:
            rows = [numbers[i : i + width] for i in range(0, len(numbers), width)]
            scalars = _statistics(layers, rows) if statistics else {}
            for layer, row in zip(layers, rows, strict=True):
                dead = row[DEAD] if statistics else row[0]
                is_known = layer.name in self._decided
                if final or not dead > 0 or layer.site.samples >= self._options.window:
                    self._decided.add(layer.name)
                    if not math.isnan(dead) and (statistics or not is_known):
                        scalars[tag("dead_fraction", layer.name)] = dead
            return scalars

        scalars = to_host([DeviceScalars(table.flatten(), to_scalars)])
        still_open = [layer for layer in layers if layer.name not in self._decided]
        self.layers, self.is_over = layers, not still_open
        self.probe.narrow(still_open)
        return scalars


def _statistics(
    layers: Sequence[ActivationLayer], rows: Sequence[Sequence[float]]
) -> dict[str, float]:
    scalars = {}
    for layer, row in zip(layers, rows, strict=True):
        scalars[tag("activation_mean", layer.name)] = row[MEAN]
        scalars[tag("activation_std", layer.name)] = row[STD]
        if not math.isnan(row[SATURATED]):
            scalars[tag("saturated_fraction", layer.name)] = row[SATURATED]
    # how the deviation grows from the first to the last layer of the most frequent kind
    kinds = Counter(layer.kind for layer in layers)
    kind = max(kinds, key=lambda each: kinds[each], default="")
    deviations = [row[STD] for layer, row in zip(layers, rows, strict=True) if layer.kind == kind]
    if len(deviations) > 1:
        scalars[tag("depth", "activation_std_log10")] = log_ratio(deviations[-1], deviations[0])
    return scalars
