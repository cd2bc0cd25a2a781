"""From numbers to loggers: every tag is built here, and every event leaves here.

``self.log`` of many keys costs nearly as much as a whole training step of a small net; one packed
TensorBoard event costs a few percent of it. So what a callback logs at one step leaves together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_stab.callbacks._trainer.event_records import write_scalars
from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.places import reporting
from lightning_stab.errors import ConflictError
from lightning_stab.functional.names import plain_name


def tag(section: str, name: str = "") -> str:
    """Return the name of a logged value, ``section/name``, without compilation prefixes.

    Example:
        >>> tag("grad_norm", "net.0")
        'grad_norm/net.0'
        >>> tag("grad_norm", "_orig_mod.net.0")
        'grad_norm/net.0'
    """
    name = plain_name(name)
    return f"{section}/{name}" if name else section


def log_step(trainer: Trainer) -> int:
    """Return the step that Lightning itself uses as the x axis of its loggers.

    It counts batches that stepped, once per batch however many optimizers there are.
    """
    counted = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return int(trainer.global_step if counted is None else counted)


def num_steps(trainer: Trainer) -> int:
    """Return the optimizer steps up to now: the Trainer counts none that is not announced."""
    return trainer.global_step or log_step(trainer)


def is_due(step: int, every_n_steps: int) -> bool:
    """Say whether the ``step``-th step, counted from 0, ends an interval.

    Lightning's own logging counts the same way, so points stand at the same places of the x axis.

    Example:
        >>> [step for step in range(10) if is_due(step, 4)]
        [3, 7]
    """
    return (step + 1) % every_n_steps == 0


def log_scalars(
    trainer: Trainer,
    values: Mapping[str, float],
    step: int | None = None,
    *,
    as_metrics: bool = False,
) -> None:
    """Send ``values`` to every logger as one event.

    Args:
        trainer: the Trainer whose loggers receive the values.
        values: finite or non-finite numbers by tag.
        step: the x value; Lightning's own logging step by default.
        as_metrics: whether other callbacks can monitor them too, among the Trainer's
            ``callback_metrics``: for what is measured of the training, not for reports.
    """
    if not values:
        return
    step = log_step(trainer) if step is None else step
    if as_metrics:
        keep_metrics(trainer, values)
    log_events(trainer, [(step, values)])


def log_events(trainer: Trainer, events: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Send the values of some steps to every logger, one event a step."""
    for logger in trainer.loggers if trainer.is_global_zero and events else ():
        writer = None
        with reporting(trainer, _refused(logger)):
            writer = summary_writer(logger)
            if writer is not None:
                write_scalars(writer._get_file_writer(), events, _start_of(logger))
        for step, values in events if writer is None else ():
            with reporting(trainer, _refused(logger)):  # one that fails loses no other
                logger.log_metrics(dict(values), step=step)


def keep_metrics(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Let other callbacks monitor values, among the Trainer's ``callback_metrics``."""
    numbers = torch.tensor(list(values.values()), dtype=torch.float32)
    trainer.callback_metrics.update(zip(values, numbers.unbind(), strict=True))


def log_text(trainer: Trainer, name: str, markdown: str, step: int | None = None) -> None:
    """Send a text to every TensorBoard logger; other loggers are passed over."""
    for writer in tensorboard_writers(trainer):
        writer.add_text(name, markdown, log_step(trainer) if step is None else step)


def log_json(trainer: Trainer, name: str, content: Any, step: int | None = None) -> None:
    """Send plain values to every TensorBoard logger as one string that none of its tabs shows."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        with reporting(trainer, _refused(logger)):
            writer = summary_writer(logger)
            if writer is None:
                continue
            from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
            from tensorboard.compat.proto.tensor_pb2 import TensorProto
            from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

            tensor = TensorProto(
                dtype="DT_STRING",
                string_val=[json.dumps(content).encode()],
                tensor_shape=TensorShapeProto(),
            )
            plugin = SummaryMetadata.PluginData(plugin_name="lightning_stab")
            value = Summary.Value(
                tag=f"{_start_of(logger)}{name}",
                metadata=SummaryMetadata(plugin_data=plugin),
                tensor=tensor,
            )
            at = log_step(trainer) if step is None else step
            writer._get_file_writer().add_summary(Summary(value=[value]), at)


def tensorboard_writers(trainer: Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of each TensorBoard logger that really writes on this rank.

    What a method of one raises becomes a warning.
    """
    for logger in trainer.loggers if trainer.is_global_zero else ():
        writer = None
        with reporting(trainer, _refused(logger)):
            writer = summary_writer(logger)
        if writer is not None:
            yield _SafeWriter(trainer, logger, writer)


def summary_writer(logger: Any) -> Any | None:
    """Return the logger's ``torch.utils.tensorboard.SummaryWriter``, or None if it has none.

    Asked by the names of its classes, so that the loggers of both Lightning packages and of users
    who subclass them work, and no other logger's experiment is started by asking.
    """
    if inherits(logger, "SummaryWriter"):  # of a loop without a Trainer
        return logger
    if not any(base.__name__ == "TensorBoardLogger" for base in type(logger).__mro__):
        return None
    writer = logger.experiment
    return writer if hasattr(writer, "_get_file_writer") else None


def require_metrics(
    trainer: Trainer, names: Iterable[str], *, strict: bool = True, verbose: bool = False
) -> bool:
    """Say whether every metric of ``names`` has been logged.

    Args:
        trainer: the Trainer that has the metrics.
        names: what is looked for.
        strict: whether a missing one is an error.
        verbose: whether one that may be missing is warned about.

    Raises:
        ConflictError: for the first that is missing, with those that there are.
    """
    logged = sorted(trainer.callback_metrics)
    missing = next((name for name in names if name not in logged), None)
    if missing is None:
        return True
    parts = [name for name in logged if name.startswith(f"{missing}/dataloader_idx_")]
    near = parts or get_close_matches(missing, logged, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Call `self.log({missing!r}, ...)`."
    sentence = (
        f"`monitor` must be a metric that is logged before the check, got {missing!r}; "
        f"available: {', '.join(map(repr, logged)) or 'no metric'}. {hint}"
    )
    if strict:
        raise ConflictError(sentence)
    if verbose:
        rank_zero_warn(sentence, category=RuntimeWarning)
    return False


class _SafeWriter:
    """A ``SummaryWriter`` whose methods raise nothing."""

    def __init__(self, trainer: Trainer, logger: Any, writer: Any) -> None:
        self._trainer, self._logger, self._writer = trainer, logger, writer

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> None:
            with reporting(self._trainer, _refused(self._logger)):
                getattr(self._writer, name)(*arguments, **keywords)

        return call


def _refused(logger: Any) -> str:
    return f"`{type(logger).__name__}` did not take what a callback logged"


def _start_of(logger: Any) -> str:
    """Return what a logger puts before each tag."""
    prefix = getattr(logger, "_prefix", "")
    return f"{prefix}-" if prefix else ""
