"""The digits: split, scaling, shapes, order, errors."""

import sys

import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch import Trainer
from torch.utils.data import RandomSampler

from lightning_stab.data import DigitsDataModule
from lightning_stab.errors import DatasetError, InvalidArgumentError
from lightning_stab.models import ConvClassifier, MLPClassifier

PARTS = ("train", "val", "test")


def digits(**settings):
    data = DigitsDataModule(**settings)
    data.setup()
    return data


def rows(dataset):
    return {tuple(image.flatten().tolist()) for image in dataset.tensors[0]}


def order(loader):
    return torch.cat([classes for _, classes in loader])


def test_the_parts_hold_all_samples_and_share_none():
    data = digits()
    parts = [getattr(data, name) for name in PARTS]
    assert sum(map(len, parts)) == 1797
    assert [round(len(p) / 1797, 2) for p in parts] == [0.7, 0.15, 0.15]
    train, val, test = map(rows, parts)
    assert train.isdisjoint(val)
    assert test.isdisjoint(train | val)


def test_the_split_keeps_the_shares_of_the_classes():
    data = digits()
    everything = torch.cat([getattr(data, name).tensors[1] for name in PARTS])
    shares = torch.bincount(everything) / len(everything)
    for name in PARTS:
        classes = getattr(data, name).tensors[1]
        counts = torch.bincount(classes, minlength=10)
        assert torch.all((counts - shares * len(classes)).abs() <= 1.5)


def test_the_seed_decides_the_split_and_the_order():
    one, same, other = digits(seed=1), digits(seed=1), digits(seed=2)
    for name in PARTS:
        a, b, c = (getattr(d, name).tensors for d in (one, same, other))
        assert all(map(torch.equal, a, b))
        assert not torch.equal(a[1], c[1])
    torch.rand(7)  # another state of the global generator
    assert torch.equal(order(one.train_dataloader()), order(same.train_dataloader()))


def test_only_the_training_images_decide_the_scale():
    data = digits()
    pixels = data.train.tensors[0].double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert abs(float(data.val.tensors[0].mean())) > 1e-6
    original = data.val.tensors[0] * data.std + data.mean
    torch.testing.assert_close(original, original.round(), atol=1e-4, rtol=0)
    assert 0 <= original.round().min() <= original.round().max() <= 16


@pytest.mark.parametrize(("image", "shape"), [(False, (64,)), (True, (1, 8, 8))])
def test_samples_are_flat_or_images(image, shape):
    data = digits(image=image, batch_size=10)
    for name in PARTS:
        images, classes = next(iter(getattr(data, f"{name}_dataloader")()))
        assert images.shape == (10, *shape)
        assert (images.dtype, classes.dtype) == (torch.float32, torch.int64)


def test_training_batches_are_shuffled_anew_each_epoch_and_the_others_never():
    data = digits()
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, RandomSampler)  # so that Lightning can replace it
    first = list(loader.sampler)
    loader.sampler.set_epoch(1)
    second = list(loader.sampler)
    assert sorted(first) == sorted(second) == list(range(len(data.train)))
    assert first != second
    for name in ("val", "test", "predict"):
        loader = getattr(data, f"{name}_dataloader")()
        assert torch.equal(order(loader), loader.dataset.tensors[1])


def test_a_resumed_run_sees_the_order_of_an_uninterrupted_one(tmp_path):
    class Recorder(MLPClassifier):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append(batch[1].clone())

    def fit(epochs, **settings):
        torch.manual_seed(epochs)
        run = Trainer(max_epochs=epochs, limit_train_batches=4, default_root_dir=tmp_path, **QUIET)
        run.fit(Recorder(depth=1, width=4), DigitsDataModule(), **settings)
        return run

    seen = []
    fit(3)
    whole, seen = seen, []
    fit(2).save_checkpoint(tmp_path / "two.ckpt")
    fit(3, ckpt_path=tmp_path / "two.ckpt")
    assert len(seen) == len(whole) == 12
    assert all(map(torch.equal, seen, whole))
    assert not torch.equal(whole[0], whole[4])


def test_no_training_batch_holds_a_single_sample():
    count = len(digits().train)
    batch_size = next(n for n in range(2, count) if count % n == 1)
    data = digits(batch_size=batch_size)
    sizes = [len(classes) for _, classes in data.train_dataloader()]
    assert min(sizes) > 1
    assert sum(sizes) == count - 1


@pytest.mark.parametrize(
    ("model", "image"),
    [(MLPClassifier(depth=2, width=64), False), (ConvClassifier(depth=2, width=16), True)],
)
def test_the_models_learn_the_digits(model, image, tmp_path):
    run = Trainer(max_epochs=4, default_root_dir=tmp_path, **QUIET)
    data = DigitsDataModule(image=image)
    run.fit(model, data)
    assert run.test(model, data, verbose=False)[0]["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1, got 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0, got -1"),
        ({"num_workers": -1}, "`num_workers` must be an integer >= 0, got -1"),
        ({"val_fraction": 0}, "`val_fraction` must be > 0 and < 1, got 0"),
        ({"test_fraction": 1.0}, "`test_fraction` must be > 0 and < 1, got 1.0"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            r"`val_fraction` \+ `test_fraction` must be < 1, got 0.5 \+ 0.5",
        ),
    ],
)
def test_a_bad_argument_gets_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        DigitsDataModule(**arguments)


def test_a_missing_scikit_learn_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    data = DigitsDataModule()
    with pytest.raises(DatasetError, match=r'pip install "lightning-stab\[data\]"'):
        data.setup("fit")
