"""The suite's own data modules, readable as examples."""

from lightning_stab.data.digits import DigitsDataModule
from lightning_stab.data.mnist import MNISTDataModule

__all__ = ["DigitsDataModule", "MNISTDataModule"]
