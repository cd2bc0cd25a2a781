"""What the page on several nodes shows is started by torchrun, with processes on a CPU as nodes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.doc_blocks import ROOT, blocks

PAGE = ROOT / "docs" / "distributed.md"
CONFIG = ROOT / "configs" / "trainer" / "any_size.yaml"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
GIVE_UP = 300  # seconds; a run takes 20


def torchrun(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PL_")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*launchers):
    """Return what launchers printed, all of which must end well."""
    try:
        said = [launcher.communicate(timeout=GIVE_UP)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0] * len(launchers), said
    return said


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


def test_the_configuration_of_the_page_is_the_projects():
    shown = next(block for block in blocks(PAGE) if block.language == "yaml")
    assert yaml.safe_load(shown.text) == yaml.safe_load(CONFIG.read_text())


@pytest.mark.nightly
def test_two_nodes_train_as_one(tmp_path):
    options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=page"]
    options += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "-m", "lightning_stab", "fit"]
    options += [f"--config={path}" for path in (ROOT / "configs" / "base.yaml", CONFIG)]
    options += [*CPU, "--trainer.num_nodes=2", "--trainer.max_epochs=1"]
    options += ["--trainer.callbacks+=StepGuard", "--trainer.callbacks+=GradientMonitor"]
    said = ended(*[torchrun(tmp_path, *options) for _ in range(2)])
    assert any("MEMBER: 1/2" in each for each in said)
    assert any("MEMBER: 2/2" in each for each in said)
    assert [path.name for path in Path(tmp_path, "runs").iterdir()] == ["version_0"]


@pytest.mark.nightly
def test_the_sharded_program_trains_on_two_ranks(tmp_path):
    program = next(block for block in blocks(PAGE) if block.language == "python")
    tmp_path.joinpath("train.py").write_text(program.text)
    (said,) = ended(torchrun(tmp_path, "--standalone", "--nproc-per-node=2", "train.py"))
    steps = dict(re.findall(r"rank (\d) of 2 took (\d+) steps", said))
    assert steps == {"0": "20", "1": "20"}  # half of 20 batches each, in two epochs
