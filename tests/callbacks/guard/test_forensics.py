"""A bad batch runs once more as it ran, and leaves no trace."""

import pytest
import torch
from helpers.events import events
from helpers.lightning_twins import Classifier, batches, built, fit
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_stab import StepGuard
from lightning_stab.errors import UnstableStepError


class Outspoken(Classifier):
    """Goes past ``self.log`` to the logger itself, and prints."""

    def training_step(self, batch, batch_idx):
        step = len(self.losses)
        self.logger.log_metrics({"direct": 1.0}, step=step)
        self.logger.experiment.add_scalar("directer", 1.0, step)
        print("a step")  # noqa: T201
        return super().training_step(batch, batch_idx)


def test_the_second_run_is_neither_logged_nor_printed(tmp_path, capsys):
    logger = TensorBoardLogger(tmp_path)
    module = built(Outspoken)
    trainer = fit(
        module, [StepGuard("skip", forensics=True)], batches(6, poison=[3]), logger=logger
    )
    assert capsys.readouterr().out.count("a step") == 6
    scalars, _ = events(logger.log_dir)
    assert len(scalars["direct"]) == len(scalars["directer"]) == 6
    assert module.trainer is trainer


class Unlucky(Classifier):
    """A draw decides whether the batch is bad, after another one in the hook before the step."""

    def on_train_batch_start(self, batch, batch_idx):
        torch.rand(())

    def training_step(self, batch, batch_idx):
        scale = torch.where(torch.rand(()) < 0.1, 0.0, 1.0)
        return super().training_step([batch[0] / scale, batch[1]], batch_idx)


def test_the_second_run_draws_what_the_first_one_drew_also_before_the_step():
    with pytest.raises(UnstableStepError, match=r"first non-finite output is that of 'net\.0'"):
        fit(built(Unlucky), [StepGuard(forensics=True)], batches(60))
