"""A copy of the best weights and buffers, on the CPU or on disk."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.errors import ConflictError
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import is_sharded, local_shard

_CHECKPOINT_KEY = "lightning_stab.best_weights"


@dataclass
class BestWeights:
    """One copy of the module's parameters and buffers, those outside its state dict too.

    With Lightning's ``WeightAveraging`` it is the averaged model's, because validation uses that.
    Under sharding each process keeps its own shard.

    Attributes:
        folder: where the copy is kept as a file; None keeps it in memory on the CPU.
    """

    folder: Path | None = None
    _copy: dict[str, Tensor] = field(default_factory=dict)
    _file: Path | None = None
    _loaded: dict[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._copy) or self._file is not None

    @torch.no_grad()
    def store(self, trainer: Trainer) -> None:
        """Copy the weights and buffers as they are; an earlier copy is written over."""
        if trainer.lightning_module is None:  # a Trainer that has never run
            return
        tensors = _named_tensors(_validated_module(trainer))
        if self.folder is not None:
            self._write({name: local_shard(tensor).cpu() for name, tensor in tensors.items()})
            return
        for name, tensor in tensors.items():
            own, kept = local_shard(tensor), self._copy.get(name)
            if kept is None or kept.shape != own.shape or kept.dtype != own.dtype:
                self._copy[name] = own.to("cpu", copy=True)
            else:
                kept.copy_(own)

    @torch.no_grad()
    def restore(self, trainer: Trainer) -> None:
        """Copy the stored values back, in place, into the module and its average.

        Raises:
            ConflictError: if the module has got other tensors since.
        """
        kept = self._read()
        modules = dict.fromkeys([trainer.lightning_module, _validated_module(trainer)])
        for name, tensor in chain.from_iterable(_named_tensors(m).items() for m in modules):
            own = local_shard(tensor)
            if name not in kept or kept[name].shape != own.shape:
                raise ConflictError(
                    f"The best weights cannot be restored, because {name!r} is new or has another "
                    "shape than when they were kept; do not change the module during training."
                )
            own.copy_(kept[name])

    def save_to_checkpoint(self, checkpoint: dict[str, Any], key: str, trainer: Trainer) -> None:
        """Add the copy, unsharded, to a checkpoint; every process must call it."""
        if self:
            kept, tensors = self._read(), _named_tensors(_validated_module(trainer))
            full = {n: _full_tensor(kept[n], t) for n, t in tensors.items() if n in kept}
            checkpoint.setdefault(_CHECKPOINT_KEY, {})[key] = full

    def load_from_checkpoint(self, checkpoint: dict[str, Any], key: str) -> None:
        """Remember what a checkpoint holds, until the module is ready: :meth:`finish_loading`."""
        self._loaded = checkpoint.get(_CHECKPOINT_KEY, {}).get(key, {})

    def finish_loading(self, trainer: Trainer) -> bool:
        """Store what the checkpoint held, if anything; every process must call it."""
        if not self._loaded:
            return False
        loaded, self._loaded = self._loaded, {}
        tensors = _named_tensors(_validated_module(trainer))
        own = {n: _local_shard(loaded[n], t) for n, t in tensors.items() if n in loaded}
        if self.folder is not None:
            self._write(own)
        else:
            self._copy = own
        return True

    def discard(self) -> None:
        """Forget the copy and what was loaded, and remove the file."""
        self._copy, self._loaded = {}, {}
        if self._file is not None:
            with suppress(OSError):  # a folder that cannot be written any more
                self._file.unlink(missing_ok=True)
            self._file = None

    def _read(self) -> dict[str, Tensor]:
        if self._file is None:
            return self._copy
        return dict(torch.load(self._file, map_location="cpu", weights_only=True))

    def _write(self, values: dict[str, Tensor]) -> None:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._replace_file(values)
        except (OSError, RuntimeError) as error:  # torch raises the second where a disk is full
            rank_zero_warn(
                f"The best weights cannot be written into {str(self.folder)!r} "
                f"({type(error).__name__}: {error}), so they are kept in memory from now on."
            )
            self.discard()
            self.folder = None
            self._copy = {name: value.clone() for name, value in values.items()}

    def _replace_file(self, values: dict[str, Tensor]) -> None:
        # First beside the old file, then over it: a process killed meanwhile leaves one whole.
        handle, name = tempfile.mkstemp(".pt", "best_weights_", self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(values, file)
            if self._file is not None:
                os.replace(name, self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._file = self._file or Path(name)


def _validated_module(trainer: Trainer) -> nn.Module:
    """Return the average that a ``WeightAveraging`` keeps, under any name, or the module."""
    averaging = [c for c in callbacks_of(trainer) if inherits(c, "WeightAveraging")]
    kept = chain.from_iterable(vars(callback).values() for callback in averaging)
    average = next((value for value in kept if isinstance(value, AveragedModel)), None)
    return trainer.lightning_module if average is None else average.module


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    both = chain(module.named_parameters(), module.named_buffers())
    return {plain_name(name): tensor.detach() for name, tensor in both}


def _full_tensor(kept: Tensor, like: Any) -> Tensor:
    if not is_sharded(like):
        return kept
    from torch.distributed.tensor import DTensor

    own = kept.to(local_shard(like).device)
    sharded = DTensor.from_local(
        own, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return sharded.full_tensor().cpu()


def _local_shard(value: Tensor, like: Any) -> Tensor:
    if not is_sharded(like):
        return value.to("cpu", copy=True)
    from torch.distributed.tensor import distribute_tensor

    value = value.to(local_shard(like).device)
    return distribute_tensor(value, like.device_mesh, like.placements).to_local().cpu()
