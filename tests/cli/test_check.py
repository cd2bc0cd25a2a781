"""`lightning-stab check`: the gradient check alone, for the suite's and for anybody's module."""

import json

import pytest

from lightning_stab.cli import run

THEIRS = """
import torch
from helpers.gradcheck_modules import ScaledLinear
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset

class Theirs(LightningModule):
    def __init__(self, wrong: bool = False):
        super().__init__()
        self.layer = ScaledLinear(4, 2, 0.5 if wrong else 1.0)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def train_dataloader(self):
        data = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(data), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


@pytest.fixture
def their_folder(folder, monkeypatch):
    (folder / "their_check.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def checked(*words):
    with pytest.raises(SystemExit) as stop:
        run(["check", *words])
    return stop.value.code


def test_the_suites_own_model_passes_and_nothing_is_left_behind(their_folder, capsys):
    before = sorted(their_folder.iterdir())
    assert checked("--model.depth=1", "--model.width=8") == 0
    assert "Gradient check passed" in capsys.readouterr().out
    assert sorted(p for p in their_folder.iterdir() if p.name != "__pycache__") == before


def test_a_wrong_backward_gives_code_1_and_its_function_is_named(their_folder, capsys):
    assert checked("--model=their_check.Theirs", "--model.wrong=true") == 1
    out = capsys.readouterr().out
    assert "wrong" in out
    assert "ScaledMatmul" in out


def test_json_holds_a_report_for_each_batch(their_folder, capsys):
    assert checked("--model=their_check.Theirs", "--batches=2", "--json") == 0
    reports = json.loads(capsys.readouterr().out)
    assert len(reports) == 2
    verdicts = {r["name"]: r["verdict"] for r in reports[0]["parameters"]}
    assert verdicts == {"layer.weight": "ok", "layer.bias": "ok"}


def test_a_config_says_what_is_checked(their_folder, capsys):
    (their_folder / "theirs.yaml").write_text(
        "model:\n  class_path: their_check.Theirs\n  init_args:\n    wrong: true\n"
    )
    assert checked("--config=theirs.yaml") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batches=0"], "`batches` must be an integer >= 1, got 0"),
        (["--nothing"], "there is no option `--nothing`"),
    ],
)
def test_bad_words_are_one_sentence(their_folder, capsys, words, sentence):
    assert checked(*words) == 2
    assert sentence in capsys.readouterr().err


def test_a_configuration_that_fit_saved_is_taken(their_folder):
    saved = their_folder / "config.yaml"
    saved.write_text("ckpt_path: null\nseed_everything: 1\n")
    assert checked("--config", str(saved)) == 0
