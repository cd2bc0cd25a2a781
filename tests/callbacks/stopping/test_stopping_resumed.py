import pytest
import torch
from helpers.processes import run_code
from helpers.stopping_modules import Regression, SaveEpochs, fit, same, tensors
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging

from lightning_stab import BestWeightsEarlyStopping
from lightning_stab.errors import ConflictError

VALUES = [5, 3, 4, 4.5, 2, 6, 6, 6, 6, 6]


def resumed(callback, path, **settings):
    module = Regression(*VALUES)
    at = torch.load(path, weights_only=True)["epoch"] + 1
    module.validated = [None] * at
    run, module = fit(VALUES, callback, module=module, ckpt_path=path, **settings)
    return run, module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that stops after epoch 7, and a checkpoint of each of its epochs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    callback = BestWeightsEarlyStopping("val_loss", patience=3)
    run, module = fit(VALUES, callback, SaveEpochs(folder), enable_checkpointing=True)
    return folder, callback, run, module


@pytest.mark.parametrize("epoch", range(7))
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_resumed_run_ends_bit_for_bit_like_the_whole_one(whole, epoch, on_disk, tmp_path):
    folder, callback, run, module = whole
    again = BestWeightsEarlyStopping(
        "val_loss", patience=3, folder=str(tmp_path) if on_disk else None
    )
    rerun, remodule = resumed(again, folder / f"epoch={epoch}.ckpt")
    assert (rerun.current_epoch, rerun.global_step) == (run.current_epoch, run.global_step)
    assert again.state_dict() == callback.state_dict()
    assert again.summary == callback.summary
    ours, theirs = tensors(remodule), tensors(module)
    if epoch < 4:  # what is not in the state dict begins anew, unless the copy brings it back
        del ours["seen"], theirs["seen"]
    assert same(ours, theirs)


def test_a_run_that_had_decided_to_stop_does_not_train_on(whole):
    folder, _, run, module = whole
    rerun, remodule = resumed(
        BestWeightsEarlyStopping("val_loss", patience=3), folder / "epoch=7.ckpt"
    )
    assert rerun.global_step == run.global_step
    assert same(tensors(remodule), tensors(module))


def test_a_newly_given_patience_wins_over_the_checkpoints(whole):
    folder, *_ = whole
    longer = BestWeightsEarlyStopping("val_loss", patience=5)
    run, _ = resumed(longer, folder / "epoch=7.ckpt")
    assert run.current_epoch == 10
    shorter = BestWeightsEarlyStopping("val_loss", patience=1)
    run, _ = resumed(shorter, folder / "epoch=2.ckpt")
    assert run.current_epoch == 3
    assert shorter.patience == 1


def test_the_checkpoint_holds_the_best_weights_and_loads_without_pickled_code(whole):
    folder, _, _, module = whole
    saved = torch.load(folder / "epoch=3.ckpt", weights_only=True)
    (best,) = saved["lightning_stab.best_weights"].values()
    assert same({n: best[n] for n in module.validated[1]}, module.validated[1])
    assert not same(saved["state_dict"], {n: best[n] for n in saved["state_dict"]})


def test_lightnings_class_reads_the_state_and_the_other_way_round(whole, tmp_path):
    folder, *_ = whole
    lightnings = EarlyStopping("val_loss", patience=3)
    run, _ = resumed(lightnings, folder / "epoch=5.ckpt")
    assert lightnings.best_score == 2
    assert run.current_epoch == 8
    fit(
        VALUES,
        EarlyStopping("val_loss", patience=3),
        SaveEpochs(tmp_path),
        enable_checkpointing=True,
    )
    ours = BestWeightsEarlyStopping("val_loss", patience=3)
    run, _ = resumed(ours, tmp_path / "epoch=5.ckpt")
    assert ours.best_score == 2
    assert run.current_epoch == 8


def test_two_on_one_metric_are_told_apart_in_the_checkpoint(tmp_path):
    def pair():
        quick = BestWeightsEarlyStopping("val_loss", patience=3, min_delta=2.5)
        return quick, BestWeightsEarlyStopping("val_loss", patience=9)

    first = pair()
    fit(VALUES, *first, SaveEpochs(tmp_path), enable_checkpointing=True)
    second = pair()
    fit(VALUES, *second, ckpt_path=tmp_path / "epoch=1.ckpt", max_epochs=2)
    assert [float(c.best_score) for c in second] == [5, 3]


def test_a_checkpoint_saved_after_the_run_goes_on_from_the_best_weights(tmp_path):
    callback = BestWeightsEarlyStopping("val_loss", patience=2)
    run, module = fit([5, 3, 4, 4], callback)
    run.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    again = Regression(9, 9, 9)
    callback = BestWeightsEarlyStopping("val_loss", patience=4)
    fit([9] * 9, callback, module=again, ckpt_path=tmp_path / "end.ckpt")
    kept = tensors(again)
    kept["seen"] = tensors(module)["seen"]  # outside the state dict, so outside the checkpoint
    assert same(kept, tensors(module))


def test_a_checkpoint_without_its_state_leaves_nothing_of_an_earlier_run(tmp_path):
    fit([9, 9], SaveEpochs(tmp_path), enable_checkpointing=True)
    callback = BestWeightsEarlyStopping("val_loss", patience=2)
    fit([0.1, 0.2, 0.3], callback)
    run, module = fit([5, 4, 6, 7, 8], callback, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert run.current_epoch == 5
    assert callback.best_position.check == 2
    assert same(tensors(module), module.validated[1])


def test_an_early_stopping_that_the_module_brings_on_the_same_metric_is_refused():
    class Brings(Regression):
        def configure_callbacks(self):
            return [EarlyStopping("val_loss", patience=9)]

    with pytest.raises(ConflictError, match="would overwrite each other's state"):
        fit([1], BestWeightsEarlyStopping("val_loss"), module=Brings(1))
    fit([1], BestWeightsEarlyStopping("val_loss", mode="max"), module=Brings(1))


class Averages(EMAWeightAveraging):
    """Remembers the averaged weights of each validation."""

    def __init__(self, **settings):
        super().__init__(decay=0.5, **settings)
        self.validated = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(tensors(pl_module))
        super().on_validation_epoch_end(trainer, pl_module)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_with_weight_averaging_the_averaged_weights_come_back(first):
    average, callback = Averages(), BestWeightsEarlyStopping("val_loss", patience=2)
    order = [average, callback] if first else [callback, average]
    _, module = fit([5, 3, 4, 4], *order)
    assert same(tensors(module), average.validated[1])
    assert not same(tensors(module), module.validated[1])


def test_weight_averaging_by_epochs_does_not_shift_the_weights_that_are_kept():
    average = Averages(update_every_n_steps=0, update_starting_at_epoch=0)
    _, module = fit([5, 3, 4, 4], average, BestWeightsEarlyStopping("val_loss", patience=2))
    assert same(tensors(module), average.validated[1])


def test_stochastic_weight_averaging_is_refused_before_the_first_step():
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    average = StochasticWeightAveraging(0.1)
    with pytest.raises(ConflictError, match="StochasticWeightAveraging"):
        fit([1], average, BestWeightsEarlyStopping("val_loss"))
    fit([1, 1, 1], average, BestWeightsEarlyStopping("val_loss", restore_best=False))


def test_a_module_that_changed_during_training_is_told_so():
    class Grows(Regression):
        def on_train_end(self):
            pass

        def on_train_epoch_end(self):
            if self.current_epoch == 1:
                self.register_buffer("new", torch.zeros(2))

    with pytest.raises(ConflictError, match="'new' is new"):
        fit([1, 2], BestWeightsEarlyStopping("val_loss"), module=Grows(1, 2))


def test_a_compiled_module_gets_its_weights_back():
    class Compiled(Regression):
        def __init__(self, *values):
            super().__init__(*values)
            self.net = torch.compile(self.net, backend="eager")

    _, module = fit(
        [5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=Compiled(5, 3, 4, 4)
    )
    assert same(tensors(module), module.validated[1])


def test_both_packages_trainers_run_it(tmp_path):
    code = """
import pytorch_lightning
import lightning.pytorch
from lightning.pytorch.demos.boring_classes import BoringModel
from pytorch_lightning.demos.boring_classes import BoringModel as Boring
from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

for package, base in ((pytorch_lightning, Boring), (lightning.pytorch, BoringModel)):
    class Model(base):
        def configure_optimizers(self):
            return super().configure_optimizers()[0]

        def on_validation_epoch_end(self):
            self.log("val_loss", float(self.current_epoch))

    stop, decay = BestWeightsEarlyStopping("val_loss", patience=2), LearningRateDecay(gamma=0.5)
    package.Trainer(callbacks=stop, logger=False, enable_checkpointing=False)
    trainer = package.Trainer(
        max_epochs=9, limit_train_batches=2, limit_val_batches=1, callbacks=[stop, decay],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
    )
    trainer.fit(Model())
    assert trainer.current_epoch == 3, trainer.current_epoch
    assert "best was check 1" in stop.summary, stop.summary
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.125
"""
    run_code(code, tmp_path)
