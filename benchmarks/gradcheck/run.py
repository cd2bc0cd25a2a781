"""Measure the gradient check on modules whose backward is known to be right or wrong.

    python -m benchmarks.gradcheck.run                 the whole measurement, as in the docs
    python -m benchmarks.gradcheck.run --small         a few cases, for the test
    python -m benchmarks.gradcheck.run --json out.json the same numbers as json

The seeds draw the modules' weights, their batches and the directions of the check.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.gradcheck.corpus.measure import measured
from benchmarks.gradcheck.corpus.tables import tables

_SEEDS = (101, 102, 103, 104, 105)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and return the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--small", action="store_true", help="every 12th case, one seed")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--seeds", type=int, nargs="+", default=_SEEDS, help="fresh seeds")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result = measured(given.seeds[:1] if given.small else given.seeds, small=given.small)
    print(tables(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
