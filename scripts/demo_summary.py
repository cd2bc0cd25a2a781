"""Train the default experiment, test it, and say what the callbacks did and found."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_stab.cli import StabCLI, run
from lightning_stab.cli.run_folder import tensorboard_command

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = (CONFIGS / "base.yaml", CONFIGS / "experiment" / "digits.yaml")
Row = tuple[str, str]


def demo(arguments: list[str]) -> list[Row]:
    """Train, validate and test; return the rows of the summary and print them."""
    hide_asides()
    words = ["fit", *(f"--config={os.path.relpath(path)}" for path in FILES), *arguments]
    console = Console()
    console.print(f"$ lightning-stab {' '.join(words)}\n", style="bold", soft_wrap=True)
    cli = run(words)
    rows = [*accuracies(cli), *deeds(cli.trainer), *places(cli.trainer)]
    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    return rows


def hide_asides() -> None:
    """Leave out Lightning's tips, which say nothing about the run; the data is in memory."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip: For seamless" not in record.getMessage()
    )


def accuracies(cli: StabCLI) -> Iterator[Row]:
    """Measure the module as the fit left it: with its best weights, if they came back."""
    arguments: dict[str, Any] = {
        "model": cli.model,
        "datamodule": cli.datamodule,
        "verbose": False,
    }
    val = cli.trainer.validate(**arguments)[0]["val_accuracy"]
    test = cli.trainer.test(**arguments)[0]["test_accuracy"]
    yield "Accuracy", f"validation {val:.1%}, test {test:.1%}"


def deeds(trainer: Trainer) -> Iterator[Row]:
    """Return a sentence for each callback of the suite: from itself, or from what it logged."""
    logged = Logged(trainer)
    tell = {
        "WeightInitialization": initialized,
        "GradientCheck": checked,
        "GradientMonitor": monitored,
        "GradientClipping": clipped,
        "StepGuard": guarded,
        "LearningRateDecay": decayed,
        "BestWeightsEarlyStopping": stopped,
        "TrainingDoctor": diagnosed,
    }
    for callback in trainer.callbacks:
        name = type(callback).__name__
        if name in tell:
            yield name, tell[name](callback, logged)


class Logged:
    """The scalars of a run, read back from its event files."""

    def __init__(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.experiment.flush()
        self._events = EventAccumulator(trainer.log_dir, size_guidance={"scalars": 0})
        self._events.Reload()

    def tags(self, start: str) -> list[str]:
        """Return the names of the logged values that begin with ``start``."""
        return [tag for tag in self._events.Tags()["scalars"] if tag.startswith(start)]

    def values(self, tag: str) -> list[float]:
        """Return the values under a name in the order in which they were logged."""
        return [event.value for event in self._events.Scalars(tag)] if self.tags(tag) else []


def initialized(callback: Any, logged: Logged) -> str:
    """Say how many weights were drawn."""
    drawn = [record for record in callback.records if not record.reason]
    schemes = sorted({record.scheme for record in drawn})
    rest = len(callback.records) - len(drawn)
    left = f", left {rest} alone" if rest else ""
    return f"drew {len(drawn)} weights ({', '.join(schemes)}){left}"


def checked(callback: Any, logged: Logged) -> str:
    """Give the verdict on the backward passes."""
    return callback.report.summary() if callback.report else "did not run"


def monitored(callback: Any, logged: Logged) -> str:
    """Say where the gradient's norm began and ended."""
    norms = logged.values("grad_norm/total")
    if not norms:
        return "logged nothing yet"
    return f"gradient norm {norms[0]:.3g} at first, {norms[-1]:.3g} at last ({len(norms)} logged)"


def clipped(callback: Any, logged: Logged) -> str:
    """Say how often the gradient was bounded: each logged fraction is that of its interval."""
    fractions = logged.values("clip/fraction")
    if not fractions:
        return "logged nothing yet"
    what = {"value": "gradient entries", "adaptive": "units"}.get(callback.rule, "steps")
    share = sum(fractions) / len(fractions)
    return f"clipped {share:.1%} of the {what} (rule {callback.rule}, {callback.threshold:g})"


def guarded(callback: Any, logged: Logged) -> str:
    """Say how many steps were left out."""
    if callback.num_skipped or callback.num_rewound:
        return f"skipped {callback.num_skipped} bad steps, rewound {callback.num_rewound} times"
    return "found no bad step"


def decayed(callback: Any, logged: Logged) -> str:
    """Say how far the learning rate fell."""
    rates = [logged.values(tag) for tag in logged.tags("lr/")]
    parts = [f"{each[0]:.3g} to {each[-1]:.3g}" for each in rates if each]
    return f"learning rate from {', '.join(parts)}" if parts else "logged nothing yet"


def stopped(callback: Any, logged: Logged) -> str:
    """Say why training ended and which weights stayed."""
    return callback.summary or "did not check yet"


def diagnosed(callback: Any, logged: Logged) -> str:
    """Say what was found, in the order in which it was found."""
    found = [f"{f.severity}: {f.id} at step {f.step}" for f in callback.findings]
    return "; ".join(found) or "found nothing wrong"


def places(trainer: Trainer) -> Iterator[Row]:
    """Say where the logs are and how to look at them."""
    folder = trainer.log_dir or "."
    yield "Logs", f"{folder} (events, checkpoints, config.yaml)"
    yield "See them", tensorboard_command(folder)


if __name__ == "__main__":
    demo(sys.argv[1:])
