"""What early stopping costs and brings: ten tasks, five seeds, five ways to end a run.

python -m benchmarks.stopping.run            the table
python -m benchmarks.stopping.run --small    a small table
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from benchmarks import _script
from benchmarks.stopping.tasks import TASKS, Split, Task
from benchmarks.stopping.training import (
    Batches,
    CountingIO,
    Learner,
    make_trainer,
    test_score,
    whole,
)
from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

ARMS = ("none", "lightning", "ours", "ours, burn-in", "ours + decay")
LONGEST = 300  # epochs of the runs that find the budget
PILOT_SEEDS = (100, 101, 102)
PATIENCE_SHARE = 0.1  # of the budget, so that a run which is best at half of it ends at 60 %
BURN_IN_SHARE = 0.3  # of the budget: a flat start is not the end of learning


@dataclass(frozen=True)
class Result:
    """One run."""

    task: str
    arm: str
    seed: int
    budget: int
    score: float
    best_val_loss: float
    steps_share: float
    writes: int
    files: int


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = _script.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm on each task")
    names = [task.name for task in TASKS]
    parser.add_argument("--tasks", nargs="+", default=names, choices=names, metavar="TASK")
    args = parser.parse_args(argv)
    chosen = [task for task in TASKS if task.name in args.tasks]
    tasks, seeds = (TASKS[3:6:2], 1) if args.small else (chosen, args.seeds)
    longest = 30 if args.small else LONGEST
    results: list[Result] = []
    for task in tasks:
        with _script.silence():
            results += run_task(task, seeds, longest)
        # after every task, so that a run that breaks has kept the others
        _script.write_json(args.json, [asdict(r) for r in results])
    print_table(results)
    return 0


def run_task(task: Task, seeds: int, longest: int) -> list[Result]:
    """Fix the budget with other seeds, then run every arm with every seed."""
    best = [best_epoch(task, seed, longest) for seed in PILOT_SEEDS[: max(1, min(3, seeds))]]
    budget = max(4, 2 * round(median(best)))
    results = [run_arm(task, arm, seed, budget) for seed in range(seeds) for arm in ARMS]
    print(f"{task.name}: budget {budget} epochs", file=sys.stderr, flush=True)
    return results


def best_epoch(task: Task, seed: int, longest: int) -> int:
    """Return the epoch, from 1, with the best validation loss of a run that nothing stops."""
    module, _, _ = fit(task, seed, longest, [])
    return module.val_losses.index(min(module.val_losses)) + 1


def callbacks_of(arm: str, budget: int, folder: str) -> list[Any]:
    """Return the callbacks of an arm; all wait equally long."""
    patience = max(2, round(PATIENCE_SHARE * budget))
    if arm == "lightning":
        stop = EarlyStopping("val_loss", patience=patience)
        return [stop, ModelCheckpoint(folder, monitor="val_loss", save_weights_only=True)]
    if arm == "ours":
        return [BestWeightsEarlyStopping("val_loss", patience=patience)]
    burn_in = round(BURN_IN_SHARE * budget)
    stop = BestWeightsEarlyStopping("val_loss", patience=patience, warmup_checks=burn_in)
    if arm == "ours, burn-in":
        return [stop]
    if arm == "ours + decay":
        return [LearningRateDecay("cosine"), stop]
    return []


def run_arm(task: Task, arm: str, seed: int, budget: int) -> Result:
    """Train once, and measure what the arm ends with."""
    module, trainer, files = fit(task, seed, budget, arm)
    full = budget * trainer.num_training_batches
    return Result(
        task.name,
        arm,
        seed,
        budget,
        test_score(module, task.split(seed).test),
        min(module.val_losses),
        trainer.global_step / full,
        trainer.strategy.checkpoint_io.writes,
        files,
    )


def fit(task: Task, seed: int, epochs: int, arm: Any) -> tuple[Learner, Any, int]:
    """Train an arm in a folder of its own; return the module, the Trainer and the files left."""
    split: Split = task.split(seed)
    module = Learner(task, split, seed)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = callbacks_of(arm, epochs, folder) if arm else []
        trainer = make_trainer(folder, epochs, callbacks, CountingIO())
        trainer.fit(module, Batches(split.train, seed), whole(split.val))
        if arm == "lightning":
            saved = torch.load(callbacks[1].best_model_path, weights_only=True)
            module.load_state_dict(saved["state_dict"])
        files = sum(path.is_file() for path in Path(folder).rglob("*"))
    return module, trainer, files


def print_table(results: list[Result]) -> None:
    """Print mean test scores with their spread over seeds, and the share of the budget used."""
    heads = ["task", "metric", "budget", *ARMS, *(f"steps, {arm}" for arm in ARMS[1:])]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    metrics = {task.name: task.metric for task in TASKS}
    for name in dict.fromkeys(r.task for r in results):
        own = {arm: [r for r in results if (r.task, r.arm) == (name, arm)] for arm in ARMS}
        scores = [spread([r.score for r in own[arm]]) for arm in ARMS]
        steps = [f"{mean(r.steps_share for r in own[arm]):.0%}" for arm in ARMS[1:]]
        cells = [name, metrics[name], str(own[ARMS[0]][0].budget), *scores, *steps]
        print("| " + " | ".join(cells) + " |")
    print_summary(results)


def print_summary(results: list[Result]) -> None:
    """Print what holds over all tasks."""
    print()
    reload = {(r.task, r.seed): r for r in results if r.arm == "lightning"}
    for arm in ARMS:
        own = [r for r in results if r.arm == arm]
        gain = mean(r.score - reload[r.task, r.seed].score for r in own)
        equal = sum(r.score == reload[r.task, r.seed].score for r in own)
        print(
            f"{arm}: mean score {mean(r.score for r in own):.4f}, {gain:+.4f} against the reload "
            f"(equal in {equal} of {len(own)} runs), {mean(r.steps_share for r in own):.0%} of the "
            f"steps, {mean(r.writes for r in own):.1f} checkpoint writes a run"
        )


def spread(scores: list[float]) -> str:
    """Return mean and standard deviation."""
    return f"{mean(scores):.3f} ± {stdev(scores):.3f}" if len(scores) > 1 else f"{scores[0]:.3f}"


if __name__ == "__main__":
    sys.exit(main())
