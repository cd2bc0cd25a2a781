"""Run the scripts that draw, measure and teach, each in a process of its own.

    python scripts/nightly_scripts.py --out FOLDER            at full size, one after the other
    python scripts/nightly_scripts.py --out FOLDER --small    in a few seconds each, side by side

They are found by their folders. What they print, measure and draw is kept in FOLDER, under their
names; a benchmark that goes on where it stopped does so there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("docs/figures/*.py", "examples/*/*.py", "benchmarks/*/*.py")
PRELOADED = ["lightning.pytorch", "matplotlib.pyplot", "torch.distributed.fsdp"]
FULL = {"benchmarks.initialization.run": ["--plan"]}  # what a full size asks for by name


def scripts() -> list[str]:
    """Return the names of the modules that are scripts."""
    paths = [path for place in PLACES for path in sorted(ROOT.glob(place))]
    found = [path for path in paths if '\nif __name__ == "__main__":' in path.read_text()]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]


def results_of(script: str, folder: Path) -> Path:
    """Return where a script puts its results: a picture, a folder or a JSON file."""
    kind, *words = script.split(".")
    name = "_".join(word for word in words if word != "run")
    return folder / {"docs": f"{words[-1]}.png", "examples": name}.get(kind, f"{name}.json")


def log_of(script: str, folder: Path) -> Path:
    """Return where stands what a script has printed."""
    return folder / f"{script}.log"


def run(script: str, folder: Path, small: bool) -> int:
    """Run one script, say how it ended, and return its code."""
    results = results_of(script, folder)
    words = ["--json" if results.suffix == ".json" else "--out", str(results)]
    words += ["--small"] if small else FULL.get(script, [])
    log = log_of(script, folder)
    began = time.perf_counter()
    code = (_forked if small else _started)(script, words, log)
    if code == 0 and not results.exists():
        code = 1
        log.write_text(f"{log.read_text()}\n{results} was not written\n")
    print(f"{'ok' if code == 0 else 'FAILED':8}{script} ({time.perf_counter() - began:.0f} s)")
    if code:
        print("\n".join(log.read_text().splitlines()[-30:]), flush=True)
    return code


def _started(script: str, words: list[str], log: Path) -> int:
    """Run a script as a user would."""
    with log.open("w") as output:
        return subprocess.run(
            [sys.executable, "-m", script, *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode


def _forked(script: str, words: list[str], log: Path) -> int:
    """Run a script in a process that has Lightning already, whose import would take longer."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when the server imports it
    process = server.Process(target=_as_main, args=(script, words, log))
    process.start()
    process.join()
    return process.exitcode or 0


def _as_main(script: str, words: list[str], log: Path) -> None:
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.argv[1:] = words
    runpy.run_module(script, run_name="__main__", alter_sys=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of them; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of all results")
    parser.add_argument("--small", action="store_true", help="in their small sizes")
    options = parser.parse_args(argv)
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # At full size one at a time: they measure times, or use several processes themselves.
    at_once = (os.cpu_count() or 1) if options.small else 1
    with ThreadPoolExecutor(at_once) as pool:
        codes = list(pool.map(partial(run, folder=folder, small=options.small), scripts()))
    print(f"{len(codes)} scripts, {sum(map(bool, codes))} failed; results in {folder}", flush=True)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
