"""Findings, tables, figures and the page with the real packages of loggers, without a network."""

import json
import zipfile
from pathlib import Path

import lightning.pytorch as lightning
import pytest
from helpers.quiet import QUIET
from helpers.sick_programs import make_loaders, make_zero
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, WandbLogger

from lightning_stab import GradientMonitor, StabilityReport, TrainingDoctor

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore"),  # of the packages themselves
]
FINDING = "bad-initialization"


def fit(logger):
    """Train a net of zeros, and return its report."""
    callbacks = [GradientMonitor(4), TrainingDoctor(print_findings=False), StabilityReport()]
    settings = {**QUIET, "logger": logger, "max_epochs": 3, "log_every_n_steps": 4}
    trainer = lightning.Trainer(callbacks=callbacks, **settings)
    trainer.fit(make_zero(), *make_loaders())
    assert callbacks[1].findings[0].id == FINDING
    findings = next(
        p for p in Path.cwd().rglob("findings.json") if p.with_name("run.json").exists()
    )
    assert FINDING in findings.read_text()
    assert findings.with_name("report.html").exists()


def only(pattern):
    """Return the one file of a pattern below this folder."""
    (file,) = (path for path in Path.cwd().rglob(pattern) if path.is_file())
    return file


def test_weights_and_biases_offline(monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    try:
        fit(WandbLogger(project="stab", save_dir=".", offline=True))
    finally:
        wandb.finish()
    media = "wandb/offline-run-*/files/media"
    page = only(f"{media}/html/stability_report/page*.html")
    assert 'id="verdict"' in page.read_text("utf-8")
    assert only(f"{media}/images/stability_report/overview*.png").stat().st_size > 10_000
    table = json.loads(only(f"{media}/table/stability_report/findings*.json").read_text())
    assert any(FINDING in row for row in table["data"])
    finding = json.loads(only(f"{media}/table/diagnosis/{FINDING}*.json").read_text())
    assert finding["columns"] == ["step", "text"]


def test_mlflow_with_a_local_file_store(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # of releases that prefer a database
    fit(MLFlowLogger("stab", tracking_uri="file:./store"))
    (artifacts,) = Path("store").glob("*/*/artifacts")
    assert 'id="verdict"' in (artifacts / "report.html").read_text("utf-8")
    assert (artifacts / f"diagnosis/{FINDING}.md").read_text().strip()
    table = json.loads((artifacts / "stability_report/findings.json").read_text())
    assert len(table["columns"]) == len(table["data"][0])
    assert any(FINDING in row for row in table["data"])
    assert list((artifacts / "stability_report/overview").glob("*.png"))


def test_comet_offline():
    comet = pytest.importorskip("comet_ml")
    logger = CometLogger(api_key="none", project="stab", online=False)
    # what Lightning makes for `online=False` is switched off, and keeps nothing
    logger._experiment = comet.OfflineExperiment(project_name="stab", offline_directory=".")
    fit(logger)
    logger.experiment.end()
    with zipfile.ZipFile(only("*.zip")) as archive:
        texts = [archive.read(name).decode("utf-8", "replace") for name in archive.namelist()]
    assert any('id="verdict"' in text for text in texts)
    assert any(FINDING in text for text in texts)
