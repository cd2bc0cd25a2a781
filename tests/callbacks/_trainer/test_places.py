"""A report never stops a fit: remote folders, full disks, loggers that raise."""

import json
import warnings
from pathlib import Path

import fsspec
import lightning.pytorch as lightning
import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import lightning_stab
from lightning_stab.callbacks._trainer.places import write_file
from lightning_stab.errors import InvalidArgumentError, UnstableStepError


class Breaks(BoringModel):
    """Its last batch is bad, so that every reporter has something to report."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2))
        self.val_loss = 1.0

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        return loss * float("nan") if batch_idx == 2 else loss

    def validation_step(self, batch, batch_idx):
        self.val_loss += 1.0
        self.log("val_loss", self.val_loss, logger=False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def everything(**folder):
    return [
        lightning_stab.WeightInitialization(),
        lightning_stab.GradientMonitor(every_n_steps=1, histogram_every_n_steps=1),
        lightning_stab.ActivationMonitor(every_n_steps=1),
        lightning_stab.GradientClipping(),
        lightning_stab.StepGuard(on_nonfinite="skip"),
        lightning_stab.GradientCheck(),
        lightning_stab.BestWeightsEarlyStopping("val_loss", patience=1, **folder),
        lightning_stab.LearningRateDecay(),
        lightning_stab.TrainingDoctor(every_n_steps=1, print_findings=False),
    ]


def trainer(root, callbacks, **settings):
    base = {**QUIET, "max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1}
    base |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1}
    return lightning.Trainer(default_root_dir=root, callbacks=callbacks, **(base | settings))


def fitted(root, callbacks, **settings):
    """Return the sentences that were said about failures."""
    run = trainer(root, callbacks, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Breaks())
    assert run.state.finished
    return [str(w.message) for w in caught if "The fit goes on" in str(w.message)]


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


def files_of(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def test_a_remote_folder_gets_the_reports(tmp_path, monkeypatch, memory):
    monkeypatch.chdir(tmp_path)
    root = "memory://bucket/run"
    said = fitted(root, everything(), logger=CSVLogger("memory://bucket/run", name="", version=""))
    assert said == []
    assert files_of(tmp_path) == []  # nothing in a local folder of that name
    found = {name.rpartition("/")[2] for name in memory.find("/bucket")}
    assert {"findings.json", "gradient_check.json"} <= found
    written = next(name for name in memory.find("/bucket") if name.endswith("findings.json"))
    assert "findings" in json.loads(memory.cat_file(written))


class Somewhere(Logger):
    """Names a folder, and takes what it is given."""

    name = version = "somewhere"

    def __init__(self, folder):
        super().__init__()
        self.folder, self.taken = folder, []

    @property
    def save_dir(self):
        return self.folder

    def log_metrics(self, metrics, step=None):
        self.taken.append(metrics)

    def log_hyperparams(self, params, *args):
        pass


@pytest.mark.parametrize("place", ["a file stands in the way", "unknown protocol"])
def test_a_folder_that_cannot_be_written_is_named_once_and_the_fit_goes_on(tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = {
        "a file stands in the way": str(tmp_path / "file" / "logs"),
        "unknown protocol": "nowhere://bucket/logs",
    }[place]
    logger = Somewhere(folder)
    said = fitted(tmp_path, everything(), logger=logger)
    assert any(logger.taken)
    assert len(said) == len(set(said)) > 0
    for name in ("findings.json", "gradient_check.json"):
        assert sum(f"'{folder}/{name}' cannot be written" in sentence for sentence in said) == 1


@pytest.mark.parametrize("place", ["memory://bucket/logs", "file/logs"])
@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_the_guards_own_error_comes_whether_or_not_its_batch_can_be_saved(tmp_path, memory, place):
    (tmp_path / "file").write_text("")
    remote = place.startswith("memory")
    logger = Somewhere(place if remote else str(tmp_path / place))
    run = trainer(tmp_path, [lightning_stab.StepGuard(forensics=True)], logger=logger)
    sentence = "The batch is in memory://" if remote else "The batch could not be saved"
    with pytest.raises(UnstableStepError, match=sentence):
        run.fit(Breaks())
    if remote:
        (name,) = memory.find("/bucket")
        saved = torch.load(memory.open(name), weights_only=True)
        assert saved["batch_idx"] == 2


class Raises(Somewhere):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("the server is down")


class Lacks(Somewhere):
    def __getattribute__(self, name):
        if name == "log_metrics":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("logger_class", [Raises, Lacks])
def test_a_logger_that_raises_is_named_once_and_the_others_get_their_numbers(
    tmp_path, logger_class
):
    good = Somewhere(str(tmp_path))
    loggers = [logger_class(str(tmp_path)), good]
    said = fitted(tmp_path, everything(), logger=loggers, log_every_n_steps=10**6)
    assert len([s for s in said if f"`{logger_class.__name__}` did not take" in s]) == 1
    assert "grad_norm/total" in set().union(*good.taken)


def test_a_tensorboard_that_raises_is_named_once(tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    for method in ("add_text", "add_figure", "add_histogram", "_get_file_writer"):
        monkeypatch.setattr(SummaryWriter, method, full)
    logger = TensorBoardLogger(tmp_path)
    monkeypatch.setattr(logger, "log_hyperparams", lambda *_: None)
    monkeypatch.setattr(logger, "save", lambda: None)
    monkeypatch.setattr(logger, "finalize", lambda *_: None)
    logger._experiment = SummaryWriter.__new__(SummaryWriter)
    said = fitted(tmp_path, everything(), logger=logger, log_every_n_steps=10**6)
    assert [s for s in said if "`TensorBoardLogger` did not take" in s] == said
    assert len(said) == 1


def test_a_terminal_that_cannot_print_stops_nothing(tmp_path, monkeypatch):
    class Ascii:
        encoding = "ascii"

        def write(self, text):
            text.encode("ascii")

        def flush(self):
            pass

    monkeypatch.setattr("sys.stdout", Ascii())
    said = fitted(tmp_path, [lightning_stab.WeightInitialization()])
    assert len(said) == 1
    assert said[0].startswith("The table of `WeightInitialization` cannot be printed (Unicode")


def test_a_file_is_replaced_at_once_and_a_failed_draft_is_removed(tmp_path, monkeypatch):
    run = trainer(tmp_path, [])
    path = tmp_path / "deep" / "report.json"
    assert write_file(run, str(path), b"first")

    def full(*_):
        path.with_name("report.json.new").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert not write_file(run, str(path), b"second")
    assert path.read_bytes() == b"first"
    assert files_of(tmp_path) == ["report.json"]


def test_best_weights_that_cannot_be_written_stay_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    module = Breaks()
    callback = lightning_stab.BestWeightsEarlyStopping(
        "val_loss", patience=5, folder=str(tmp_path / "file" / "x")
    )
    kept = []

    class Keep(lightning.Callback):
        def on_validation_end(self, trainer, module):
            kept.append(module.layer[0].weight.detach().clone())

    run = trainer(tmp_path, [callback, Keep()], limit_train_batches=2, max_epochs=3)
    with pytest.warns(UserWarning, match="so they are kept in memory from now on") as said:
        run.fit(module)
    assert sum("kept in memory" in str(w.message) for w in said) == 1
    assert torch.equal(module.layer[0].weight, kept[0])
    assert not torch.equal(kept[0], kept[-1])


def test_a_remote_folder_for_the_best_weights_is_refused():
    with pytest.raises(InvalidArgumentError, match="`folder` must be a local folder"):
        lightning_stab.BestWeightsEarlyStopping("loss", folder="s3://bucket/best")
