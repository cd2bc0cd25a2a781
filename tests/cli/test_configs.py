"""Every file in configs/ is found, runs in a small size, and survives --print_config."""

import re
from pathlib import Path

import pytest
import yaml
from helpers.tiers import in_tiers

import lightning_stab.callbacks
from lightning_stab.cli import run

pytestmark = pytest.mark.usefixtures("folder")  # where the configured loggers write
CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "base.yaml"
FILES = sorted(CONFIGS.rglob("*.yaml"))
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
    "--model.depth=2",
    "--model.width=8",
]


def name(path):
    return str(path.relative_to(CONFIGS).with_suffix(""))


def needed(path):
    """Return a file and what it stands on: every overlay stands on base.yaml."""
    return [path] if path == BASE else [BASE, path]


def words(*paths):
    return [f"--config={path}" for path in paths]


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        run(["fit", *arguments, "--print_config"])
    assert end.value.code == 0
    return capsys.readouterr().out


NAMED = {name(path): path for path in FILES}


@pytest.mark.parametrize("config", in_tiers(NAMED, ["base", "callbacks/all"]))
def test_runs_and_survives_print_config(config, capsys):
    path = NAMED[config]
    trainer = run(["fit", *words(*needed(path)), *SMALL]).trainer
    assert trainer.global_step == 2
    saved = Path(trainer.log_dir, "config.yaml")
    capsys.readouterr()
    assert printed(capsys, f"--config={saved}") == saved.read_text()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_says_in_its_first_line_what_it_is(path):
    assert re.match(r"# [A-Z].+[.:]", path.read_text().replace("\n# ", " "))


def test_overlays_compose(capsys):
    chosen = ["callbacks/gradient_monitor", "callbacks/step_guard", "model/bn_off"]
    config = yaml.safe_load(
        printed(capsys, *words(BASE, *(CONFIGS / f"{each}.yaml" for each in chosen)))
    )
    attached = [
        callback["class_path"].split(".")[-1] for callback in config["trainer"]["callbacks"]
    ]
    assert attached == ["GradientMonitor", "StepGuard"]
    assert config["model"]["init_args"]["batch_norm"] is False


@pytest.mark.parametrize("callback", lightning_stab.callbacks.__all__)
def test_each_callback_has_its_overlay(callback):
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", callback).lower()
    listed = yaml.safe_load((CONFIGS / "callbacks" / f"{file}.yaml").read_text())
    assert [each["class_path"] for each in listed["trainer"]["callbacks+"]] == [callback]


def test_all_lists_every_callback():
    listed = yaml.safe_load((CONFIGS / "callbacks" / "all.yaml").read_text())
    classes = [each["class_path"] for each in listed["trainer"]["callbacks"]]
    assert sorted(classes) == sorted(lightning_stab.callbacks.__all__)


def test_the_files_are_found():
    assert BASE in FILES
    folders = {"configs", "model", "callbacks", "experiment", "trainer"}
    assert {path.parent.name for path in FILES} == folders
