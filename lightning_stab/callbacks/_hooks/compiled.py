"""What is compiled in a module, and what follows from it: one policy for all that watch it run.

A hook that is set on a module inside compiled code does not run, or is compiled in, and a function
mode makes compiled code be compiled again. So hooks are set on `Hookable.modules` alone, a function
mode is entered only where nothing is compiled, and whoever watches says what it passes over. Those
who run a copy (gradient check, initialisation, forensics) let compiled parts run as they were
written, with ``torch.compiler.set_stance("force_eager")``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from types import FunctionType
from typing import Any

import torch
from torch import nn

from lightning_stab.functional.names import plain_name

_LIBRARIES = ("torch.", "lightning.", "builtins")


class Hookable:
    """The modules whose own hooks run, and what is compiled; found out once for all who watch.

    What ``torch.compile`` wraps around a module is among the modules, and nothing inside, wherever
    else in the net that may stand too.

    Attributes:
        modules: by plain name.
        compiled: the plain names of the outermost compiled parts; ``""`` is the module itself.

    Example:
        >>> net = nn.Sequential(nn.ReLU(), torch.compile(nn.ReLU(), backend="eager"))
        >>> parts = Hookable(net)
        >>> [name for name, _ in parts.modules], parts.compiled, parts.said
        (['', '0', '1'], ['1'], '`1` is compiled')
    """

    def __init__(self, module: nn.Module) -> None:
        outside = _not_inside(module)
        self.compiled = [name for name, _, is_compiled in outside if is_compiled]
        self.modules = [
            (name, part)
            for name, part, is_compiled in outside
            if not (is_compiled and _is_called_compiled(part))
        ]

    @cached_property
    def said(self) -> str:
        """A clause that says what is compiled, nothing where nothing is."""
        return say_compiled(self.compiled, compiled_functions(part for _, part in self.modules))


def hookable(module: nn.Module | Hookable) -> Hookable:
    """Return what is known of a module's parts, which may have been found out already."""
    return module if isinstance(module, Hookable) else Hookable(module)


def compiled_parts(module: nn.Module) -> list[str]:
    """Return the plain names of the outermost compiled parts; ``""`` is the module itself."""
    return Hookable(module).compiled


def called_modules(module: nn.Module) -> list[nn.Module]:
    """Return the modules that are called from code that is not compiled, compiled or not."""
    return [part for _, part, _ in _not_inside(module)]


def _not_inside(module: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """Return the modules that are in no compiled part: plain name, module, whether it is one."""
    named = [(plain_name(n), part, is_compiled_part(part)) for n, part in module.named_modules()]
    compiled = [part for _, part, is_compiled in named if is_compiled]
    inside = {id(m) for part in compiled for m in part.modules() if m is not part}
    return [each for each in named if id(each[1]) not in inside] if inside else named


def is_compiled_part(part: nn.Module) -> bool:
    """Say whether the module was compiled or scripted, or the method that calls those inside."""
    if _is_called_compiled(part):
        return True
    children = dict(part.named_children())
    return "_orig_mod" in children or bool(children and is_compiled_method(part, "forward"))


def compiled_functions(modules: Iterable[nn.Module]) -> list[str]:
    """Return the names of compiled functions that the code of the modules' classes can call.

    Looked for among the attributes of the modules and of their classes, and the global names of the
    files that define these; not inside compiled parts.
    """
    parts = [part for part in modules if not is_compiled_part(part)]
    bases = dict.fromkeys(base for cls in {type(p): None for p in parts} for base in cls.__mro__)
    classes = [base for base in bases if not base.__module__.startswith(_LIBRARIES)]
    files = [sys.modules[n] for n in {c.__module__: None for c in classes} if n in sys.modules]
    names = (item for owner in (*parts, *classes, *files) for item in list(vars(owner).items()))
    # two underscores are what the compiler leaves among the global names of a file
    found = (n for n, v in names if _is_compiled_function(v) and not n.startswith("__"))
    return list(dict.fromkeys(found))


def before_calls(part: nn.Module, look: Callable[[nn.Module], None]) -> Callable[[], None]:
    """Have ``look(part)`` called before each call of a part; nothing is compiled again for it.

    For `Hookable.modules` and for the outermost compiled parts; TorchScript is passed over.

    Returns:
        A function that ends it.
    """
    compiled = vars(part).get("_compiled_call_impl")
    if isinstance(part, torch.jit.ScriptModule):
        return lambda: None
    if compiled is None:
        return part.register_forward_pre_hook(lambda module, inputs: look(module)).remove

    def call(*args: Any, **kwargs: Any) -> Any:
        look(part)
        return compiled(*args, **kwargs)

    def end() -> None:
        part._compiled_call_impl = compiled

    part._compiled_call_impl = call
    return end


def is_compiled_method(part: nn.Module, name: str) -> bool:
    """Say whether a method of a module is compiled."""
    return _is_compiled_function(vars(part).get(name) or getattr(type(part), name, None))


def say_compiled(parts: Sequence[str], functions: Sequence[str] = ()) -> str:
    """Return a clause that says what is compiled, nothing where nothing is.

    Example:
        >>> say_compiled(["net.0"], ["gate"]), say_compiled([""])
        ('`net.0`, `gate` are compiled', 'the module is compiled')
    """
    names = [f"`{name}`" for name in (*parts, *functions)]
    if "" in parts or not names:
        return "the module is compiled" if names else ""
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} compiled"


def _is_called_compiled(part: nn.Module) -> bool:
    """Say whether a call of the module is compiled, its own hooks with it."""
    own = vars(part)
    return (
        own.get("_compiled_call_impl") is not None  # from `module.compile()`
        or own.get("_compiler_ctx") is not None  # Lightning's mark on a compiled module
        or isinstance(part, torch.jit.ScriptModule)  # which refuses hooks
        or is_compiled_method(part, "training_step")
    )


def _is_compiled_function(value: Any) -> bool:
    return (
        isinstance(value, FunctionType)
        and "_torchdynamo_orig_callable" in vars(value)
        and "_torchdynamo_disable" not in vars(value)
    )
