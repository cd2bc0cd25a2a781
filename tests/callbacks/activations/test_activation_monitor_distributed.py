"""Two processes on gloo: the first looks at its own batch, and neither trains otherwise."""

import pytest
from helpers.comparing import hooks_of
from helpers.lightning_twins import Classifier, batches, built
from helpers.ranks import ShardedClassifier, ddp, fit_on_ranks, fsdp2, report, run_ranks, weights
from torch import nn
from torch.nn.functional import gelu

from lightning_stab import ActivationMonitor

pytestmark = pytest.mark.nightly


class Net(Classifier):
    """A module and a function as activations, without running statistics."""

    def __init__(self):
        super().__init__("adam", batch_norm=False, logs=False)
        self.more = nn.Linear(3, 3)

    def forward(self, x):
        return self.more(gelu(self.net(x)))


class Sharded(ShardedClassifier):
    """The same, with its layers sharded over the processes."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(3, 3)

    forward = Net.forward

    def parts(self):
        return self.net[0], self.net[4], self.more, self


def watched_and_plain():
    for name, strategy, kind in (("ddp", ddp, Net), ("fsdp2", fsdp2, Sharded)):
        for callbacks in ([ActivationMonitor(3)], []):
            module = built(kind)
            trainer = fit_on_ranks(module, callbacks, batches(8), strategy=strategy())
            logged = {step: values for step, values in trainer.logger.steps.items() if values}
            hooks = len(hooks_of(module))
            report(strategy=name, weights=weights(module), logged=logged, hooks=hooks)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process found."""
    return run_ranks(watched_and_plain, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_the_first_process_logs_and_the_run_is_the_unwatched_one(found, strategy):
    first, second = ([fact for fact in each if fact["strategy"] == strategy] for each in found)
    for watched, plain in (first, second):
        assert watched["weights"] == plain["weights"]
        assert watched["hooks"] == plain["hooks"]
    assert first[0]["weights"] == second[0]["weights"]
    assert list(first[0]["logged"]) == ["2", "5"]
    assert {"activation_std/net.2", "activation_std/gelu"} <= set(first[0]["logged"]["2"])
    assert second[0]["logged"] == {}
