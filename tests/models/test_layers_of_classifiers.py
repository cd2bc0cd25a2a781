"""What the classifiers are made of, and the data modules' small rules, in numbers."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_stab.data import DigitsDataModule
from lightning_stab.models import ConvClassifier, MLPClassifier


@pytest.mark.parametrize(
    ("size", "depth", "sides"),
    [(7, 2, [7, 7]), (8, 3, [4, 4, 4]), (15, 2, [7, 7]), (16, 3, [8, 4, 4]), (28, 3, [14, 7, 7])],
)
def test_a_side_is_halved_while_four_pixels_remain(size, depth, sides):
    net = ConvClassifier(image_size=size, depth=depth, width=6, num_classes=5)
    x = torch.zeros(2, 1, size, size)
    for layer, side in zip(net.hidden, sides, strict=True):
        x = layer(x)
        assert x.shape == (2, 6, side, side)
    assert (net.output.in_features, net.output.out_features) == (6 * sides[-1] ** 2, 5)
    pools = [hasattr(layer, "pool") for layer in net.hidden]
    assert sum(pools) == len({size, *sides}) - 1


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_hidden_layer_has_its_parts_in_their_order(batch_norm):
    mlp = MLPClassifier(5, 3, 2, 7, batch_norm=batch_norm, dropout=0.25)
    conv = ConvClassifier(3, 4, 3, 2, 7, batch_norm=batch_norm, dropout=0.25)
    norms = ["norm"] * batch_norm
    for net, name, dropout in ((mlp, "linear", nn.Dropout), (conv, "convolution", nn.Dropout2d)):
        for layer in net.hidden:
            assert list(dict(layer.named_children())) == [name, *norms, "activation", "dropout"]
            assert (getattr(layer, name).bias is None) == batch_norm
            assert type(layer.dropout) is dropout
            assert layer.dropout.p == 0.25
    assert [layer.linear.in_features for layer in mlp.hidden] == [5, 7]
    assert [layer.convolution.in_channels for layer in conv.hidden] == [3, 7]
    assert conv.hidden[0].convolution.kernel_size == (3, 3)
    assert not hasattr(MLPClassifier(5, 3, 1, 7).hidden[0], "dropout")
    assert (mlp.output.in_features, mlp.output.out_features) == (7, 3)


def test_the_numbers_go_to_the_optimizer():
    given = {"learning_rate": 0.25, "momentum": 0.5, "weight_decay": 0.125, "depth": 1}
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam),
                       ("adamw", torch.optim.AdamW)):  # fmt: skip
        optimizer = MLPClassifier(optimizer=name, **given).configure_optimizers()
        group = optimizer.param_groups[0]
        assert type(optimizer) is kind
        assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
        assert group.get("momentum", 0.5) == 0.5


def test_losses_are_in_single_precision_at_least_and_their_metrics_in_the_progress_bar():
    net, logged = MLPClassifier(4, 2, 1, 4, batch_norm=False), []
    net.log = lambda name, metric, **settings: logged.append((name, settings))
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 1])
    for stage, step in (("train", net.training_step), ("val", net.validation_step),
                        ("test", net.test_step)):  # fmt: skip
        loss = step((x, y), 0)
        assert loss.dtype == torch.float32
        assert net.metrics[f"{stage}_loss"].compute() == pytest.approx(float(loss.detach()))
        assert net.metrics[f"{stage}_loss"].weight == 6
    names = [
        f"{stage}_{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")
    ]
    shown = {"on_step": False, "on_epoch": True, "prog_bar": True}
    assert logged == [(name, shown) for name in names]
    assert net.bfloat16().training_step((x.bfloat16(), y), 0).dtype == torch.float32
    assert net.double().training_step((x.double(), y), 0).dtype == torch.float64


def test_a_last_training_batch_of_one_sample_is_left_out():
    data = DigitsDataModule()
    for samples, size, sizes in (
        (7, 3, [3, 3]),
        (8, 3, [3, 3, 2]),
        (6, 3, [3, 3]),
        (3, 1, [1] * 3),
    ):
        data.batch_size = size
        data.train = data.val = TensorDataset(torch.arange(samples))
        assert [len(x) for (x,) in data.train_dataloader()] == sizes
        assert sum(len(x) for (x,) in data.val_dataloader()) == samples
    loader = data.train_dataloader()
    assert not loader.persistent_workers
    data.num_workers = 1
    assert data.train_dataloader().persistent_workers


def test_the_scale_is_that_of_all_pixels_and_of_a_constant_one():
    data = DigitsDataModule()
    data._fit_scale(torch.tensor([[1, 3], [5, 7]]))
    assert (data.mean, data.std) == (4.0, pytest.approx(5**0.5))
    data._fit_scale(torch.full((2, 2), 3))
    assert (data.mean, data.std) == (3.0, 1.0)
    assert not data._log_hyperparams  # the module's are logged
