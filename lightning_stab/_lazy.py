"""Public names whose modules are imported when they are first asked for (PEP 562).

The callbacks are imported as well as soon as jsonargparse is, because it knows a class by its short
name, as in ``class_path: GradientClipping``, only among those that exist.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: its name.
        homes: for each public name the module that defines it, relative to the package.

    Example:
        >>> load, names = lazy("lightning_stab", {"integer": ".arguments"})
        >>> load("integer").__module__, "integer" in names()
        ('lightning_stab.arguments', True)
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name], package), name)
            setattr(module, name, value)  # from now on it is found without asking here
            return value
        try:
            if name.isidentifier() and not name.startswith("_"):
                return import_module(f".{name}", package)
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(module), *homes})

    return load, names


class _Waiting:
    """A finder that is asked for every module that is about to be imported, and finds none."""

    def __init__(self, awaited: str, call: Callable[[], Any]) -> None:
        self.awaited, self.call = awaited, call

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == self.awaited and self in sys.meta_path:
            sys.meta_path.remove(self)
            self.call()


def call_with(module: str, call: Callable[[], Any]) -> None:
    """Call a function at once if a module is imported already, else when that begins."""
    if module in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Waiting(module, call))
