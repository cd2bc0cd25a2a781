"""Two processes on gloo: the first looks at its own batch, and neither trains otherwise."""

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
    command = [sys.executable, str(TESTS / "helpers" / "activation_processes.py"), str(folder)]
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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_the_first_process_logs_and_the_run_is_the_unwatched_one(found, strategy):
    first, second = (each[strategy] for each in found)
    for watched, plain in (first, second):
        assert watched["weights"] == plain["weights"]
        assert watched["hooks"] == plain["hooks"]
    assert first[0]["weights"] == second[0]["weights"]
    assert list(first[0]["logged"]) == ["2", "5"]
    assert {"activation_std/net.2", "activation_std/gelu"} <= set(first[0]["logged"]["2"])
    assert second[0]["logged"] == {}
