"""Hooks that exist for one batch or a window of several: what each activation function does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks.activations.calls import ActivationWatch, Role, role_of
from lightning_stab.callbacks.activations.hooks import (
    EnterHook,
    FollowHook,
    FunctionMode,
    LeaveHook,
)
from lightning_stab.callbacks.activations.recognition import (
    CONTAINERS,
    compiled_functions,
    is_compiled_part,
)
from lightning_stab.callbacks.activations.record import LayerSeen
from lightning_stab.functional.names import plain_name


class ActivationProbe:
    """Watch every activation function of a module, while it is installed.

    Modules are seen through hooks, functions such as ``torch.relu`` through a function mode of this
    thread. Only what runs for training is seen: not validation, not the recomputed forward pass of
    activation checkpointing. It changes no result and draws no random number.

    `install` begins with the batch that comes; `begin_batch` goes on with another one. Call `pause`
    before the backward pass and wherever else nothing is to be seen.

    Args:
        heads: whether activations whose output no weight layer takes, the outputs of the net, are
            among the layers.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> probe = ActivationProbe()
        >>> probe.install(net)
        >>> _ = net(torch.randn(16, 4))
        >>> probe.remove()
        >>> probe.layers, tuple(probe.values().shape)
        ([LayerSeen(name='1', kind='relu', is_head=False)], (1, 6))
    """

    def __init__(self, *, heads: bool = False) -> None:
        self._heads = heads
        self._watch = ActivationWatch()
        self._handles: list[RemovableHandle] = []
        self._mode: FunctionMode | None = None
        self._roles: list[Role] = []
        self._sees_functions = True
        self._is_narrow = False
        self._hidden: list[str] = []

    def install(self, module: nn.Module, *, forget: bool = True) -> None:
        """Put the hooks on, and begin with the batch that comes.

        Args:
            module: the module whose training step will run. Compiled parts are passed over,
                because hooks set now would not run in them.
            forget: whether a new window begins; else this batch continues the last one.
        """
        self.remove()
        if forget:
            self._watch = ActivationWatch()
        compiled = [name for name, part in module.named_modules() if is_compiled_part(part)]
        functions = compiled_functions(module)
        self._hidden = _what_is_hidden(compiled, functions)
        # a function mode would make whatever is compiled be compiled again
        self._sees_functions = not compiled and not functions
        self._roles = [
            role_of(part, plain_name(name))
            for name, part in module.named_modules()
            if type(part) not in CONTAINERS
            and not any(not c or name == c or name.startswith(f"{c}.") for c in compiled)
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
        self._watch.begin_batch(full=full)
        self.resume()

    def narrow(self, names: Collection[str]) -> None:
        """Follow the dead units of these layers alone, as far as each is a module of its own.

        The next batch that is watched in full ends it.
        """
        record = self._watch.record
        chosen = record.chosen(heads=self._heads)
        sites = [s for s, x in zip(chosen, record.layers(chosen), strict=True) if x.name in names]
        modules = {role.name: role for role in self._roles if role.kind is not None}
        shared = Counter(site.base for site in record.sites.values())
        if all(site.base in modules and shared[site.base] == 1 for site in sites):
            self._unhook()
            self._is_narrow = True
            for site in sites:
                role = modules[site.base]
                hook = FollowHook(self._watch, role, site)
                handle = role.module.register_forward_pre_hook(hook, with_kwargs=True)
                self._handles.append(handle)

    def forget_statistics(self) -> None:
        """Let means, deviations and saturation count from here; dead units are followed on."""
        self._watch.record.forget_statistics()

    def pause(self) -> None:
        """See nothing until `resume`, e.g. in the backward pass and in validation."""
        self._watch.pause()
        if self._mode is not None:
            self._mode.leave()

    def resume(self) -> None:
        """Go on with the same batch, if the hooks are on."""
        if self._handles and not self._watch.on:
            self._watch.on = True
            if self._mode is not None:
                self._mode.join()

    def remove(self) -> None:
        """Take every hook and the function mode away; what was measured stays."""
        self._unhook()
        self._roles = []

    @property
    def is_installed(self) -> bool:
        """Whether hooks are on the module."""
        return bool(self._handles)

    @property
    def layers(self) -> list[LayerSeen]:
        """The activations in the order of execution."""
        record = self._watch.record
        return record.layers(record.chosen(heads=self._heads))

    def values(self) -> Tensor:
        """Return a row per layer, on the device, without waiting for it; shape ``[layers, 6]``.

        The columns: mean and standard deviation of the outputs; fraction of dead units; fraction
        of saturated entries; standard deviation of the pre-activations around each unit's mean;
        how many samples each unit has seen. NaN where something is not defined.
        """
        record = self._watch.record
        return record.values(record.chosen(heads=self._heads))

    def dead_fractions(self) -> Tensor:
        """Return the column of dead fractions alone, which is cheaper; shape ``[layers]``."""
        record = self._watch.record
        return record.dead_fractions(record.chosen(heads=self._heads))

    def samples(self) -> list[int]:
        """Return the column of samples alone, which is known without asking the device."""
        return [site.samples for site in self._watch.record.chosen(heads=self._heads)]

    def fewest_samples(self) -> float:
        """Return how many samples have been seen of the layer that saw least; inf without any."""
        return self._watch.record.fewest_samples()

    @property
    def unseen(self) -> str:
        """What cannot be seen, as a sentence; empty if nothing is known to be missed."""
        parts = list(self._hidden)
        if self._watch.fused:
            names = ", ".join(f"`{name}`" for name in self._watch.fused)
            parts.append(f"of what happens inside the fused {names} the output alone is seen")
        if not self._watch.record.sites:
            parts.append("no activation function ran in the watched batches")
        return f"Not all activations are seen: {'; '.join(parts)}." if parts else ""

    def _hook_all(self) -> None:
        self._unhook()
        for role in self._roles:
            enter, leave = EnterHook(self._watch, role), LeaveHook(self._watch, role)
            part = role.module
            self._handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
            self._handles.append(part.register_forward_hook(leave, always_call=True))
        self._mode = FunctionMode(self._watch) if self._sees_functions else None

    def _unhook(self) -> None:
        self.pause()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._mode = None
        self._is_narrow = False


def _what_is_hidden(compiled: list[str], functions: list[str]) -> list[str]:
    """Return clauses that say what compilation hides."""
    outer = [c for c in compiled if not any(c.startswith(f"{o}.") for o in compiled)]
    if "" in compiled:
        return ["the module is compiled"]
    parts = [f"`{plain_name(name)}` is compiled" for name in outer]
    if functions:
        names = ", ".join(f"`{name}`" for name in functions)
        parts.append(f"beside the compiled {names} activations called as functions are not watched")
    elif compiled:
        parts.append("beside compiled parts activations called as functions are not watched")
    return parts
