"""The programs: healthy twins drawn at random, and changes drawn for each of them.

Net, data, loss, optimizer, batch size and length are drawn by a seed, so the list is the same each
time. The parts share neither a net nor a data set.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.diagnosis.elsewhere.data import SETS, rows
from benchmarks.diagnosis.elsewhere.faults import FAULTS, HARMLESS, nets_for
from benchmarks.diagnosis.elsewhere.module import LOSSES
from benchmarks.diagnosis.elsewhere.seen_data import TARGET_SIZES

PARTS = (
    "tune",
    "validate",
    "seen",
    "seen_2",
    "seen_3",
    "seen_4",
    "seen_5",
    "seen_6",
    "seen_7",
    "seen_8",
    "seen_9",
    "seen_10",
    "seen_11",
    "report",
)
# of which about half learn enough to count
TWINS = {
    "tune": 24,
    "validate": 22,
    "seen": 36,
    "seen_2": 38,
    "seen_3": 40,
    "seen_4": 40,
    "seen_5": 40,
    "seen_6": 40,
    "seen_7": 40,
    "seen_8": 40,
    "seen_9": 40,
    "seen_10": 40,
    "seen_11": 40,
    "report": 40,
}
# what was the report part is `seen` once it was looked at; its programs stay as they were drawn
SEEDS = {
    "tune": "tune 1",
    "validate": "validate 1",
    "seen": "report 1",
    "seen_2": "report 2",
    "seen_3": "report 5",
    "seen_4": "report 157",
    "seen_5": "report 160",
    "seen_6": "report 198",
    "seen_7": "report 238",
    "seen_8": "report 258",
    "seen_9": "report 466",
    "seen_10": "report 523",
    "seen_11": "report 829",
    "report": "report 957",  # of 830, 831, ... the first by which every net is drawn
}
FAULTS_EACH, HARMLESS_EACH = 5, 2
STEPS = (60, 320)  # of a run, about
LONGER = dict.fromkeys(
    ("seen_5", "seen_6", "seen_7", "seen_8", "seen_9", "seen_10", "seen_11", "report"), (120, 480)
)  # where a twin has to reach what simple models do
RATES = {  # that suit batches of 32 and more
    "sgd": 0.1,
    "momentum": 0.03,
    "rmsprop": 2e-3,
    "adam": 4e-3,
    "adamw": 4e-3,
    "adagrad": 0.03,
    "lion": 6e-4,
}
BATCHES = (1, 2, 4, 8, 16, 32, 32, 64, 64, 128, 256, 512)


@dataclass(frozen=True)
class Drawn:
    """One program.

    Attributes:
        name: part, number of the twin, and what was changed.
        twin: the name of the program that it was drawn from; its own for a twin.
        change: the name of the change, empty for a twin.
    """

    name: str
    part: str
    twin: str
    change: str
    settings: dict[str, Any]


@cache
def programs(part: str = "") -> tuple[Drawn, ...]:
    """Return the programs of a part, or of all."""
    return tuple(p for each in PARTS if part in ("", each) for p in _drawn(each))


def _drawn(part: str) -> list[Drawn]:
    rng = random.Random(f"elsewhere {SEEDS[part]}")
    found: list[Drawn] = []
    uses = {change.name: 0 for change in FAULTS}  # each fault comes about as often as any other
    names = [name for name, row in SETS.items() if row[0] == part]
    order = rng.sample(names, len(names))
    for number in range(TWINS[part]):
        settings = _twin(rng, part, order[number % len(order)])
        twin = f"{part}/{number:02}_{settings['net']}_{settings['data']}"
        found.append(Drawn(twin, part, twin, "", settings))
        possible = [c for c in FAULTS if c.fits(settings)]
        possible.sort(key=lambda c: (uses[c.name], rng.random()))
        harmless = rng.sample([c for c in HARMLESS if c.fits(settings)], HARMLESS_EACH)
        for change in (*possible[:FAULTS_EACH], *harmless):
            if change.name in uses:
                uses[change.name] += 1
            own = {**settings, **change.draw(rng, settings)}
            found.append(Drawn(f"{twin}/{change.name}", part, twin, change.name, own))
    return found


def _twin(rng: random.Random, part: str, data: str) -> dict[str, Any]:
    _, shape, task, _ = SETS[data]
    known = rows(data)
    net = rng.choice(nets_for(part, shape))
    if task == "classes" and known.outputs == 2 and rng.random() < 0.6:
        task = "binary"
    loss = rng.choice([name for name, (own, _) in LOSSES.items() if own == task])
    if net == "keras_like" and task == "classes":
        loss = "by_hand"
    kind, batch = rng.choice(list(RATES)), rng.choice(BATCHES)
    batch = max(batch, 16) if "batchnorm" in net or net == "cnn_residual" else batch
    count = min(len(known.x), rng.choice((60, 120, 240, 480, 1000)))
    count = max(count, min(len(known.x), 12 * known.outputs if task == "classes" else 0))
    in_epoch = math.ceil(count / min(batch, count))
    wanted = math.exp(rng.uniform(*map(math.log, LONGER.get(part, STEPS))))
    epochs = max(2, min(80, round(wanted / in_epoch)))
    rate = RATES[kind] * rng.choice((0.5, 1.0, 1.5)) * min(1.0, math.sqrt(batch / 32))
    if shape in ("series", "tokens"):
        rate *= 0.7 if kind in ("sgd", "momentum") else 1.0
    optimizer = "sgd" if kind == "momentum" else kind
    return {
        "net": net,
        "data": data,
        "units": 1 if task == "binary" else known.outputs,
        "loss": loss,
        "optimizer": optimizer,
        **({"momentum": 0.9} if kind == "momentum" else {}),
        "lr": float(f"{rate:.2g}"),
        "batch": batch,
        "rows": count,
        "epochs": epochs,
        **({"targets": TARGET_SIZES[data]} if data in TARGET_SIZES else {}),
    }
