"""One cure that may be tried: how it is applied, and how it reads as YAML or code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.prescription.loaders import with_loader

CALLBACKS = "callbacks+"  # appends to what another configuration file names
Parts = tuple[Any, tuple[Any, ...], dict[str, Any]]  # module, data, arguments of the Trainer


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cure with its numbers.

    Attributes:
        id: of the table's row, or the name of the user's function.
        for_finding: the id of the finding that it answers.
        what: one sentence.
        callbacks: class paths and their arguments.
        trainer: arguments of the Trainer.
        loader: arguments of the training loader.
        in_yaml: whether a configuration file can say those of the loader.
        code: what to change where YAML cannot say it.
        change: a user's own function of module, data and the Trainer's arguments.
        untried: why it cannot be tried; empty where it can.
        length: how long its run is, in runs of the program as it is.
    """

    id: str
    for_finding: str
    what: str
    callbacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    loader: Mapping[str, Any] = field(default_factory=dict)
    in_yaml: bool = False
    code: tuple[str, ...] = ()
    change: Callable[..., Any] | None = None
    untried: str = ""
    length: float = 1.0

    @property
    def overlay(self) -> dict[str, Any] | None:
        """What a second configuration file has to say; None where it cannot be said so."""
        if self.change is not None or not (self.callbacks or self.trainer or self.loader):
            return None
        if self.loader and not self.in_yaml:
            return None
        entries = [
            {"class_path": path, **({"init_args": dict(arguments)} if arguments else {})}
            for path, arguments in self.callbacks
        ]
        trainer = {**self.trainer, **({CALLBACKS: entries} if entries else {})}
        data = {"data": {"init_args": dict(self.loader)}} if self.loader else {}
        return {**({"trainer": trainer} if trainer else {}), **data}

    def applied(self, module: Any, data: tuple[Any, ...], arguments: dict[str, Any]) -> Parts:
        """Return the parts of a fresh program with the cure."""
        if self.change is not None:
            changed = self.change(module, data, arguments)
            if changed is not None and not (isinstance(changed, tuple) and len(changed) == 3):
                raise InvalidArgumentError(
                    f"`cures` must be ids or functions that return None or (module, data,"
                    f" trainer_kwargs), got {type(changed).__name__} from {self.id!r}."
                )
            return (module, data, arguments) if changed is None else changed
        if self.loader:
            data = with_loader(data, self.loader)
        own = arguments.get("callbacks") or []
        listed = list(own) if isinstance(own, (list, tuple)) else [own]
        added = [made(path, settings) for path, settings in self.callbacks]
        return module, data, {**arguments, **self.trainer, "callbacks": [*listed, *added]}

    def with_other(self, other: Candidate) -> Candidate | None:
        """Return both cures as one; None where they would fight."""
        ours, theirs = ({path for path, _ in each.callbacks} for each in (self, other))
        if ours & theirs or self.trainer.keys() & other.trainer.keys():
            return None
        if self.change is not None or other.change is not None or (self.loader and other.loader):
            return None
        # what changes the optimizer's numbers stands before what schedules them
        pairs = sorted((*self.callbacks, *other.callbacks), key=lambda p: "Optimizer" not in p[0])
        return replace(
            self,
            id=f"{self.id}+{other.id}",
            what=f"{self.what} {other.what}",
            callbacks=tuple(pairs),
            trainer={**self.trainer, **other.trainer},
            loader={**self.loader, **other.loader},
            in_yaml=self.in_yaml or other.in_yaml,
            code=(*self.code, *other.code),
            length=max(self.length, other.length),
        )


def made(class_path: str, arguments: Mapping[str, Any]) -> Any:
    """Return an instance of a class, by its path."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)(**arguments)
