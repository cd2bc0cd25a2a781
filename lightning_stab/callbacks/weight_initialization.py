"""`WeightInitialization`: draws the module's weights anew when a fit starts."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_stab.arguments import integer
from lightning_stab.callbacks._init_table import markdown_table, print_table
from lightning_stab.callbacks._lightning import Callback
from lightning_stab.callbacks._logging import log_text
from lightning_stab.errors import ConflictError
from lightning_stab.functional.initialization import (
    InitializationSettings,
    WeightRecord,
    initialize_,
)

DEFAULT_SEED = 0
_SHARDED = {"FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"}


class WeightInitialization(Callback):
    """Draw the weights anew at the start of a fit, with the gain of the activation before each.

    The standard deviation of a weight is ``gain * sqrt(2 / (fan_in + fan_out))`` for Xavier and
    ``gain / sqrt(fan_in)`` for Kaiming, LeCun and the truncated normal; the larger a layer's
    input, the smaller its weights. The gain belongs to the activation that PRECEDES the layer, and
    is 1 for the first layer and after a norm. Which activation precedes is taken from the order in
    which the modules are declared; an activation called as a function is not seen.

    It works in ``on_fit_start``: the module is built (``configure_model`` too) and on its device.
    Weights that come from a checkpoint are never touched: not when the Trainer resumes, not when
    this callback's restored state says that they were drawn before, not in a second ``fit`` of the
    same module. Norms, vectors, embeddings, recurrent layers, and frozen, excluded, parametrized,
    lazy and quantised weights stay as they are; `records` gives the reason for each.

    Args:
        scheme: ``auto`` (Kaiming normal after a ReLU-like activation module, Xavier normal
            otherwise), ``xavier_normal``, ``xavier_uniform``, ``kaiming_normal``,
            ``kaiming_uniform``, ``lecun_normal``, ``lecun_uniform``, ``orthogonal``,
            ``trunc_normal`` (cut off at two standard deviations).
        gain: above 0; replaces the activation's gain, for every layer. None (default) takes the
            activation's own; LeCun's is always 1.
        bias: ``zeros`` (default, because random offsets carry no signal) or ``keep``.
        exclude: shell patterns of parameter or layer names that stay as they are, for example
            ``["backbone.*"]`` for pretrained weights. A pattern without a match is an error.
        embedding_std: above 0; draws embeddings from N(0, std^2), with zeros in the padding row.
            None (default) leaves them alone: no activation says what their scale should be.
        seed: at least 0, of the generator, which is the callback's own: no other random number of
            the run changes. None (default) takes the seed of ``seed_everything`` (the variable
            ``PL_GLOBAL_SEED``), or 0 without one. All ranks use the seed of rank 0.
        verbose: print a compact table of what was done, on rank 0.

    Attributes:
        records: one `WeightRecord` for each weight of the last initialised module.

    Raises:
        InvalidArgumentError: if an argument breaks its rule; a scheme of equal weights (``zeros``,
            ``ones``, ``constant``) is refused because all units would stay identical.
        ConflictError: at fit start, if the strategy shards the weights.

    Example:
        >>> WeightInitialization("orthogonal", gain=1.2, exclude=["head.*"]).settings.scheme
        'orthogonal'

    Sources: LeCun et al. 1998; Glorot & Bengio 2010; Saxe et al. 2014; He et al. 2015.
    """

    def __init__(
        self,
        scheme: str = "auto",
        gain: float | None = None,
        bias: str = "zeros",
        exclude: Sequence[str] = (),
        embedding_std: float | None = None,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        exclude = exclude if isinstance(exclude, str) else tuple(exclude)
        self.settings = InitializationSettings(scheme, gain, bias, exclude, embedding_std)
        self.seed = seed if seed is None else integer("seed", seed, minimum=0)
        self.verbose = verbose
        self.records: list[WeightRecord] = []
        self._restored = False
        self._module: weakref.ref[LightningModule] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Initialise, unless the weights come from a checkpoint or were initialised before."""
        resumed = trainer.ckpt_path is not None or self._restored
        again = self._module is not None and self._module() is pl_module
        self._restored, self._module = False, weakref.ref(pl_module)
        if resumed or again:
            return
        _refuse_sharding(trainer)
        seed = trainer.strategy.broadcast(_process_seed() if self.seed is None else self.seed)
        self.records = initialize_(pl_module, self.settings, seed)
        log_text(trainer, "weight_initialization", markdown_table(self.records))
        if self.verbose and trainer.is_global_zero:
            print_table(self.records)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget a restored mark when its fit is over: the next module may be a fresh one."""
        self._restored = self._restored and stage != "fit"

    def state_dict(self) -> dict[str, Any]:
        """Mark the checkpoint: its weights have been initialised."""
        return {"initialized": self._restored or self._module is not None}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember that the weights to come have been initialised before."""
        self._restored = bool(state_dict["initialized"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_module": None}


def _process_seed() -> int:
    """Return the seed that ``seed_everything`` left in the environment, or a fixed one."""
    text = os.environ.get("PL_GLOBAL_SEED", "")
    return int(text) if text.isdecimal() else DEFAULT_SEED


def _refuse_sharding(trainer: Trainer) -> None:
    names = {base.__name__ for base in type(trainer.strategy).__mro__} & _SHARDED
    if names:
        raise ConflictError(
            f"`WeightInitialization` cannot work with `{names.pop()}`, which shards the weights "
            "before the fit starts. Call `functional.initialization.initialize_` on the module "
            "before you hand it to the Trainer, and leave the callback out."
        )
