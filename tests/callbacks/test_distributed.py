"""Two gloo processes: equal decisions, the true global norm, and no deadlock.

Each test starts a script twice, once per rank, and reads what rank 0 and rank 1 printed as JSON.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1]
SECONDS = 90  # a deadlock would wait for half an hour

COMMON = """
import faulthandler, hashlib, json, logging, math, os, sys, warnings
faulthandler.dump_traceback_later(60, exit=True)  # a deadlock shows where it waits
warnings.simplefilter("ignore")
logging.disable(logging.INFO)
import torch, lightning.pytorch as lightning
from torch import nn
from helpers.lightning_twins import Classifier, RecordingLogger, batches, built
from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.errors import UnstableStepError

torch.set_num_threads(1)
RANK = int(os.environ["LOCAL_RANK"])
NAN = float("nan")

def trainer(strategy, callbacks, **arguments):
    quiet = dict(max_epochs=1, accelerator="cpu", devices=2, logger=RecordingLogger(),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False)
    return lightning.Trainer(strategy=strategy, callbacks=callbacks, **{**quiet, **arguments})

def shards(num=12, poison=(), drop=(), rank=None):
    '''Each rank's own batches; those of `poison` are bad on rank 1 alone.'''
    loader = batches(2 * num)
    x, y = (t[RANK::2].clone() for t in loader.dataset.tensors)
    for place in poison:
        if RANK == 1:
            x[place, 0, 0] = NAN
    kept = [i for i in range(num) if i not in drop]
    data = torch.utils.data.TensorDataset(x[kept], y[kept])
    return torch.utils.data.DataLoader(data, batch_size=None)

def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

def weights(module):
    '''A fingerprint of the whole weights: equal if and only if every bit is.'''
    parts = [whole(p.detach()).numpy().tobytes() for p in module.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest()

def report(**facts):
    print("FACTS" + json.dumps(facts), flush=True)
"""

FULLY_SHARDED = """
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

class Sharded(Classifier):
    '''Batch norm is left out: its statistics differ per rank.'''
    def __init__(self, optimizer="adam"):
        super().__init__(optimizer, batch_norm=False, logs=False)
    def configure_model(self):
        if self.device_mesh is not None and not getattr(self, "done", False):
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.net[0], mesh=mesh)
            fully_shard(self.net[4], mesh=mesh)
            fully_shard(self, mesh=mesh)
            self.done = True

def strategy():
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1,
        process_group_backend="gloo")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(script, tmp_path):
    """Run the script on two ranks and return what each reported."""
    path = tmp_path / "ranks.py"
    path.write_text(COMMON + script)
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "test",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(path)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=SECONDS)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    facts = []
    for rank, text in zip(ranks, said, strict=True):
        assert rank.returncode == 0, "\n".join(part[-3000:] for part in said)
        lines = [line for line in text.splitlines() if line.startswith("FACTS")]
        facts.append([json.loads(line.removeprefix("FACTS")) for line in lines])
    return facts


def test_data_parallel_ranks_decide_alike(tmp_path):
    first, second = run_ranks(DDP, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one == other, one["name"]
    facts = {fact.pop("name"): fact for fact in first}
    assert facts["monitored"] == facts["plain"]
    assert facts["clipped"] == facts["lightning"]
    assert facts["skip"]["skipped"] == 3
    assert facts["skip"]["weights"] == facts["dropped"]["weights"]
    assert facts["accumulated"]["skipped"] == 1
    assert facts["rewind"]["rewound"] == 1
    assert "non-finite loss" in facts["raise"]["error"]
    assert "On rank 1: The first non-finite output is that of 'net.0'" in facts["raise"]["error"]
    assert "non-finite loss" in facts["budget"]["error"]
    assert facts["budget"]["skipped"] == 2
    assert facts["spike"]["skipped"] == 1


DDP = """
def run(name, callbacks=(), data=None, make=lambda: built(Classifier, "adam", logs=False), **more):
    module, error = make(), ""
    try:
        trainer("ddp", list(callbacks), **more).fit(module, data or shards())
    except UnstableStepError as caught:
        error = str(caught)
    guards = [c for c in callbacks if isinstance(c, StepGuard)]
    counts = {"skipped": guards[0].num_skipped, "rewound": guards[0].num_rewound} if guards else {}
    report(name=name, weights=weights(module), error=error, **counts)

class Burst(Classifier):
    '''The loss of rank 1 alone jumps once.'''
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (1e6 if RANK == 1 and batch_idx == 9 else 1.0)

run("plain")
run("monitored", [GradientMonitor(2)])
run("lightning", gradient_clip_val=0.3)
run("clipped", [GradientClipping("norm", 0.3)])
run("dropped", data=shards(drop=[0, 4, 5]))
run("skip", [GradientMonitor(1), StepGuard("skip", forensics=True)], shards(poison=[0, 4, 5]))
run("accumulated", [GradientMonitor(1), StepGuard("skip", "skip", forensics=True)],
    shards(poison=[5]), accumulate_grad_batches=4)
run("rewind", [StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=3)],
    shards(poison=[7, 8]))
run("spike", [StepGuard("raise", "skip")], make=lambda: built(Burst, logs=False))
run("raise", [StepGuard(forensics=True)], shards(poison=[3]))
run("budget", [StepGuard("skip", max_consecutive=3)], shards(poison=range(3, 12)))
"""


def test_fully_sharded_parameters_have_the_true_global_norm(tmp_path):
    first, second = run_ranks(FSDP2, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one == other, one["name"]
    facts = {fact.pop("name"): fact for fact in first}
    assert facts["monitored"]["weights"] == facts["plain"]["weights"]
    assert facts["norms"]["logged"] == pytest.approx(facts["norms"]["true"], rel=1e-4)
    assert facts["norms"]["layer"] == pytest.approx(facts["norms"]["true_layer"], rel=1e-4)
    assert facts["clipped"]["after"] == pytest.approx(0.1, rel=1e-3)
    assert facts["skip"]["skipped"] == 3
    assert facts["skip"]["weights"] == facts["dropped"]["weights"]
    assert facts["rewind"]["rewound"] == 1
    for rule in ("value", "adaptive", "history"):
        assert facts[rule]["finite"], rule
        assert facts[rule]["weights"] != facts["plain"]["weights"], rule


FSDP2 = (
    FULLY_SHARDED
    + """
class Norms(lightning.Callback):
    '''The global norm, computed from whole gradients.'''
    def __init__(self):
        self.true, self.layer = [], []
    def on_before_optimizer_step(self, trainer, module, optimizer):
        grads = {n: whole(p.grad) for n, p in module.named_parameters()}
        self.true.append(torch.cat([g.flatten() for g in grads.values()]).norm().item())
        layer = [g.flatten() for n, g in grads.items() if n.startswith("net.0")]
        self.layer.append(torch.cat(layer).norm().item())

def run(name, callbacks=(), data=None, facts=lambda trainer: {}, **more):
    module = built(Sharded)
    running = trainer(strategy(), list(callbacks), **more)
    running.fit(module, data or shards())
    guards = [c for c in callbacks if isinstance(c, StepGuard)]
    counts = {"skipped": guards[0].num_skipped, "rewound": guards[0].num_rewound} if guards else {}
    finite = all(bool(whole(p.detach()).isfinite().all()) for p in module.parameters())
    report(name=name, weights=weights(module), finite=finite, **counts, **facts(running))

def logged(name, running):
    '''What rank 0 logged, told to both.'''
    values = [[at[name] for _, at in sorted(running.logger.steps.items()) if name in at]]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]

run("plain")
run("monitored", [GradientMonitor(1, statistics=("max_abs", "update_ratio", "cosine", "depth",
    "rms", "zero_fraction", "nonfinite_fraction"))])
norms = Norms()
run("norms", [GradientMonitor(1), norms], facts=lambda t: dict(true=norms.true,
    logged=logged("grad_norm/total", t), layer=logged("grad_norm/net.0", t),
    true_layer=norms.layer))
run("clipped", [GradientClipping("norm", 0.1, every_n_steps=1)],
    facts=lambda t: dict(after=logged("clip/norm_after", t)[0]))
run("dropped", data=shards(drop=[0, 4, 5]))
run("skip", [StepGuard("skip", forensics=True)], shards(poison=[0, 4, 5]))
run("rewind", [StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=3)],
    shards(poison=[7, 8]))
run("value", [GradientClipping("value", 1e-4, every_n_steps=1)])
run("adaptive", [GradientClipping("adaptive", 1e-4, every_n_steps=1)])
run("history", [GradientClipping("history", method="percentile", every_n_steps=1)])
"""
)


def test_fully_sharded_windows_accumulate_and_their_noise_scale_is_finite(tmp_path):
    first, second = run_ranks(FSDP2_ACCUMULATION, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one == other
    facts = {fact["name"]: fact for fact in first}
    assert facts["watched"]["weights"] == facts["plain"]["weights"]
    assert facts["poisoned"]["skipped"] == 1


FSDP2_ACCUMULATION = (
    FULLY_SHARDED
    + """
def run(name, callbacks=(), data=None):
    module = built(Sharded)
    trainer(strategy(), list(callbacks), accumulate_grad_batches=4).fit(module, data or shards())
    skipped = [c.num_skipped for c in callbacks if isinstance(c, StepGuard)]
    report(name=name, weights=weights(module), skipped=sum(skipped))

run("plain")
run("watched", [GradientMonitor(1), StepGuard("skip", "skip")])
run("poisoned", [GradientMonitor(1), StepGuard("skip", forensics=True)], shards(poison=[5]))
"""
)
