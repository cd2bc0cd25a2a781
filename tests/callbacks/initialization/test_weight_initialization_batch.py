"""One real batch is looked at, and nothing else of the run changes."""

from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from helpers.quiet import QUIET
from helpers.ranks import ddp, report, run_ranks
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchmetrics import MeanMetric

from lightning_stab import WeightInitialization, initialize


class Net(lightning.LightningModule):
    """Records the batches that it trains on, keeps a metric and a counter."""

    def __init__(self, rate=0.0):
        super().__init__()
        self.rate = rate
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
        )
        self.metric = MeanMetric()
        self.seen, self.calls, self.noise = [], 0, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.calls += 1
        self.seen.append(x.clone())
        self.noise.append(torch.rand(()).item())
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.metric(loss.detach())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Numbers(Dataset):
    """Adds noise from all three global generators to each sample."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        noise = torch.rand(4) + float(np.random.rand())  # noqa: NPY002 - the global one is meant
        return torch.full((4,), float(index)) + noise, index % 2


class Stream(IterableDataset):
    def __iter__(self):
        yield from map(Numbers().__getitem__, range(12))


class Batches(Numbers):
    """Whole batches, for a loader that puts none together."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.rand(4, 4), torch.arange(4) % 2


class BatchStream(IterableDataset):
    def __iter__(self):
        yield from map(Batches().__getitem__, range(3))


def trainer(tmp_path, callbacks, **arguments):
    settings = {**QUIET, "max_epochs": 2, **arguments}
    return lightning.Trainer(default_root_dir=tmp_path, callbacks=callbacks, **settings)


def fitted(tmp_path, callbacks, loader, module=None):
    lightning.seed_everything(3, verbose=False)
    module = module or Net()
    trainer(tmp_path, callbacks).fit(module, loader())
    return module, torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002


LOADERS = {
    "shuffled": lambda: DataLoader(Numbers(), 4, shuffle=True),
    "own generator": lambda: DataLoader(
        Numbers(), 4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "stream": lambda: DataLoader(Stream(), 4),
    "whole batches": lambda: DataLoader(Batches(), batch_size=None, shuffle=True),
    "stream of batches": lambda: DataLoader(BatchStream(), batch_size=None),
    "several": lambda: [DataLoader(Numbers(), 4), DataLoader(Numbers(), 4, shuffle=True)],
}


class Pair(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[0], batch_idx) + super().training_step(
            batch[1], batch_idx
        )


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_buffers_metrics_and_random_states_are_as_without_it(tmp_path, kind):
    made = [Pair(), Pair()] if kind == "several" else [Net(), Net()]
    plain, *states = fitted(tmp_path, [], LOADERS[kind], made[0])
    callback = WeightInitialization(verbose=False)
    watched, *watched_states = fitted(tmp_path, callback, LOADERS[kind], made[1])
    assert callback.records[0].activation_std_after is not None  # it did see a batch
    assert torch.equal(torch.stack(plain.seen), torch.stack(watched.seen))
    assert plain.noise == watched.noise
    assert plain.calls == watched.calls
    assert torch.equal(states[0], watched_states[0])
    assert states[1] == watched_states[1]
    assert watched.net[1].num_batches_tracked == plain.net[1].num_batches_tracked


def test_workers_get_the_same_numbers(tmp_path):
    def loader():
        return DataLoader(Numbers(), 4, shuffle=True, num_workers=1, persistent_workers=True)

    plain, *_ = fitted(tmp_path, [], loader)
    watched, *_ = fitted(tmp_path, WeightInitialization(verbose=False), loader)
    assert torch.equal(torch.stack(plain.seen), torch.stack(watched.seen))


class Uncopied(Net):
    def __deepcopy__(self, memo):
        raise TypeError("holds a lock")


def test_a_module_that_cannot_be_copied_gets_the_plain_form_with_a_warning(tmp_path):
    callback = WeightInitialization(verbose=False)
    with pytest.warns(UserWarning, match=r"copy of the module \(TypeError: holds a lock\)"):
        trainer(tmp_path, callback).fit(Uncopied(), LOADERS["shuffled"]())
    assert [r.scheme for r in callback.records] == ["xavier_normal", "kaiming_normal"]


def test_without_a_batch_on_request(tmp_path):
    callback = WeightInitialization(verbose=False, use_batch=False)
    trainer(tmp_path, callback).fit(Net(), LOADERS["shuffled"]())
    assert [r.activation_std_after for r in callback.records] == [None, None]


class Adversaries(Net):
    """Two optimizers under manual optimisation; the steps must not be taken on the copy."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        for net, optimizer in ((self.net, first), (self.other, second)):
            loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.steps_seen = len([s.step() for s in self.lr_schedulers() or ()])

    def configure_optimizers(self):
        made = [torch.optim.SGD(part.parameters(), lr=0.0) for part in (self.net, self.other)]
        return made, [torch.optim.lr_scheduler.ConstantLR(o) for o in made]


def test_manual_optimisation_with_two_optimizers(tmp_path):
    module, callback = Adversaries(), WeightInitialization(verbose=False)
    trainer(tmp_path, callback).fit(module, LOADERS["shuffled"]())
    readings = {r.name: r.gradient_rms_after for r in callback.records}
    assert set(readings) == {"net.0.weight", "net.4.weight", "other.weight"}
    assert all(reading > 0 for reading in readings.values())
    assert module.lr_schedulers()[0].last_epoch == 6  # none of it on the copy
    alone = initialize(Adversaries(), next(iter(LOADERS["shuffled"]())))
    assert all(record.gradient_rms_after > 0 for record in alone)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(tmp_path, precision):
    callback = WeightInitialization(verbose=False)
    trainer(tmp_path, callback, precision=precision).fit(Net(), LOADERS["shuffled"]())
    assert [r.preceding for r in callback.records] == ["input", "ReLU"]


def test_on_resume_only_when_told(tmp_path):
    first = trainer(tmp_path, [])
    first.fit(Net(), LOADERS["shuffled"]())
    first.save_checkpoint(tmp_path / "a.ckpt")
    saved = first.lightning_module.net[0].weight.detach().clone()
    for told in (False, True):
        module = Net()
        callback = WeightInitialization(verbose=False, on_resume=told)
        trainer(tmp_path, callback, max_epochs=3).fit(
            module, LOADERS["shuffled"](), ckpt_path=tmp_path / "a.ckpt", weights_only=False
        )
        assert torch.equal(module.net[0].weight, saved) is not told


def test_the_table_and_the_figure_reach_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    callback = WeightInitialization(verbose=False)
    trainer(tmp_path, callback, logger=logger, log_every_n_steps=1).fit(
        Net(), LOADERS["shuffled"]()
    )
    events = EventAccumulator(logger.log_dir).Reload()
    text = events.Tensors("weight_initialization/text_summary")[0].tensor_proto.string_val[0]
    assert b"signal before | signal after | gradient before | gradient after" in text
    assert events.Tags()["images"] == ["weight_initialization/profile"]


class Ranked(Net):
    """Each rank gets other data, so that the corrections would differ."""

    def train_dataloader(self):
        scale = 10.0 * (1 + self.global_rank)
        return DataLoader(TensorDataset(scale * torch.randn(12, 4), torch.arange(12) % 2), 4)

    def on_train_start(self):
        mine = self.net[0].weight.detach()
        every = [torch.empty_like(mine) for _ in range(2)]
        torch.distributed.all_gather(every, mine)
        report(same=torch.equal(every[0], every[1]))


def start_from_other_data():
    both = {"strategy": ddp(), "devices": 2, "use_distributed_sampler": False}
    callback = WeightInitialization(verbose=False)
    trainer(Path.cwd(), callback, max_epochs=1, **both).fit(Ranked())


@pytest.mark.slow
def test_all_ranks_start_from_the_same_weights(tmp_path):
    assert run_ranks(start_from_other_data, tmp_path) == [[{"same": True}]] * 2


class Lazy(Net):
    def __init__(self):
        super().__init__(rate=0.1)
        self.net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))


def test_lazy_layers_train_on_from_the_weights_that_were_drawn(tmp_path):
    class Watch(lightning.Callback):
        def on_fit_start(self, trainer, module):
            held = trainer.optimizers[0].param_groups[0]["params"]
            self.same = [a is b for a, b in zip(held, module.parameters(), strict=True)]
            self.drawn = [p.detach().clone() for p in module.parameters()]

    watch, callback = Watch(), WeightInitialization(verbose=False)
    module, _, _ = fitted(tmp_path, [callback, watch], LOADERS["shuffled"], Lazy())
    assert [r.scheme for r in callback.records] == ["mirrored orthogonal"] * 2
    assert all(watch.same)
    for drawn, now in zip(watch.drawn, module.parameters(), strict=True):
        assert not torch.equal(drawn, now)
