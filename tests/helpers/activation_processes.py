"""One of two processes that train together under `ActivationMonitor`; run by its tests.

Usage: python activation_processes.py FOLDER, with LOCAL_RANK in the environment. Writes what this
process found to FOLDER/RANK.json.
"""

import json
import sys
from pathlib import Path

import torch
from helpers.lightning_twins import Classifier, batches, built, fit, hooks_of
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import gelu

from lightning_stab import ActivationMonitor


class Net(Classifier):
    """A module and a function as activations, without running statistics."""

    def __init__(self):
        super().__init__("adam", batch_norm=False, logs=False)
        self.more = nn.Linear(3, 3)

    def forward(self, x):
        return self.more(gelu(self.net(x)))


class Sharded(Net):
    """The same, with its layers sharded over the processes."""

    def configure_model(self):
        if not hasattr(self, "done"):
            for part in (self.net[0], self.net[4], self.more, self):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            self.done = True


def weights(module):
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in module.parameters()]
    return [p.detach().tolist() for p in whole]


def run(strategy, kind, *callbacks):
    module = built(kind)
    trainer = fit(
        module,
        callbacks,
        batches(8),
        strategy=strategy,
        devices=2,
        use_distributed_sampler=False,
    )
    logged = {s: v for s, v in trainer.logger.steps.items() if v}
    return {"weights": weights(module), "logged": logged, "hooks": len(hooks_of(module))}


def main():
    ddp = lambda: DDPStrategy(process_group_backend="gloo")  # noqa: E731
    sharded = lambda: ModelParallelStrategy(2, 1, process_group_backend="gloo")  # noqa: E731
    found = {
        name: [run(make(), kind, ActivationMonitor(3)), run(make(), kind)]
        for name, make, kind in (("ddp", ddp, Net), ("fsdp2", sharded, Sharded))
    }
    rank = torch.distributed.get_rank()
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
