"""What the classifiers share: the steps, the metrics and the optimizer."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.errors import ConflictError

OPTIMIZERS = ("adam", "adamw", "sgd")


class Classifier(LightningModule):
    """Softmax classification: cross-entropy on the logits that the subclass's `forward` returns.

    Logs ``train_loss``, ``train_accuracy``, ``val_loss``, ``val_accuracy``, ``test_loss`` and
    ``test_accuracy``: means over all samples of an epoch, of all ranks.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        optimizer: str,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__()
        integer("num_classes", num_classes, minimum=2)
        self.optimizer_name = one_of("optimizer", optimizer, OPTIMIZERS)
        self.learning_rate = real("learning_rate", learning_rate, above=0)
        self.momentum = real("momentum", momentum, minimum=0, below=1)
        self.weight_decay = real("weight_decay", weight_decay, minimum=0)
        self.metrics = nn.ModuleDict()
        for stage in ("train", "val", "test"):
            # A NaN must show in the mean; the default would leave it out. ("disable" would too,
            # but torchmetrics 1.9 then forgets the weights of short batches.)
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy=math.nan)
            self.metrics[f"{stage}_accuracy"] = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the class probabilities of a batch of inputs, or of (inputs, classes)."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(inputs), dim=1)

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer that was asked for."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer_name == "sgd":
            return SGD(self.parameters(), rate, momentum=self.momentum, weight_decay=decay)
        if self.optimizer_name == "adamw":
            return AdamW(self.parameters(), rate, weight_decay=decay)
        return Adam(self.parameters(), rate, weight_decay=decay)

    def _measured_loss(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        inputs, classes = batch
        logits = self(inputs)
        # Half precision would round the loss to two or three digits; double stays double.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, classes)
        self._measure(f"{stage}_loss", loss.detach(), len(classes))
        self._measure(f"{stage}_accuracy", logits.detach(), classes)
        return loss

    def _measure(self, name: str, *observation: Any) -> None:
        self.metrics[name].update(*observation)  # type: ignore[operator]
        self.log(name, self.metrics[name], on_step=False, on_epoch=True, prog_bar=True)  # type: ignore[arg-type]


def shaped(inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a batch with samples of ``shape``, flat or not as they came.

    Raises:
        ConflictError: if the samples hold another number of values.
    """
    got, expected = math.prod(inputs.shape[1:]), math.prod(shape)
    if got != expected:
        raise ConflictError(
            f"The model expects samples of {expected} values, got {got} (a batch of shape "
            f"{tuple(inputs.shape)}). Give the model the size of the data: `in_features` of "
            f"MLPClassifier, `in_channels` and `image_size` of ConvClassifier."
        )
    return inputs.reshape(-1, *shape)
