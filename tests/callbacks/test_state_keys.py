"""What callbacks keep in a checkpoint: told apart by its key, and of the fit that it belongs to."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.lightning_twins import Classifier, batches, built, fit
from helpers.tiers import in_tiers
from lightning.pytorch.callbacks import LearningRateFinder

from lightning_stab import GradientClipping, GradientMonitor, StepGuard

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


# --- which fit a state belongs to -----------------------------------------------------------------

KINDS = {  # a callback, and how many steps it has learned from
    "guard": (
        lambda: StepGuard("skip", "skip"),
        lambda state: len(state["judges"][0]["loss"]["window"]["values"]),
    ),
    "clipping": (
        lambda: GradientClipping("history"),
        lambda state: state["histories"][""]["count"],
    ),
    "monitor": (
        lambda: GradientMonitor(1, 0),
        lambda state: state["noise_scale"]["noise"]["count"],
    ),
}


class Tunable(Classifier):
    """Has the learning rate that a finder changes, and its own data."""

    def __init__(self):
        super().__init__()
        self.lr = 0.05

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def four_steps(callbacks, module=None, **arguments):
    module = built(Tunable) if module is None else module
    return fit(module, callbacks, batches(8), accumulate_grad_batches=2, **arguments)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_a_callback_given_to_a_second_trainer_starts_new(kind):
    make, learned = kind
    callback = make()
    for _ in range(2):
        four_steps([callback])
        assert learned(callback.state_dict()) == 4


def test_the_same_trainers_continued_fit_keeps_the_state(kind):
    make, learned = kind
    callback = make()
    trainer = four_steps([callback])
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, batches(8))
    assert learned(callback.state_dict()) == 8


@pytest.mark.parametrize("used", [True, False])
def test_a_resumed_fit_continues_the_state_of_the_checkpoint(kind, used, tmp_path):
    make, learned = kind
    callback = make()
    four_steps([callback]).save_checkpoint(tmp_path / "one.ckpt")
    if not used:
        callback = make()
    four_steps([callback], epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert learned(callback.state_dict()) == 8


def test_a_checkpoint_without_its_state_starts_a_used_callback_new(kind, tmp_path):
    make, learned = kind
    four_steps([]).save_checkpoint(tmp_path / "plain.ckpt")
    callback = make()
    four_steps([callback])
    four_steps([callback], epochs=2, ckpt_path=tmp_path / "plain.ckpt")
    assert learned(callback.state_dict()) == 4


def finder():
    return LearningRateFinder(num_training_steps=6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("place", in_tiers(["finder first", "finder last"], ["finder first"]))
def test_a_finders_restore_is_no_resume(kind, place, tmp_path):
    make, learned = kind
    callback = make()
    four_steps([callback])
    callbacks = [finder(), callback] if place == "finder first" else [callback, finder()]
    four_steps(callbacks, default_root_dir=tmp_path)
    assert learned(callback.state_dict()) == 4


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_used_guard_rewinds_to_no_weights_of_an_earlier_run_beside_a_finder(tmp_path):
    class BadStart(lightning.Callback):
        """Spoils the first batch of the real fit: a finder's own steps run without callbacks."""

        def on_train_start(self, trainer, module):
            self.start = [p.detach().clone() for p in module.parameters()]

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 0:
                batch[0].fill_(float("nan"))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 0:
                self.after = [p.detach().clone() for p in module.parameters()]

    guard, bad_start = StepGuard("rewind", rewind_after=1), BadStart()
    fit(built(Tunable), [guard])
    fit(built(Tunable, seed=7), [finder(), guard, bad_start], default_root_dir=tmp_path)
    assert guard.num_rewound == 1
    assert all(map(torch.equal, bad_start.after, bad_start.start))
