"""Two processes: the first one checks, both decide alike."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
sys.path.insert(0, {tests!r})
from helpers.gradcheck_modules import Net, loader
from lightning.pytorch import Trainer, seed_everything
from lightning_stab import GradientCheck
from lightning_stab.errors import GradientCheckError

class Joined(Net):
    def __init__(self, factor):
        super().__init__(factor)
        self.net[1] = torch.nn.BatchNorm1d(8)

    def training_step(self, batch, batch_idx):
        gathered = self.all_gather(batch[0])
        assert gathered.shape[0] == 2, gathered.shape
        return super().training_step(batch, batch_idx)

if __name__ == "__main__":
    seed_everything(1, verbose=False)
    check = GradientCheck()
    trainer = Trainer(max_epochs=1, callbacks=[check], accelerator="cpu", devices=2,
                      strategy="ddp", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    try:
        trainer.fit(Joined({factor}), loader())
        outcome = f"passed {{check.report.passed}} steps {{trainer.global_step}}"
    except GradientCheckError as error:
        outcome = f"raised net.4.weight {{'net.4.weight' in str(error)}}"
    print(f"rank {{trainer.global_rank}}: {{outcome}}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "passed True steps 2"), (-1.0, "raised net.4.weight True")]
)
def test_the_first_rank_checks_and_both_ranks_decide_alike(tmp_path, factor, outcome):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[2]), factor=factor))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=Path(__file__).parents[3],
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    for rank in (0, 1):
        assert f"rank {rank}: {outcome}" in done.stdout, done.stdout + done.stderr
