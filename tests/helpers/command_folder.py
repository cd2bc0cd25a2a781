"""An empty folder for the command, which may leave neither seed nor search path behind."""

import sys
from contextlib import contextmanager

import pytest

ENVIRONMENT = {
    "PL_GLOBAL_SEED": "0",
    "PL_SEED_WORKERS": "0",
    "JSONARGPARSE_DEPRECATION_WARNINGS": "off",  # Lightning calls what newer releases rename
}


@contextmanager
def command_folder(path):
    """Work in a folder, and put back what the command changes outside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield path


def assert_refused(answer, sentence):
    """Fail unless a command, called in this process, says one sentence and no more, with code 2."""
    code, said = answer
    assert code == 2
    assert sentence in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
