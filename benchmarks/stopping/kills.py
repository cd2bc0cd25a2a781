"""Runs that are killed with SIGKILL at a random point and then resumed.

Each run is a process of its own, forked so that nothing has to be imported again. It saves a
checkpoint after every step, except after the last of an epoch, behind which Lightning would resume
without the validation, and at the end of every epoch.

    python -m benchmarks.stopping.kills [--kills 24] [--small] [--json FILE]
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from benchmarks._script import parser, silence, write_json
from benchmarks.stopping.tasks import TASKS
from benchmarks.stopping.training import Batches, CountingIO, Learner, make_trainer, whole
from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

TASK = next(task for task in TASKS if task.name == "diabetes")
EPOCHS = 40
PLACES = (
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_train_epoch_end",
    "saving",
)


@dataclass(frozen=True)
class Outcome:
    """How a killed and resumed run ended, beside the whole one."""

    step: int
    place: str
    resumed_at: int
    killed: bool
    weights: bool
    best_metric: bool
    stopping_step: bool

    @property
    def identical(self) -> bool:
        """Whether everything is the same, and the run was really killed."""
        return self.killed and self.weights and self.best_metric and self.stopping_step

    def sentence(self) -> str:
        """Return it in words."""
        words = "identical" if self.identical else f"DIFFERENT: {self}"
        moment = f"the first {self.place} from step {self.step} on"
        return f"killed in {moment}, resumed at step {self.resumed_at}: {words}"


class Save(Checkpoint):
    """Keeps the newest checkpoint under one name; a kill while writing leaves the one before."""

    def __init__(self, path: Path, kill: Kill | None) -> None:
        self.path, self.kill = path, kill

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after each step but the last of an epoch."""
        if batch_idx + 1 < trainer.num_training_batches:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Save at the end of an epoch."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write beside the old checkpoint, then over it."""
        half = self.path.with_suffix(".half")
        trainer.save_checkpoint(half, weights_only=False)
        if self.kill is not None:
            self.kill.at("saving", trainer)
        os.replace(half, self.path)


class Kill(Callback):
    """Ends this very process with SIGKILL at a step and place."""

    def __init__(self, step: int, place: str) -> None:
        self.step, self.place = step, place

    def at(self, place: str, trainer: Trainer) -> None:
        """Die if this is the place and the step has come."""
        if place == self.place and trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattribute__(self, name: str) -> Any:
        if name in PLACES:
            return lambda trainer, *args, **kwargs: self.at(name, trainer)
        return super().__getattribute__(name)


def main(argv: list[str] | None = None) -> int:
    """Kill and resume, print each outcome, and fail if one differs."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=24, help="how many runs are killed")
    given = options.parse_args(argv)
    outcomes = kill_and_resume(3 if given.small else given.kills)
    for outcome in outcomes:
        print(outcome.sentence())
    same = sum(outcome.identical for outcome in outcomes)
    print(f"{same} of {len(outcomes)} killed runs ended like the whole one, bit for bit")
    write_json(given.json, [asdict(outcome) for outcome in outcomes])
    return 0 if same == len(outcomes) else 1


@silence()
def train(folder: Path, kill: Kill | None) -> None:
    """Train from the newest checkpoint, if there is one; write how the run ended."""
    split = TASK.split(0)
    module = Learner(TASK, split, seed=0)
    stop = BestWeightsEarlyStopping("val_loss", patience=8)
    decay = LearningRateDecay("plateau", monitor="val_loss", patience=3, reload_best=True)
    newest = folder / "newest.ckpt"
    begins = json.loads((folder / "at.json").read_text()) if (folder / "at.json").exists() else {}
    callbacks = [*([kill] if kill else []), decay, stop, Save(newest, kill)]
    trainer = make_trainer(str(folder), EPOCHS, callbacks, CountingIO())
    ckpt = newest if newest.exists() else None
    trainer.fit(module, Batches(split.train, 0), whole(split.val), ckpt_path=ckpt)
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    ended = {
        "weights": digest.hexdigest(),
        "best_metric": float(stop.best_score).hex(),
        "stopping_step": trainer.global_step,
        "reason": stop.stop_reason,
        **begins,
    }
    (folder / "ended.json").write_text(json.dumps(ended))


def in_process(folder: Path, kill: Kill | None = None) -> int:
    """Train in a process of its own; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, kill))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def kill_and_resume(kills: int, seed: int = 0) -> list[Outcome]:
    """Train once as a whole, and then kill so many runs at random and resume them."""
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        unbroken = ended_in(Path(root) / "whole")
        outcomes = []
        for number in range(kills):
            step = generator.randrange(unbroken["stopping_step"])
            kill = Kill(step, PLACES[number % len(PLACES)])
            outcomes.append(one_kill(Path(root) / str(number), kill, unbroken))
    return outcomes


def one_kill(folder: Path, kill: Kill, unbroken: dict[str, Any]) -> Outcome:
    """Kill a run, resume it, and compare its end with that of the whole run."""
    folder.mkdir()
    killed = in_process(folder, kill) == -signal.SIGKILL
    resumed_at = step_of(folder / "newest.ckpt")
    end = ended_in(folder)
    same = {
        name: end[name] == unbroken[name] for name in ("weights", "best_metric", "stopping_step")
    }
    return Outcome(kill.step, kill.place, resumed_at, killed, **same)


def ended_in(folder: Path) -> dict[str, Any]:
    """Train to the end in a folder, and return how the run ended."""
    folder.mkdir(exist_ok=True)
    code = in_process(folder)
    if code:
        raise RuntimeError(f"the run in {folder} ended with code {code}")
    result: dict[str, Any] = json.loads((folder / "ended.json").read_text())
    return result


def step_of(path: Path) -> int:
    """Return the step of a checkpoint, 0 where there is none."""
    import torch

    return int(torch.load(path, weights_only=True)["global_step"]) if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
