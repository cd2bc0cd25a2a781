"""Poisoned batches against `StepGuard`: a table on the terminal, and `--json FILE`.

Each run trains a small net with batch normalisation on scikit-learn's digits, one optimizer step
per batch. Into the sequence of good batches, bad ones are put: a NaN or an infinity in one entry,
features times 1e30, or a burst of wrong labels; at 1, 5 and 20 % of the steps, the first of them
among the first 30. The twin is the run from which those batches were left out, without a guard.

    python -m benchmarks.faults.run [--seeds 5] [--small] [--json faults.json]
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import _script
from lightning_stab import StepGuard

KINDS = ("nan", "inf", "1e30", "labels")
RATES = (0.01, 0.05, 0.2)
POLICIES = ("skip", "rewind")
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD momentum": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=2e-3),
    "AdamW fused": lambda params: torch.optim.AdamW(params, lr=2e-3, fused=True),
}
BATCH_SIZE = 32
Batch = tuple[Tensor, Tensor]


class Subject(pl.LightningModule):
    """Two hidden layers with batch normalisation, and a cosine schedule by step."""

    def __init__(self, optimizer: str, num_steps: int) -> None:
        super().__init__()
        self.kind, self.num_steps = optimizer, num_steps
        self.error = ""
        self.final: Any = None
        self.net = nn.Sequential(
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
            nn.Linear(64, 10),
        )  # fmt: skip

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Return the optimizer and a schedule by step."""
        optimizer = OPTIMIZERS[self.kind](self.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Batches(Dataset[Batch]):
    """Ready-made batches in a fixed order."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = _script.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="good batches per run")
    options = parser.parse_args(argv)
    seeds, steps = (1, 120) if options.small else (options.seeds, options.steps)
    optimizers = ["Adam"] if options.small else list(OPTIMIZERS)
    with _script.silence():
        runs = [
            run
            for optimizer in optimizers
            for seed in range(seeds)
            for run in _runs_of(optimizer, seed, steps, (0.05,) if options.small else RATES)
        ]
    rows = summarise(runs)
    title = "points: test accuracy above the twin's, worst optimizer's median of seeds"
    _script.print_table(rows, title, width=120)
    _script.write_json(options.json, {"rows": rows, "runs": runs})
    return 0


def _runs_of(optimizer: str, seed: int, steps: int, rates: tuple[float, ...]) -> list[Any]:
    good, test = digit_batches(seed, steps)
    twin, _ = fit(optimizer, seed, good, steps, None)
    twin_accuracy = accuracy(twin, test)
    twin_state = state_of(twin)
    runs = []
    for policy in POLICIES:
        healthy, guard = fit(optimizer, seed, good, steps, StepGuard(policy, policy))
        base = {"optimizer": optimizer, "seed": seed, "policy": policy}
        runs.append(
            {**base, "kind": "none", "rate": 0.0, **_outcome(healthy, guard, test, twin_accuracy)}
        )
        for kind in KINDS:
            for rate in rates:
                sequence = poisoned(good, kind, rate, seed)
                spikes = "ignore" if kind in ("nan", "inf") else policy
                module, guard = fit(optimizer, seed, sequence, steps, StepGuard(policy, spikes))
                outcome = _outcome(module, guard, test, twin_accuracy)
                same = all(
                    torch.equal(a, b) for a, b in zip(state_of(module), twin_state, strict=True)
                )
                planted = len(sequence) - len(good)
                runs.append(
                    {**base, "kind": kind, "rate": rate, "planted": planted, **outcome}
                    | {"bit_identical": same}
                )
    return runs


def _outcome(module: Subject, guard: Any, test: Batch, twin_accuracy: float) -> dict[str, Any]:
    error = module.error
    return {
        "points": 100 * (accuracy(module, test) - twin_accuracy),
        "skipped": guard.num_skipped,
        "rewound": guard.num_rewound,
        "finite": all(bool(torch.isfinite(t.double()).all()) for t in state_of(module)),
        "raised": error,
    }


def digit_batches(seed: int, steps: int) -> tuple[list[Batch], Batch]:
    """Return a shuffled sequence of training batches and the test set, both standardised."""
    images, labels = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    features, classes = torch.tensor(images).float()[order], torch.tensor(labels).long()[order]
    features = (features - features[:1300].mean()) / features[:1300].std()
    batches: list[Batch] = []
    while len(batches) < steps:
        chosen = torch.randperm(1300, generator=generator)[: 1300 // BATCH_SIZE * BATCH_SIZE]
        batches += [(features[i], classes[i]) for i in chosen.split(BATCH_SIZE)]
    return batches[:steps], (features[1300:], classes[1300:])


def poisoned(good: list[Batch], kind: str, rate: float, seed: int) -> list[Batch]:
    """Return the sequence with bad batches put in: a share ``rate`` of all, one early."""
    generator = torch.Generator().manual_seed(1000 + seed)
    count = max(1, round(rate * len(good) / (1 - rate)))
    length = len(good) + count
    places = {int(torch.randint(30, (1,), generator=generator))}
    while len(places) < count:
        places.add(int(torch.randint(length, (1,), generator=generator)))
    rest = iter(good)
    return [
        _bad_batch(good[place % len(good)], kind, generator) if place in places else next(rest)
        for place in range(length)
    ]


def _bad_batch(batch: Batch, kind: str, generator: torch.Generator) -> Batch:
    features, classes = batch[0].clone(), batch[1].clone()
    if kind == "labels":
        return features, (classes + 1 + torch.randint(9, (1,), generator=generator)) % 10
    if kind == "1e30":
        return features * 1e30, classes
    features[0, 20] = math.nan if kind == "nan" else math.inf
    return features, classes


def fit(
    optimizer: str, seed: int, batches: list[Batch], num_good: int, guard: StepGuard | None
) -> tuple[Subject, StepGuard | None]:
    """Train once over the batches in their order."""
    pl.seed_everything(seed, verbose=False)
    module = Subject(optimizer, num_good)
    callbacks = [guard] if guard else []
    trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, **_script.QUIET)
    try:
        trainer.fit(module, DataLoader(Batches(batches), batch_size=None))
    except Exception as error:  # whatever is raised is a result of this benchmark
        module.error = f"{type(error).__name__}: {error}"
    module.final = trainer.optimizers[0]
    return module, guard


def state_of(module: Subject) -> list[Tensor]:
    """Return weights, buffers and the optimizer's tensors."""
    slots = [t for s in module.final.state.values() for t in s.values() if isinstance(t, Tensor)]
    return [*module.state_dict().values(), *slots]


@torch.no_grad()
def accuracy(module: Subject, test: Batch) -> float:
    """Return the accuracy on the test set, in [0, 1]."""
    return float((module.eval().net(test[0]).argmax(1) == test[1]).float().mean())


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per policy, kind and rate, over optimizers and seeds."""
    keys = sorted({(r["policy"], r["kind"], r["rate"]) for r in runs}, key=_order)
    rows = []
    for policy, kind, rate in keys:
        same = [r for r in runs if (r["policy"], r["kind"], r["rate"]) == (policy, kind, rate)]
        by_optimizer = {
            o: statistics.median(r["points"] for r in same if r["optimizer"] == o)
            for o in {r["optimizer"] for r in same}
        }
        rows.append(
            {
                "policy": policy,
                "poison": kind,
                "rate": rate,
                "runs": len(same),
                "worst_median_points": min(by_optimizer.values()),
                "bit_identical": sum(bool(r.get("bit_identical")) for r in same),
                "planted": sum(r.get("planted", 0) for r in same),
                "skipped": sum(r["skipped"] for r in same),
                "rewound": sum(r["rewound"] for r in same),
                "all_finite": sum(r["finite"] for r in same),
                "raised": sum(bool(r["raised"]) for r in same),
            }
        )
    return rows


def _order(key: tuple[str, str, float]) -> tuple[Any, ...]:
    policy, kind, rate = key
    return (POLICIES.index(policy), ("none", *KINDS).index(kind), rate)


if __name__ == "__main__":
    sys.exit(main())
