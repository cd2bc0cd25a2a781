"""Is it right in every regime? Twins that must end alike, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.nets import GAN, Task, batches, device, mlp, trainer
from lightning_stab import (
    ActivationMonitor,
    GradientClipping,
    GradientMonitor,
    StepGuard,
    TrainingDoctor,
)
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS

BAD = [5, 6, 20, 21, 22, 33, 40]
REGIMES: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("adamw", {}),
    "fp32, fused": ("fused", {}),
    "fp32, SGD": ("sgd", {}),
    "fp32, SGD fused": ("sgd fused", {}),
    "bf16-mixed, fused": ("fused", {"precision": "bf16-mixed"}),
    "fp16 with scaler": ("adamw", {"precision": "16-mixed"}),
    "fp16 with scaler, fused": ("fused", {"precision": "16-mixed"}),
    "accumulation of 3, fused": ("fused", {"accumulate_grad_batches": 3}),
    "64-true, fused": ("fused", {"precision": "64-true"}),
    "LBFGS": ("lbfgs", {}),
    "GAN": ("adamw", {}),
    "GAN, fp16 with scaler": ("adamw", {"precision": "16-mixed"}),
    "GAN, fp16 with scaler, fused": ("fused", {"precision": "16-mixed"}),
    "compiled, fused": ("fused", {"compiled": "default"}),
    "compiled with CUDA graphs, fused": ("fused", {"compiled": "reduce-overhead"}),
}


class Regime:
    """Fits of one regime, from one seed, on the same batches.

    Args:
        name: one of `REGIMES`.
        num: batches of a fit.
    """

    def __init__(self, name: str, num: int) -> None:
        self.num, self.is_gan, self.is_lbfgs = num, name.startswith("GAN"), name == "LBFGS"
        self.optimizer, settings = REGIMES[name]
        self.settings = dict(settings)
        self.window = self.settings.get("accumulate_grad_batches", 1)
        self.mode = self.settings.pop("compiled", None)
        self.bad = [i for i in BAD if i < num]
        self._net: Any = None
        self._plain: list[Tensor] = []

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield what is checked, in order: each returns what is wrong, or nothing."""
        yield "plain = plain", self._again
        yield "watched", lambda: self._as_plain(_watchers())
        yield "guarded", self._guarded
        yield "skipped", self._skipped
        yield "rewound", self._rewound

    def _fit(self, callbacks: Sequence[Any], **data: Any) -> list[Tensor]:
        torch.manual_seed(0)
        module: Any = GAN(self.optimizer) if self.is_gan else Task(mlp(), self.optimizer)
        if self.mode is not None:
            # one compiled net for all fits, because compiling is what takes long
            fresh = {name: value.clone() for name, value in module.net.state_dict().items()}
            self._net = self._net or self._compiled(module.net.to(device()))
            self._net._orig_mod.load_state_dict(fresh)
            module = Task(self._net, self.optimizer)
        torch.manual_seed(1)
        fitted = trainer(callbacks, deterministic="warn", **self.settings)
        fitted.fit(module, batches(self.num, **data))
        states = [tree_leaves(o.state_dict()["state"]) for o in fitted.optimizers]
        found = [*module.state_dict().values(), *tree_leaves(states)]
        if not data:  # a fit that meets other batches has other losses
            found += module.losses
        return [t.detach().cpu().clone() for t in found if isinstance(t, Tensor)]

    def _compiled(self, net: Any) -> Any:
        if device().type == "cpu":
            return torch.compile(net, backend="aot_eager")
        return torch.compile(net, mode=self.mode)

    def _again(self) -> str:
        self._plain = self._fit([])
        return self._as_plain([])

    def _as_plain(self, callbacks: Sequence[Any]) -> str:
        return _difference(self._fit(callbacks), self._plain)

    def _guarded(self) -> str:
        guard = StepGuard("skip", "skip")
        found = self._as_plain([GradientMonitor(), guard])
        return found or (f"skipped {guard.num_skipped}" if guard.num_skipped else "")

    def _skipped(self) -> str:
        guard = StepGuard("skip", max_consecutive=20)
        others = [GradientMonitor(3), GradientClipping("norm", 1e6)]
        ours = self._fit([guard, *others], poison=self.bad)
        windows = {i // self.window for i in self.bad}
        drop = [i for i in range(self.num) if i // self.window in windows]
        expected = len(windows) * (2 if self.is_gan else 1)
        found = _difference(ours, self._fit([], drop=drop))
        counted = "" if guard.num_skipped == expected else f"skipped {guard.num_skipped}"
        return found or counted

    def _rewound(self) -> str:
        guard = StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=4, max_consecutive=20)
        ours = self._fit([guard], poison=self.bad)
        finite = all(bool(t.isfinite().all()) for t in ours)
        return "" if finite and guard.num_rewound else f"rewound {guard.num_rewound}, {finite=}"


def rows(num: int, left: Callable[[], float]) -> list[dict[str, Any]]:
    """Return a row for each regime: ``ok``, or what is wrong.

    Args:
        num: batches of a fit.
        left: seconds that are left; what they do not suffice for is not tried.
    """
    found = []
    for name in REGIMES:
        row: dict[str, Any] = {"regime": name}
        regime = Regime(name, num)
        for check, run in regime.checks():
            if left() < 5 + 40 * (regime.mode is not None and device().type == "cuda"):
                row[check] = "no time"
                continue
            try:
                row[check] = run() or "ok"
            except Exception as error:  # the other regimes are to be seen all the same
                row[check] = f"{type(error).__name__}: {error}"[:300]
        found.append(row)
        torch._dynamo.reset()
    return found


def _watchers() -> list[Any]:
    return [
        GradientMonitor(1, statistics=STATISTICS, per_parameter=["*"]),
        ActivationMonitor(5, window=64),
        TrainingDoctor(every_n_steps=5, print_findings=False),
    ]


def _difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} tensors for {len(theirs)}"
    pairs = [(a.double(), b.double()) for a, b in zip(ours, theirs, strict=True)]
    other = [(a, b) for a, b in pairs if not torch.equal(a, b)]
    if not other:
        return "" if all(bool(a.isfinite().all()) for a, _ in pairs) else "not finite"
    largest = max(float((a - b).abs().max()) for a, b in other)
    return f"{len(other)} of {len(pairs)} tensors differ, by {largest if largest else math.nan:.1e}"
