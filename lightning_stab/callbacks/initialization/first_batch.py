"""The first training batch before training starts, with nothing of the run's data used up.

The loaders are set up as the Trainer itself would do a moment later, which then finds it done. A
loader without a length has then given its first batch to the Trainer, and a copy of that serves.
From a plain loader the batch is put together by its own sampler and collate function, so that no
iterator of it moves and no worker starts; generators are put back to their states. Any other loader
(one with a state, a position or an ``__iter__`` of its own) is not touched: its first batch is seen
when the run fetches it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_stab.functional.random_states import preserve_random_states


def first_batch(trainer: Trainer, module: LightningModule) -> Any | None:
    """Return the first training batch on the module's device, None where it cannot be had yet."""
    if trainer.current_epoch > 0:  # there the Trainer makes a second iterator
        return None
    loop = trainer.fit_loop
    try:
        loop.setup_data()
    except Exception:  # user code that is not ready yet; the Trainer calls it again, and raises
        loop._combined_loader = None
        return None
    with preserve_random_states():
        try:
            batch = _peek(loop)
            if batch is None:
                return None
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        except Exception:  # the run meets it itself, if it is more than something not ready yet
            return None


def _peek(loop: Any) -> Any | None:
    combined, fetched = loop._combined_loader, getattr(loop._data_fetcher, "batches", None)
    if fetched is None or not combined.flattened:  # a step that takes its batches itself
        return None
    if fetched:
        return copy.deepcopy(fetched[0][0])  # hooks may write to it
    if not all(map(_is_plain, combined.flattened)):
        return None
    batches = [_first_of(loader) for loader in combined.flattened]
    return None if any(batch is None for batch in batches) else _joined(combined, batches)


def _joined(combined: Any, batches: list[Any]) -> Any:
    from torch.utils._pytree import tree_unflatten

    return tree_unflatten(batches, combined._spec)


def _is_plain(loader: Any) -> bool:
    """Say whether a loader gives the same first batch to everyone who asks."""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return False
    samplers = [loader.sampler, *_samplers(loader.batch_sampler)]
    known = ("torch.utils.data.", "lightning.", "pytorch_lightning.", "lightning_fabric.")
    return (
        not isinstance(loader.dataset, IterableDataset)
        and not any(hasattr(part, "state_dict") for part in (loader, loader.dataset))
        and all(type(s).__module__.startswith(known) for s in samplers)
    )


def _samplers(sampler: Any) -> list[Any]:
    """Return a sampler and those that it wraps."""
    found = []
    while sampler is not None and sampler not in found:
        found.append(sampler)
        sampler = getattr(sampler, "sampler", None)
    return found


def _first_of(loader: DataLoader[Any]) -> Any | None:
    dataset, sampler = loader.dataset, loader.batch_sampler
    with _kept_generators(loader):
        if sampler is None:
            index = next(iter(loader.sampler), None)
            return None if index is None else loader.collate_fn(dataset[index])
        indices = next(iter(sampler), None)
        if indices is None:
            return None
        fetch = getattr(dataset, "__getitems__", None)
        samples = fetch(indices) if fetch is not None else [dataset[index] for index in indices]
        return loader.collate_fn(samples)


@contextmanager
def _kept_generators(loader: DataLoader[Any]) -> Iterator[None]:
    """Put the loader's own random generators back to their states."""
    owners = [loader, loader.sampler, *_samplers(loader.batch_sampler)]
    found = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in found if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
