"""The first training batch before training starts, with nothing of the run's data used up.

The loaders are set up as the Trainer itself would do a moment later, which then finds it done. The
batch is put together from the data set by the loader's own sampler and collate function, so no
worker starts and no iterator of the loader moves; generators are put back to their states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_stab.functional.random_states import preserve_random_states


def first_batch(trainer: Trainer, module: LightningModule) -> Any | None:
    """Return the first training batch on the module's device, or None if there is no safe way.

    A loader that is its own iterator would lose the batch to us, so it gives none.
    """
    loop = trainer.fit_loop
    loop.setup_data()
    combined = loop._combined_loader
    if combined is None or not combined.flattened:
        return None
    with preserve_random_states():
        batches = [_peek(loader) for loader in combined.flattened]
        if any(batch is None for batch in batches):
            return None
        batch = batches[0] if combined._mode == "sequential" else _joined(combined, batches)
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _joined(combined: Any, batches: list[Any]) -> Any:
    from torch.utils._pytree import tree_unflatten

    return tree_unflatten(batches, combined._spec)


def _peek(loader: Any) -> Any | None:
    if isinstance(loader, DataLoader):
        with _kept_generators(loader):
            return _first_of_loader(loader)
    iterator = iter(loader)
    return None if iterator is loader else next(iterator, None)


def _first_of_loader(loader: DataLoader[Any]) -> Any | None:
    dataset, sampler = loader.dataset, loader.batch_sampler
    if isinstance(dataset, IterableDataset):
        return _first_of_stream(loader, dataset)
    if sampler is None:
        index = next(iter(loader.sampler), None)
        return None if index is None else loader.collate_fn(dataset[index])
    indices = next(iter(sampler), None)
    if indices is None:
        return None
    fetch = getattr(dataset, "__getitems__", None)
    samples = fetch(indices) if fetch is not None else [dataset[index] for index in indices]
    return loader.collate_fn(samples)


def _first_of_stream(loader: DataLoader[Any], dataset: Any) -> Any | None:
    iterator = iter(dataset)
    if iterator is dataset:
        return None
    if loader.batch_size is None:
        sample = next(iterator, None)
        return None if sample is None else loader.collate_fn(sample)
    samples = list(islice(iterator, loader.batch_size))
    return loader.collate_fn(samples) if samples else None


@contextmanager
def _kept_generators(loader: DataLoader[Any]) -> Iterator[None]:
    """Put the loader's own random generators back to their states."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    owners = [loader, loader.sampler, loader.batch_sampler, inner]
    found = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in found if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
