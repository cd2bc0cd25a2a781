"""What the fast draw of large matrices costs in accuracy: tried on small ones.

The usual draw is uniform over the orthogonal matrices; the fast one, for more than 1,024 rows and
columns, is a product of three block-diagonal ones. The digits, plain nets of 50 layers, by the
recipe of `training.py` at a learning rate of 0.03, 3 seeds.

    python -m benchmarks.initialization.fast --json benchmarks/initialization/results_fast.json
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from typing import Any

import torch

from benchmarks import _script
from benchmarks.initialization.images import load
from benchmarks.initialization.nets import ACTIVATIONS, FAST
from benchmarks.initialization.run import EPOCHS, SEEDS, run_missing

RATE, DEPTH, DEFAULT = 0.03, 50, ("relu", "sigmoid", "tanh")


def table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, a row for each net."""
    lines = [
        "| activation | width | usual draw | fast draw | difference |",
        "|---|---|---|---|---|",
    ]
    pairs = itertools.groupby(results, key=lambda r: (r["activation"], r["width"]))
    for (activation, width), pair in pairs:
        texts, means = [], []
        for result in pair:
            spread = f"{min(result['test']):.1f}-{max(result['test']):.1f}"
            texts.append(f"{result['mean']:.1f} ({spread})")
            means.append(result["mean"])
        if len(means) == 2:
            row = [activation, str(width), *texts, f"{means[1] - means[0]:+.1f}"]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the pairs that are not in the file yet, print the table; return 0."""
    parser = _script.parser(__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--activation", nargs="+", choices=ACTIVATIONS, default=list(DEFAULT))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    recipe = argparse.Namespace(grid=[RATE], seeds=SEEDS, epochs=EPOCHS)
    if options.small:
        recipe.epochs, options.width, options.activation = 1, [16], options.activation[:1]
    cells = [
        {"kind": "mlp", "data": "digits", "activation": activation, "width": width,
         "depth": 3 if options.small else DEPTH, "method": method}
        for width in options.width for activation in options.activation for method in ("auto", FAST)
    ]  # fmt: skip
    images = functools.cache(lambda data: load(data, options.small))
    print(table(run_missing(cells, images, recipe, options.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
