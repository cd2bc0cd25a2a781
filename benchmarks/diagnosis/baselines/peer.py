"""traintools, a published package (PyPI, MIT, 0.6.2 when this was written), asked as it advises.

Three of its monitors judge a run while it goes: `GradientHealthMonitor`, `PlasticityProbe` and
`BatchInspector`. They are called at the places that its quick start names, with its own default
thresholds (gradient norm 1e-12 and 1e3, update-to-weight ratio 1e-1 and 1e-8, plasticity score 0.3,
input beyond 1e6). Every warning that it prints counts as a finding.

What was chosen here:
- The gradients and the batch are inspected every 10 steps instead of every step: an inspection
  reads each parameter several times over from Python and costs more than a small step itself.
- The plasticity score is read every 100 steps instead of every 200, so that a short run has one;
  the activations of the 16 batches before that are collected, as the probe keeps 1,024 samples.
- `max_grad_norm` is left unset, as by default; set to 1, as in the quick start, every norm above 1
  would be a warning.
- Targets are given to the inspector when they are class labels (one integer per sample).
- Of several optimizers, each is asked about its own parameters. Sparse gradients, on which the
  monitor raises, are left out.
- Where one activation module serves layers of two widths, the probe raises; such a module is left
  out.
- `TrainGuard` says when to stop, not what is wrong, and is left out. The other tools measure
  examples and batch sizes, not faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from benchmarks.diagnosis.baselines.findings import Baseline

INSPECT_EVERY = 10
PROBE_EVERY = 100
PROBE_BATCHES = 16
MEANINGS = (  # words of its warnings, and the suite's id
    ("non-finite", "non-finite"),
    ("gradient appears vanished", "vanishing-gradient"),
    ("gradient is very large", "exploding-gradient"),
    ("update/weight ratio is high", "learning-rate-too-high"),
    ("update/weight ratio is tiny", "learning-rate-too-low"),
    ("abs max", "input-scale"),
    ("nearly constant", "constant-input"),
    ("dominant class", "class-imbalance"),
)


class TraintoolsMonitors(Baseline):
    """Asks the package's monitors at intervals and translates their warnings.

    Args:
        inspect_every: batches between two inspections of gradients and batch.
        probe_every: batches between two readings of the plasticity score.
    """

    def __init__(self, inspect_every: int = INSPECT_EVERY, probe_every: int = PROBE_EVERY) -> None:
        super().__init__()
        import traintools  # type: ignore[import-not-found,unused-ignore]

        self.inspect_every = inspect_every
        self.probe_every = probe_every
        self._gradients = traintools.GradientHealthMonitor()
        self._batch = traintools.BatchInspector()
        self._probe: Any = None
        self._batches = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Inspect the batch, and start to collect activations when a reading is near."""
        self._batches += 1
        if self._inspects:
            inputs, targets = _split(batch)
            report = self._batch.inspect(inputs, targets, step=trainer.global_step)
            self._translate(report.warnings, trainer.global_step)
        if self._probe is None and -self._batches % self.probe_every < PROBE_BATCHES:
            self._probe = _careful_probe(pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Inspect the gradients."""
        if self._inspects:
            asked = _Inspected(pl_module, None if len(trainer.optimizers) == 1 else optimizer)
            rate = optimizer.param_groups[0]["lr"]
            report = self._gradients.inspect(asked, step=trainer.global_step, lr=float(rate))
            self._translate(report.warnings, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Read the plasticity score."""
        if self._batches % self.probe_every == 0 and self._probe is not None:
            result = self._probe.measure(step=trainer.global_step)
            for layer in result.layers:
                if layer.is_critical():
                    dormant = any(flag.startswith("DORMANT") for flag in layer.flags)
                    id = "dead-units" if dormant else "rank-collapse"
                    self.report(id, "PlasticityProbe", trainer.global_step)
            self._stop_probe()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Take the hooks away."""
        self._stop_probe()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the hooks away."""
        self._stop_probe()

    @property
    def _inspects(self) -> bool:
        return (self._batches - 1) % self.inspect_every == 0

    def _translate(self, warnings: list[str], step: int) -> None:
        for warning in warnings:
            id = next((id for words, id in MEANINGS if words in warning), "traintools-warning")
            self.report(id, "inspection", step)

    def _stop_probe(self) -> None:
        if self._probe is not None:
            self._probe.remove_hooks()
            self._probe = None


class _Inspected:
    """The parameters to inspect, behind the one method that the monitor calls."""

    def __init__(self, module: nn.Module, optimizer: Any | None) -> None:
        groups = [] if optimizer is None else optimizer.param_groups
        owned = {id(parameter) for group in groups for parameter in group["params"]}
        self.parameters = [
            (name, parameter)
            for name, parameter in module.named_parameters()
            if (optimizer is None or id(parameter) in owned)
            and not (parameter.grad is not None and parameter.grad.is_sparse)
        ]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return names and parameters."""
        return iter(self.parameters)


def _careful_probe(module: nn.Module) -> Any:
    """Return a probe whose hooks never raise inside the training step."""
    import traintools

    class CarefulProbe(traintools.PlasticityProbe):  # type: ignore[misc]
        def _make_hook(self, name: str) -> Any:
            collect = super()._make_hook(name)
            able = True

            def hook(*arguments: Any) -> None:
                nonlocal able
                try:
                    if able:
                        collect(*arguments)
                except (RuntimeError, IndexError):
                    able = False
                    self._buffers.pop(name, None)

            return hook

    return CarefulProbe(module)


def _split(batch: Any) -> tuple[Any, Tensor | None]:
    """Return the inputs and, where there are class labels, the labels."""
    if isinstance(batch, Mapping) or not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return batch, None
    inputs, targets = batch
    labels = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
    return inputs, targets if labels else None
