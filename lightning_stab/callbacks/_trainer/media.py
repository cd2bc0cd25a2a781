"""What goes to loggers other than scalars: texts, tables, figures, files, each in its own way.

Loggers are recognised by what they and their experiments can do, so that those of both Lightning
packages and of users work. A logger that has no place for a thing is passed over: the run's folder
has it. Nothing here raises; a logger that refuses is mentioned once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import log_step, summary_writer, tensorboard_writers
from lightning_stab.callbacks._trainer.places import reporting

PLUGIN = "lightning_stab"  # of packed records in event files, which TensorBoard itself passes over


def log_record(trainer: Trainer, name: str, text: str, step: int | None = None) -> None:
    """Send a record (JSON) to every TensorBoard logger, where `lightning-stab report` finds it."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN)
    tensor = TensorProto(
        dtype="DT_STRING", string_val=[text.encode()], tensor_shape=TensorShapeProto()
    )
    metadata = SummaryMetadata(plugin_data=plugin)
    summary = Summary(value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)])
    at = log_step(trainer) if step is None else step
    for logger in trainer.loggers if trainer.is_global_zero else ():
        with reporting(trainer, f"`{type(logger).__name__}` did not take a record"):
            writer = summary_writer(logger)
            if writer is not None:
                writer._get_file_writer().add_summary(summary, at)


def log_layout(trainer: Trainer, layout: Mapping[str, Any]) -> None:
    """Send a layout of charts to every TensorBoard logger."""
    for writer in tensorboard_writers(trainer):
        writer.add_custom_scalars(dict(layout))


def log_markdown(trainer: Trainer, name: str, text: str, step: int) -> None:
    """Send a text to every logger but TensorBoard's, whose texts `log_text` sends."""
    _to_each(trainer, "a text", lambda logger: _text(logger, name, text, step))


def log_table(
    trainer: Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Send a table to every logger that has a place for one."""
    _to_each(trainer, "a table", lambda logger: _table(logger, name, columns, rows))


def log_figure(trainer: Trainer, name: str, figure: Any, step: int) -> None:
    """Send a figure of matplotlib to every logger that has a place for one."""
    for writer in tensorboard_writers(trainer):
        writer.add_figure(name, figure, step, close=False)
    _to_each(trainer, "a figure", lambda logger: _figure(logger, name, figure, step))


def log_file(trainer: Trainer, name: str, path: Path) -> None:
    """Send a file, which lies in the run's folder, to every logger that keeps files elsewhere."""
    _to_each(trainer, "a file", lambda logger: _file(logger, name, path))


def _to_each(trainer: Trainer, what: str, send: Callable[[Any], None]) -> None:
    for logger in trainer.loggers if trainer.is_global_zero else ():
        with reporting(trainer, f"`{type(logger).__name__}` did not take {what}"):
            if summary_writer(logger) is None:
                send(logger)


def _text(logger: Any, name: str, text: str, step: int) -> None:
    if hasattr(logger, "log_text"):  # Weights & Biases
        logger.log_text(key=name, columns=["step", "text"], data=[[step, text]])
        return
    experiment = logger.experiment
    if _is_mlflow(logger):
        experiment.log_text(logger.run_id, text, f"{name}.md")
    elif hasattr(experiment, "log_text"):  # Comet
        experiment.log_text(text, step=step, metadata={"name": name})
    elif _is_neptune(logger):
        experiment[name].append(text, step=step)


def _table(logger: Any, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    experiment = logger.experiment
    if hasattr(logger, "log_table"):  # Weights & Biases
        logger.log_table(key=name, columns=list(columns), data=[list(row) for row in rows])
    elif _is_mlflow(logger):  # as its `log_table` writes one, which needs pandas
        cells = {"columns": list(columns), "data": [list(row) for row in rows]}
        experiment.log_dict(logger.run_id, cells, f"{name}.json")
    elif hasattr(experiment, "log_table"):  # Comet
        experiment.log_table(f"{name}.csv", [list(row) for row in rows], headers=list(columns))


def _figure(logger: Any, name: str, figure: Any, step: int) -> None:
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(key=name, images=[figure])
        return
    experiment = logger.experiment
    if _is_mlflow(logger):
        experiment.log_figure(logger.run_id, figure, f"{name}/{step:08d}.png")
    elif hasattr(experiment, "log_figure"):  # Comet
        experiment.log_figure(figure_name=name, figure=figure, step=step)
    elif _is_neptune(logger):
        experiment[name].append(figure, step=step)


def _file(logger: Any, name: str, path: Path) -> None:
    experiment = logger.experiment
    wandb = sys.modules.get("wandb")
    if hasattr(logger, "log_table") and wandb is not None:
        if path.suffix == ".html":
            experiment.log({name: wandb.Html(path.read_text("utf-8"), inject=False)})
        else:
            experiment.save(str(path), base_path=str(path.parent), policy="now")
    elif _is_mlflow(logger):
        experiment.log_artifact(logger.run_id, str(path))
    elif hasattr(experiment, "log_asset"):  # Comet
        experiment.log_asset(str(path), file_name=path.name)
    elif _is_neptune(logger):
        experiment[name].upload(str(path))


def _is_mlflow(logger: Any) -> bool:
    """Say whether the experiment is a client that is told the run each time."""
    return hasattr(logger, "run_id") and hasattr(logger.experiment, "log_artifact")


def _is_neptune(logger: Any) -> bool:
    return any(base.__name__ == "NeptuneLogger" for base in type(logger).__mro__)
