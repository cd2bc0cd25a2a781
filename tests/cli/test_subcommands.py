"""Subcommands other than `fit`: what they build, what they pass on, and what they leave alone."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonargparse import ArgumentError
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_stab import StabilityReport, StepGuard, TrainingDoctor
from lightning_stab.cli import prescribe as prescribing
from lightning_stab.cli import report as reporting
from lightning_stab.cli.diagnose import DiagnoseCLI, _EndAfter
from lightning_stab.cli.parser import StabArgumentParser, StabCLI, without_treat
from lightning_stab.cli.prescribe import FromWords, PrescribeCLI
from lightning_stab.cli.run_folder import (
    ConfigSaver,
    claim_folders,
    leave_no_empty_folder,
    tensorboard_command,
)
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.models import MLPClassifier
from lightning_stab.prescription.traceless import kept_callbacks, quietly

pytestmark = pytest.mark.usefixtures("folder")
SMALL = ["--model.depth=1", "--model.width=8", "--trainer.accelerator=cpu"]
WORDS = [*SMALL, "--trainer.callbacks+=LearningRateMonitor", "--trainer.max_epochs=3"]


OPTIONS = {
    "metric": "val_loss", "mode": "min", "max_cost": 5.0, "seeds": 2, "jobs": 1,
    "engine": "local", "cures": None,
}  # fmt: skip


def test_prescribe_takes_what_fit_takes_and_makes_no_logger():
    with quietly():
        built = PrescribeCLI(WORDS)
    options = {name: built.config[name] for name in prescribing.OPTIONS}
    assert options == {**OPTIONS, "output": "cure.yaml"}
    assert built.config["json"] is False
    assert "ckpt_path" in built.from_fit
    given = built.trainer_arguments
    assert (given["max_epochs"], given["accelerator"], given["logger"]) == (3, "cpu", False)
    kinds = {type(callback).__name__ for callback in given["callbacks"]}
    assert {"LearningRateMonitor", "TrainingDoctor", "StepGuard"} <= kinds
    assert "StabilityReport" not in kinds
    assert built.trainer.logger is None
    assert not built.trainer.checkpoint_callbacks
    assert list(Path().iterdir()) == []


class Found:
    """What `prescribe` returns, as far as the command asks."""

    def __init__(self, overlay, exit_code):
        self.overlay, self.exit_code, self.shown = overlay, exit_code, []

    def to_yaml(self, path):
        Path(path).write_text("written")

    def to_dict(self):
        return {"best": None}

    def show(self, console, command, output):
        self.shown.append((console.width, command, output))


def test_what_is_prescribed_is_shown_or_given_as_json(monkeypatch, capsys):
    config = {**OPTIONS, "output": "cure.yaml", "json": False}
    built = SimpleNamespace(config=config, trainer_arguments={"max_epochs": 3})
    calls = []

    def find(*parts, **arguments):
        calls.append((parts, arguments))
        return found

    monkeypatch.setattr(prescribing, "find_cures", find)
    monkeypatch.setattr(prescribing, "PrescribeCLI", lambda args: built)
    found = Found(overlay=None, exit_code=1)
    assert prescribing.prescribe(WORDS) == 1
    ((parts, arguments),) = calls
    assert parts == (FromWords(tuple(WORDS), "model"), FromWords(tuple(WORDS), "datamodule"))
    assert arguments.pop("trainer_kwargs") is built.trainer_arguments
    assert arguments == OPTIONS
    assert found.shown == [(prescribing.WIDTH, "", "cure.yaml")]
    assert list(Path().iterdir()) == []
    found = Found(overlay="an overlay", exit_code=0)
    assert prescribing.prescribe(WORDS) == 0
    ((_, command, _),) = found.shown
    assert command.startswith("lightning-stab fit --model.depth=1")
    assert command.endswith("--config cure.yaml")
    assert Path("cure.yaml").read_text() == "written"
    assert capsys.readouterr().out == ""
    built.config["json"] = True
    found = Found(overlay=None, exit_code=1)
    assert prescribing.prescribe(WORDS) == 1
    assert json.loads(capsys.readouterr().out) == {"best": None}
    assert found.shown == []


def test_the_command_with_the_overlay_leaves_the_options_of_prescribe_out():
    words = ("--config", "a b.yaml", "--metric", "x", "--json", "--seeds=1", "--model=M", "--jobs",
             "4", "--cures=[clip]", "--output", "o.yaml", "--trainer.max_epochs=3")  # fmt: skip
    assert prescribing._command(words, "o.yaml") == (
        "lightning-stab fit --config 'a b.yaml' --model=M --trainer.max_epochs=3 --config o.yaml"
    )


def test_a_part_is_made_anew_from_the_words(monkeypatch):
    made = []

    class Cli:
        def __init__(self, words):
            made.append(words)
            self.model, self.datamodule = "a model", None

    monkeypatch.setattr(prescribing, "PrescribeCLI", Cli)
    assert FromWords(("--x=1",), "model")() == "a model"
    assert FromWords(("--x=1",), "datamodule")() == ()
    assert made == [["--x=1", "--seed_everything=false"]] * 2


def test_diagnose_watches_a_fit_that_keeps_its_length_and_writes_nothing():
    words = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss",
             "--trainer.callbacks+=ModelCheckpoint", "--trainer.min_epochs=2"]  # fmt: skip
    with quietly():
        cli = DiagnoseCLI([*SMALL, *words], "thrown_away")
    trainer = cli.trainer
    assert (cli.config["steps"], cli._end.steps) == (200, 200)
    assert (trainer.limit_val_batches, trainer.max_epochs) == (50, 30)
    assert trainer.min_epochs in (None, 0)
    assert not trainer.barebones
    kept = {type(callback).__name__ for callback in trainer.callbacks}
    assert kept >= {"WeightInitialization", "StepGuard", "LearningRateDecay", "TrainingDoctor"}
    out = {"EarlyStopping", "ModelCheckpoint", "BestWeightsEarlyStopping", "StabilityReport"}
    assert not kept & out
    doctors = [c for c in trainer.callbacks if isinstance(c, TrainingDoctor)]
    assert doctors == [cli.doctor]
    assert cli.doctor.options.every_n_steps == 10
    assert not cli.doctor.options.print_findings
    assert trainer.callbacks[-1] is cli._end
    assert trainer.default_root_dir.endswith("thrown_away")
    own = TrainingDoctor(ignore=["plateau"], thresholds={"no_loss": 1.0}, every_n_steps=3)
    (theirs,) = cli._kept([own, EarlyStopping("x"), ModelCheckpoint()])
    assert theirs is not own
    assert theirs is cli.doctor
    assert list(theirs.options.ignore) == ["plateau"]
    assert (theirs.thresholds, theirs.options.every_n_steps) == ({"no_loss": 1.0}, 3)
    assert list(Path().iterdir()) == []


def test_a_watched_fit_ends_after_so_many_steps_of_its_own():
    end, trainer = _EndAfter(3), SimpleNamespace(global_step=10, should_stop=False)
    end.on_train_start(trainer, None)
    stops = []
    for step in (11, 12, 13):
        trainer.global_step = step
        end.on_train_batch_end(trainer)
        stops.append(trainer.should_stop)
    assert stops == [False, False, True]


def test_callbacks_that_write_are_left_out():
    guard, monitor = StepGuard(), LearningRateMonitor()
    assert kept_callbacks([guard, ModelCheckpoint(), StabilityReport(), monitor]) == [
        guard,
        monitor,
    ]
    assert kept_callbacks(guard) == [guard]
    assert kept_callbacks(ModelCheckpoint()) == kept_callbacks(None) == kept_callbacks([]) == []


class Bare(LightningModule):
    """Has no loader."""


def after_parsing(subcommand, model, data=None, **config):
    """Return a command line that has just made its classes."""
    cli = object.__new__(StabCLI)
    cli.subcommand, cli.model, cli.datamodule = subcommand, model, data
    cli.config = {subcommand: config} if subcommand else config
    cli.trainer = SimpleNamespace(loggers=[], is_global_zero=True)
    return cli


def test_each_subcommand_asks_for_its_own_loader():
    for name, loader in (
        ("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict"),
        (None, "train"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=f"has no `{loader}_dataloader`"):
            after_parsing(name, Bare()).after_instantiate_classes()
        loading = type("Loading", (Bare,), {f"{loader}_dataloader": lambda self: []})
        after_parsing(name, loading()).after_instantiate_classes()
        after_parsing(name, Bare(), data=object()).after_instantiate_classes()
    with pytest.raises(InvalidArgumentError, match="`model` must be a module, got null"):
        after_parsing("fit", None, data=object()).after_instantiate_classes()


def test_a_checkpoint_must_be_there_unless_it_is_a_word_or_an_address():
    Path("there.ckpt").touch()
    for path in (None, "", "best", "last", "hpc", "registry:model", "s3://bucket/x", "there.ckpt"):
        for subcommand in ("fit", None):
            after_parsing(subcommand, Bare(), object(), ckpt_path=path)._find_checkpoint()
    for path in ("other.ckpt", "beest"):
        with pytest.raises(InvalidArgumentError, match=f"`ckpt_path`: there is no file '{path}'"):
            after_parsing("test", Bare(), object(), ckpt_path=path)._find_checkpoint()


def test_after_a_fit_it_is_said_where_the_run_is(monkeypatch):
    said = []
    monkeypatch.setattr("lightning_stab.cli.parser.rank_zero_info", said.append)
    for loggers, folder in (([], "runs/a"), ([1], None), ([1], "runs/a")):
        cli = after_parsing("fit", Bare())
        cli.trainer = SimpleNamespace(loggers=loggers, log_dir=folder)
        cli.after_fit()
    assert said == [f"The run is in runs/a. To see it: {tensorboard_command('runs/a')}"]


def test_only_untrained_weights_are_warned_about(recwarn):
    after_parsing("test", Bare(), ckpt_path="best").before_test()
    assert not recwarn
    with pytest.warns(UserWarning, match="`predict` without --ckpt_path"):
        after_parsing("predict", Bare(), ckpt_path=None).before_predict()


def test_an_argument_of_an_earlier_version_is_taken_out_of_any_configuration():
    old, new = Path("old.yaml"), Path("new.yaml")
    for kept in (True, False):
        for words in (["--config", "old.yaml"], ["-c", "old.yaml"], ["fit", "--config=old.yaml"]):
            old.write_text("a:\n    treat: false\n    b: 1\n")
            new.write_text("a:\n    b: 1\n")
            file = new if kept else old
            given = [word.replace("old.yaml", str(file)) for word in words]
            found = without_treat(given)
            if kept:
                assert found == given
            else:
                (changed,) = set(found) - set(given)
                assert changed.removeprefix("--config=") == "a:\n    b: 1\n"
                assert len(found) == len(given)
    assert without_treat(["--config"]) == ["--config"]
    assert without_treat(["--other", "old.yaml"]) == ["--other", "old.yaml"]
    assert without_treat(["--config", "none.yaml"]) == ["--config", "none.yaml"]


def test_the_folder_of_a_run_is_claimed_once_and_only_where_it_is_numbered():
    def trainer(*loggers, is_first=True):
        return SimpleNamespace(loggers=list(loggers), is_global_zero=is_first)

    board, csv = TensorBoardLogger("runs", name=""), CSVLogger("logs", name="x")
    named = TensorBoardLogger("runs", name="", version="mine")
    assert claim_folders(trainer(board, is_first=False)) == []
    claimed = claim_folders(trainer(board, csv, named, object()))
    assert claimed == [Path("runs/version_0"), Path("logs/x/version_0")]
    assert all(path.is_dir() for path in claimed)
    assert not Path("runs/mine").exists()
    other = TensorBoardLogger("runs", name="")
    assert claim_folders(trainer(other)) == [Path("runs/version_1")]
    assert claim_folders(trainer(other)) == []


def test_an_event_file_of_its_version_alone_is_no_result():
    for size, kept in ((199, False), (200, True)):
        folder = Path(f"run_{size}")
        folder.mkdir()
        (folder / "events.out.tfevents.1").write_bytes(b"x" * size)
        (folder / "config.yaml").touch()
        leave_no_empty_folder([folder])
        assert folder.exists() == kept


def test_the_command_that_shows_a_run(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/tensorboard")
    assert tensorboard_command("runs/version_0") == "tensorboard --logdir runs/version_0"
    monkeypatch.setattr("shutil.which", lambda name: None)
    elsewhere = Path(sys.executable).parent / "tensorboard"
    assert tensorboard_command("x") == f"{elsewhere} --logdir x"
    monkeypatch.setattr(sys, "executable", str(Path.cwd() / "env" / "bin" / "python"))
    assert tensorboard_command("x") == f"{Path('env/bin/tensorboard')} --logdir x"


def test_a_configuration_is_saved_beside_the_logs_and_never_over_another(monkeypatch):
    saved = []
    base = ConfigSaver.__mro__[1]
    monkeypatch.setattr(base, "setup", lambda self, *_: saved.append(self.config_filename))

    def save(loggers, folder):
        saver = object.__new__(ConfigSaver)
        saver.config_filename = "config.yaml"
        saver.setup(SimpleNamespace(loggers=loggers, log_dir=folder), None, "fit")

    save([], ".")
    assert saved == []
    save([1], None)
    save([1], "s3://bucket")
    for _ in range(3):
        save([1], ".")
        Path(saved[-1]).touch()
    assert saved == ["config.yaml", "config.yaml", "config.yaml", "config_1.yaml", "config_2.yaml"]


def test_reports_options(monkeypatch, capsys):
    monkeypatch.setattr(reporting, "_write", lambda run_dir, output: (run_dir, output))
    assert reporting.report(["here"]) == ("here", None)
    assert reporting.report(["here", "--output", "x.html"]) == ("here", "x.html")
    for interval in ("0", "-1", "nan"):
        with pytest.raises(reporting.NoRunError, match="`--interval` must be > 0 seconds"):
            reporting.report(["here", "--interval", interval])
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(reporting.time, "sleep", sleep)
    written = []
    monkeypatch.setattr(reporting, "_write", lambda *given: written.append(given) or len(written))
    assert reporting.report([".", "--watch"]) == 1  # nothing new was seen
    assert slept == [10.0] * 3
    assert capsys.readouterr().err == "\n"


def test_a_fit_of_no_steps_is_no_diagnosis():
    cli = object.__new__(DiagnoseCLI)
    cli.config_init, cli.from_fit = {"ckpt_path": None}, ["ckpt_path"]
    cli.model, cli.datamodule, cli.doctor = MLPClassifier(depth=1), None, TrainingDoctor()
    fitted = []
    cli.trainer = SimpleNamespace(global_step=5, fit=lambda model, **given: fitted.append(given))
    cli._end = SimpleNamespace(start=5)
    with pytest.raises(ConflictError, match="There must be steps to watch"):
        cli.watch()
    assert fitted == [{"datamodule": None, "ckpt_path": None}]


def test_a_mistake_of_the_words_names_the_help_and_one_of_an_argument_does_not(capsys):
    parser = StabArgumentParser(prog="lightning-stab fit")
    for error, lines in (
        (None, ["lightning-stab fit: so it is", "All options: lightning-stab fit --help"]),
        (
            ValueError("x"),
            ["lightning-stab fit: so it is", "All options: lightning-stab fit --help"],
        ),
        (ConflictError("It cannot."), ["lightning-stab fit: It cannot."]),
    ):
        with pytest.raises(SystemExit) as end:
            parser.error("so it is", error)
        assert end.value.code == 2
        assert capsys.readouterr().err.splitlines() == lines
    parser.exit_on_error = False
    with pytest.raises(ArgumentError, match="so it is"):
        parser.error("so it is")
    parser.exit_on_error, parser.debug = True, True
    with pytest.raises(ArgumentError, match="so it is"):
        parser.error("so it is")
