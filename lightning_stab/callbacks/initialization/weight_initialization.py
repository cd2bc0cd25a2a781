"""`WeightInitialization`: draws new weights for the module when a fit starts."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_stab.arguments import integer, options_from
from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start, is_restored_midway
from lightning_stab.callbacks._trainer.lightning_classes import Callback, callbacks_of
from lightning_stab.callbacks._trainer.ranks import any_rank, broadcast, broadcast_
from lightning_stab.callbacks._trainer.strategies import refuse_sharded_weights
from lightning_stab.callbacks._trainer.trainer_stub import ignore
from lightning_stab.callbacks.initialization.first_batch import first_batch
from lightning_stab.callbacks.initialization.program import program_of
from lightning_stab.callbacks.initialization.report import report
from lightning_stab.errors import StabError
from lightning_stab.functional.initialization import (
    Bias,
    InitializationSettings,
    Keep,
    Program,
    Scheme,
    WeightRecord,
    initialize_,
)

DEFAULT_SEED = 0


@dataclass(frozen=True)
class WeightInitializationSettings(InitializationSettings):
    """The settings of initialisation, and when and from what the callback initialises."""

    _: KW_ONLY
    seed: int | None = None
    verbose: bool = True
    use_batch: bool = True
    on_resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None:
            integer("seed", self.seed, minimum=0)


class WeightInitialization(Callback, options=WeightInitializationSettings):
    """Draw new weights at the start of a fit, with the gain of the activation before each.

    ``auto`` makes very deep plain networks trainable. From one real batch, run through a copy of
    the module, it finds what really precedes each weight, and draws orthogonal weights to match:
    mirrored ones after a function with f(x) - f(-x) = kx (ReLU, LeakyReLU, GELU, SiLU, softplus),
    which make the net exactly linear at the start, or nearly so (Mish); ones with a gain that
    balances signal and gradient over the depth after sigmoid, tanh, SELU, ELU and unknown
    functions, with a bias that centres a sigmoid; gain 1 after the input or a norm;
    1/sqrt(branches) at the end of a residual
    branch; recurrent gates one by one. Another scheme draws every weight with standard deviation
    ``gain * sqrt(2 / (fan_in + fan_out))`` (Xavier) or ``gain / sqrt(fan_in)`` (the others).

    It works in ``on_fit_start``: the module is built (``configure_model`` too) and on its device.
    Where the first batch cannot be seen without using it up (a loader that keeps its position, or
    has an ``__iter__`` of its own), it works when the run has fetched it, before the first step.
    Weights that come from a checkpoint are not touched: not when the Trainer resumes, not when
    this callback's restored state says that they were drawn before, not in a second ``fit`` of the
    same module. Norms, vectors, embeddings, and frozen, excluded, parametrized, quantised and
    adapter weights stay as they are; `records` gives the reason for each. Lazy layers get their
    shapes from the batch first. The order of the batches, the buffers and all random states stay
    as they were.

    Args:
        scheme: ``auto``, ``xavier_normal``, ``xavier_uniform``, ``kaiming_normal``,
            ``kaiming_uniform``, ``lecun_normal``, ``lecun_uniform``, ``orthogonal``,
            ``trunc_normal`` (cut off at two standard deviations), ``lsuv`` (orthonormal, then each
            layer's result scaled to standard deviation 1 on the batch) or ``lsuv_centered`` (also
            to mean 0 for each unit).
        gain: above 0; replaces every gain. None (default) takes each one's own; LeCun's is 1.
        bias: ``zeros`` (default, because random offsets carry no signal) or ``keep``.
        exclude: shell patterns of parameter or layer names that stay as they are, for example
            ``["backbone.*"]`` for pretrained weights. A pattern without a match is an error.
        embedding_std: above 0; draws embeddings from N(0, std^2), with zeros in the padding row.
            None (default) leaves them alone: no activation says what their scale should be.
        seed: at least 0, of the generator, which is the callback's own: no other random number of
            the run changes. None (default) takes the seed of ``seed_everything`` (the variable
            ``PL_GLOBAL_SEED``), or 0 without one. All ranks use the seed of rank 0.
        verbose: print a compact table of what was done, on rank 0.
        include: patterns of names; if any are given, all other weights stay as they are.
        schemes: a scheme or ``keep`` for patterns of parameter names, layer names or class names,
            such as ``{"Conv2d": "kaiming_normal"}``; the first match counts.
        output_prior: the frequency of each class; the output layer's bias becomes its logarithm.
        use_batch: whether one real training batch is used. Without it, what precedes a weight
            is taken from the order in which the modules are declared, and ``auto`` is Kaiming
            normal after a ReLU-like activation and Xavier normal otherwise.
        on_resume: whether weights that come from a checkpoint are drawn all the same.

    Attributes:
        records: one `WeightRecord` for each weight of the last initialised module.

    Raises:
        InvalidArgumentError: if an argument breaks its rule; a scheme of equal weights (``zeros``,
            ``ones``, ``constant``) is refused because all units would stay identical.
        ConflictError: at fit start, if the strategy shards the weights, or if a weight that is to
            stay is all zero and feeds another layer.

    Example:
        >>> WeightInitialization("orthogonal", gain=1.2, exclude=["head.*"]).settings.scheme
        'orthogonal'

    Sources: Glorot & Bengio 2010; Saxe et al. 2014; He et al. 2015; Mishkin & Matas 2016;
    Balduzzi et al. 2017; Xiao et al. 2018.
    """

    def __init__(
        self,
        scheme: Scheme = "auto",
        gain: float | None = None,
        bias: Bias = "zeros",
        exclude: Sequence[str] = (),
        embedding_std: float | None = None,
        seed: int | None = None,
        verbose: bool = True,
        include: Sequence[str] = (),
        schemes: Mapping[str, Scheme | Keep] | None = None,
        output_prior: Sequence[float] | None = None,
        use_batch: bool = True,
        on_resume: bool = False,
    ) -> None:
        self.settings = self.options = options_from(WeightInitializationSettings, locals())
        self.records: list[WeightRecord] = []
        self._restored = self._is_midway = self._awaits_batch = False
        self._module: weakref.ref[LightningModule] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Initialise, unless the weights come from a checkpoint or were initialised before."""
        resumed = self._restored or fit_start(trainer) is FitStart.RESUMED
        again = self._module is not None and self._module() is pl_module
        self._restored = self._awaits_batch = False
        if again or (resumed and not self.settings.on_resume):
            self._module = weakref.ref(pl_module)
            return
        self._module = None
        refuse_sharded_weights(trainer, self)
        if not self.settings.use_batch:
            self._draw(trainer, pl_module, None)
            return
        # a resumed run puts its loaders back to their places only later
        batch = None if fit_start(trainer) is FitStart.RESUMED else first_batch(trainer, pl_module)
        self._awaits_batch = any_rank(trainer, batch is None)
        if not self._awaits_batch:
            self._draw(trainer, pl_module, program_of(pl_module, batch))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Initialise from the first batch, where nobody but the run itself can fetch it."""
        if not self._awaits_batch:
            return
        self._awaits_batch = False
        program: Program | None = program_of(pl_module, batch)
        if any_rank(trainer, batch is None):
            program = None
            rank_zero_warn(
                "`WeightInitialization` sees no batch of a training step that takes its batches "
                "itself, so it goes by the order in which the modules are declared. "
                "Call `lightning_stab.initialize(module, batch)` yourself for the full choice."
            )
        self._draw(trainer, pl_module, program)
        for callback in callbacks_of(trainer):  # a guard has kept the weights of before
            getattr(callback, "renew_snapshot", ignore)(trainer, pl_module)

    def _draw(self, trainer: Trainer, module: LightningModule, program: Program | None) -> None:
        """Draw the weights, alike on all ranks, and report it."""
        of_process = os.environ.get("PL_GLOBAL_SEED", "")  # which `seed_everything` leaves there
        seed = self.settings.seed
        if seed is None:
            seed = int(of_process) if of_process.isdecimal() else DEFAULT_SEED
        self.records = self._initialize_(module, broadcast(trainer, seed), program)
        # the first batches of the other ranks were different ones
        broadcast_(trainer, module.parameters())
        self._module = weakref.ref(module)
        report(trainer, self.records, verbose=self.settings.verbose)

    def _initialize_(
        self, module: LightningModule, seed: int, program: Program | None
    ) -> list[WeightRecord]:
        """Initialise; without the batch if the training step does not run on a copy."""
        try:
            return initialize_(module, self.settings, seed, program)
        except StabError:
            raise
        except Exception as error:  # user code may raise anything on a copy; its fit goes on
            if program is None:
                raise
            rank_zero_warn(
                "`WeightInitialization` could not run the training step on a copy of the module "
                f"({type(error).__name__}: {error}), so it goes by the order in which the modules "
                "are declared. `use_batch=False` says so without this warning."
            )
            return initialize_(module, self.settings, seed)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Forget what belongs to this fit alone."""
        self._awaits_batch = False
        super().on_exception(trainer, pl_module, exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget a restored state when its fit is over: the next module may be a fresh one."""
        self._restored = self._restored and stage != "fit"
        if self._awaits_batch:
            self._awaits_batch = False
            rank_zero_warn(
                "`WeightInitialization` has drawn nothing, because the fit had no training batch. "
                "`use_batch=False` draws without one."
            )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note whether the state to come is the user's, or one that a finder saved itself."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._is_midway = is_restored_midway(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Mark the checkpoint: its weights have been initialised."""
        return {"initialized": self._restored or self._module is not None}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember that the weights to come have been initialised before."""
        self._restored = bool(state_dict["initialized"]) and not self._is_midway

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_module": None}
