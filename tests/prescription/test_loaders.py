"""The training loader, built again with other arguments."""

import pytest
import torch
from helpers.quiet import QUIET
from helpers.sick_programs import Classifier
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from lightning_stab.data import DigitsDataModule
from lightning_stab.errors import ConflictError
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.loaders import is_ordered, rebuilt, takes_batch_size, with_loader
from lightning_stab.prescription.survey import Surveyor

ROWS = TensorDataset(torch.randn(24, 4), torch.arange(24) % 2)


class Rows(LightningDataModule):
    def __init__(self, shuffle=False):
        super().__init__()
        self.shuffle = shuffle

    def train_dataloader(self):
        return DataLoader(ROWS, batch_size=8, shuffle=self.shuffle)


def labels(loader):
    return [y for batch in loader for y in batch[1].tolist()]


def test_batches_of_another_size_hold_the_same_rows_in_the_same_order():
    before = DataLoader(ROWS, batch_size=8, drop_last=True, collate_fn=lambda rows: len(rows))
    after = rebuilt(before, {"batch_size": 5})
    assert list(after) == [5] * 4  # the collate function and `drop_last` stay
    assert after.sampler is before.sampler
    weighted = WeightedRandomSampler([1.0] * 24, 24)
    assert rebuilt(DataLoader(ROWS, 8, sampler=weighted), {"batch_size": 2}).sampler is weighted
    pair = with_loader((DataLoader(ROWS, 8), "val"), {"batch_size": 4})
    assert (len(pair[0]), pair[1]) == (6, "val")


def test_rows_are_shuffled():
    before = DataLoader(ROWS, batch_size=8)
    (after,) = with_loader((before,), {"shuffle": True})
    torch.manual_seed(0)
    assert sorted(labels(after)) == sorted(labels(before))
    assert labels(after) != labels(before)
    assert (is_ordered(before), is_ordered(after), after.batch_size) == (True, False, 8)
    data = Rows()
    (same,) = with_loader((data,), {"shuffle": True})
    assert same is data
    assert not is_ordered(data.train_dataloader())


def test_a_data_module_is_set_by_its_own_argument():
    data = DigitsDataModule(batch_size=64)
    assert takes_batch_size(data)
    with_loader((data,), {"batch_size": 16})
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))[0]) == 16
    assert not takes_batch_size(Rows())
    (other,) = with_loader((Rows(),), {"batch_size": 4})
    assert len(other.train_dataloader()) == 6


class Own(DataLoader):
    pass


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize("loader", [None, [1, 2], DataLoader(Stream()), DataLoader(ROWS, None)])
def test_what_cannot_be_built_again_is_refused(loader):
    with pytest.raises(ConflictError, match=r"needs a plain `DataLoader` of a dataset .* by hand"):
        with_loader(() if loader is None else (loader,), {"shuffle": True})


@pytest.mark.filterwarnings("ignore")
def test_a_program_shows_what_can_be_done_with_its_loader():
    def seen(data):
        surveyor = Surveyor()
        Trainer(**{**QUIET, "max_steps": 1}, callbacks=surveyor).fit(Classifier(), data)
        survey = surveyor.survey
        return survey.batch_size, survey.is_ordered, survey.batch_size_in_yaml

    assert seen(DataLoader(ROWS, batch_size=8)) == (8, True, False)
    assert seen(Rows(shuffle=True)) == (8, False, False)
    assert seen(Own(ROWS, batch_size=8)) == (0, False, False)


def test_a_candidate_changes_the_data_and_says_so_in_yaml_where_it_can():
    batches = Candidate("b", "", "Do.", loader={"batch_size": 2}, in_yaml=True)
    assert batches.overlay == {"data": {"init_args": {"batch_size": 2}}}
    _, data, arguments = batches.applied(None, (DataLoader(ROWS, 8),), {"max_epochs": 1})
    assert (len(data[0]), arguments["max_epochs"]) == (12, 1)
    by_hand = Candidate("s", "", "Do.", loader={"shuffle": True})
    assert by_hand.overlay is None
    assert batches.with_other(by_hand) is None  # both change the loader
    clip = Candidate("c", "", "Do.", trainer={"max_epochs": 9})
    both = clip.with_other(batches)
    assert both.overlay == {"trainer": {"max_epochs": 9}, "data": {"init_args": {"batch_size": 2}}}
