"""The suite's own modules, readable as examples."""

from lightning_stab.models.classifiers import ConvClassifier, MLPClassifier

__all__ = ["ConvClassifier", "MLPClassifier"]
