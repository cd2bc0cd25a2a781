"""Which kind of layer a module is: linear, convolution, recurrent, embedding, norm."""

from __future__ import annotations

import re

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)
# Layers with one weight and one result, the pre-activations.
WEIGHT_LAYERS = (nn.Linear, nn.Bilinear, *CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)
# Everything that takes an activation and multiplies it with weights.
CONSUMERS = (*WEIGHT_LAYERS, nn.MultiheadAttention, *RECURRENT)
# Those whose fans are known, so that a scheme can draw them.
SCHEME_LAYERS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, nn.MultiheadAttention)
# Norms of each channel over the batch or the positions: `num_features`, and running statistics.
CHANNEL_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d),
    *(nn.LazyInstanceNorm1d, nn.LazyInstanceNorm2d, nn.LazyInstanceNorm3d),
)
_NORMS = (*CHANNEL_NORMS, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)
_NORM_NAME = re.compile(r"Norm(\dd)?$")


def is_norm(module: nn.Module) -> bool:
    """Return whether ``module`` is a normalisation layer, of torch or by the end of its name.

    Example:
        >>> is_norm(nn.BatchNorm1d(3)), is_norm(nn.Linear(3, 3))
        (True, False)
    """
    return isinstance(module, _NORMS) or bool(_NORM_NAME.search(type(module).__name__))
