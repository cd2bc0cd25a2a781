"""Fixtures that every test may use, and the record of the slowest tests."""

from pathlib import Path

import pytest
import torch
from helpers import slowest
from helpers.command_folder import command_folder
from hypothesis import HealthCheck, settings

# On a busy machine an example takes seconds: no test of a law may fail for that.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_terminal_summary(terminalreporter, config):
    slowest.show(terminalreporter, config.rootpath)


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_in_the_project():
    """Fail the last test where any has written a file or folder of its own beside the sources."""
    made_by_tools = {"__pycache__", "build", "dist", "site"}
    root = Path(__file__).parents[1]
    before = {path.name for path in root.iterdir()}
    yield
    new = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    assert new - before - made_by_tools == set(), "left by a test: give it a folder of its own"


@pytest.fixture
def folder(tmp_path):
    """Work in an empty folder, where the command may leave neither seed nor search path behind."""
    with command_folder(tmp_path):
        yield tmp_path
