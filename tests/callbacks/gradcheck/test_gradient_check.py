"""The gradient check in real fits: it catches a wrong backward and leaves no trace."""

import numpy as np
import pytest
import torch
from helpers.gradcheck_modules import Net, loader
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheck
from lightning_stab.errors import GradientCheckError, InvalidArgumentError


def trainer(tmp_path, *callbacks, max_epochs=2, **options):
    return Trainer(
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=options.pop("logger", False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )


def fitted(tmp_path, *callbacks, **net):
    seed_everything(3, verbose=False)
    module = Net(dropout=0.2, **net)
    runner = trainer(tmp_path, *callbacks, logger=CSVLogger(tmp_path))
    runner.fit(module, loader())
    metrics = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    randomness = torch.rand(3), np.random.random(3)  # noqa: NPY002
    state = runner.optimizers[0].state_dict()["state"]
    return module.state_dict(), state, metrics, randomness


def test_a_right_net_passes_and_training_is_the_same_bit_for_bit(tmp_path):
    check = GradientCheck()
    plain = fitted(tmp_path / "plain")
    checked = fitted(tmp_path / "checked", check)
    assert check.report.passed
    assert all(torch.equal(plain[0][name], checked[0][name]) for name in plain[0])
    assert all(
        torch.equal(plain[1][i][name], checked[1][i][name])
        for i in plain[1]
        for name in plain[1][i]
    )
    assert plain[2] == checked[2]
    assert torch.equal(plain[3][0], checked[3][0])
    assert (plain[3][1] == checked[3][1]).all()


@pytest.mark.parametrize("factor", [-1.0, 0.0, 2.0, 1.0001])
def test_a_wrong_backward_stops_the_fit_before_the_first_step(tmp_path, factor):
    module = Net(factor=factor)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    runner = trainer(tmp_path, GradientCheck())
    with pytest.raises(GradientCheckError, match=r"`net\.4\.weight`.*autograd says .* central"):
        runner.fit(module, loader())
    assert runner.global_step == 0
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_on_fail_warn_goes_on(tmp_path):
    check = GradientCheck(on_fail="warn")
    runner = trainer(tmp_path, check)
    with pytest.warns(UserWarning, match=r"1 of 8 parameters have a wrong gradient"):
        runner.fit(Net(factor=2.0), loader())
    assert runner.global_step == 6
    assert [record.name for record in check.report.wrong] == ["net.4.weight"]


@pytest.mark.parametrize("on_resume", [False, True])
def test_a_resumed_run_is_checked_again_only_when_asked(tmp_path, on_resume):
    first = trainer(tmp_path, GradientCheck(), max_epochs=1)
    first.fit(Net(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    check = GradientCheck(on_resume=on_resume)
    second = trainer(tmp_path, check, max_epochs=2)
    second.fit(Net(), loader(), ckpt_path=tmp_path / "last.ckpt")
    assert second.global_step == 6
    assert (check.report is not None) is on_resume


def test_a_second_fit_is_checked_again(tmp_path):
    check = GradientCheck()
    runner, module = trainer(tmp_path, check, max_epochs=1), Net()
    runner.fit(module, loader())
    first = check.report
    assert check.state_dict() == {"last_epoch": 0}
    runner.fit_loop.max_epochs = 2
    runner.fit(module, loader())
    assert check.report is not first
    assert check.state_dict() == {"last_epoch": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"on_fail": "warn", "every_n_epochs": 3, "on_resume": True},
        {"mode": "model", "coordinates": "all", "num_directions": 1, "max_samples": 2, "seed": 4},
    ],
)
def test_its_text_is_the_call_that_makes_it_again(arguments):
    check = GradientCheck(**arguments)
    again = eval(repr(check))  # what a user would paste
    assert again.options == check.options
    assert all(f"{name}={value!r}" in repr(check) for name, value in arguments.items())
    assert repr(check).count("=") == len(arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on_fail": "rais"}, "`on_fail` must be one of 'raise', 'warn', got 'rais'"),
        ({"max_samples": 0}, "`max_samples` must be an integer >= 1, got 0"),
        ({"every_n_epochs": 0}, "`every_n_epochs` must be an integer >= 1, got 0"),
        ({"mode": "modle"}, "`mode` must be one of .* Did you mean 'model'"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        GradientCheck(**arguments)
