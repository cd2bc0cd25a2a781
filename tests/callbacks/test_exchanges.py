"""What ranks ask of each other: counted step by step, below every way of asking."""

from collections import Counter, defaultdict

import pytest
from helpers.contract import CALLBACKS
from helpers.host_reads import Steps
from helpers.lightning_twins import built
from helpers.ranks import (
    Classifier,
    ShardedClassifier,
    ddp,
    fit_on_ranks,
    fsdp2,
    report,
    run_ranks,
    shards,
)
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_stab import GradientClipping, GradientMonitor, StepGuard

pytestmark = pytest.mark.nightly

STEPS = 46
BEFORE_OR_AFTER = ("BestWeightsEarlyStopping", "GradientCheck", "WeightInitialization")  # the steps
LOGGED = (29, 39)  # of an interval of 10
# the default intervals end at 49, and the first steps are dense
QUIET = [step for step in range(24, 44) if step not in LOGGED]
DATALESS = ("_wrap_tensor_autograd", "barrier", "monitored_barrier_", "wait_tensor")
VERDICT = ("allgather_", 12)  # bytes: loss, norm of running statistics and gradient's norm
NORMS = ("all_reduce", 16)  # of the four tensors that are sharded
COSINE, UPDATE = ("all_reduce", 24), ("all_reduce", 32)  # three sums; two of each tensor
GUARDED = ("StepGuard", "spikes", "several")
DECIDES = (*GUARDED, "GradientClipping", "clipping")  # by the norms, at each step


class Exchanges(TorchDispatchMode):
    """Counts, by training step, the collective operations and their bytes."""

    def __init__(self):
        super().__init__()
        self.step = None  # nothing is counted before the first one
        self.seen = defaultdict(list)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented  # what it does with its parts comes here again
        space, _, name = func._schema.name.partition("::")
        if self.step is not None and "c10d" in space and name not in DATALESS:
            tensors = [t for t in tree_leaves(args) if hasattr(t, "element_size")]
            size = max((t.numel() * t.element_size() for t in tensors), default=0)
            self.seen[self.step].append((name, size))
        return func(*args, **(kwargs or {}))

    def on(self, steps):
        return [pair for step in steps for pair in self.seen[step]]


WAYS = {
    "nothing": list,
    **{n: lambda m=m: [m()] for n, m in CALLBACKS.items() if n not in BEFORE_OR_AFTER},
    "spikes": lambda: [StepGuard("skip", "skip", min_window=8, window=16)],
    "norms": lambda: [GradientMonitor(10, statistics=(), dense_steps=0)],
    "statistics": lambda: [GradientMonitor(10, dense_steps=0)],
    "clipping": lambda: [GradientClipping("norm", 0.1)],
    "several": lambda: [GradientMonitor(), GradientClipping(), StepGuard("skip")],
}


def counted(ways, sharded):
    for name in ways:
        found = Exchanges()
        kind = ShardedClassifier if sharded else Classifier
        with found:
            fit_on_ranks(
                built(kind, **({} if sharded else {"batch_norm": False, "logs": False})),
                [Steps(found), *WAYS[name]()],
                shards(STEPS),
                strategy=fsdp2() if sharded else ddp(),
            )
        report(way=name, quiet=found.on(QUIET), logged=found.on(LOGGED))


@pytest.mark.parametrize(
    ("sharded", "world"),
    [
        pytest.param(False, 2, id="ddp", marks=pytest.mark.full),
        pytest.param(True, 2, id="fsdp2"),
        pytest.param(False, 4, id="ddp-4", marks=pytest.mark.full),
        pytest.param(True, 4, id="fsdp2-4", marks=pytest.mark.full),
    ],
)
def test_a_step_exchanges_what_docs_scaling_says(sharded, world, tmp_path):
    for bare, *rows in run_ranks(counted, tmp_path, list(WAYS), sharded, world=world):
        for row in rows:
            way = row["way"]
            verdict = {VERDICT: 1} if way in GUARDED else {}
            norms = {NORMS: 1} if sharded else {}
            assert more(row, bare, "quiet", QUIET) == verdict | (norms if way in DECIDES else {})
            is_read = way in DECIDES or way in ("norms", "statistics")
            entries = {COSINE: 1, UPDATE: 1} if sharded and way == "statistics" else {}
            expected = verdict | (norms if is_read else {}) | entries
            assert more(row, bare, "logged", LOGGED) == expected


def more(row, bare, name, steps):
    """Return what each of some steps exchanged beyond the bare run's, the same at each."""
    own, without = (Counter(map(tuple, each[name])) for each in (row, bare))
    found = {pair: count / len(steps) for pair, count in (own - without).items()}
    return {pair: int(count) if count == int(count) else count for pair, count in found.items()}
