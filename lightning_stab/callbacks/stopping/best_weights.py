"""Copies of the weights and buffers, on the CPU or on disk: the best, and the last measured."""

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
from lightning_stab.callbacks.stopping.measured import FirstBatch, may_swap_weights
from lightning_stab.errors import ConflictError
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import is_sharded, local_shard, same_values

_CHECKPOINT_KEY = "lightning_stab.best_weights"


@dataclass
class _Copy:
    """One copy of named tensors, in memory or, with a ``folder``, in a file there."""

    folder: Path | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    file: Path | None = None
    is_whole: bool = False  # an interrupt may come while the tensors are copied

    def write(self, tensors: dict[str, Tensor]) -> None:
        values = {name: local_shard(t).cpu() for name, t in tensors.items()} if self.folder else {}
        if not values or not self._write_file_or_warn(values):
            self.is_whole = False
            for name, tensor in tensors.items():
                own, kept = local_shard(tensor), self.tensors.get(name)
                if kept is None or kept.shape != own.shape or kept.dtype != own.dtype:
                    self.tensors[name] = own.to("cpu", copy=True)
                else:
                    kept.copy_(own)
        self.is_whole = True

    def read(self) -> dict[str, Tensor]:
        if self.file is None:
            return self.tensors
        return dict(torch.load(self.file, map_location="cpu", weights_only=True))

    def discard(self) -> None:
        self.tensors, self.is_whole = {}, False
        if self.file is not None:
            with suppress(OSError):  # a folder that cannot be written any more
                self.file.unlink(missing_ok=True)
            self.file = None

    def _write_file_or_warn(self, values: dict[str, Tensor]) -> bool:
        try:
            self._write_file(values)
        except (OSError, RuntimeError) as error:  # torch raises the second where a disk is full
            rank_zero_warn(
                f"The best weights cannot be written into {str(self.folder)!r} "
                f"({type(error).__name__}: {error}), so they are kept in memory from now on."
            )
            self.discard()
            self.folder = None
            return False
        return True

    def _write_file(self, values: dict[str, Tensor]) -> None:
        # First beside the old file, then over it: a process killed meanwhile leaves one whole.
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".pt", "best_weights_", self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(values, file)
            os.replace(name, self.file or name)
        except BaseException:  # an interrupt too leaves no half of a file
            Path(name).unlink(missing_ok=True)
            raise
        self.file = self.file or Path(name)


@dataclass
class BestWeights:
    """A copy of the module's parameters and buffers, those outside its state dict too.

    Kept is what was measured: where something may put other weights into the module for the
    validation, each validation's are copied at its first batch, and the best of these copies is
    kept. Under sharding each process keeps its own shard.

    Attributes:
        folder: where the copy is kept as a file; None keeps it in memory on the CPU.
    """

    folder: Path | None = None
    _loaded: dict[str, Tensor] = field(default_factory=dict)
    _metric_before: Any = None

    def __post_init__(self) -> None:
        self._best, self._measured = _Copy(self.folder), _Copy(self.folder)
        self._first_batch: FirstBatch | None = None

    def __bool__(self) -> bool:
        return self._best.is_whole

    @torch.no_grad()
    def begin_batch(
        self, trainer: Trainer, metric: str, *, is_first: bool, checks_late: bool = False
    ) -> None:
        """Copy what a validation measures, if that may not stand in the module at its end.

        To be called at each batch: at the first one all that puts weights in has done so, or does
        within that batch.

        Args:
            trainer: the Trainer.
            metric: what decides which weights are the best.
            is_first: whether it is the validation's first batch.
            checks_late: whether the check comes at the end of the epoch, maybe after further steps.
        """
        self._end_first_batch()
        if not is_first:
            return
        self._metric_before, module = trainer.callback_metrics.get(metric), trainer.lightning_module
        self._measured.is_whole = False
        settings: Any = trainer  # Lightning sets it where a type checker does not see it
        moves_on = checks_late and settings.val_check_interval != 1.0
        if moves_on or may_swap_weights(trainer):
            self._measured.write(_named_tensors(module))
        self._first_batch = FirstBatch(module, lambda: self._measured.write(_named_tensors(module)))

    def end_validation(self, trainer: Trainer, metric: str) -> None:
        """Forget what was measured if the metric is not one of the validation."""
        self._end_first_batch()
        if trainer.callback_metrics.get(metric) is self._metric_before:
            self._measured.is_whole = False

    def _end_first_batch(self) -> None:
        if self._first_batch is not None:
            self._first_batch.end()
            self._first_batch = None

    @torch.no_grad()
    def store(self, trainer: Trainer) -> None:
        """Keep the weights and buffers that were measured; an earlier copy is written over."""
        if trainer.lightning_module is None:  # a Trainer that has never run
            return
        if self._measured.is_whole:
            self._best, self._measured = self._measured, self._best
            self._measured.is_whole = False
        else:
            self._best.write(_named_tensors(_validated_module(trainer)))

    @torch.no_grad()
    def restore(self, trainer: Trainer) -> None:
        """Copy the stored values back, in place, into the module and its average.

        Raises:
            ConflictError: if the module has got other tensors since.
        """
        kept = self._best.read()
        modules = dict.fromkeys([trainer.lightning_module, _validated_module(trainer)])
        for name, tensor in chain.from_iterable(_named_tensors(m).items() for m in modules):
            own = local_shard(tensor)
            if name not in kept or kept[name].shape != own.shape:
                raise ConflictError(
                    f"The best weights cannot be restored, because {name!r} is new or has another "
                    "shape than when they were kept; do not change the module during training."
                )
            own.copy_(kept[name])

    @torch.no_grad()
    def are_in(self, module: nn.Module) -> bool:
        """Say whether the module still has the stored parameters."""
        kept, own = self._best.read(), dict(module.named_parameters())
        pairs = [(kept.get(plain_name(n)), local_shard(p.detach()).cpu()) for n, p in own.items()]
        return all(a is not None and same_values(a.to(b.dtype), b) for a, b in pairs)

    def save_to_checkpoint(self, checkpoint: dict[str, Any], key: str, trainer: Trainer) -> None:
        """Add the copy, unsharded, to a checkpoint; every process must call it."""
        if self:
            kept, tensors = self._best.read(), _named_tensors(_validated_module(trainer))
            full = {n: _full_tensor(kept[n], t) for n, t in tensors.items() if n in kept}
        elif self._loaded:  # the run that loaded it has not begun yet
            full = self._loaded
        else:
            return
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
        self._best.write({n: _own_shard(loaded[n], t) for n, t in tensors.items() if n in loaded})
        return True

    def discard(self) -> None:
        """Forget the copies and what was loaded, and remove the files."""
        self._end_first_batch()
        self._best.discard()
        self._measured.discard()
        self._loaded, self._metric_before = {}, None


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


def _own_shard(value: Tensor, like: Any) -> Tensor:
    if not is_sharded(like):
        return value.to("cpu", copy=True)
    from torch.distributed.tensor import distribute_tensor

    value = value.to(local_shard(like).device)
    return distribute_tensor(value, like.device_mesh, like.placements).to_local().cpu()
