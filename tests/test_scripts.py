"""The house scripts install once, repair what failed, and say in a sentence what is missing.

Python, pip and df are stand-ins here, so that nothing is installed; scripts/test itself is what
runs with the real ones. The demo's training is real, in a small size.
"""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import demo_summary
import nightly_scripts
import pytest
import torch
from helpers import slowest
from helpers.command_folder import command_folder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]

# Answers as an interpreter would: its version, a venv that is a copy of itself, a pip that counts.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
    *version_info*) printf '%s' "${FAKE_VERSION:-3.11}" ;;
    *"import venv"*) exit "${FAKE_NO_VENV:-0}" ;;
    "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    *"pip --version"*) exit 0 ;;
    *"pip install"*) echo "$*" >>"$FAKE_CALLS"; echo "$FAKE_PIP_SAYS"; [ -z "$FAKE_PIP_SAYS" ] ;;
esac
"""
TRY = """#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
prepare_environment
echo ready
"""


class Project:
    """The scripts in a folder with a stand-in for Python, which counts the installations."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.touch()
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        (folder / "lightning_stab").mkdir()
        for name in ("pyproject.toml", "constraints.txt", "lightning_stab/_version.py"):
            shutil.copy(ROOT / name, folder / name)
        self.program("scripts/try", TRY)
        self.program("bin/python3", FAKE_PYTHON)

    def program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, script="try", **environment):
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        clean = {k: v for k, v in os.environ.items() if k != "PYTHON"}
        return subprocess.run(
            [self.folder / "scripts" / script],
            env={**clean, "PATH": path, "FAKE_CALLS": str(self.calls), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def installations(self):
        return len(self.calls.read_text().splitlines())


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def refusal(result):
    """Return the one line on stderr of a script that refused."""
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Installing")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_second_call_installs_nothing(project):
    for _ in range(2):
        result = project.run()
        assert (result.returncode, result.stdout) == (0, "ready\n"), result.stderr
    assert project.installations() == 1


def test_changed_requirements_are_installed(project):
    project.run()
    with (project.folder / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert project.run().returncode == 0
    assert project.installations() == 2


def test_a_moved_folder_is_installed_again(project, tmp_path_factory):
    project.run()
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(project.folder, moved)
    project.folder = moved
    assert project.run().returncode == 0
    assert project.installations() == 2


def test_a_failed_installation_is_repaired_by_the_next_call(project):
    assert project.run(FAKE_PIP_SAYS="ERROR: something broke").returncode != 0
    assert not (project.folder / ".venv" / "installed.stamp").exists()
    assert project.run().returncode == 0
    assert project.run().returncode == 0
    assert project.installations() == 2


def test_an_environment_without_a_working_python_is_made_anew(project):
    project.run()
    (project.folder / ".venv" / "bin" / "python").unlink()
    assert project.run().returncode == 0
    assert project.installations() == 2


def test_the_named_interpreter_is_used(project):
    project.run()
    other = project.program("bin/other", FAKE_PYTHON.replace(":-3.11", ":-3.12"))
    assert project.run(PYTHON=str(other)).returncode == 0
    assert project.installations() == 2
    assert project.run(PYTHON=str(other)).returncode == 0
    assert project.run().returncode == 0  # without a wish, what stands is good
    assert project.installations() == 2


@pytest.mark.parametrize("script", ["demo", "test", "nightly"])
@pytest.mark.parametrize("version", ["2.7", "3.10", "3.14"])
def test_a_python_that_does_not_fit_is_refused(project, script, version):
    said = refusal(project.run(script, FAKE_VERSION=version))
    assert said.startswith(f"{script}: `python3` is Python {version}, but 3.11 to 3.13 is needed")
    assert "PYTHON=" in said


def test_more_extras_are_installed_once_and_serve_for_fewer(project):
    all_of_it = project.program(
        "scripts/more", TRY.replace("environment\n", "environment dev,bench\n")
    )
    for script, installations in (("try", 1), (all_of_it.name, 2), (all_of_it.name, 2), ("try", 2)):
        assert project.run(script).returncode == 0
        assert project.installations() == installations
    assert ".[dev,bench]" in project.calls.read_text().splitlines()[-1]


def test_a_missing_python_is_refused(project):
    assert "`no-such-python` does not run" in refusal(project.run(PYTHON="no-such-python"))


def test_a_missing_venv_module_is_refused(project):
    said = refusal(project.run(FAKE_NO_VENV="1"))
    assert "no venv module" in said
    assert "python3.11-venv" in said


def test_too_little_disk_is_refused_before_anything_is_made(project):
    project.program(
        "bin/df", "#!/bin/bash\necho header; echo 'disk 9000000 7000000 2000000 78% /'\n"
    )
    assert "has 1 GB of free disk, but about 3 GB are needed" in refusal(project.run())
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("pip_says", "told"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk ran full"),
        ("WARNING: NewConnectionError('failed to resolve')", "check the network"),
        ("ERROR: No matching distribution found for torch==0", "No matching distribution"),
    ],
)
def test_what_pip_trips_over_is_told_in_a_sentence(project, pip_says, told):
    assert told in refusal(project.run(FAKE_PIP_SAYS=pip_says))


def test_the_nightly_scripts_are_found():
    found = nightly_scripts.scripts()
    assert {"benchmarks.overhead.run", "docs.figures.step_guard", "examples.lesson.run"} <= set(
        found
    )
    results = [nightly_scripts.results_of(script, Path("out")) for script in found]
    assert len(set(results)) == len(found)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # of another's import
@pytest.mark.parametrize("script", nightly_scripts.scripts())
def test_a_nightly_script_can_be_imported_and_has_a_small_size(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(script, run_name="__main__")
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "--small" in said
    assert "--json" in said or "--out" in said


SECONDS = {"tests/a.py::test[x|y]": 3.25, "tests/b.py::test": 12.0, "tests/c.py::test": 0.1}


def test_the_record_of_the_slowest_is_read_as_it_was_written():
    page = slowest.table(SECONDS)
    assert slowest.read(page) == pytest.approx(SECONDS, abs=0.06)
    assert page.index("tests/b.py") < page.index("tests/a.py")
    assert "| 15 | all 3 |" in page
    assert len(slowest.read(slowest.KEPT.read_text())) == slowest.COUNT


def test_a_slow_test_is_shown_beside_its_record():
    first, second = slowest.lines(SECONDS, {"tests/b.py::test": 9.0})
    assert "12.0 s" in first
    assert "9.0 s in the record" in first
    assert "not in the record" in second


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the folder of a small demo, and its summary by its first column."""
    small = ["--trainer.max_epochs=3", "--model.depth=2", "--model.width=16"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    with command_folder(tmp_path_factory.mktemp("demo")) as folder:
        return folder, dict(demo_summary.demo([*small, *quiet]))


def test_the_demo_sums_up_what_happened(demo):
    folder, rows = demo
    run = Path("runs", "digits", "version_0")
    assert rows["Logs"].startswith(str(run))
    assert rows["See them"].endswith(f"tensorboard --logdir {run}")
    assert (folder / run / "config.yaml").is_file()
    assert "drew 3 weights" in rows["WeightInitialization"]
    assert "passed" in rows["GradientCheck"]
    assert "gradient norm" in rows["GradientMonitor"]
    assert "of the steps (rule norm, 1)" in rows["GradientClipping"]
    assert rows["StepGuard"] == "found no bad step"
    assert rows["LearningRateDecay"].startswith("learning rate from 0.001 to 0.000")
    assert "3 checks" in rows["BestWeightsEarlyStopping"]
    assert rows["TrainingDoctor"] == "warning: too-short at step 60"  # of three epochs


def test_the_demos_figures_are_those_of_the_run(demo):
    folder, rows = demo
    run = folder / "runs" / "digits" / "version_0"
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    test = events.Scalars("test_accuracy")[-1].value
    assert f"test {test:.1%}" in rows["Accuracy"]
    rate = events.Scalars(next(t for t in events.Tags()["scalars"] if t.startswith("lr/")))[-1]
    assert rows["LearningRateDecay"].endswith(f"to {rate.value:.3g}")
    state = torch.load(next(run.rglob("*.ckpt")), weights_only=True)
    assert state["callbacks"]["WeightInitialization"]["initialized"]
