"""After a non-finite step: the same batch and random state once more, watched module by module.

On the module itself, in all processes alike: a copy of sharded or large parameters cannot be made.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_stab.callbacks._trainer.isolated import run_apart, run_training_step, silence
from lightning_stab.callbacks._trainer.lightning_classes import is_automatic
from lightning_stab.callbacks._trainer.places import log_folder, reporting, write_file
from lightning_stab.callbacks._trainer.ranks import gather
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.random_states import (
    get_random_states,
    preserve_random_states,
    set_random_states,
)


@dataclasses.dataclass
class _Remembered:
    batch: Any
    batch_idx: int
    random_states: dict[str, Any]


class NonfiniteTracer:
    """Remembers the batches of an accumulation window, and finds where a bad one went wrong."""

    def __init__(self) -> None:
        self._window: list[_Remembered] = []
        self.done = False

    def remember(self, batch: Any, batch_idx: int, *, begins: bool) -> None:
        """Keep a batch with the random state that its forward pass starts from."""
        if begins:
            self._window.clear()
        self._window.append(_Remembered(batch, batch_idx, get_random_states()))

    def investigate(self, trainer: Trainer, module: LightningModule) -> str:
        """Return one or two sentences: the first bad module, and where the batch was saved."""
        self.done = True
        if not is_automatic(trainer, module):
            return " The batch cannot be run again under manual optimisation."
        place, culprit = "", self._window[-1]
        for remembered in self._window:
            found = _find_origin(trainer, module, remembered)
            if found and not place:
                place, culprit = found, remembered
            if place and trainer.world_size == 1:  # all ranks run equally many batches
                break
        places = gather(trainer, place)  # the other ranks ran other batches
        if len(places) > 1:
            place = next((f"On rank {rank}: {p}" for rank, p in enumerate(places) if p), "")
        if not place:
            place = "Running the batch again named no module: it came out finite."
        return f" {place} {_save(trainer, culprit)}".rstrip()


def plain_batch(value: Any) -> Any:
    """Return a batch as nested lists, dicts, tensors and plain values, for ``weights_only`` loads.

    Named tuples and dataclasses become dicts; what has no plain form becomes its ``repr``.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # also of a subclass, as NumPy's numbers are
        if isinstance(value, kind):
            return kind(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_batch(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain_batch(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain_batch(item) for item in value]
    return repr(value)


def _save(trainer: Trainer, remembered: _Remembered) -> str:
    folder = log_folder(trainer)
    if folder is None:
        return ""
    name = f"nonfinite_batch_step{trainer.global_step}_rank{trainer.global_rank}.pt"
    path, content = f"{folder}/{name}", io.BytesIO()
    with reporting(trainer, "The batch of a non-finite step cannot be saved"):
        torch.save(
            {
                "batch": plain_batch(remembered.batch),
                "batch_idx": remembered.batch_idx,
                "epoch": trainer.current_epoch,
                "global_step": trainer.global_step,
                "random_state": remembered.random_states["cpu"],
            },
            content,
        )
        if write_file(trainer, path, content.getvalue()):
            return f"The batch is in {path} (open it with `torch.load`)."
    return "The batch could not be saved."


def _find_origin(trainer: Trainer, module: LightningModule, remembered: _Remembered) -> str:
    watch = _Watch(module)
    batch, batch_idx = remembered.batch, remembered.batch_idx
    with _undisturbed(module), silence(module), run_apart(module), torch.enable_grad():
        set_random_states(remembered.random_states)
        try:
            for loss in run_training_step(module, batch, batch_idx):
                watch.note(loss, "Every module's output is finite; the loss made of them is not.")
                # sharded layers wait for each other on the way back: all ranks go it, or none
                if not watch.found or trainer.world_size > 1:
                    torch.autograd.backward(loss)
        except Exception as error:  # the original failure matters more than this second run
            return f"Running the batch again failed ({type(error).__name__}: {error})."
        finally:
            watch.remove()
    return watch.found


class _Watch:
    """Hooks on every module that note the first non-finite output, and then gradient."""

    def __init__(self, root: nn.Module) -> None:
        self.found = ""
        self._handles = [
            m.register_forward_hook(self._hook(plain_name(n), type(m).__name__))
            for n, m in root.named_modules()
            if n and not isinstance(m, Metric)
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, kind: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in _tensors(output):
                self.note(tensor, f"The first non-finite output is that of {name!r} ({kind}).")
                if tensor.requires_grad:
                    sentence = (
                        "Every output is finite; the first non-finite gradient on the way back"
                        f" is that of the output of {name!r} ({kind})."
                    )
                    tensor.register_hook(partial(self.note, sentence=sentence))

        return hook

    def note(self, tensor: Tensor, sentence: str) -> None:
        if not self.found and not bool(torch.isfinite(tensor.detach()).all()):
            self.found = sentence


def _tensors(value: Any) -> Iterator[Any]:  # of tensors, whose `register_hook` is untyped
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Run a second forward and backward pass without a trace in metrics, buffers or gradients."""
    gradients = [(p, p.grad) for p in module.parameters()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    metrics = [(m, _copied_state(m)) for m in module.modules() if isinstance(m, Metric)]
    for p, _ in gradients:
        p.grad = None
    try:
        with preserve_random_states():
            yield
    finally:
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, copy in buffers:
                buffer.copy_(copy)
        for metric, state in metrics:
            metric.__dict__.update(state)


def _copied_state(metric: Metric) -> dict[str, Any]:
    return {
        name: value.clone()
        if isinstance(value, Tensor)
        else list(value)
        if isinstance(value, list)
        else value
        for name, value in vars(metric).items()
    }
