"""How far a diagnosed fit has come, in numbers."""

import math
from types import SimpleNamespace

import pytest

from lightning_stab.cli.diagnosis_report import diagnosis


@pytest.mark.parametrize(
    ("batches", "done", "epochs"),
    [(3, 1, 0.333), (3, 3, 1.0), (7, 10, 1.429), (1, 1, 1.0), (0, 0, None), (math.inf, 5, None)],
)
def test_the_epochs_have_three_decimals_and_data_without_an_end_has_none(batches, done, epochs):
    progress = SimpleNamespace(total=SimpleNamespace(completed=done))
    trainer = SimpleNamespace(
        num_training_batches=batches,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    found = diagnosis(trainer, SimpleNamespace(findings=[], unseen=("x",)), 0, None)
    assert (found.epochs, found.steps, found.unseen) == (epochs, 0, ())
