"""What every callback of the suite promises, each found by itself and held to it in real fits."""

import contextlib
import copy
import functools
import gc
import inspect
import math
import pickle
import random
import signal
import weakref
from pathlib import Path

import jsonargparse
import lightning.pytorch as lightning
import pytest
import torch
from helpers import contract
from helpers.contract import CALLBACKS, KINDS, NEUTRAL, Net, end_of, fit, same
from helpers.loaders import KeepsItsPlace
from helpers.processes import run_code
from helpers.tiers import FULL, in_tiers
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_stab import check_gradients, initialize, watch
from lightning_stab.data import MNISTDataModule
from lightning_stab.errors import GradientCheckError, StabError

pytestmark = [
    pytest.mark.usefixtures("folder"),  # an empty one, where files would be seen
    pytest.mark.filterwarnings("ignore::UserWarning"),  # what is said is heard, where it counts
]
TESTS = [Path(__file__).parents[1], Path(__file__).parents[2]]
every = pytest.mark.parametrize("name", CALLBACKS)


def all_of_them():
    return [make() for make in CALLBACKS.values()]


# --- as an object ---------------------------------------------------------------------------------


@every
def test_it_is_a_callback_of_lightning_with_a_state_key_of_its_own(name):
    callback = CALLBACKS[name]()
    assert isinstance(callback, lightning.Callback)
    others = {make().state_key for other, make in CALLBACKS.items() if other != name}
    assert callback.state_key not in others


@every
def test_repr_makes_the_same_callback(name):
    callback = CALLBACKS[name]()
    assert repr(eval(repr(callback), dict(KINDS))) == repr(callback)


WRONG = [  # for some argument or other
    10**400,  # not for what would begin to count
    *(5, -1, 1.5, math.nan, True, None, "x", b"x", [], [1], {}, {"a": 1}),
    *(object(), lambda: 1),
]


def said_of_wrong_arguments(call, given, without=()):
    """Return what is said of each argument of a wrong kind; errors that are not ours are raised."""
    said = {}
    for argument in inspect.signature(call).parameters.keys() - set(without):
        for value in WRONG if isinstance(call, type) else WRONG[1:]:
            with contextlib.suppress(StabError, MisconfigurationException):  # the latter's: a mode
                try:
                    call(**given | {argument: value})
                except Exception as error:
                    said[argument, repr(value)] = str(error)
                    raise
    return said


NET = nn.Linear(2, 2)
OTHERS = {  # with what they need, and with those of their arguments that only the module can judge
    "MNISTDataModule": (MNISTDataModule, {}, []),
    "watch": (watch, {"module": NET, "optimizer": torch.optim.SGD(NET.parameters(), 0.1)}, []),
    "initialize": (initialize, {"module": nn.Linear(2, 2)}, ["batch", "loss_fn"]),
    "check_gradients": (
        functools.partial(check_gradients, loss_fn=lambda module, batch: module(batch).sum()),
        {"module": nn.Linear(2, 2), "batch": torch.ones(1, 2)},
        ["batch", "loss_fn", "settings"],
    ),
}


@pytest.mark.parametrize("name", [*CALLBACKS, *OTHERS])
def test_an_argument_of_the_wrong_kind_is_one_sentence_that_names_it(name):
    made = OTHERS.get(name) or (KINDS[name], CALLBACKS[name].keywords)
    said = said_of_wrong_arguments(*made)
    assert said
    assert not {(case, text) for case, text in said.items() if case[0] not in text or "\n" in text}


@every
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_before_and_after_a_fit_are_whole(name, way):
    way = copy.deepcopy if way == "deepcopy" else lambda c: pickle.loads(pickle.dumps(c))
    callback = CALLBACKS[name]()
    fresh = way(callback)
    trainer = fit([callback])
    used = way(callback)
    assert repr(used) == repr(fresh) == repr(callback)
    if name != "WeightInitialization":  # whose copy has initialised no module
        assert same(used.state_dict(), callback.state_dict())
    assert same(end_of(fit([used])), end_of(trainer))


@every
def test_yaml_keeps_it(name):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=lightning.Callback)
    arguments = CALLBACKS[name].keywords
    words = [f"--callback=lightning_stab.{name}"]
    words += [f"--callback.{key}={value}" for key, value in arguments.items()]
    dumped = parser.dump(parser.parse_args(words))
    again = parser.instantiate_classes(parser.parse_string(dumped)).callback
    assert repr(again) == repr(CALLBACKS[name]())


class Remembers(Net):
    """Keeps weak references to each batch."""

    def on_train_batch_start(self, batch, batch_idx):
        self.__dict__.setdefault("batches", []).append(weakref.ref(batch[0]))


def test_no_batch_is_kept_alive():
    used, modules = {name: make() for name, make in CALLBACKS.items()}, {}
    for name, callback in used.items():
        modules[name] = Remembers()
        assert fit([callback], modules[name]).global_step == 8
    gc.collect()
    alive = {n: [batch() is not None for batch in m.batches] for n, m in modules.items()}
    assert alive == {name: [False] * 8 for name in used}


# --- both Lightning packages ----------------------------------------------------------------------

BOTH = """
{imports}
import torch
from torch import nn
from torch.utils.data import DataLoader
from {package} import LightningModule, Trainer

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch).square().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

data = DataLoader(torch.randn(16, 4), batch_size=4)
quiet = dict(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1,
    enable_progress_bar=False, enable_model_summary=False)
for callbacks in {callbacks}:
    trainer = Trainer(callbacks=callbacks, **quiet)
    trainer.fit(Net(), data, data)
    assert trainer.global_step == 4, callbacks
    print("trained")
"""


@pytest.mark.parametrize(
    "package", in_tiers(["pytorch_lightning", "lightning.pytorch"], ["lightning.pytorch"])
)
@pytest.mark.parametrize("first", in_tiers(["ours", "theirs"], ["ours"], []))
def test_both_packages_trainers_take_each_alone_and_all_in_a_list(package, first, tmp_path):
    imports = [f"import {package}", "from lightning_stab import *"]
    calls = [repr(callback) for callback in all_of_them()]
    code = BOTH.format(
        imports="\n".join(imports if first == "theirs" else imports[::-1]),
        package=package,
        callbacks="[" + ", ".join([*calls, f"[{', '.join(calls)}]"]) + "]",
    )
    printed = run_code(code, tmp_path).splitlines()
    assert printed.count("trained") == len(CALLBACKS) + 1


# --- a callback that has served before ------------------------------------------------------------


class StopError(Exception):
    pass


def at_step(number, error):
    def event(step):
        if step == number:
            raise error

    return event


def finished(callback):
    fit([callback])


def failed(callback):
    with pytest.raises(StopError):
        fit([callback], Net(at_step(5, StopError())))


def failed_in_the_first_step(callback):
    with pytest.raises((StopError, GradientCheckError)):  # the check runs the step first
        fit([callback], Net(at_step(0, StopError())))


def interrupted(callback):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit([callback], Net(at_step(5, KeyboardInterrupt())))


def stopped(callback):
    module = Net()

    def event(step):
        module.trainer.should_stop = step == 2

    module.event = event
    fit([callback], module)


def tried(callback):
    fit([callback], fast_dev_run=True)


def validated(callback):
    trainer = lightning.Trainer(callbacks=[callback], **contract.QUIET)
    trainer.validate(Net(), verbose=False)


def searched(callback):
    fit([LearningRateFinder(num_training_steps=4, update_attr=False), callback])


def resumed(callback):
    fit([callback]).save_checkpoint("before.ckpt")
    fit([callback], ckpt_path="before.ckpt", max_epochs=3)


def twice(callback):
    trainer = fit([callback], max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    fit([], trainer.lightning_module, trainer=trainer)


BEFORE = {
    f.__name__: f
    for f in (
        finished,
        failed,
        failed_in_the_first_step,
        interrupted,
        stopped,
        tried,
        validated,
        searched,
        resumed,
        twice,
    )
}


@functools.cache
def end_of_new(name):
    """Return how a run with a new callback ends, and the callback's state then."""
    new = CALLBACKS[name]()
    return end_of(fit([new])), copy.deepcopy(new.state_dict())


GATE = ("failed", "resumed")  # the other cells are long tests


@every
@pytest.mark.parametrize(
    "before",
    [pytest.param(n, marks=() if n in GATE else pytest.mark.nightly) for n in BEFORE],
)
def test_given_to_the_next_trainer_it_begins_as_new(name, before):
    used, (expected, state) = CALLBACKS[name](), end_of_new(name)
    BEFORE[before](used)
    assert same(end_of(fit([used])), expected)
    assert same(used.state_dict(), state)


@every
@pytest.mark.parametrize(
    "order", ["finder last", pytest.param("finder first", marks=pytest.mark.nightly)]
)
def test_a_finders_restore_is_no_resume(name, order):
    used, (expected, _) = CALLBACKS[name](), end_of_new(name)
    finder = LearningRateFinder(num_training_steps=4, update_attr=False)
    trainer = fit([finder, used] if order == "finder first" else [used, finder])
    assert same(end_of(trainer), expected)


# --- checkpoints ----------------------------------------------------------------------------------


@every
def test_its_checkpoint_is_safe_to_load_and_continues_bit_for_bit(name):
    whole, first, second = (CALLBACKS[name]() for _ in range(3))
    expected = end_of(fit([whole], max_epochs=3))
    fit([first], max_epochs=1).save_checkpoint("one.ckpt")
    torch.load("one.ckpt", weights_only=True)
    assert same(end_of(fit([second], max_epochs=3, ckpt_path="one.ckpt")), expected)


KILLED = """
import os, signal
from helpers.contract import *
from helpers.loaders import KeepsItsPlace
from lightning.pytorch.callbacks import ModelCheckpoint
class Dies(Net):
    def on_train_batch_start(self, *rest):
        if self.num_steps == 6:
            os.kill(os.getpid(), signal.SIGKILL)
save = ModelCheckpoint(".", filename="{{step}}", every_n_train_steps=1, save_top_k=-1)
callbacks = [CALLBACKS[name]() for name in {names}]
fit([save, *callbacks], Dies(), [KeepsItsPlace()], enable_checkpointing=True)
"""


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(CALLBACKS), id="all"),
        *(pytest.param([n], id=n, marks=FULL) for n in CALLBACKS),
    ],
)
def test_a_run_killed_in_mid_epoch_goes_on_bit_for_bit(names, folder):
    def callbacks():
        return [CALLBACKS[name]() for name in names]

    expected = end_of(fit(callbacks(), Net(), [KeepsItsPlace()]))
    run_code(KILLED.format(names=names), folder, TESTS, code=-signal.SIGKILL)
    resumed = fit(callbacks(), Net(), [KeepsItsPlace()], ckpt_path="step=6.ckpt")
    assert same(end_of(resumed), expected)


# --- what is left over ----------------------------------------------------------------------------

ENDS = {
    "success": (lambda step: None, ()),
    "exception": (at_step(5, StopError()), StopError),
    "interrupt": (at_step(5, KeyboardInterrupt()), (KeyboardInterrupt, SystemExit)),
}


@every
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_over(name, end, folder):
    event, errors = ENDS[end]
    states = []
    for callbacks in ([], [CALLBACKS[name]()]):
        module = Net(event)
        made = module.configure_optimizers()
        module.configure_optimizers = lambda made=made: made
        if errors:
            with pytest.raises(errors):
                fit(callbacks, module)
        else:
            fit(callbacks, module)
        states.append(contract.process_state())
        assert contract.hooks_left(module, [made]) == []
        assert all(not hasattr(p, "_stab") for p in module.parameters())
    left = [key for key in states[0] if not same(states[0][key], states[1][key])]
    assert left == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in CALLBACKS if not n.endswith("Monitor")])
def test_the_callback_metrics_are_the_users_own(name):
    without = set(fit([]).callback_metrics)
    assert set(fit([CALLBACKS[name]()]).callback_metrics) == without


# --- all together ---------------------------------------------------------------------------------


def all_in_order(seed):
    callbacks = all_of_them()
    random.Random(seed).shuffle(callbacks)
    return end_of(fit(callbacks))


@pytest.mark.nightly
@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 50), marks=FULL)])
def test_every_order_of_the_list_trains_the_same_weights(seeds):
    expected = end_of(fit(all_of_them()))
    assert all(same(all_in_order(seed), expected) for seed in seeds)


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_healthy_run_beside_it_is_the_run_without_it(name):
    assert same(end_of(fit([CALLBACKS[name]()])), end_of(fit([])))


@pytest.mark.parametrize("names", [*([name] for name in CALLBACKS), list(CALLBACKS)])
def test_a_loop_run_by_hand_after_the_fit_takes_its_step(names):
    """Lightning's own tests drive the inner loop so; nothing is owed to a fit that is over."""
    trainer = fit([CALLBACKS[name]() for name in names])
    trainer.state.stage = RunningStage.TRAINING
    before = [p.detach().clone() for p in trainer.lightning_module.parameters()]
    for number, batch in enumerate(contract.loader(2)):
        run = trainer.fit_loop.epoch_loop.automatic_optimization.run
        output = run(trainer.optimizers[0], number, {"batch": batch, "batch_idx": number})
        assert output["loss"].isfinite()
    after = list(trainer.lightning_module.parameters())
    assert not any(map(torch.equal, before, after))
    assert not any(p.grad is not None and p.grad.isnan().any() for p in after)
