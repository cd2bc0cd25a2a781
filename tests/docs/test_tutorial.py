"""The notebook is executed, and prints what is saved in it."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.doc_blocks import ROOT, assert_shown

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
SECONDS = 600  # of a busy machine; it takes half a minute


def texts(notebook):
    """Return what each cell of code has printed."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in code]


@pytest.mark.nightly
def test_the_notebook_prints_what_is_saved_in_it(tmp_path):
    pytest.importorskip("ipykernel")
    pytest.importorskip("nbconvert")
    nbformat = pytest.importorskip("nbformat")
    shutil.copy(NOTEBOOK, tmp_path / "page.ipynb")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = ["-m", "nbconvert", "--to=notebook", "--execute", "--inplace", "page.ipynb"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = nbformat.read(NOTEBOOK, as_version=4)
    run = nbformat.read(tmp_path / "page.ipynb", as_version=4)
    assert sum(map(bool, texts(saved))) >= 5
    for shown, printed in zip(texts(saved), texts(run), strict=True):
        assert_shown(shown, printed)
