"""Loaders of every make: `WeightInitialization` sees a first batch, and the run loses nothing."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_stab import StepGuard, WeightInitialization

ITERATORS = []  # who was asked for one, in order


class Rows(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((4,), float(index)) + torch.rand(4), index % 2


def batches():
    return [(torch.rand(4, 4), torch.arange(4) % 2) for _ in range(3)]


class Once:
    """Its own iterator, without a length: what is taken is gone."""

    def __init__(self):
        self.left = batches()

    def __iter__(self):
        ITERATORS.append("once")
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


class OnceWithLength(Once):
    def __len__(self):
        return 3


class OnceStream(Once, IterableDataset):
    pass


class Position:
    """Goes on where it was left, as loaders that can be resumed do."""

    def __init__(self, name="position", item=None):
        self.at, self.name, self.item = 0, name, item or self.rows

    def __len__(self):
        return 3

    def __iter__(self):
        ITERATORS.append(self.name)
        start, self.at = self.at, 0
        for k in range(start, 3):
            self.at = (k + 1) % 3
            yield self.item(k)

    def rows(self, k):
        return torch.full((4, 4), float(k)) + torch.rand(4, 4), torch.arange(4) % 2

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def sampler():
    return Position("sampler", lambda k: list(range(4 * k, 4 * k + 4)))


class OwnIteration(DataLoader):
    def __iter__(self):
        ITERATORS.append("own")
        for x, y in super().__iter__():
            yield 100 + x, y


class Stream(IterableDataset):
    """Reads from an open file, so to say, and knows its length."""

    def __init__(self):
        self.rows = iter(range(1000))

    def __len__(self):
        return 12

    def __iter__(self):
        ITERATORS.append("stream")
        for _ in range(12):
            yield torch.full((4,), float(next(self.rows))), torch.tensor(1)


LOADERS = {
    "once": Once,
    "once with length": OnceWithLength,
    "stream that is its own iterator": lambda: DataLoader(OnceStream(), batch_size=None),
    "position": Position,
    "sampler with a position": lambda: DataLoader(Rows(), batch_sampler=sampler()),
    "own __iter__": lambda: OwnIteration(Rows(), 4, shuffle=True),
    "stream with length": lambda: DataLoader(Stream(), 4),
    "shuffled": lambda: DataLoader(Rows(), 4, shuffle=True),
}


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.seen, self.validations = [], 0

    def training_step(self, batch, batch_idx):
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        self.seen += [part[0].clone() for part in parts]
        return sum(nn.functional.cross_entropy(self.net(x), y) for x, y in parts)

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted(tmp_path, callbacks, loader, module=None, **arguments):
    ITERATORS.clear()
    lightning.seed_everything(3, verbose=False)
    module = Net() if module is None else module
    settings = {**QUIET, "max_epochs": 2, **arguments}
    trainer = lightning.Trainer(default_root_dir=tmp_path, callbacks=callbacks, **settings)
    trainer.fit(module, loader(), DataLoader(Rows(), 4))
    return module, list(ITERATORS), torch.get_rng_state()


def assert_run_is_the_same(tmp_path, make_loader, **arguments):
    plain, asked, state = fitted(tmp_path, [], make_loader, **arguments)
    callback = WeightInitialization(verbose=False)
    watched, asked_too, state_too = fitted(tmp_path, callback, make_loader, **arguments)
    assert torch.equal(torch.stack(plain.seen), torch.stack(watched.seen))
    assert plain.validations == watched.validations
    assert asked == asked_too
    assert torch.equal(state, state_too)
    assert len(callback.records) == 2
    assert all(r.activation_std_after is not None for r in callback.records)
    assert callback.state_dict() == {"initialized": True}


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")
@pytest.mark.parametrize("kind", LOADERS)
def test_a_batch_is_seen_and_no_iterator_is_made_that_the_run_does_not_make(tmp_path, kind):
    assert_run_is_the_same(tmp_path, LOADERS[kind])


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize(
    "arguments",
    [
        {"overfit_batches": 1},
        {"limit_train_batches": 2},
        {"fast_dev_run": 2},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
@pytest.mark.parametrize("kind", ["position", "shuffled"])
@pytest.mark.filterwarnings("ignore:.*overfit.*")
def test_it_is_so_under_the_trainers_own_limits(tmp_path, kind, arguments, sanity):
    if sanity == 0 or "fast_dev_run" not in arguments:
        arguments = {**arguments, "num_sanity_val_steps": sanity}
    assert_run_is_the_same(tmp_path, LOADERS[kind], **arguments)


@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size", "max_size"])
def test_several_loaders_of_different_makes(tmp_path, mode):
    def loader():
        return CombinedLoader({"a": LOADERS["shuffled"](), "b": Position()}, mode)

    assert_run_is_the_same(tmp_path, loader)


def test_workers_start_once(tmp_path):
    class Started(OwnIteration):
        @property
        def multiprocessing_context(self):  # torch asks for it whenever it starts workers
            return self._context

        @multiprocessing_context.setter
        def multiprocessing_context(self, context):
            self._context = context

        def _get_iterator(self):
            ITERATORS.append("workers")
            return super()._get_iterator()

    def loader():
        return Started(Rows(), 4, num_workers=1, persistent_workers=True)

    fitted(tmp_path, [], loader)
    alone = ITERATORS.count("workers")
    fitted(tmp_path, WeightInitialization(verbose=False), loader)
    assert ITERATORS.count("workers") == alone


def test_a_hook_that_writes_to_its_batch_writes_to_each_batch_once(tmp_path):
    class Writes(Net):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            batch[0].mul_(0.5)
            return batch

    plain, *_ = fitted(tmp_path, [], Once, Writes())
    watched, *_ = fitted(tmp_path, WeightInitialization(verbose=False), Once, Writes())
    assert torch.equal(torch.stack(plain.seen), torch.stack(watched.seen))


def test_a_loader_that_is_made_in_on_fit_start_is_waited_for(tmp_path):
    class Late(Net):
        def on_fit_start(self):
            self.rows = Rows()

        def train_dataloader(self):
            return DataLoader(self.rows, 4)

    callback, module = WeightInitialization(verbose=False), Late()
    settings = {**QUIET, "max_epochs": 1}
    lightning.Trainer(default_root_dir=tmp_path, callbacks=callback, **settings).fit(module)
    assert callback.records[0].activation_std_after is not None
    assert len(module.seen) == 3


def test_resuming_with_on_resume_keeps_the_loaders_place(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "middle.ckpt", weights_only=False)
                trainer.should_stop = True

    fitted(tmp_path, Stop(), Position)
    seen = []
    for callbacks in ([], [WeightInitialization(verbose=False, on_resume=True)]):
        module = Net()
        lightning.seed_everything(3, verbose=False)
        trainer = lightning.Trainer(
            default_root_dir=tmp_path, callbacks=callbacks, **{**QUIET, "max_epochs": 2}
        )
        trainer.fit(module, Position(), ckpt_path=tmp_path / "middle.ckpt", weights_only=False)
        seen.append(torch.stack(module.seen))
    assert torch.equal(*seen)
    assert callbacks[0].records


def test_a_guard_keeps_the_weights_that_were_drawn_at_the_first_batch(tmp_path):
    class Breaks(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("nan") if len(self.seen) in (2, 3) else loss

    for order in (1, -1):
        guard = StepGuard(on_nonfinite="rewind", rewind_after=2)
        callback, module = WeightInitialization(verbose=False), Breaks()
        undrawn = module.net[0].weight.detach().clone()
        callbacks = [callback, guard][::order]
        fitted(tmp_path, callbacks, Position, module)
        assert guard.num_rewound == 1
        assert not torch.equal(module.net[0].weight, undrawn)


@pytest.mark.filterwarnings("ignore:.*`?dataloader_iter`?")
def test_a_step_that_takes_its_batches_itself_is_named(tmp_path):
    class Takes(Net):
        def training_step(self, dataloader_iter):
            batch, batch_idx, _ = next(dataloader_iter)
            return super().training_step(batch, batch_idx)

    callback = WeightInitialization(verbose=False)
    with pytest.warns(UserWarning, match="sees no batch of a training step"):
        fitted(tmp_path, callback, LOADERS["shuffled"], Takes(), max_epochs=1)
    assert [r.scheme for r in callback.records] == ["xavier_normal", "kaiming_normal"]


def test_a_fit_without_a_batch_says_that_nothing_was_drawn(tmp_path):
    callback = WeightInitialization(verbose=False)
    with pytest.warns(UserWarning, match="has drawn nothing, because the fit had no training"):
        fitted(tmp_path, callback, LOADERS["shuffled"], limit_train_batches=0)
    assert not callback.records
    assert callback.state_dict() == {"initialized": False}
