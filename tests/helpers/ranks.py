"""Two processes or more that train together on gloo: ONE way to start them, for all tests.

They meet in a store of the test's own process, for which the system chooses the port.
"""

import contextlib
import faulthandler
import hashlib
import importlib.util
import inspect
import json
import logging
import multiprocessing.connection
import os
import sys
import warnings
from pathlib import Path

import torch
from helpers.lightning_twins import Classifier, batches, fit
from helpers.processes import SECONDS, SERVER, redirect
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

AFTER_A_FAILURE = 60
WORLD = 2


def run_ranks(function, folder, *arguments, world=WORLD):
    """Call a function of a test's module in several processes; return what each rank reported.

    Args:
        function: at the top of its module; it may call `report`.
        folder: an empty one, where all ranks work.
        arguments: what the function is called with.
        world: how many ranks there are.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    program = (inspect.getfile(function), function.__name__, arguments)
    ranks = [
        SERVER.Process(target=_call_on_rank, args=(rank, world, store.port, folder, *program))
        for rank in range(world)
    ]
    for rank in ranks:
        rank.start()
    _join(ranks)
    outputs = [_output(folder, rank).read_text()[-5000:] for rank in range(world)]
    assert [rank.exitcode for rank in ranks] == [0] * world, "\n".join(outputs)
    lines = [_reports(folder, rank).read_text().splitlines() for rank in range(world)]
    return [[json.loads(line) for line in each] for each in lines]


def report(**facts):
    """Hand facts of this rank to the test, as JSON."""
    with _reports(Path.cwd(), rank()).open("a") as file:
        file.write(json.dumps(facts) + "\n")


@contextlib.contextmanager
def process_group(number, seconds):
    """Train in a process group of its own, which ends with this rank's part, as a process would.

    Args:
        number: of the group, from 0, on both ranks alike.
        seconds: then a rank that waits for the other shows where it waits, and ends.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    store = torch.distributed.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]))
    store = torch.distributed.PrefixStore(f"group {number}", store)
    torch.distributed.init_process_group("gloo", store=store, rank=rank(), world_size=world())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()


def rank():
    """Return the number of this process."""
    return int(os.environ["RANK"])


def world():
    """Return how many processes there are, in one of them."""
    return int(os.environ["WORLD_SIZE"])


def _join(ranks):
    """Wait for both; one that fails leaves the other a while, because it may wait for it."""
    left = {rank.sentinel: rank for rank in ranks}
    while left:
        failed = any(rank.exitcode for rank in ranks)
        ended = multiprocessing.connection.wait(left, AFTER_A_FAILURE if failed else SECONDS)
        if not ended:
            break
        for sentinel in ended:
            left.pop(sentinel).join()
    for rank in left.values():
        rank.kill()
        rank.join()


def _output(folder, number):
    return folder / f"rank-{number}.log"


def _reports(folder, number):
    return folder / f"rank-{number}.jsonl"


def _call_on_rank(number, count, port, folder, file, name, arguments):
    redirect(_output(folder, number))
    faulthandler.dump_traceback_later(SECONDS - 60, exit=True)  # a deadlock shows where it waits
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
        TORCHELASTIC_USE_AGENT_STORE="True",  # the store is there: no rank opens one
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        GROUP_RANK="0",
        RANK=str(number),
        LOCAL_RANK=str(number),
    )
    os.chdir(folder)
    _reports(folder, number).touch()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    spec = importlib.util.spec_from_file_location("rank_program", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, name)(*arguments)


def ddp():
    """Return the strategy that holds every parameter on both ranks."""
    return DDPStrategy(process_group_backend="gloo")


def fsdp2(**arguments):
    """Return the strategy under which `fully_shard` cuts parameters in two."""
    return ModelParallelStrategy(
        data_parallel_size=world(),
        tensor_parallel_size=1,
        process_group_backend="gloo",
        **arguments,
    )


def fit_on_ranks(module, callbacks=(), data=None, *, strategy=None, **arguments):
    """Fit on both ranks, each with the batches that it is given; return the Trainer."""
    both = {"strategy": strategy or ddp(), "devices": world(), "use_distributed_sampler": False}
    return fit(module, callbacks, shards() if data is None else data, **{**both, **arguments})


def shards(num=12, poison=(), drop=()):
    """Return this rank's own batches; those of ``poison`` hold a NaN on rank 1 alone."""
    x, y = (tensor[rank() :: world()].clone() for tensor in batches(world() * num).dataset.tensors)
    for place in poison if rank() == 1 else ():
        x[place, 0, 0] = float("nan")
    kept = [i for i in range(num) if i not in drop]
    data = torch.utils.data.TensorDataset(x[kept], y[kept])
    return torch.utils.data.DataLoader(data, batch_size=None)


def full_tensor(tensor):
    """Return the whole of a tensor that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def weights(module):
    """Return a fingerprint of the whole parameters: equal if and only if every bit is."""
    parts = [full_tensor(p.detach()).numpy().tobytes() for p in module.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class ShardedClassifier(Classifier):
    """Its layers are sharded over the ranks; without batch norm, whose statistics differ."""

    def __init__(self, optimizer="adam"):
        super().__init__(optimizer, batch_norm=False, logs=False)
        self.is_sharded = False

    def configure_model(self):
        if self.device_mesh is not None and not self.is_sharded:
            for part in self.parts():
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            self.is_sharded = True

    def parts(self):
        """Return what is sharded, the whole last."""
        return self.net[0], self.net[4], self
