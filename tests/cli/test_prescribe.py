"""`lightning-stab prescribe`: table, overlay, exit code; the overlay composes with `fit`."""

import json

import pytest
import yaml
from helpers.command_folder import assert_refused

from lightning_stab.cli import run

pytestmark = pytest.mark.filterwarnings("ignore")
THEIRS = """
import helpers.sick_programs as programs
from lightning.pytorch import LightningDataModule

class Module(programs.Classifier):
    pass

class Data(LightningDataModule):
    def setup(self, stage):
        self.train, self.val = programs.make_loaders()
    def train_dataloader(self):
        return self.train
    def val_dataloader(self):
        return self.val
"""
CONFIG = """
model: {class_path: theirs.Module, init_args: {sick: true}}
data: {class_path: theirs.Data}
trainer: {max_epochs: 5, accelerator: cpu, enable_progress_bar: false}
"""


@pytest.fixture
def prescribed(folder, capsys):
    (folder / "theirs.py").write_text(THEIRS)
    (folder / "my.yaml").write_text(CONFIG)

    def call(*words):
        with pytest.raises(SystemExit) as end:
            run(["prescribe", "--config", "my.yaml", *words])
        return end.value.code, capsys.readouterr()

    return call


@pytest.mark.nightly
def test_the_overlay_that_it_writes_composes_with_fit(prescribed, folder):
    words = ["--metric=val_loss", "--seeds", "1", "--max_cost=2", "--cures=[initialization]"]
    code, said = prescribed(*words)
    assert code == 0
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == [
        *("cure.yaml", "my.yaml", "theirs.py"),
    ]
    assert "`initialization` cures bad-initialization: val_loss is 0." in said.out
    assert said.out.rstrip().endswith("lightning-stab fit --config my.yaml --config cure.yaml")
    overlay = yaml.safe_load((folder / "cure.yaml").read_text())
    added = overlay["trainer"]["callbacks+"][0]
    assert added["class_path"] == "lightning_stab.WeightInitialization"
    fitted = run(["fit", "--config", "my.yaml", "--config", "cure.yaml"])
    assert float(fitted.trainer.callback_metrics["val_loss"]) < 0.3
    names = [type(callback).__name__ for callback in fitted.trainer.callbacks]
    assert {"WeightInitialization", "TrainingDoctor"} <= set(names)  # theirs stay


@pytest.mark.nightly
def test_json_and_the_exit_code_of_what_is_not_cured(prescribed, folder):
    code, said = prescribed("--json", "--seeds=1", "--max_cost=1", "--cures=[clip]")
    assert code == 1
    plain = json.loads(said.out)
    assert plain["best"] is None
    assert plain["cures"][0]["outcome"] == "no better"
    assert not (folder / "cure.yaml").exists()


@pytest.mark.nightly
def test_a_healthy_program(prescribed):
    code, said = prescribed("--model.sick=false")
    assert code == 0
    assert said.out.startswith("Nothing to cure: nothing wrong was found in 40 optimizer steps.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--metric=val_acc"], "`metric` must be a metric that the module logs, got 'val_acc'"),
        (["--max_cost=1"], "`max_cost` must be >= 3"),
        (["--model=null"], "`model` must be a module, got null"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence_and_code_2(prescribed, words, sentence):
    assert_refused(prescribed(*words), sentence)
