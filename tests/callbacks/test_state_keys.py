"""Two of a kind in one list are told apart in a checkpoint, where Lightning would refuse them."""

import pytest
from helpers.lightning_twins import built, fit

from lightning_stab import GradientClipping, GradientMonitor

PAIRS = {
    "monitors of two intervals": lambda: [GradientMonitor(2), GradientMonitor(3)],
    "clippers of two rules": lambda: [GradientClipping("value"), GradientClipping("norm")],
    "clippers of two parts": lambda: [
        GradientClipping(exclude=["net.0.*"]),
        GradientClipping(exclude=["net.4.*"]),
    ],
}


@pytest.mark.parametrize("pair", PAIRS)
def test_two_of_a_kind_have_a_state_each(pair, tmp_path):
    trainer = fit(built(), PAIRS[pair]())
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    keys = [c.state_key for c in trainer.callbacks if isinstance(c, type(PAIRS[pair]()[0]))]
    assert len(set(keys)) == 2
    fit(built(), PAIRS[pair](), ckpt_path=tmp_path / "both.ckpt", epochs=2)
