"""Two processes: the first one checks, both decide alike."""

import pytest
from helpers.gradcheck_modules import Net, loader
from helpers.lightning_twins import built
from helpers.ranks import fit_on_ranks, report, run_ranks

from lightning_stab import GradientCheck
from lightning_stab.errors import GradientCheckError

pytestmark = pytest.mark.nightly


class Joined(Net):
    """Its training step gathers what the ranks have, which asks for both of them."""

    def training_step(self, batch, batch_idx):
        gathered = self.all_gather(batch[0])
        assert gathered.shape[0] == 2, gathered.shape
        return super().training_step(batch, batch_idx)


def check_right_and_wrong():
    for factor in (1.0, -1.0):
        check = GradientCheck()
        try:
            trainer = fit_on_ranks(
                built(Joined, factor, seed=1), [check], loader(), use_distributed_sampler=True
            )
            report(passed=check.report.passed, steps=trainer.global_step)
        except GradientCheckError as error:
            report(named="net.4.weight" in str(error))


def test_the_first_rank_checks_and_both_ranks_decide_alike(tmp_path):
    for reported in run_ranks(check_right_and_wrong, tmp_path):
        assert reported == [{"passed": True, "steps": 2}, {"named": True}]
