"""The training loader with batches of another size, or with rows in random order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from lightning_stab.errors import ConflictError

KEPT = (  # of the loader that was there
    *("num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
)


def is_plain(loader: Any) -> bool:
    """Say whether a loader can be built again with other arguments."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
    )


def is_ordered(loader: Any) -> bool:
    """Say whether a loader gives its rows in the order in which they lie."""
    return is_plain(loader) and type(loader.sampler) is SequentialSampler


def takes_batch_size(data: Any) -> bool:
    """Say whether a data module is built with a ``batch_size`` that its loaders follow.

    The name by which Lightning's tuner knows it.
    """
    is_module = isinstance(data, LightningDataModule) and hasattr(data, "batch_size")
    return is_module and "batch_size" in inspect.signature(type(data)).parameters


def with_loader(data: tuple[Any, ...], settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return data whose training loader has other arguments.

    Args:
        data: a data module, or a training loader and what follows it.
        settings: ``batch_size``, or ``shuffle``.

    Raises:
        ConflictError: for a loader that cannot be built again.
    """
    first, *rest = data or (None,)
    if settings.keys() == {"batch_size"} and takes_batch_size(first):
        first.batch_size = settings["batch_size"]
        return data
    if isinstance(first, LightningDataModule):
        make = first.train_dataloader
        vars(first)["train_dataloader"] = lambda: rebuilt(make(), settings)
        return data
    return (rebuilt(first, settings), *rest)


def rebuilt(loader: Any, settings: Mapping[str, Any]) -> DataLoader[Any]:
    """Return a loader of the same samples with other arguments.

    Example:
        >>> rebuilt(DataLoader(range(4), batch_size=4), {"batch_size": 2}).batch_size
        2
    """
    if not is_plain(loader):
        raise ConflictError(
            "A cure of the loader needs a plain `DataLoader` of a dataset with a length, got"
            f" {type(loader).__name__}. Change its arguments by hand."
        )
    order = {} if "shuffle" in settings else {"sampler": loader.sampler}
    kept = {name: getattr(loader, name) for name in KEPT}
    return DataLoader(
        loader.dataset, **{"batch_size": loader.batch_size, **kept, **order, **settings}
    )
