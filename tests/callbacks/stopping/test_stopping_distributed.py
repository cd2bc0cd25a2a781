"""Two processes on gloo that stop and decay together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    command = [sys.executable, str(TESTS / "helpers" / "stopping_processes.py"), str(folder)]
    processes = [
        subprocess.Popen(
            command,
            env={**shared, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_one_process_decides_and_both_know_why(found):
    first, second = (each["ddp"] for each in found)
    assert first == second
    assert first["reason"] == "not_finite"
    assert first["enum"] == "NON_FINITE_METRIC"
    assert "is not finite" in first["message"]
    assert first["step"] == 5 * 4


def test_both_processes_restore_the_weights_of_the_same_check(found):
    assert [each["ddp"]["places"] for each in found] == [[2], [2]]


def test_both_processes_decay_by_the_mean_of_their_metrics(found):
    # "own" never falls after its first value, so that each later validation cuts.
    assert [each["ddp"]["rate"] for each in found] == [pytest.approx(0.05 * 0.5**4)] * 2


@pytest.mark.parametrize("distributed", [False, True], ids=["one file", "a file for each"])
def test_sharded_weights_come_back(found, distributed):
    for each in found:
        sharded = each[f"fsdp2-{distributed}"]
        assert sharded["places"] == [2]


@pytest.mark.parametrize("distributed", [False, True], ids=["one file", "a file for each"])
def test_sharded_weights_come_back_from_a_checkpoint(found, distributed):
    for each in found:
        sharded = each[f"fsdp2-{distributed}"]
        assert sharded["after"] == 1  # one more check, and the best was before the checkpoint
        assert sharded["same"]
        assert len(set(sharded["summaries"])) == 1
