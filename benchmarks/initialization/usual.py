"""Compare the automatic initialisation with the usual one where that works, and time it.

A 24-block pre-norm transformer, a ResNet with BatchNorm and an LSTM on the handwritten digits (an
image is a sequence of 8 rows for the first and the last), 5 seeds, AdamW at 1e-3, 8 epochs in
batches of 64; the same seed gives both runs of a pair the same data order. The usual initialisation
is torch's own for the transformer and the LSTM, He's by fan-out for the ResNet.

    python -m benchmarks.initialization.usual --json FILE    all of it
    python -m benchmarks.initialization.usual --time         the times alone
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _script
from benchmarks.initialization.images import Images, load
from benchmarks.initialization.training import accuracy
from lightning_stab import initialize

SEEDS, EPOCHS, BATCH, RATE = 5, 8, 64, 1e-3
LARGE_SIDES = (*(4096,) * 7, 100)  # 101 million parameters
REPEATS = 3


class Rows(nn.Module):
    """A net that reads an 8 x 8 image as a sequence of rows."""

    def __init__(self, depth: int, width: int, *, recurrent: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        if recurrent:
            self.body: nn.Module = nn.LSTM(width, width, 2, batch_first=True)
        else:
            layer = nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, norm_first=True, batch_first=True
            )
            self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
            for part in self.body.layers:
                part.apply(_reset)  # the encoder makes copies of one layer
        self.norm = nn.Identity() if recurrent else nn.LayerNorm(width)
        self.position = nn.Parameter(torch.randn(1, 8, width) * 0.1)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        hidden = self.body(self.embed(images.view(-1, 8, 8)) + self.position)
        hidden = hidden[0][:, -1] if isinstance(hidden, tuple) else hidden.mean(1)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


def _reset(part: nn.Module) -> None:
    reset = getattr(part, "_reset_parameters", None) or getattr(part, "reset_parameters", None)
    if reset is not None:
        reset()


class Block(nn.Module):
    """Two convolutions with BatchNorm beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """Return the activated sum."""
        hidden = torch.relu(self.norms[0](self.first(images)))
        return torch.relu(images + self.norms[1](self.second(hidden)))


def resnet(depth: int, width: int) -> nn.Module:
    """Return a ResNet with He's initialisation by fan-out."""
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(Block(width) for _ in range(depth)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)),
    )
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return net


NETS: dict[str, Callable[[bool], nn.Module]] = {
    "lstm": lambda small: Rows(0, 16 if small else 64, recurrent=True),
    "resnet": lambda small: resnet(1 if small else 4, 8 if small else 16),
    "transformer": lambda small: Rows(2 if small else 24, 16 if small else 32, recurrent=False),
}


def trained(net: nn.Module, images: Images, seed: int, epochs: int) -> float:
    """Train on the digits; return the test accuracy."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, foreach=True)
    values, classes = images.train
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(values), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(values[chosen]), classes[chosen]).backward()
            optimizer.step()
    return accuracy(net, images.test)


def compare(name: str, images: Images, options: argparse.Namespace) -> dict[str, Any]:
    """Return the accuracies of both initialisations, and their paired difference."""
    pairs: list[tuple[float, float]] = []
    for seed in range(options.seeds):
        results = []
        for automatic in (False, True):
            torch.manual_seed(seed)
            net = NETS[name](options.small)
            if automatic:
                initialize(net, images.train[0][:256], seed=seed)
            results.append(trained(net, images, seed, options.epochs))
        pairs.append((results[0], results[1]))
        print(name, seed, pairs[-1], flush=True)
    differences = [ours - usual for usual, ours in pairs]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return {
        "net": name,
        "epochs": options.epochs,
        "usual": [usual for usual, _ in pairs],
        "auto": [ours for _, ours in pairs],
        "difference": round(statistics.mean(differences), 3),
        "standard_error": round(error, 3),
    }


def timing(sides: tuple[int, ...]) -> dict[str, float]:
    """Return the CPU seconds for a large plain ReLU net: primitives, a forward, and ours."""
    layers = [nn.Linear(a, b) for a, b in pairwise(sides)]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    batch = torch.randn(64, sides[0])

    def clocked(action: Callable[[], Any], repeats: int = REPEATS) -> float:
        """Return the least of a few times, because other programs can only add to it."""
        times = []
        for _ in range(repeats):
            started = time.process_time()
            action()
            times.append(time.process_time() - started)
        return round(min(times), 2)

    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "orthogonal": clocked(lambda: [nn.init.orthogonal_(x.weight) for x in layers], 1),
        "xavier_normal": clocked(lambda: [nn.init.xavier_normal_(x.weight) for x in layers]),
        "forward": clocked(lambda: net(batch)),
        "auto with a batch": clocked(lambda: initialize(net, batch)),
        "auto without a batch": clocked(lambda: initialize(net)),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the chosen comparisons; return 0."""
    parser = _script.parser(__doc__)
    parser.add_argument("--net", nargs="*", choices=NETS, default=list(NETS))
    parser.add_argument("--time", action="store_true", help="the times alone")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.small:
        options.seeds, options.epochs = 2, 1
    results: dict[str, Any] = _script.read_json(options.json, {})
    if options.time or "time" not in results:
        results["time"] = timing((64, 64, 10) if options.small else LARGE_SIDES)
        print(results["time"])
        _script.write_json(options.json, results)
    images = load("digits", options.small)
    for name in [] if options.time else options.net:
        if name in results:
            continue
        results[name] = compare(name, images, options)
        print(results[name], flush=True)
        _script.write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
