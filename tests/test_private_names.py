"""Every private name of Lightning and torch that the package uses is registered and still there.

The register is a table in ARCHITECTURE.md, whose second column is evaluated here. Where a new
release has taken a name away, the test of its row fails and says where the package uses it.
"""

import argparse
import ast
import inspect
import re
from pathlib import Path

import lightning.pytorch
import pytest
import torch
from helpers.cases import for_each
from helpers.gradcheck_modules import Doubled
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies.launchers import multiprocessing as launchers
from lightning.pytorch.utilities import compile as lightning_compile
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_stab"
REGISTER = (ROOT / "ARCHITECTURE.md").read_text().partition("<!-- private names -->")[2]
REGISTER = REGISTER.partition("<!-- end of private names -->")[0]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
    for line in REGISTER.splitlines()
    if line.startswith("| `")
]


def function():
    """Something to compile."""


def schedulers():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer)
    return constant, torch.optim.lr_scheduler.ChainedScheduler([constant], optimizer=optimizer)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the second column may name."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    scheduler, chained = schedulers()
    with SummaryWriter(tmp_path_factory.mktemp("events")) as writer:
        files = writer._get_file_writer()
    return {
        "argparse": argparse,
        "Callback": lightning.pytorch.Callback,
        "CombinedLoader": CombinedLoader,
        "Custom": Doubled,
        "EarlyStopping": EarlyStopping,
        "LightningModule": LightningModule,
        "SummaryWriter": SummaryWriter,
        "chained": chained,
        "file_writer": files,
        "function": function,
        "getsource": inspect.getsource,
        "launchers": launchers,
        "lightning_compile": lightning_compile,
        "logger": TensorBoardLogger(tmp_path_factory.mktemp("logs")),
        "nn": nn,
        "scaler": torch.amp.GradScaler("cpu"),
        "scheduler": scheduler,
        "torch": torch,
        "trainer": trainer,
    }


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@for_each([[*row] for row in ROWS])
def test_a_private_name_is_there(row, names):
    name, expression, *_ = row
    assert name in expression
    found = eval(expression, names)
    assert found is not False, f"`{name}` is gone"


@for_each([[*row] for row in ROWS])
def test_a_private_name_is_used_where_the_register_says(row):
    name, _, files, _ = row
    for file in files.split(", "):
        assert name in (PACKAGE / file.strip("`")).read_text(), f"{file} no longer uses `{name}`"


def defined(tree):
    """Yield the names that a file of the package defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr if ast.unparse(node.value) == "self" else ""


def used(tree):
    """Yield the private names that a file of the package reads or imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and not node.module.startswith("lightning_stab"):
            yield from (*node.module.split("."), *(alias.name for alias in node.names))


def test_every_private_name_is_registered():
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    own = {name for tree in trees for name in defined(tree)}
    foreign = {name for tree in trees for name in used(tree)} - own
    known = {"_C", "_asdict", "_lightning_stab"}
    private = {name for name in foreign if re.match(r"_[^_]", name)} - known
    assert private - {row[0] for row in ROWS} == set()
