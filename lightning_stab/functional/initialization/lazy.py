"""Lazy layers: given their shapes by a first forward pass through a copy of the module."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from lightning_stab.functional.initialization.passes import Program
from lightning_stab.functional.random_states import preserve_random_states


def materialize_(module: nn.Module, program: Program) -> None:
    """Give the lazy parts of ``module`` the shapes that their first batch would give them.

    The batch runs through a copy, which tells what reaches each part; then torch's own rule makes
    the parameters, in place, so that an optimizer that holds them already keeps them. No random
    state moves. Parts that the batch does not reach stay lazy.

    Args:
        module: the module; without lazy parts nothing is run.
        program: runs a batch through copies of the module.
    """
    if not any(_is_lazy(part) for part in module.modules()):
        return
    twin = program.copy()
    reached: dict[str, tuple[Any, Any]] = {}

    def watch(name: str, part: nn.Module, hooks: ExitStack) -> None:
        def note(_: nn.Module, arguments: Any, keywords: Any) -> None:
            reached.setdefault(name, (arguments, keywords))

        # Before the part's own hook, after which it is no longer lazy.
        hooks.callback(part.register_forward_pre_hook(note, prepend=True, with_kwargs=True).remove)

    with ExitStack() as hooks, preserve_random_states(), torch.no_grad():
        for name, part in twin.named_modules():
            if _is_lazy(part):
                watch(name, part, hooks)
        program.loss(twin)
        for name, (arguments, keywords) in reached.items():
            lazy: Any = module.get_submodule(name)
            lazy._infer_parameters(lazy, arguments, keywords)


def _is_lazy(part: nn.Module) -> bool:
    return isinstance(part, LazyModuleMixin) and part.has_uninitialized_params()
