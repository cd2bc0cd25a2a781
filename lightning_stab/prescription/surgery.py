"""Callbacks that change a module before its optimizers are made; parameter names survive."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_stab.arguments import integer, options_from, real
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.activation_kinds import activation_of_class
from lightning_stab.functional.layer_kinds import DROPOUTS, WEIGHT_LAYERS

LEAST_LAYERS = 4  # of a sequence around which skip connections are worth while


class SkipSequential(nn.Sequential):
    """A sequence whose every few weight layers add what entered them, where shapes agree."""

    def __init__(self, layers: nn.Sequential, every: int) -> None:
        every_part = layers.named_modules(remove_duplicate=False)
        super().__init__(OrderedDict((n, m) for n, m in every_part if n and "." not in n))
        self.every = every

    def forward(self, input: Tensor) -> Tensor:
        """Return the result of the last layer."""
        kept: Tensor | None = None
        seen = 0
        for layer in self:
            if isinstance(layer, WEIGHT_LAYERS):
                if seen % self.every == 0:
                    if kept is not None and kept.shape == input.shape:
                        input = input + kept
                    kept = input
                seen += 1
            input = layer(input)
        return input


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is an activation of the catalogue, without weights of its own."""
    row = activation_of_class(type(module).__name__, exactly=True)
    return row is not None and not any(True for _ in module.parameters())


@dataclass(frozen=True, kw_only=True)
class SkipOptions:
    """The arguments of `SkipConnections`, checked."""

    every: int = 2

    def __post_init__(self) -> None:
        integer("every", self.every, minimum=1)


class SkipConnections(Callback, options=SkipOptions):
    """Put a skip connection around every few weight layers of each long ``nn.Sequential``.

    In ``setup``. The layers keep their names. Where what leaves a group of layers has another shape
    than what entered it, nothing is added.

    Args:
        every: weight layers in a group, >= 1.

    Raises:
        ConflictError: in ``setup``, if no ``nn.Sequential`` has at least 4 weight layers.

    Example:
        >>> SkipConnections(every=3)
        SkipConnections(every=3)

    Source: He et al. 2016.
    """

    def __init__(self, every: int = 2) -> None:
        self.options = options_from(SkipOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module, once."""
        super().setup(trainer, pl_module, stage)
        if any(isinstance(part, SkipSequential) for part in pl_module.modules()):
            return
        places = long_sequences(pl_module)
        if not places:
            raise ConflictError(
                f"`SkipConnections` needs an `nn.Sequential` of at least {LEAST_LAYERS} weight"
                f" layers, and {type(pl_module).__name__} has none. Add `x` in its `forward`."
            )
        for name in places:
            sequence = pl_module.get_submodule(name)
            assert isinstance(sequence, nn.Sequential)
            pl_module.set_submodule(name, SkipSequential(sequence, self.options.every))


def long_sequences(module: nn.Module) -> list[str]:
    """Return the names of plain sequences with many weight layers of their own."""
    return [
        name
        for name, part in module.named_modules()
        if type(part) is nn.Sequential
        and sum(isinstance(layer, WEIGHT_LAYERS) for layer in part) >= LEAST_LAYERS
    ]


@dataclass(frozen=True, kw_only=True)
class DropoutOptions:
    """The arguments of `DropoutSettings`, checked."""

    p: float

    def __post_init__(self) -> None:
        real("p", self.p, minimum=0, below=1)


class DropoutSettings(Callback, options=DropoutOptions):
    """Lower every dropout of a module to at most ``p``, in ``setup``.

    Dropout layers, and what attention and recurrent layers drop inside.

    Args:
        p: the probability that a value is set to zero, in [0, 1).

    Raises:
        InvalidArgumentError: if ``p`` breaks its rule.
        ConflictError: in ``setup``, if the module drops nothing.

    Example:
        >>> DropoutSettings(p=0.1)
        DropoutSettings(p=0.1)

    Source: Srivastava et al. 2014.
    """

    def __init__(self, p: float) -> None:
        self.options = options_from(DropoutOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module; what drops less stays."""
        super().setup(trainer, pl_module, stage)
        found = [(part, name) for part in pl_module.modules() if (name := dropped_by(part))]
        if not found:
            raise ConflictError(
                f"`DropoutSettings` needs dropout layers, and {type(pl_module).__name__} has none."
                " Change the probability in its `forward`."
            )
        for part, name in found:
            setattr(part, name, min(getattr(part, name), self.options.p))


def dropped_by(part: nn.Module) -> str:
    """Return the attribute that holds a layer's dropout probability, empty where it has none."""
    if isinstance(part, DROPOUTS):
        return "p"
    return "dropout" if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)) else ""


@dataclass(frozen=True, kw_only=True)
class ReplaceOptions:
    """The arguments of `ReplaceModules`, checked."""

    by: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, name in self.by.items():
            class_named(place, name)


class ReplaceModules(Callback, options=ReplaceOptions):
    """Replace modules without weights by others, in ``setup``: an activation, a loss.

    Args:
        by: the name of the new class for the name of a module (``net.5``) or the name of a class
            (``ReLU``); without a dot it is one of ``torch.nn``. It is made without arguments.

    Raises:
        InvalidArgumentError: for a class that does not exist.
        ConflictError: in ``setup``, if there is nothing of that name.

    Example:
        >>> ReplaceModules({"ReLU": "LeakyReLU", "net.5": "Identity"})
        ReplaceModules(by={'ReLU': 'LeakyReLU', 'net.5': 'Identity'})
    """

    def __init__(self, by: Mapping[str, str]) -> None:
        self.options = options_from(ReplaceOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module; what has been replaced stays."""
        super().setup(trainer, pl_module, stage)
        for place, name in self.options.by.items():
            kind = class_named(place, name)
            parts = dict(pl_module.named_modules(remove_duplicate=False))
            found = [n for n, part in parts.items() if place in (n, type(part).__name__)]
            if not found and not any(type(part) is kind for part in parts.values()):
                raise ConflictError(
                    f"`by` of `ReplaceModules` must name modules or classes of"
                    f" {type(pl_module).__name__}, got {place!r}."
                )
            for each in found:
                if type(parts[each]) is not kind:
                    pl_module.set_submodule(each, kind())


def class_named(place: str, name: str) -> type[nn.Module]:
    """Return the class, of ``torch.nn`` where its name has no dot."""
    path, _, last = name.rpartition(".")
    try:
        kind: type[nn.Module] = getattr(import_module(path) if path else nn, last)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(
            f"`by[{place!r}]` must be a class of torch.nn or the path of one, got {name!r}."
        ) from error
    return kind
