"""One of two processes that train together; run by the tests of stopping and decay.

Usage: python stopping_processes.py FOLDER, with LOCAL_RANK in the environment. Writes what this
process found to FOLDER/RANK.json.
"""

import json
import sys
from pathlib import Path

import torch
from helpers.stopping_modules import Regression, data, trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

VALUES = [5.0, 3.0, 2.0, 4.0, 4.0, 4.0, 4.0]


class OwnMetric(Regression):
    """Each process logs another metric: the first improves longer, the second sees a NaN."""

    def on_validation_epoch_end(self):
        self.validated.append(whole_tensors(self))
        value = VALUES[self.current_epoch]
        if self.global_rank == 1 and self.current_epoch == 4:
            value = float("nan")
        self.log("val_loss", torch.tensor(value))
        self.log("own", torch.tensor(float(self.global_rank + self.current_epoch)))


class Sharded(Regression):
    """Its layers are sharded over the processes, as FSDP2 does it."""

    def __init__(self, *values):
        super().__init__(*values)
        self.net = None

    def configure_model(self):
        if self.net is None:
            torch.manual_seed(1)
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 1))
            for layer in self.net:
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def on_validation_epoch_end(self):
        self.validated.append(whole_tensors(self))
        self.log("val_loss", torch.tensor(VALUES[self.current_epoch]))


def whole_tensors(module):
    named = [(n, p.detach()) for n, p in module.named_parameters()]
    named += [(n, b) for n, b in module.named_buffers() if n != "seen"]
    return {n: t.full_tensor() if hasattr(t, "full_tensor") else t.clone() for n, t in named}


def places(module):
    """Return the validations whose weights the module has now."""
    now = whole_tensors(module)
    return [
        i
        for i, then in enumerate(module.validated)
        if all(torch.equal(now[n], then[n]) for n in now)
    ]


def run(strategy, module, *callbacks, folder, **settings):
    training = trainer(
        *callbacks,
        strategy=strategy,
        devices=2,
        max_epochs=len(VALUES),
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        default_root_dir=folder,
    )
    training.fit(module, data(), data(), **settings)
    return training


def ddp(folder):
    """Stop for the reason of the process that has one, with the same weights everywhere."""
    stop = BestWeightsEarlyStopping("val_loss", patience=3)
    decay = LearningRateDecay("plateau", monitor="own", patience=1, gamma=0.5)
    module = OwnMetric()
    training = run(DDPStrategy(process_group_backend="gloo"), module, stop, decay, folder=folder)
    return {
        "reason": stop.stop_reason,
        "message": stop.stopping_reason_message,
        "enum": stop.stopping_reason.name,
        "summary": stop.summary,
        "step": training.global_step,
        "places": places(module),
        "rate": training.optimizers[0].param_groups[0]["lr"],
    }


class SaveOnce(Checkpoint):
    """Saves at the end of the fourth epoch, one check after the best."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 3:
            trainer.save_checkpoint(self.path, weights_only=False)


def fsdp2(folder, distributed):
    """Keep shards, restore them, and take them whole through a checkpoint."""

    def go(**settings):
        strategy = ModelParallelStrategy(
            data_parallel_size=2,
            tensor_parallel_size=1,
            save_distributed_checkpoint=distributed,
        )
        stop = BestWeightsEarlyStopping("val_loss", patience=2)
        module = Sharded()
        run(strategy, module, stop, SaveOnce(path), folder=folder, **settings)
        return stop, module

    path = folder / f"sharded-{distributed}.ckpt"
    stop, module = go()
    again, resumed = go(ckpt_path=path)
    ends = [whole_tensors(m) for m in (module, resumed)]
    return {
        "places": places(module),
        "after": len(resumed.validated),
        "same": all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0]),
        "summaries": [stop.summary, again.summary],
    }


def main():
    folder = Path(sys.argv[1])
    found = {"ddp": ddp(folder)}
    for distributed in (False, True):
        found[f"fsdp2-{distributed}"] = fsdp2(folder, distributed)
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
