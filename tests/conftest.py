"""Fixtures that every test may use, and the record of the slowest tests."""

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


@pytest.fixture
def folder(tmp_path):
    """Work in an empty folder, where the command may leave neither seed nor search path behind."""
    with command_folder(tmp_path):
        yield tmp_path
