"""The run as one page, however it ends; dashboards, figures and notices while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_stab.arguments import integer, options_from
from lightning_stab.callbacks._trainer.exceptions import call_after_exception
from lightning_stab.callbacks._trainer.fit_state import is_validating_fit
from lightning_stab.callbacks._trainer.lightning_classes import Callback, inherits
from lightning_stab.callbacks._trainer.logging import log_step, num_steps, tensorboard_writers
from lightning_stab.callbacks._trainer.media import (
    log_figure,
    log_file,
    log_layout,
    log_markdown,
    log_record,
    log_table,
)
from lightning_stab.callbacks._trainer.places import local_copy, log_folder, reporting, write_file
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.report import about
from lightning_stab.callbacks.report.dashboard import layout_for, log_outcome
from lightning_stab.callbacks.report.event_file import READABLE, EventFile
from lightning_stab.callbacks.report.figures import run_figures
from lightning_stab.callbacks.report.notices import Notices, resolve
from lightning_stab.callbacks.report.precision import ScalerWatch
from lightning_stab.reporting.causes import causes_of, is_alarm, verdict_of
from lightning_stab.reporting.curves import learning_curves
from lightning_stab.reporting.page import report_page
from lightning_stab.reporting.run import RUN, Run, read_run

FILE_NAME, RUN_FILE = "report.html", "run.json"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The arguments of `StabilityReport`, checked."""

    on_finding: Callable[[Any], Any] | str | None = None
    on_event: Callable[[Any], Any] | str | None = None
    every_n_epochs: int = 0
    verbose: bool = True

    def __post_init__(self) -> None:
        resolve("on_finding", self.on_finding)
        resolve("on_event", self.on_event)
        integer("every_n_epochs", self.every_n_epochs, minimum=0)


class StabilityReport(Callback, options=ReportOptions):
    """Write the run as one self-contained page at its end, on exceptions and on Ctrl-C.

    ``report.html`` in the run's log folder says in a sentence whether the run is healthy, or what
    is wrong, where, since when and what to do; then a card for each cause with its chart, what
    happened when, layers over time, loss, metrics, gradients, updates, learning rate,
    initialisation, gradient check, configuration and versions. It is made from the event files
    (or Lightning's CSV log) alone; ``lightning-stab report RUN_DIR`` makes the same page later.
    With a logger that leaves neither, an event file is written beside the page.

    TensorBoard also gets a layout for its Custom Scalars page, the outcome for its HParams page
    and, where matplotlib is installed, figures. Other loggers get findings, figures and the page
    in their own way (``docs/seeing.md``). While something is wrong, the progress bar says so in a
    word (``stab=vanishing-gradient``). Mixed precision: ``precision/scale`` and
    ``precision/skipped`` at Lightning's logging interval. Nothing of the run is changed.

    Args:
        on_finding: called with each new `Finding` of `TrainingDoctor`, on rank 0; a function or
            its dotted path. What it raises becomes a warning.
        on_event: called with a dict of ``kind`` (``started``, ``finding``, ``skipped``,
            ``rewound``, ``completed``, ``interruption`` or ``exception``), ``step`` and ``text``.
        every_n_epochs: training epochs between two versions of page and figures while the run
            goes on, >= 0; 0 (default) writes them at the end alone.
        verbose: say at the end what each callback of the suite did and where the page is.

    Attributes:
        path: where the page is, None before it was written.

    Raises:
        InvalidArgumentError: if an argument breaks its rule, or a dotted path leads nowhere.

    Example:
        >>> from lightning_stab import StabilityReport
        >>> StabilityReport(on_event="math.sqrt", verbose=False)
        StabilityReport(on_event='math.sqrt', verbose=False)
    """

    def __init__(
        self,
        *,
        on_finding: Callable[[Any], Any] | str | None = None,
        on_event: Callable[[Any], Any] | str | None = None,
        every_n_epochs: int = 0,
        verbose: bool = True,
    ) -> None:
        self.options = options_from(ReportOptions, locals())
        self.path: str | None = None
        self._folder: str | None = None
        self._notices = Notices(None, None)
        self._own_file = EventFile()
        self._scaler = ScalerWatch()
        self._about: dict[str, Any] = {}
        self._is_fitting = False
        self._headline = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what was set, and lay out TensorBoard's page."""
        super().on_train_start(trainer, pl_module)
        self._is_fitting, self._headline = True, ""
        self._folder = log_folder(trainer)  # which all ranks have to ask for at the same time
        if self._folder is None:
            rank_zero_warn(
                "`StabilityReport` writes no page, because the Trainer has no logger. Leave"
                " `logger=False` out, or pass `CSVLogger`."
            )
        elif trainer.is_global_zero and "://" not in self._folder:
            self._own_file.begin(trainer, self._folder)
        self._scaler.begin()
        self._notices = Notices(
            resolve("on_finding", self.options.on_finding),
            resolve("on_event", self.options.on_event),
        )
        self._about = {}
        if trainer.is_global_zero:
            with reporting(trainer, "`StabilityReport` cannot describe the run"):
                self._about = about.about_run(trainer)
            self._notices.begin(trainer)
            self._notices.tell(trainer, "started", "The fit started.")
        log_layout(trainer, layout_for(trainer))
        self._note(trainer, ended="")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Count the overflows of mixed precision, on their device."""
        self._scaler.count(trainer, optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log the loss scale at Lightning's interval, and tell of what is new."""
        self._scaler.log(trainer)
        self._look(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of what is new."""
        if is_validating_fit(trainer):
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page while the run goes on, if that was asked for."""
        every = self.options.every_n_epochs
        if every and (trainer.current_epoch + 1) % every == 0 and trainer.is_global_zero:
            self._write(trainer, at_end=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page, when every callback has said its last."""
        self._finish(trainer, "completed", "")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the page when every callback has seen the exception."""
        interrupted = isinstance(exception, KeyboardInterrupt | SystemExit)
        ended = "interruption" if interrupted else "exception"
        text = str(exception).strip()
        failure = type(exception).__name__ + (f": {text}" if text else "")
        call_after_exception(trainer, lambda: self._finish(trainer, ended, failure))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the own event file away."""
        super().teardown(trainer, pl_module, stage)
        self._own_file.end(trainer)

    def _look(self, trainer: Trainer) -> None:
        if not (trainer.is_global_zero and self._is_fitting):
            return
        for finding in self._notices.look(trainer):
            text = f"**{finding.severity}** {finding.message}\n\n" + "\n".join(
                f"{place}. {line}" for place, line in enumerate(finding.advice, start=1)
            )
            log_markdown(trainer, f"diagnosis/{finding.id}", text, log_step(trainer))
        self._notices.show_in_bar(trainer)

    def _note(self, trainer: Trainer, **more: Any) -> None:
        """Send what is known of the run to the event file, or into a file beside the CSV log."""
        record = json.dumps({**self._about, **more}, default=str)
        log_record(trainer, RUN, record)
        if self._folder is not None and trainer.is_global_zero and more.get("ended"):
            write_file(trainer, f"{self._folder}/{RUN_FILE}", record.encode())

    def _finish(self, trainer: Trainer, ended: str, failure: str) -> None:
        """Write the page, send it, and say what was done; once for each fit."""
        if not self._is_fitting:
            return
        self._look(trainer)
        self._is_fitting = False
        if trainer.is_global_zero:
            done = []
            with reporting(trainer, "`StabilityReport` cannot say what the callbacks did"):
                done = about.what_was_done(trainer)
            end = {"ended": ended, "failure": failure[:2000], "steps": num_steps(trainer)}
            self._note(trainer, **end, callbacks=done)
            self._write(trainer, at_end=True)
            self._notices.tell(trainer, ended, failure or "The fit is done.")
            self._say(trainer, done)
        self._own_file.end(trainer)

    def _write(self, trainer: Trainer, *, at_end: bool) -> None:
        """Make the page from what lies in the folder."""
        folder = self._folder
        if folder is None:
            return
        if "://" in folder and not any(inherits(each, *READABLE) for each in trainer.loggers):
            rank_zero_warn(
                f"`StabilityReport` writes no page into {folder!r}: no logger leaves logs there"
                " that it can read. Add a `CSVLogger` with that `save_dir`."
            )
            return
        with reporting(trainer, "`StabilityReport` cannot make its page"):
            for writer in tensorboard_writers(trainer):
                writer.flush()
            for logger in trainer.loggers:
                logger.save()
            with local_copy(folder) as local:
                run = replace(read_run(local), folder=Path(folder))
                page = report_page(run)
                path = f"{folder}/{FILE_NAME}"
                if write_file(trainer, path, page.encode()):
                    self.path = path
                if local != folder:  # for loggers that take files
                    Path(local, FILE_NAME).write_text(page, "utf-8")
                self._send(trainer, run, Path(local, FILE_NAME), at_end=at_end)

    def _send(self, trainer: Trainer, run: Run, page: Path, *, at_end: bool) -> None:
        """Send figures, and at the end page, findings and outcome, to the loggers."""
        for name, figure in run_figures(run).items():
            log_figure(trainer, f"stability_report/{name}", figure, log_step(trainer))
        causes = causes_of(run)
        self._headline = verdict_of(run, causes).plain
        if not at_end:
            return
        columns = ("step", "severity", "id", "message", "advice")
        rows = [
            [f["step"], f["severity"], f["id"], f["message"], " ".join(f["advice"])]
            for f in (*causes.alarms, *causes.remarks)
        ]
        if rows:
            log_table(trainer, "stability_report/findings", columns, rows)
        if self.path is not None:
            log_file(trainer, "stability_report/page", page)
        outcome = {"outcome/healthy": float(not is_alarm(run, causes))}
        for tag in learning_curves(run.series).losses[:2]:
            values = run.series[tag].finite().values
            outcome |= {f"outcome/{tag}": float(values[-1])} if len(values) else {}
        settings = self._about.get("settings", {})
        log_outcome(trainer, str(self._folder), settings, outcome)

    def _say(self, trainer: Trainer, done: list[list[str]]) -> None:
        if not self.options.verbose:
            return
        width = max((len(name) for name, _ in done), default=0)
        lines = [f"  {name:<{width}}  {text.splitlines()[0]}" for name, text in done]
        verdict = f" {self._headline}." if self._headline else ""
        place = f" The page: {self.path}" if self.path else ""
        say(trainer, "\n".join([f"lightning-stab:{verdict}{place}", *lines]), is_last=True)

    def _repr_html_(self) -> str:
        """Return a link to the page, for notebooks."""
        from html import escape

        if self.path is None:
            return f"<code>{escape(repr(self))}</code>"
        return f'<b>{escape(self._headline)}</b> <a href="{escape(self.path)}">report</a>'
