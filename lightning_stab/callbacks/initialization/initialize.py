"""`initialize`: weight initialisation as a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_stab.arguments import instance, integer, options_from
from lightning_stab.callbacks.initialization.program import program_of
from lightning_stab.functional.initialization import (
    Bias,
    InitializationSettings,
    Keep,
    Scheme,
    WeightRecord,
    initialize_,
)


def initialize(
    module: nn.Module,
    batch: Any = None,
    scheme: Scheme = "auto",
    gain: float | None = None,
    *,
    loss_fn: Callable[[nn.Module, Any], Tensor] | None = None,
    bias: Bias = "zeros",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    schemes: Mapping[str, Scheme | Keep] | None = None,
    embedding_std: float | None = None,
    output_prior: Sequence[float] | None = None,
    seed: int = 0,
) -> list[WeightRecord]:
    """Draw new weights for ``module``, in place; return one record for each weight.

    What `WeightInitialization` does at the start of a fit, for everyone without a Trainer. With a
    batch, the activation before each weight is found by what the batch really does; without one,
    by the order in which the modules are declared.

    Args:
        module: a LightningModule or any other module.
        batch: what its ``training_step``, or ``loss_fn``, takes. A plain module without a
            ``loss_fn`` is called with the batch, with the first entry of a list or tuple, or with
            the entries of a mapping by keyword.
        scheme: ``auto``, a plain scheme, ``lsuv`` or ``lsuv_centered``.
        gain: above 0; replaces every gain. None takes each one's own.
        loss_fn: called with a copy of the module and the batch; returns the loss.
        bias: ``zeros`` or ``keep``.
        include: patterns of parameter or layer names; if any, all others stay as they are.
        exclude: patterns of those that stay as they are.
        schemes: a scheme or ``keep`` for patterns of names or of layers' class names.
        embedding_std: above 0; draws embeddings. None leaves them alone.
        output_prior: the frequency of each class; sets the output layer's bias to its logarithm.
        seed: at least 0, of the private generator.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: if a weight that is to stay is all zero and feeds another layer.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> [record.scheme for record in initialize(net, torch.randn(8, 20))]
        ['mirrored orthogonal', 'mirrored orthogonal']

    Sources: Saxe et al. 2014; Mishkin & Matas 2016; Balduzzi et al. 2017; Xiao et al. 2018.
    """
    integer("seed", seed, minimum=0)
    settings = options_from(InitializationSettings, locals())
    instance("module", module, nn.Module)
    program = None if batch is None else program_of(module, batch, loss_fn)
    return initialize_(module, settings, seed, program)
