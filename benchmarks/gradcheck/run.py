"""Measure the gradient check on modules whose backward is known to be right or wrong.

    python -m benchmarks.gradcheck.run                 the whole measurement, as in the docs
    python -m benchmarks.gradcheck.run --small         a few cases, for the test
    python -m benchmarks.gradcheck.run --json out.json the same numbers as json

The seeds draw the modules' weights, their batches and the directions of the check.
"""

from __future__ import annotations

import sys

from benchmarks import _script
from benchmarks.gradcheck.corpus.measure import measured
from benchmarks.gradcheck.corpus.tables import tables

_SEEDS = (101, 102, 103, 104, 105)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write the numbers."""
    parser = _script.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=_SEEDS, help="fresh seeds")
    options = parser.parse_args(argv)
    seeds = options.seeds[:1] if options.small else options.seeds
    with _script.silence():
        result = measured(seeds, small=options.small)
    print(tables(result))
    _script.write_json(options.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
