"""What the scripts of the benchmarks, the pictures and the lesson leave in their small size."""

import json
import os
import tempfile
from functools import cache
from pathlib import Path

import nightly_scripts


@cache
def small_run(script):
    """Return the folder that holds a script's results and its log.

    `scripts/nightly --ci` has run all of them before the tests; otherwise the script runs now.
    """
    if "NIGHTLY_SMALL_RESULTS" in os.environ:
        return Path(os.environ["NIGHTLY_SMALL_RESULTS"])
    folder = Path(tempfile.mkdtemp(prefix="small-run-"))
    code = nightly_scripts.run(script, folder, small=True)
    assert code == 0, printed(script, folder)
    return folder


def results(script):
    """Return where a script's results are."""
    return nightly_scripts.results_of(script, small_run(script))


def numbers(script):
    """Return what a script wrote as JSON."""
    return json.loads(results(script).read_text())


def printed(script, folder=None):
    """Return what a script printed."""
    return nightly_scripts.log_of(script, folder or small_run(script)).read_text()
