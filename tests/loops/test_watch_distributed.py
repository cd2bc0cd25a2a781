"""Two gloo processes in plain loops: equal decisions, as under the Trainer's own strategies."""

import pytest
import torch
from helpers.lightning_twins import built
from helpers.ranks import (
    Classifier,
    fit_on_ranks,
    process_group,
    rank,
    report,
    run_ranks,
    shards,
    weights,
)
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lightning_stab
from lightning_stab import GradientClipping, GradientMonitor, StepGuard, TrainingDoctor

pytestmark = pytest.mark.nightly


def test_ranks_decide_alike(tmp_path):
    first, second = run_ranks(both_ways, tmp_path)
    assert first == second
    (trainer, plain, sharded) = first
    assert trainer["skipped"] == plain["skipped"] == sharded["skipped"] == 2
    assert trainer["weights"] == plain["weights"]
    assert trainer["norms"] == plain["norms"]
    assert sharded["norms"] == pytest.approx(plain["norms"], rel=1e-5)


def callbacks():
    doctor = TrainingDoctor(print_findings=False)
    return [GradientMonitor(1), GradientClipping("norm", 0.5), StepGuard("skip"), doctor]


def both_ways():
    chosen = callbacks()
    module = built(Classifier, batch_norm=False, logs=False)
    trainer = fit_on_ranks(module, chosen, shards(poison=(3, 7)))
    logged = trainer.logger.steps
    norms = broadcast([v.get("grad_norm/total") for v in logged.values()])
    report(skipped=chosen[2].num_skipped, weights=weights(module), norms=norms)
    torch.distributed.destroy_process_group()
    for number, wrap in enumerate((DistributedDataParallel, shard)):
        with process_group(number, 300):
            plain_loop(wrap)


def broadcast(values):
    """Return the first rank's finite values on both: only it logs."""
    found = [[v for v in values if v is not None and v == v]]
    torch.distributed.broadcast_object_list(found, 0)
    return found[0]


def shard(net):
    for part in (net.net[0], net.net[4], net):
        fully_shard(part)
    return net


def plain_loop(wrap):
    net, chosen, norms = wrap(built(Classifier, batch_norm=False, logs=False)), callbacks(), []
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)

    def log(values, step):
        norms.append(values.get("grad_norm/total"))

    with lightning_stab.watch(net, sgd, chosen, log=log, total_steps=12) as w:
        for x, y in w.batches(shards(poison=(3, 7))):
            w.step(nn.functional.cross_entropy(net(x), y))
    assert bool(norms) == (rank() == 0)
    report(skipped=w.num_skipped, weights=weights(net), norms=broadcast(norms))
