"""Two gloo processes: equal decisions, the true global norm, and no deadlock.

The functions under a test are what both ranks run; they report what each of them saw.
"""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.lightning_twins import Classifier, built
from helpers.ranks import (
    ShardedClassifier,
    fit_on_ranks,
    fsdp2,
    full_tensor,
    rank,
    report,
    run_ranks,
    shards,
    weights,
)

from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.errors import UnstableStepError

pytestmark = pytest.mark.slow


def facts_alike(function, folder):
    """Run a function on both ranks; return its reports by name, which must be the same."""
    first, second = run_ranks(function, folder)
    assert first
    for one, other in zip(first, second, strict=True):
        assert one == other, one["name"]
    return {fact.pop("name"): fact for fact in first}


def counts(callbacks):
    """Return what a guard among the callbacks has counted."""
    guards = [c for c in callbacks if isinstance(c, StepGuard)]
    return {"skipped": guards[0].num_skipped, "rewound": guards[0].num_rewound} if guards else {}


def test_data_parallel_ranks_decide_alike(tmp_path):
    facts = facts_alike(data_parallel, tmp_path)
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


class Burst(Classifier):
    """The loss of rank 1 alone jumps once."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (1e6 if rank() == 1 and batch_idx == 9 else 1.0)


def data_parallel():
    def run(name, *callbacks, data=None, kind=Classifier, optimizer="adam", **more):
        module, error = built(kind, optimizer, logs=False), ""
        try:
            fit_on_ranks(module, callbacks, data, **more)
        except UnstableStepError as caught:
            error = str(caught)
        report(name=name, weights=weights(module), error=error, **counts(callbacks))

    forensic = StepGuard("skip", forensics=True)
    both = StepGuard("skip", "skip", forensics=True)
    rewinding = StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=3)
    run("plain")
    run("monitored", GradientMonitor(2))
    run("lightning", gradient_clip_val=0.3)
    run("clipped", GradientClipping("norm", 0.3))
    run("dropped", data=shards(drop=[0, 4, 5]))
    run("skip", GradientMonitor(1), forensic, data=shards(poison=[0, 4, 5]))
    run("accumulated", GradientMonitor(1), both, data=shards(poison=[5]), accumulate_grad_batches=4)
    run("rewind", rewinding, data=shards(poison=[7, 8]))
    run("spike", StepGuard("raise", "skip"), kind=Burst, optimizer="sgd")
    run("raise", StepGuard(forensics=True), data=shards(poison=[3]))
    run("budget", StepGuard("skip", max_consecutive=3), data=shards(poison=range(3, 12)))


needs_sharding_on_a_cpu = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="`fully_shard` of this torch (2.6) does not run on a CPU",
)


@pytest.mark.nightly
@needs_sharding_on_a_cpu
def test_fully_sharded_parameters_have_the_true_global_norm(tmp_path):
    facts = facts_alike(fully_sharded, tmp_path)
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


class Norms(lightning.Callback):
    """The global norm, computed from whole gradients."""

    def __init__(self):
        self.true, self.layer = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        gradients = {n: full_tensor(p.grad).flatten() for n, p in module.named_parameters()}
        self.true.append(torch.cat(list(gradients.values())).norm().item())
        layer = [g for n, g in gradients.items() if n.startswith("net.0")]
        self.layer.append(torch.cat(layer).norm().item())


def logged(name, trainer):
    """Return what rank 0 logged, on both."""
    steps = sorted(trainer.logger.steps.items())
    values = [[at[name] for _, at in steps if name in at]]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def fully_sharded():
    def run(name, *callbacks, data=None, facts=lambda trainer: {}):
        module = built(ShardedClassifier)
        trainer = fit_on_ranks(module, callbacks, data, strategy=fsdp2())
        finite = all(bool(full_tensor(p.detach()).isfinite().all()) for p in module.parameters())
        more = {**counts(callbacks), **facts(trainer)}
        report(name=name, weights=weights(module), finite=finite, **more)

    every = ("max_abs", "update_ratio", "cosine", "depth", "rms", "zero_fraction",
             "nonfinite_fraction")  # fmt: skip
    norms = Norms()
    run("plain")
    run("monitored", GradientMonitor(1, statistics=every))
    run(
        "norms",
        *(GradientMonitor(1), norms),
        facts=lambda trainer: {
            "true": norms.true,
            "true_layer": norms.layer,
            "logged": logged("grad_norm/total", trainer),
            "layer": logged("grad_norm/net.0", trainer),
        },
    )
    run(
        "clipped",
        GradientClipping("norm", 0.1, every_n_steps=1),
        facts=lambda trainer: {"after": logged("clip/norm_after", trainer)[0]},
    )
    run("dropped", data=shards(drop=[0, 4, 5]))
    run("skip", StepGuard("skip", forensics=True), data=shards(poison=[0, 4, 5]))
    rewinding = StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=3)
    run("rewind", rewinding, data=shards(poison=[7, 8]))
    run("value", GradientClipping("value", 1e-4, every_n_steps=1))
    run("adaptive", GradientClipping("adaptive", 1e-4, every_n_steps=1))
    run("history", GradientClipping("history", method="percentile", every_n_steps=1))


@needs_sharding_on_a_cpu
def test_fully_sharded_windows_accumulate_and_their_noise_scale_is_finite(tmp_path):
    facts = facts_alike(accumulated, tmp_path)
    assert facts["watched"]["weights"] == facts["plain"]["weights"]
    assert facts["poisoned"]["skipped"] == 1


def accumulated():
    def run(name, *callbacks, data=None):
        module = built(ShardedClassifier)
        fit_on_ranks(module, callbacks, data, strategy=fsdp2(), accumulate_grad_batches=4)
        report(name=name, weights=weights(module), **counts(callbacks))

    run("plain")
    run("watched", GradientMonitor(1), StepGuard("skip", "skip"))
    poisoned = shards(poison=[5])
    run("poisoned", GradientMonitor(1), StepGuard("skip", forensics=True), data=poisoned)
