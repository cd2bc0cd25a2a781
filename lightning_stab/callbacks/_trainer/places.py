"""Where reports go, and that none of them stops a fit: a full disk or a logger that raises.

A file goes into a local folder, or into a remote one (``s3://``, ``memory://``) through the file
system that Lightning itself takes for its checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_stab.callbacks._trainer.ranks import broadcast

# whose `save_dir` is that of all runs
LOGS = ("events.out.tfevents.*", "*.csv", "*.json", "*.yaml")  # what a report is made from
SHARED = ("WandbLogger", "MLFlowLogger", "CometLogger", "NeptuneLogger")

_said: WeakKeyDictionary[Trainer, set[str]] = WeakKeyDictionary()


@contextmanager
def reporting(trainer: Trainer, failure: str) -> Iterator[None]:
    """Run a body that reports something; if it raises, warn once for each Trainer, and go on.

    Args:
        trainer: whose fit goes on.
        failure: what is the matter then, as the beginning of a sentence.
    """
    try:
        yield
    except Exception as error:  # a disk, a logger or a terminal may raise any kind
        said = _said.setdefault(trainer, set())
        if failure not in said:
            said.add(failure)
            rank_zero_warn(
                f"{failure} ({type(error).__name__}: {error}). The fit goes on without it; further "
                "failures of this kind are not mentioned."
            )


def log_folder(trainer: Trainer) -> str | None:
    """Return this run's log folder, or None without a logger. Call it on every rank.

    For loggers whose folder all runs share (Weights & Biases, MLflow, Comet, Neptune) it is
    ``save_dir/name/version``, where Lightning puts their checkpoints too.
    It may be remote: join names to it with ``/``, and write with `write_file`.
    """
    folder = trainer.log_dir if trainer.loggers else None
    if not folder:
        return None
    logger = trainer.loggers[0]
    is_shared = any(base.__name__ in SHARED for base in type(logger).__mro__)
    parts = (logger.name, logger.version) if is_shared else ()
    told = broadcast(trainer, [str(part) for part in parts if part not in (None, "")])
    return "/".join([os.fspath(folder), *told])


@contextmanager
def local_copy(folder: str) -> Iterator[str]:
    """Give a local folder with the logs of a remote one, for a while; a local one as it is."""
    if "://" not in folder:
        yield folder
        return
    files, root = get_filesystem(folder), folder.rstrip("/")
    with TemporaryDirectory() as local:
        for path in (found for name in LOGS for found in files.glob(f"{root}/{name}")):
            files.get_file(path, f"{local}/{path.rpartition('/')[2]}")
        yield local


def write_file(trainer: Trainer, path: str, content: bytes) -> bool:
    """Write a file, replacing an old one at once; say whether it worked, and warn if not."""
    with reporting(trainer, f"{path!r} cannot be written"):
        if "://" in path:
            files = get_filesystem(path)
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, content)
            return True
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".new")
        try:
            draft.write_bytes(content)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return True
    return False
