"""Hooks that exist for one batch or a window of several: what each activation function does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from lightning_stab.callbacks._hooks.compiled import Hookable, hookable
from lightning_stab.callbacks._hooks.hooks import ModuleHooks
from lightning_stab.callbacks.activations.calls import ActivationTracer, ModuleRole
from lightning_stab.callbacks.activations.recognition import CONTAINERS
from lightning_stab.callbacks.activations.record import ActivationLayer, ActivationRecord
from lightning_stab.functional.function_mode import FunctionMode


class ActivationProbe:
    """Watch every activation function of a module, while it is installed.

    Modules are seen through hooks, functions such as ``torch.relu`` through a function mode of this
    thread. Only what runs for training is seen: not validation, not the recomputed forward pass of
    activation checkpointing. It changes no result and draws no random number.

    `install` begins with the batch that comes; `begin_batch` goes on with another one. Call `pause`
    before the backward pass and wherever else nothing is to be seen.

    Args:
        moments: whether means and standard deviations are measured, which cost most; else they are
            NaN.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> probe = ActivationProbe()
        >>> probe.install(net)
        >>> _ = net(torch.randn(16, 4))
        >>> probe.remove()
        >>> probe.layers, tuple(probe.values().shape)
        ([ActivationLayer(name='1', kind='relu')], (1, 6))
    """

    def __init__(self, *, moments: bool = True) -> None:
        self._moments = moments
        self._tracer = ActivationTracer(moments=moments)
        self._hooks = ModuleHooks()
        self._mode: FunctionMode | None = None
        self._roles: list[ModuleRole] = []
        self._compiled = ""
        self._is_narrow = False

    def install(self, module: nn.Module | Hookable, *, forget: bool = True) -> None:
        """Put the hooks on, and begin with the batch that comes.

        Args:
            module: the module whose training step will run. Compiled parts are passed over.
            forget: whether a new window begins; else this batch continues the last one.
        """
        self.remove()
        if forget:
            self._tracer = ActivationTracer(moments=self._moments)
        parts = hookable(module)
        self._compiled = parts.said
        self._roles = [
            ModuleRole(part, name) for name, part in parts.modules if type(part) not in CONTAINERS
        ]
        self._hook_all()
        self.begin_batch()

    def begin_batch(self, *, full: bool = True) -> None:
        """Watch the next batch of the window.

        Args:
            full: False to follow dead units only, which costs less.
        """
        self.pause()
        if full and self._is_narrow:
            self._hook_all()
        self._tracer.begin_batch(full=full)
        self.resume()

    def narrow(self, layers: Sequence[ActivationLayer]) -> None:
        """Follow the dead units of these layers alone, as far as each is a module of its own.

        The next batch that is watched in full ends it.
        """
        sites = [layer.site for layer in layers]
        modules = {role.name: role.module for role in self._roles if role.kind is not None}
        shared = Counter(site.base for site in self.record.sites.values())
        if all(site.base in modules and shared[site.base] == 1 for site in sites):
            self._unhook()
            self._is_narrow = True
            for site in sites:
                self._hooks.before(modules[site.base], partial(self._tracer.follow, site))

    def pause(self) -> None:
        """See nothing until `resume`, e.g. in the backward pass and in validation."""
        self._tracer.pause()
        if self._mode is not None:
            self._mode.leave()

    def resume(self) -> None:
        """Go on with the same batch, if the hooks are on."""
        if self._hooks and not self._tracer.on:
            self._tracer.on = True
            if self._mode is not None:
                self._mode.enter()

    def remove(self) -> None:
        """Take every hook and the function mode away; what was measured stays."""
        self._unhook()
        self._roles = []

    @property
    def record(self) -> ActivationRecord:
        """What was measured."""
        return self._tracer.record

    @property
    def layers(self) -> list[ActivationLayer]:
        """The activations in the order of execution, without the outputs of the net."""
        return self.record.layers()

    def values(self) -> Tensor:
        """Return a row per layer, on the device, without waiting for it; shape ``[layers, 6]``.

        The columns: mean and standard deviation of the outputs; fraction of dead units; fraction
        of saturated entries; standard deviation of the pre-activations around each unit's mean;
        how many samples each unit has seen. NaN where something is not defined.
        """
        return self.record.values(self.layers)

    @property
    def unseen(self) -> str:
        """What cannot be seen, as a sentence; empty if nothing is known to be missed."""
        parts = []
        if self._compiled:
            parts.append(
                f"{self._compiled}, so hooks inside do not run and activations called as functions"
                " are not watched"
            )
        if self._tracer.fused:
            names = ", ".join(f"`{name}`" for name in self._tracer.fused)
            parts.append(f"of what happens inside the fused {names} the output alone is seen")
        ragged = [site.base for site in self.record.sites.values() if site.ragged]
        if ragged:
            names = ", ".join(f"`{name}`" for name in ragged)
            parts.append(f"the number of units of {names} changes, so that none is followed")
        if not self.record.sites:
            parts.append("no activation function ran in the watched batches")
        return f"Not all activations are seen: {'; '.join(parts)}." if parts else ""

    def _hook_all(self) -> None:
        self._unhook()
        for role in self._roles:
            self._hooks.before(role.module, partial(self._tracer.enter, role))
            self._hooks.after(role.module, partial(self._tracer.leave, role), always=True)
        # a function mode would make compiled code be compiled again
        self._mode = None if self._compiled else FunctionMode(self._tracer.call)

    def _unhook(self) -> None:
        self.pause()
        self._hooks.remove()
        self._mode = None
        self._is_narrow = False
