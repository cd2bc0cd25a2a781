"""Lightning's own tests of `EarlyStopping`, run with our class in its place.

They are no part of this project: the variable ``LIGHTNING_TREE`` names a work tree of Lightning
that has them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TREE = os.environ.get("LIGHTNING_TREE")
TESTS = Path(__file__).parents[2]
PLUGIN = "helpers.early_stopping_in_its_place"
FILE = "tests_pytorch/callbacks/test_early_stopping.py"
OWN_SETTINGS = ("-o", "addopts=", "-p", "no:cacheprovider", "-p", PLUGIN)  # not those of the tree


@pytest.mark.nightly
@pytest.mark.skipif(not TREE, reason="LIGHTNING_TREE names no work tree of Lightning 2.6.5")
def test_all_of_them_pass(tmp_path):
    folder = Path(TREE) / "tests"
    path = os.pathsep.join(map(str, [TESTS, TESTS.parent, folder]))
    command = [sys.executable, "-m", "pytest", FILE, "-q", "--basetemp", tmp_path / "runs"]
    ended = subprocess.run(
        [*command, *OWN_SETTINGS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert re.search(r"^53 passed", ended.stdout, re.MULTILINE), ended.stdout[-500:]
