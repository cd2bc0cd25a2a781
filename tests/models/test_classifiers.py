"""The models: shapes, layers in the right order, precisions, metrics, errors."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.models import ConvClassifier, MLPClassifier
from lightning_stab.models.activations import ACTIVATIONS

MODELS = [MLPClassifier, ConvClassifier]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def loader(count=32, shape=(64,), num_classes=10):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, *shape, generator=generator)
    classes = torch.randint(num_classes, (count,), generator=generator)
    return DataLoader(TensorDataset(inputs, classes), batch_size=16)


def trainer(tmp_path, **settings):
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        **settings,
    }
    return Trainer(**settings)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("shape", [(64,), (1, 8, 8), (8, 8)])
def test_logits_have_one_value_per_class_for_flat_and_square_input(model_class, shape):
    model = model_class(depth=2, width=8, num_classes=7)
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize(("size", "channels"), [(1, 1), (8, 1), (28, 1), (32, 3)])
@pytest.mark.parametrize("depth", [1, 6])
def test_a_convolutional_net_of_any_depth_fits_any_image(size, channels, depth):
    model = ConvClassifier(in_channels=channels, image_size=size, depth=depth, width=4)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_batch_norm_stands_between_linear_map_and_activation(model_class, depth, batch_norm):
    model = model_class(depth=depth, width=8, activation="tanh", batch_norm=batch_norm)
    assert len(model.hidden) == depth
    for layer in model.hidden:
        linear, *norm, activation = list(layer)[: 3 if batch_norm else 2]
        assert isinstance(linear, (nn.Linear, nn.Conv2d))
        assert isinstance(activation, nn.Tanh)
        assert all(isinstance(n, NORMS) for n in norm)
        assert len(norm) == batch_norm
        assert (linear.bias is None) == batch_norm


@pytest.mark.parametrize(
    ("model_class", "axes"), [(MLPClassifier, [0]), (ConvClassifier, [0, 2, 3])]
)
def test_the_activation_receives_gamma_xhat_plus_beta(model_class, axes):
    model = model_class(depth=1, width=5, activation="identity").double().train()
    layer = model.hidden[0]
    gamma, beta = layer.norm.weight, layer.norm.bias
    nn.init.uniform_(gamma, 0.5, 2.0)
    nn.init.normal_(beta)
    seen = {}
    layer[0].register_forward_hook(lambda m, i, output: seen.update(x=output))
    layer.activation.register_forward_hook(lambda m, inputs, o: seen.update(y=inputs[0]))
    model(torch.randn(16, 64, dtype=torch.float64))

    x = seen["x"]
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)  # biased: divided by n
    xhat = (x - mean) / torch.sqrt(variance + layer.norm.eps)
    column = [1, -1] + [1] * (x.ndim - 2)
    torch.testing.assert_close(seen["y"], gamma.view(column) * xhat + beta.view(column))


@pytest.mark.parametrize("model_class", MODELS)
def test_without_batch_norm_there_is_no_norm_and_dropout_only_on_request(model_class):
    plain = model_class(batch_norm=False, depth=2, width=4)
    assert not any(isinstance(m, (*NORMS, nn.Dropout, nn.Dropout2d)) for m in plain.modules())
    dropping = model_class(dropout=0.5, depth=2, width=4)
    assert sum(isinstance(m, (nn.Dropout, nn.Dropout2d)) for m in dropping.modules()) == 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains_one_step_in_both_models(name):
    for model_class in MODELS:
        model = model_class(depth=2, width=4, activation=name)
        model(torch.randn(4, 64)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("model_class", MODELS)
def test_the_logged_metrics_are_the_means_over_all_samples(model_class, tmp_path):
    model = model_class(depth=1, width=8)
    data = loader(count=37)  # the last batch is short
    run = trainer(tmp_path)
    run.fit(model, data, data)
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= set(run.callback_metrics)
    test = run.test(model, data, verbose=False)[0]

    inputs, classes = data.dataset.tensors
    with torch.no_grad():
        logits = model.eval()(inputs)
    loss = nn.functional.cross_entropy(logits, classes)
    assert test["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert test["test_accuracy"] == pytest.approx(
        float((logits.argmax(1) == classes).double().mean())
    )
    assert float(run.callback_metrics["test_loss"]) == test["test_loss"]


@pytest.mark.parametrize("model_class", MODELS)
def test_prediction_gives_probabilities_with_and_without_classes_in_the_batch(
    model_class, tmp_path
):
    model = model_class(depth=1, width=8)
    labelled = loader()
    inputs = DataLoader(labelled.dataset.tensors[0], batch_size=16)
    with_classes, without = (trainer(tmp_path).predict(model, d) for d in (labelled, inputs))
    for a, b in zip(with_classes, without, strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a.sum(1), torch.ones(len(a)))


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("64-true", torch.float64), ("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16)],
)
def test_it_trains_at_every_precision(model_class, precision, dtype, tmp_path):
    model = model_class(depth=2, width=8, dropout=0.1)
    run = trainer(tmp_path, precision=precision, max_epochs=2)
    run.fit(model, loader(), loader())
    assert all(p.dtype == dtype for p in model.parameters())
    assert math.isfinite(run.callback_metrics["val_loss"])


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU.*")
@pytest.mark.parametrize("model_class", MODELS)
def test_16_mixed_trains_too(model_class, tmp_path):
    run = trainer(tmp_path, precision="16-mixed")
    run.fit(model_class(depth=2, width=8), loader(), loader())
    assert math.isfinite(run.callback_metrics["val_loss"])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_optimizer_is_the_one_asked_for(name):
    model = MLPClassifier(optimizer=name, learning_rate=0.25, weight_decay=0.125, momentum=0.5)
    optimizer = model.configure_optimizers()
    settings = optimizer.param_groups[0]
    assert type(optimizer).__name__.lower() == name
    assert (settings["lr"], settings["weight_decay"]) == (0.25, 0.125)
    assert settings.get("momentum", 0.5) == 0.5


def test_a_loss_that_is_not_a_number_is_logged_as_such(tmp_path):
    model = MLPClassifier(depth=1, width=4)
    nn.init.constant_(model.output.bias, float("nan"))
    run = trainer(tmp_path)
    run.validate(model, loader(), verbose=False)
    assert math.isnan(run.callback_metrics["val_loss"])


@pytest.mark.parametrize("model_class", MODELS)
def test_a_checkpoint_restores_the_model_with_its_arguments(model_class, tmp_path):
    model = model_class(depth=2, width=6, activation="gelu", batch_norm=False)
    run = trainer(tmp_path)
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    again = model_class.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert again.hparams == model.hparams
    assert again.hparams.activation == "gelu"
    inputs = torch.randn(4, 64)
    assert torch.equal(again.eval()(inputs), model.eval()(inputs))


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"activation": "rellu"},
            r"`activation` must be one of 'celu', .*'tanh', .*, got 'rellu'. Did",
        ),
        ({"depth": 0}, r"`depth` must be an integer >= 1, got 0. It is the number of hidden"),
        ({"depth": 1.5}, r"`depth` must be an integer >= 1, got 1.5"),
        ({"width": 0}, r"`width` must be an integer >= 1, got 0"),
        ({"dropout": 1.5}, r"`dropout` must be >= 0 and < 1, got 1.5"),
        ({"dropout": -0.1}, r"`dropout` must be >= 0 and < 1, got -0.1"),
        ({"num_classes": 1}, r"`num_classes` must be an integer >= 2, got 1"),
        ({"optimizer": "adamm"}, r"`optimizer` must be one of 'adam', 'adamw', 'sgd', got 'adamm'"),
        ({"learning_rate": 0}, r"`learning_rate` must be > 0, got 0"),
        ({"momentum": 1}, r"`momentum` must be >= 0 and < 1, got 1"),
        ({"weight_decay": -1.0}, r"`weight_decay` must be >= 0, got -1.0"),
    ],
)
def test_a_bad_argument_gets_one_sentence(model_class, arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        model_class(**arguments)


@pytest.mark.parametrize(
    ("model_class", "arguments"),
    [
        (MLPClassifier, {"in_features": 0}),
        (ConvClassifier, {"in_channels": 0}),
        (ConvClassifier, {"image_size": 0}),
    ],
)
def test_a_bad_size_of_the_input_gets_one_sentence(model_class, arguments):
    with pytest.raises(InvalidArgumentError, match=f"`{next(iter(arguments))}` must be an integer"):
        model_class(**arguments)


@pytest.mark.parametrize("model_class", MODELS)
def test_data_of_another_size_get_one_sentence(model_class):
    with pytest.raises(ConflictError, match=r"expects samples of 64 values, got 784 .*in_features"):
        model_class()(torch.zeros(2, 784))
