"""`StabilityReport` in real fits: the page comes however a run ends, and changes nothing."""

import itertools
import json
import logging
import re
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from helpers.events import events
from helpers.lightning_twins import Classifier, batches, built, half_precision
from helpers.lightning_twins import fit as fit_classifier
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

import lightning_stab
from lightning_stab import (
    GradientMonitor,
    LearningRateDecay,
    StabilityReport,
    StepGuard,
    TrainingDoctor,
)
from lightning_stab.callbacks.report import notices
from lightning_stab.callbacks.report.dashboard import FILLED_BY, LAYOUT, layout_for
from lightning_stab.callbacks.report.figures import run_figures
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.reporting import read_run
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series

CALLS = []


def fail(value):
    raise OSError("the webhook is down")


class Net(LightningModule):
    def __init__(self, poison=()):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.poison = poison

    def training_step(self, batch, batch_idx):
        loss = ((self.net(batch[0]) - batch[0].sum(1, keepdim=True)) ** 2).mean()
        loss = loss * (float("nan") if self.global_step in self.poison else 1.0)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self):
        data = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(data), batch_size=4)


class Ends(Callback):
    """Raises at a step, as a user's fault or as Ctrl-C."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == 7:
            raise self.error


class WandbLogger(Logger):
    """A logger that keeps what it is given, with the name and methods of Weights & Biases'."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.metrics, self.texts, self.tables = folder, [], {}, {}
        self.name, self.version, self.save_dir = "project", "abc", str(folder)
        self.experiment = type("Experiment", (), {})()

    name = version = save_dir = experiment = None

    def log_metrics(self, metrics, step=None):
        self.metrics.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_text(self, key, columns, data):
        self.texts[key] = data

    def log_table(self, key, columns, data):
        self.tables[key] = data


def fit(logger, *callbacks, module=None, epochs=2, **settings):
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(module or Net())
    return trainer


def tensorboard(tmp_path):
    return TensorBoardLogger(tmp_path, name="", version="run", default_hp_metric=False)


def test_the_page_is_there_after_a_fit(tmp_path):
    report = StabilityReport()
    fit(tensorboard(tmp_path), GradientMonitor(), TrainingDoctor(ignore=["too-short"]), report)
    page = (tmp_path / "run" / "report.html").read_text()
    assert report.path == str(tmp_path / "run" / "report.html")
    assert 'id="verdict" class="ok"' in page
    run = read_run(tmp_path / "run")
    assert run.about["ended"] == "completed"
    assert run.about["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert dict(run.about["callbacks"])["TrainingDoctor"] == "Found nothing wrong."


@pytest.mark.parametrize(
    ("error", "raised", "ended"),
    [
        (ValueError("a fault"), ValueError, "exception"),
        (KeyboardInterrupt(), SystemExit, "interruption"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_page_is_there_after_a_failure(tmp_path, error, raised, ended, first):
    callbacks = [StabilityReport(), Ends(error)]
    with pytest.raises(raised):
        fit(tensorboard(tmp_path), *(callbacks if first else reversed(callbacks)))
    run = read_run(tmp_path / "run")
    assert run.about["ended"] == ended
    assert type(error).__name__ in run.about["failure"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("ended in an exception" in page) == (ended == "exception")


def test_a_csv_log_is_enough(tmp_path):
    fit(CSVLogger(tmp_path, name="", version="run"), StabilityReport(), GradientMonitor())
    assert "train_loss" in (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"] == "completed"


def test_another_logger_gets_findings_and_the_page_has_an_event_file(tmp_path):
    logger = WandbLogger(tmp_path)
    callbacks = [StabilityReport(), TrainingDoctor(print_findings=False)]
    trainer = fit(logger, *callbacks, module=constant_net(), epochs=8)
    folder = tmp_path / "project" / "abc"
    assert trainer.loggers == [logger]
    assert "train_loss" in read_run(folder).series
    assert (folder / "findings.json").exists()
    assert (folder / "report.html").exists()
    found = callbacks[1].findings
    assert found
    assert f"diagnosis/{found[0].id}" in logger.texts
    assert found[0].id in {row[2] for row in logger.tables["stability_report/findings"]}


def constant_net():
    """Return a net whose units are all alike, which the doctor reports at once."""
    module = Net()
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    return module


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/seen", recursive=True)


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_remote_folder_gets_its_page(bucket, kind):
    report = StabilityReport(verbose=False)
    fit(kind("memory://seen", name="", version=""), GradientMonitor(2), report)
    page = bucket.cat_file(report.path).decode()
    assert report.path.startswith("memory://seen")
    assert "loss" in page
    assert "grad_norm/total" in page or "Gradient norm" in page


def test_a_remote_folder_without_logs_that_can_be_read_is_named():
    report = StabilityReport()
    with pytest.warns(UserWarning, match="no logger leaves logs there"):
        fit(WandbLogger("memory://seen"), report)
    assert report.path is None


def test_without_a_logger_a_sentence_says_that_there_is_no_page(tmp_path):
    with pytest.warns(UserWarning, match="writes no page"):
        fit(False, StabilityReport())


def test_nothing_of_the_run_is_changed(tmp_path):
    plain, watched = Net(), Net()
    fit(CSVLogger(tmp_path, name="a"), module=plain)
    fit(CSVLogger(tmp_path, name="b"), StabilityReport(every_n_epochs=1), module=watched)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    logs = [next((tmp_path / name).rglob("metrics.csv")) for name in "ab"]
    first, second = (log.read_text() for log in logs)
    assert first == second


def test_findings_and_events_are_told(tmp_path):
    CALLS.clear()
    seen = []
    report = StabilityReport(on_finding=seen.append, on_event=CALLS.append)
    guard = StepGuard(on_nonfinite="skip")
    doctor = TrainingDoctor(print_findings=False)
    module = constant_net()
    module.poison = (5,)
    fit(tensorboard(tmp_path), report, guard, doctor, module=module)
    assert [f.id for f in seen] == [f.id for f in doctor.findings]
    kinds = [event["kind"] for event in CALLS]
    assert kinds[0] == "started"
    assert kinds[-1] == "completed"
    assert kinds.count("skipped") == 1
    assert kinds.count("finding") == len(seen) > 0


def test_the_progress_bar_has_a_word_while_something_is_wrong(tmp_path):
    words = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, *_):
            words.append(trainer.progress_bar_metrics.get("stab", ""))

    doctor = TrainingDoctor(print_findings=False)
    callbacks = [StepGuard("skip"), doctor, StabilityReport(verbose=False), Looks()]
    fit(tensorboard(tmp_path), *callbacks, module=constant_net())
    (finding,) = (f for f in doctor.findings if f.is_alarm)
    assert words[-1] == finding.id

    words.clear()

    poisoned = Net()
    poisoned.poison = (3,)
    guard = StepGuard("skip")
    fit(tensorboard(tmp_path), guard, StabilityReport(verbose=False), Looks(), module=poisoned)
    assert words[0] == ""
    assert words[-1] == "1 skipped"


def test_a_notice_that_raises_stops_no_fit(tmp_path):
    with pytest.warns(UserWarning, match="the webhook is down"):
        trainer = fit(tensorboard(tmp_path), StabilityReport(on_event=fail))
    assert trainer.global_step == 20


@pytest.mark.parametrize("path", ["nowhere.at.all", "math.pi", "math.nothing", "x"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(InvalidArgumentError, match="on_event"):
        StabilityReport(on_event=path)


@pytest.fixture
def said(caplog, monkeypatch):
    """Collect what Lightning's logger is given, whether or not it hands it on to other loggers.

    It does not where no other logger had a handler when Lightning was imported.
    """
    logger = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.INFO, logger=logger.name)
    return caplog


def test_the_summary_says_what_was_done_once_and_can_be_switched_off(tmp_path, said):
    callbacks = [GradientMonitor(every_n_steps=500, dense_steps=0), StepGuard()]
    for verbose in (True, False):
        said.clear()
        fit(CSVLogger(tmp_path), StabilityReport(verbose=verbose), *callbacks)
        texts = [r.getMessage() for r in said.records if "lightning-stab:" in r.getMessage()]
        assert len(texts) == verbose
        for text in texts:
            assert "report.html" in text
            assert re.search(r"StepGuard +Every step was fine", text)
            assert "`every_n_steps=500` is longer than the run of 20 steps" in text


def test_tensorboard_gets_a_layout_the_outcome_and_few_tags(tmp_path):
    fit(tensorboard(tmp_path), StabilityReport(), TrainingDoctor(ignore=["too-short"]))
    scalars, tags = events(tmp_path / "run")
    own = {tag for tag in scalars if tag.startswith(("stability_report", "outcome"))}
    assert own <= {"outcome/healthy", "outcome/train_loss"}
    read = EventAccumulator(str(tmp_path / "run"))
    read.Reload()
    assert "custom_scalars__config__" in read.Tags()["tensors"]
    assert tags["images"] == [] or set(tags["images"]) == {"stability_report/overview"}
    outcome = EventAccumulator(str(tmp_path / "run" / "outcome"))
    outcome.Reload()
    assert [e.value for e in outcome.Scalars("outcome/healthy")] == [1.0]
    assert "_hparams_/session_start_info" in outcome.summary_metadata


@pytest.mark.parametrize(
    ("chart", "drawn", "others"),
    [
        (
            "loss",
            ["train_loss", "loss", "val/loss_epoch", "loss/total"],
            ["guard/loss", "gloss", "outcome/val_loss"],
        ),
        (
            "metrics",
            ["val_acc", "test/f1", "accuracy"],
            ["grad_norm/total", "grad_cosine/previous"],
        ),
        ("norm by layer", ["grad_norm/net.0"], ["grad_norm/total", "grad_norm_clipped/net.0"]),
        ("learning rate", ["lr/group0", "lr-Adam"], ["clr"]),
    ],
)
def test_the_layout_draws_what_its_charts_name(chart, drawn, others):
    charts = {name: each[1] for group in LAYOUT.values() for name, each in group.items()}
    # TensorBoard looks for each expression at the beginning of a tag
    found = [t for t in (*drawn, *others) if any(re.match(x, t) for x in charts[chart])]
    assert found == drawn


def charts(layout):
    return {name for group in layout.values() for name in group}


@pytest.mark.parametrize(
    ("callbacks", "drawn"),
    [
        ([], set()),
        ([StepGuard()], {"skipped and rewound steps"}),
        ([LearningRateMonitor()], {"learning rate"}),
        (
            [type("Mine", (lightning_stab.GradientClipping,), {})()],
            {"norm before and after clipping"},
        ),
        (
            [GradientMonitor(), TrainingDoctor()],
            {
                "norm before and after clipping",
                "norm by layer",
                "update to weight",
                "findings (1 info, 2 warning, 3 error)",
            },
        ),
    ],
)
def test_no_chart_stays_empty(callbacks, drawn):
    layout = layout_for(Trainer(callbacks=callbacks, accelerator="cpu", logger=False))
    assert charts(layout) == {"loss", "metrics"} | drawn
    assert all(layout.values())


def test_mixed_precision_has_a_chart_where_losses_are_scaled():
    trainer = Trainer(accelerator="cpu", logger=False)
    assert "mixed precision" not in charts(layout_for(trainer))
    trainer.strategy.precision_plugin.scaler = torch.amp.GradScaler("cpu")
    assert "mixed precision" in charts(layout_for(trainer))


def test_each_chart_is_filled_by_someone():
    assert charts(LAYOUT) == {"loss", "metrics", "mixed precision", *FILLED_BY}
    ours = {name for names in FILLED_BY.values() for name in names} - {"LearningRateMonitor"}
    assert ours <= set(lightning_stab.__all__)


def test_a_second_fit_of_one_trainer_has_its_own_end(tmp_path):
    report = StabilityReport()
    trainer = fit(tensorboard(tmp_path), report)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(Net())
    assert read_run(tmp_path / "run").last_step == 39


def test_an_html_link_for_notebooks(tmp_path):
    report = StabilityReport()
    assert "StabilityReport()" in report._repr_html_()
    fit(CSVLogger(tmp_path / "a&b"), report)
    assert "a&amp;b" in report._repr_html_()


def test_the_summary_is_of_the_suites_callbacks_and_of_no_helper(tmp_path, said):
    class Saver(Callback):
        """As the command line adds one."""

    Saver.__module__ = "lightning_stab.cli.run_folder"
    fit(CSVLogger(tmp_path), Saver(), LearningRateDecay(), StabilityReport())
    (text,) = (r.getMessage() for r in said.records if "lightning-stab:" in r.getMessage())
    assert "Saver" not in text
    assert re.search(r"LearningRateDecay +Followed the schedule `exponential`\.", text)


def test_the_loss_scale_and_the_steps_that_its_scaler_skipped_are_logged(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    own = {"logger": logger, "log_every_n_steps": 2, "plugins": [half_precision()]}
    module = built(Classifier, batch_norm=False)
    fit_classifier(module, [StabilityReport()], batches(6, poison=[2, 3]), **own)
    scalars, _ = events(logger.log_dir)
    assert scalars["precision/scale"] == [(1, 1024.0), (3, 256.0), (5, 256.0)]
    assert scalars["precision/skipped"] == [(1, 0.0), (3, 2.0), (5, 2.0)]


def series(values):
    return Series(np.arange(len(values)), np.array(values, float), len(values))


def test_figures_show_the_losses_with_their_findings():
    pytest.importorskip("matplotlib")
    finding = {"id": "dead-units", "severity": "error", "step": 3}
    losses = {"train_loss": series([60.0, 3.0, 2.0, 1.9]), "val_loss": series([5.0, 2.0])}
    figure = run_figures(Run(None, losses, findings=(finding, {**finding, "severity": "info"})))
    (panel,) = figure["overview"].axes
    assert "layers" not in figure
    assert [line.get_ydata().tolist() for line in panel.lines[:2]] == [
        [60.0, 3.0, 2.0, 1.9], [5.0, 2.0],
    ]  # fmt: skip
    assert [line.get_xdata() for line in panel.lines[2:]] == [[3, 3]]
    assert [text.get_text().strip() for text in panel.texts] == [
        "train_loss", "val_loss", "dead-units",
    ]  # fmt: skip
    assert panel.get_yscale() == "log"
    (panel,) = run_figures(Run(None, {"loss": series([30.0, 1.0])}))["overview"].axes
    assert panel.get_yscale() == "linear"  # not more than thirty times
    assert panel.figure.get_size_inches().tolist() == [8.0, 3.2]
    curves = {"train_loss": series([90.0, 1.0]), "val_loss": series([3.0, 0.0])}
    (panel,) = run_figures(Run(None, curves))["overview"].axes
    assert panel.get_yscale() == "linear"  # zero has no logarithm
    assert run_figures(Run(None, {"other": series([1.0])})) == {}


@pytest.mark.parametrize(("count", "labels"), [(2, 2), (40, 40), (41, 21), (100, 34)])
def test_the_layers_of_a_figure_have_labels_that_do_not_touch(count, labels):
    pytest.importorskip("matplotlib")
    curves = {f"grad_norm/layer{i}": series([10.0**-i, 1.0, 0.0]) for i in range(count)}
    panel, colours = run_figures(Run(None, curves))["layers"].axes
    figure = panel.figure
    # a layer needs 0.16 inches, and the whole is no taller than a page
    assert figure.get_figheight() == pytest.approx({2: 1.52, 40: 7.6, 41: 7.76, 100: 9}[count])
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in panel.get_yticklabels()]
    assert len(boxes) == labels
    tops = sorted((box.y0, box.y1) for box in boxes)
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(tops))
    image = panel.images[0]
    values = image.get_array()
    assert values.shape == (count, 160)
    assert values[0, 0] == 0.0
    assert values[1, 0] == pytest.approx(-1.0)
    assert values.mask[0, -1]  # a zero has no logarithm
    assert image.get_extent() == [0, 2, count - 0.5, -0.5]
    assert colours.get_ylabel() == "log10"


def test_notices_are_given_for_what_is_new(monkeypatch):
    told, found = [], []
    first, second = (SimpleNamespace(id=i, step=3, severity="error", message="So.") for i in "ab")
    guard = SimpleNamespace(num_skipped=2, num_rewound=0)
    monkeypatch.setattr(notices, "_findings", lambda trainer: found)
    names = ("num_skipped", "num_rewound")
    monkeypatch.setattr(notices, "_counters", lambda trainer: [(n, guard) for n in names])
    monkeypatch.setattr(notices, "num_steps", lambda trainer: 7)
    ours = notices.Notices(lambda finding: told.append(finding.id), told.append)
    found.append(first)
    ours.begin(None)  # from a checkpoint
    assert ours.look(None) == told == []
    found.append(second)
    guard.num_skipped, guard.num_rewound = 3, 2
    assert ours.look(None) == [second]
    assert told == [
        "b",
        {"kind": "finding", "step": 7, "text": "error: b. So."},
        {"kind": "skipped", "step": 7, "text": "`StepGuard`: 1 step skipped."},
        {"kind": "rewound", "step": 7, "text": "`StepGuard`: 2 steps rewound."},
    ]
    assert ours.look(None) == []
    assert len(told) == 4
    ours.begin(None)
    assert ours.look(None) == []
