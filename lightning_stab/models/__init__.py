"""The suite's own modules, readable as examples."""

from lightning_stab.models.conv_classifier import ConvClassifier
from lightning_stab.models.mlp_classifier import MLPClassifier

__all__ = ["ConvClassifier", "MLPClassifier"]
