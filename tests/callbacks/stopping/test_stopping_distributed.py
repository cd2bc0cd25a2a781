"""Two processes on gloo that stop and decay together."""

import warnings
from pathlib import Path

import pytest
import torch
from helpers.ranks import ddp, fsdp2, full_tensor, report, run_ranks
from helpers.stopping_modules import Regression, data, trainer
from lightning.pytorch.callbacks import Checkpoint
from torch.distributed.fsdp import fully_shard

from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

pytestmark = pytest.mark.nightly

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
            for layer in (*self.net, self.net):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def on_validation_epoch_end(self):
        self.validated.append(whole_tensors(self))
        self.log("val_loss", torch.tensor(VALUES[self.current_epoch]))


class SaveOnce(Checkpoint):
    """Saves at the end of the fourth epoch, one check after the best."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 3:
            trainer.save_checkpoint(self.path, weights_only=False)


def whole_tensors(module):
    named = [(n, p.detach()) for n, p in module.named_parameters()]
    named += [(n, b) for n, b in module.named_buffers() if n != "seen"]
    return {n: full_tensor(t).clone() for n, t in named}


def places(module):
    """Return the validations whose weights the module has now."""
    now = whole_tensors(module)
    return [
        i
        for i, then in enumerate(module.validated)
        if all(torch.equal(now[n], then[n]) for n in now)
    ]


def run(strategy, module, *callbacks, **settings):
    training = trainer(
        *callbacks,
        strategy=strategy,
        devices=2,
        max_epochs=len(VALUES),
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
    )
    training.fit(module, data(), data(), **settings)
    return training


def one_process_sees_a_nan():
    """Stop for the reason of the process that has one, with the same weights everywhere."""
    stop = BestWeightsEarlyStopping("val_loss", patience=3)
    decay = LearningRateDecay("plateau", monitor="own", patience=1, gamma=0.5)
    module = OwnMetric()
    training = run(ddp(), module, stop, decay)
    report(
        reason=stop.stop_reason,
        message=stop.stopping_reason_message,
        enum=stop.stopping_reason.name,
        summary=stop.summary,
        step=training.global_step,
        places=places(module),
        rate=training.optimizers[0].param_groups[0]["lr"],
    )


def sharded_and_resumed():
    """Keep shards, restore them, and take them whole through a checkpoint."""

    def fitted(path, distributed, **settings):
        stop = BestWeightsEarlyStopping("val_loss", patience=2)
        module = Sharded()
        strategy = fsdp2(save_distributed_checkpoint=distributed)
        run(strategy, module, stop, SaveOnce(path), **settings)
        return stop, module

    for distributed in (False, True):
        path = Path.cwd() / f"sharded-{distributed}.ckpt"
        stop, module = fitted(path, distributed)
        again, resumed = fitted(path, distributed, ckpt_path=path)
        ends = [whole_tensors(m) for m in (module, resumed)]
        report(
            distributed=distributed,
            places=places(module),
            after=len(resumed.validated),
            same=all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0]),
            summaries=[stop.summary, again.summary],
        )


class SwappedInABatch(Sharded):
    """Measures its weights plus one, which come in within the validation's batches.

    Args:
        raw_first: whether its own weights run before them.
    """

    def __init__(self, raw_first):
        super().__init__()
        self.raw_first, self.measured = raw_first, []

    @torch.no_grad()
    def add(self, number):
        for parameter in self.parameters():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            local += number

    def validation_step(self, batch, batch_idx):
        if self.raw_first:
            self.net(batch[0])
        self.add(1)
        self.net(batch[0])
        for part in (self.net, *self.net):
            part.reshard()
        self.measured.append(whole_tensors(self))
        self.add(-1)


def sharded_and_swapped():
    """Keep what was measured of a sharded module; say so if its layers ran with two sets."""
    stop = BestWeightsEarlyStopping("val_loss", patience=2)
    module = SwappedInABatch(raw_first=False)
    run(fsdp2(), module, stop)
    now = whole_tensors(module)
    best = module.measured[2 * len(data())]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(fsdp2(), SwappedInABatch(raw_first=True), BestWeightsEarlyStopping("val_loss"))
    report(
        same=all(torch.equal(now[n], best[n]) for n in now),
        warned=sum("two sets of weights" in str(w.message) for w in caught),
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """What each process reported of the run with metrics of its own."""
    folder = tmp_path_factory.mktemp("processes")
    return [reported for (reported,) in run_ranks(one_process_sees_a_nan, folder)]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What each process reported of its sharded runs, by the kind of the checkpoint."""
    reports = run_ranks(sharded_and_resumed, tmp_path_factory.mktemp("processes"))
    return [{fact["distributed"]: fact for fact in each} for each in reports]


def test_one_process_decides_and_both_know_why(stopped):
    first, second = stopped
    assert first == second
    assert first["reason"] == "not_finite"
    assert first["enum"] == "NON_FINITE_METRIC"
    assert "is not finite" in first["message"]
    assert first["step"] == 5 * 4


def test_both_processes_restore_the_weights_of_the_same_check(stopped):
    assert [each["places"] for each in stopped] == [[2], [2]]


def test_both_processes_decay_by_the_mean_of_their_metrics(stopped):
    # "own" never falls after its first value, so that each later validation cuts.
    assert [each["rate"] for each in stopped] == [pytest.approx(0.05 * 0.5**4)] * 2


@pytest.mark.parametrize("distributed", [False, True], ids=["one file", "a file for each"])
def test_sharded_weights_come_back(sharded, distributed):
    assert [each[distributed]["places"] for each in sharded] == [[2], [2]]


@pytest.mark.parametrize("distributed", [False, True], ids=["one file", "a file for each"])
def test_sharded_weights_come_back_from_a_checkpoint(sharded, distributed):
    for each in sharded:
        resumed = each[distributed]
        assert resumed["after"] == 1  # one more check, and the best was before the checkpoint
        assert resumed["same"]
        assert len(set(resumed["summaries"])) == 1


def test_weights_that_come_into_a_sharded_module_within_a_batch(tmp_path):
    (first,), (second,) = run_ranks(sharded_and_swapped, tmp_path)
    assert first["same"]
    assert second["same"]
    assert first["warned"] > 0
