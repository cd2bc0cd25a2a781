"""A finding begins on a line of its own, whichever bar is drawn: read from a pseudo-terminal."""

import os
import re
import select
import subprocess
import sys

import pytest
from helpers.processes import SECONDS

pytestmark = pytest.mark.nightly
LAST, HANDLER = "last resort", "handler"  # of logging

PROGRAM = """
import logging, sys
if sys.argv[2] == "handler":  # which holds the terminal, and not what a bar puts in its place
    logging.basicConfig(format="%(message)s")
import torch
from helpers.doctor_programs import CLASSES, learnable
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning_stab import TrainingDoctor

class Faulty(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, CLASSES)
    def training_step(self, batch, batch_idx):
        p = self.net(batch[0]).softmax(-1)
        return torch.nn.functional.cross_entropy(p, batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

bar = {"rich": RichProgressBar, "tqdm": TQDMProgressBar}[sys.argv[1]](refresh_rate=1)
options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[bar, TrainingDoctor()], **options)
trainer.fit(Faulty(), learnable())
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(*arguments):
    """Run the program at a pseudo-terminal; return its lines as they stand there at the end."""
    pty = pytest.importorskip("pty")
    main, other = pty.openpty()
    paths = [os.path.abspath("tests"), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment) as run:
        os.close(other)
        read = b""
        while True:
            if not select.select([main], [], [], SECONDS)[0]:
                run.kill()  # or leaving this block would wait for it
                break
            try:
                part = os.read(main, 65536)
            except OSError:  # how a pseudo-terminal says that nobody writes to it any more
                break
            if not part:
                break
            read += part
    os.close(main)
    text = ESCAPES.sub("", read.decode().replace("\r\n", "\n"))
    return [line.rpartition("\r")[2] for line in text.split("\n")]


FULL = [pytest.param(*ways, marks=pytest.mark.full) for ways in (("tqdm", LAST), ("rich", HANDLER))]


@pytest.mark.parametrize(("bar", "how"), [("tqdm", HANDLER), ("rich", LAST), *FULL])
def test_a_finding_begins_on_its_own_line(bar, how):
    lines = shown(bar, how)
    named = [line for line in lines if "error: output-activation" in line]
    assert len(named) == 1, "\n".join(lines)
    assert named[0].startswith("error: output-activation (step 0)")
    last = next(i for i, line in enumerate(lines) if "outside the loss" in line)
    assert sum(line.startswith("  1. Remove") for line in lines) == 1  # it may be wrapped
    assert lines[last].endswith("outside the loss.")
