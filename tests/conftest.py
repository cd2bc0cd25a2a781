"""Fixtures that every test may use, and the record of the slowest tests."""

import sys

import pytest
import torch
from helpers import slowest
from helpers.command_folder import command_folder

# Tests that are meant for functional/, whose coverage is asked for. Tracing the others too, which
# reach the same lines by the way, would double the time of the gate.
COVERED = (
    "lightning_stab/functional/",
    "tests/functional/",
    "tests/callbacks/gradcheck/",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Trace only the tests above; pytest-cov's `no_cover` does not stop the tracer of a worker."""
    if item.nodeid.startswith(COVERED):
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


def pytest_terminal_summary(terminalreporter, config):
    slowest.show(terminalreporter, config.rootpath)


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path):
    """Work in an empty folder, where the command may leave neither seed nor search path behind."""
    with command_folder(tmp_path):
        yield tmp_path
