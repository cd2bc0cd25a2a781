"""A plugin of pytest: whoever imports Lightning's `EarlyStopping` gets ours."""

from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import early_stopping

from lightning_stab import BestWeightsEarlyStopping

callbacks.EarlyStopping = early_stopping.EarlyStopping = BestWeightsEarlyStopping
