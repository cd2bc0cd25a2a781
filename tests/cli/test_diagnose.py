"""`lightning-stab diagnose`: a watched fit that leaves nothing behind, findings and exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_folder import assert_refused

from lightning_stab.cli import run

ROOT = Path(__file__).parents[2]
CPU = "--trainer.accelerator=cpu"
DEEP = [
    "--trainer.callbacks=[]",
    "--model.depth=20",
    "--model.width=32",
    "--model.activation=sigmoid",
    "--model.batch_norm=false",
]
THEIRS = """
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

class Theirs(LightningModule):
    def __init__(self, poison: int = -1, fails: int = -1, softmax: bool = False, two: bool = False,
                 length: int = 64):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)
        self.poison, self.fails, self.softmax, self.two = poison, fails, softmax, two
        self.length, self.rates = length, []
        self.automatic_optimization = not two

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fails:
            raise KeyError("a fault of the module's own")
        print("a word of the module's own")
        self.logger.experiment.add_scalar("their/own", 1.0, self.global_step)
        self.log("train_loss", 1.0)
        logits = self.second(torch.relu(self.first(batch[0])))
        logits = logits.softmax(1) if self.softmax else logits
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        if self.two:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss * float("nan") if self.global_step == self.poison else loss

    def on_fit_end(self):
        print("horizon", self.trainer.estimated_stepping_batches, "step", self.global_step)

    def train_dataloader(self):
        data = torch.randn(self.length, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(data, (data.sum(1) > 0).long()), batch_size=8)

    def configure_callbacks(self):
        return [ModelCheckpoint(dirpath="kept"), EarlyStopping("train_loss", patience=1)]

    def configure_optimizers(self):
        if self.two:
            return [torch.optim.SGD(p.parameters(), 0.1) for p in (self.first, self.second)]
        return torch.optim.Adam(self.parameters(), 0.01)
"""


@pytest.fixture
def their_folder(folder, monkeypatch):
    (folder / "their_module.py").write_text(THEIRS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    sys.modules.pop("their_module", None)


@pytest.fixture
def diagnosed(their_folder, capsys):
    """Return the code, what was said, and check that nothing was left in the folder."""

    def call(*words):
        before = sorted(their_folder.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            run(["diagnose", CPU, *words])
        assert sorted(their_folder.rglob("*")) == before
        return stop.value.code, capsys.readouterr()

    return call


def as_json(said):
    return json.loads(said.out)


def theirs(**arguments):
    words = [f"--model.{name}={value}" for name, value in arguments.items()]
    return ["--model=their_module.Theirs", *words]


@pytest.mark.nightly
def test_the_suites_own_training_is_healthy(diagnosed):
    code, said = diagnosed("--json")
    found = as_json(said)
    assert code == 0
    assert found["steps"] == 200
    assert {f["severity"] for f in found["findings"]} <= {"info"}
    assert found["unseen"] == []
    assert found["stopped"] is None


def test_a_deep_sigmoid_net_has_an_error(diagnosed):
    code, said = diagnosed(*DEEP, "--steps=30", "--json")
    (finding,) = as_json(said)["findings"]
    assert code == 1
    assert (finding["id"], finding["severity"]) == ("vanishing-gradient", "error")
    assert "WeightInitialization" in finding["advice"][0]


def test_the_table_holds_what_was_found_and_the_advice_follows(diagnosed):
    code, said = diagnosed(*DEEP, "--steps=30")
    assert code == 1
    table, _, advice = said.out.partition("What to do about vanishing-gradient")
    assert "Found in 30 optimizer steps (1.5 epochs)" in table
    for word in ("severity", "id", "step", "layers", "message", "first advice", "error"):
        assert word in table
    assert advice.splitlines()[1].startswith('  1. Add `WeightInitialization(scheme="auto")`')
    assert advice.splitlines()[2].startswith("  2. ")


def test_nothing_found_is_one_plain_sentence(diagnosed):
    code, said = diagnosed(*theirs(), "--steps=12")
    assert code == 0
    assert said.out.startswith("Nothing wrong was found in 12 optimizer steps (1.5 epochs).\n")
    assert "overfitting cannot be seen" in said.out


def test_a_doctor_in_the_configuration_gives_its_settings(folder, diagnosed):
    times = ("some_epochs", "early_steps", "tens_of_steps", "many_steps", "enough_steps")
    doctor = {"ignore": ["overfitting"], "thresholds": dict.fromkeys(times, 0.1)}
    callbacks = [
        {"class_path": "TrainingDoctor", "init_args": doctor},
        {"class_path": "lightning.pytorch.callbacks.RichProgressBar"},
        {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"},
    ]
    (folder / "theirs.yaml").write_text(json.dumps({"trainer": {"callbacks": callbacks}}))
    code, said = diagnosed("--config=theirs.yaml", *theirs(), "--steps=12", "--json")
    assert code == 0
    assert as_json(said)["unseen"] == []


def test_a_finding_can_be_ignored(folder, diagnosed):
    words = [*DEEP[1:], "--trainer.callbacks=TrainingDoctor", "--steps=10", "--json"]
    code, said = diagnosed(*words, '--trainer.callbacks.ignore=["vanishing-gradient"]')
    assert code == 0
    assert as_json(said)["findings"] == []


def test_a_configuration_that_fit_saved_is_taken(folder, diagnosed, capsys):
    with pytest.raises(SystemExit):
        run(["fit", *theirs(), "--print_config"])
    config = capsys.readouterr().out
    assert "ckpt_path" in config
    (folder / "config.yaml").write_text(config)
    code, said = diagnosed("--config=config.yaml", "--steps=1", "--json")
    assert code == 0
    assert as_json(said)["steps"] == 1


def test_the_length_of_the_run_stays_and_the_modules_own_stops_do_not(diagnosed):
    _, said = diagnosed(*theirs(), "--trainer.max_epochs=5", "--steps=20")
    assert "horizon 40 step 20" in said.err
    assert "Nothing wrong was found in 20 optimizer steps" in said.out


def test_a_run_that_ends_earlier_is_watched_to_its_end(diagnosed):
    _, said = diagnosed(*theirs(), "--trainer.max_epochs=2", "--json")
    assert as_json(said)["steps"] == 16


def test_a_guard_that_ends_the_run_does_not_hide_the_findings(diagnosed):
    code, said = diagnosed(*theirs(poison=5), "--json")
    found = as_json(said)
    assert code == 1
    assert [f["id"] for f in found["findings"]] == ["non-finite"]
    assert found["stopped"].startswith("UnstableStepError: ")
    assert found["steps"] == 5


def test_a_fault_of_the_module_keeps_its_traceback_after_the_findings(their_folder, capsys):
    with pytest.raises(KeyError, match="of the module's own"):
        run(["diagnose", CPU, *theirs(fails=5, softmax=True), "--json"])
    found = as_json(capsys.readouterr())
    assert [f["id"] for f in found["findings"]] == ["output-activation"]
    assert "of the module's own" in found["stopped"]


def test_a_fault_before_the_first_step_is_no_diagnosis(their_folder, capsys):
    with pytest.raises(KeyError, match="of the module's own"):
        run(["diagnose", CPU, *theirs(fails=0)])
    assert capsys.readouterr().out == ""


def test_what_several_optimizers_hide_is_said(diagnosed):
    code, said = diagnosed(*theirs(two="true"), "--steps=8", "--json")
    assert code == 0
    assert any("several optimizers" in sentence for sentence in as_json(said)["unseen"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--steps=0"], "`steps` must be an integer >= 1, got 0"),
        (["--steps=many"], "steps"),
        (["--nothing"], "there is no option `--nothing`"),
        (["--model=null"], "`model` must be a module, got null"),
        (
            ["--trainer.callbacks=[]", "--trainer.limit_train_batches=0"],
            "There must be steps to watch",
        ),
        (["--trainer.strategy=ddp_spawn"], "`strategy` must not start processes"),
        (["--trainer.callbacks=TrainingDoctor", "--trainer.callbacks.treat=true"], "`treat`"),
    ],
)
def test_bad_words_are_one_sentence(diagnosed, words, sentence):
    assert_refused(diagnosed(*words), sentence)


@pytest.mark.nightly
def test_the_command_itself(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(folder.rglob("*"))
    ended = subprocess.run(
        [sys.executable, "-m", "lightning_stab", "diagnose", CPU, *DEEP, "--steps=10", "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)
    assert found["findings"][0]["id"] == "vanishing-gradient"
    assert sorted(folder.rglob("*")) == before
