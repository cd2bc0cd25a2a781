"""Published ways to diagnose a training run, rewritten to stand beside the suite's in a table.

Each is a callback that changes nothing and collects `findings`. Two are re-implemented from what
their authors published, one is a package that is asked through its public classes. They serve the
benchmark only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from benchmarks.diagnosis.baselines.autotrainer import AutoTrainerRules
from benchmarks.diagnosis.baselines.findings import Baseline, Finding
from benchmarks.diagnosis.baselines.peer import TraintoolsMonitors
from benchmarks.diagnosis.baselines.sagemaker import SageMakerRules

BASELINES: dict[str, Callable[[], Baseline]] = {
    "AUTOTRAINER rules": AutoTrainerRules,
    "SageMaker rules": SageMakerRules,
}
if importlib.util.find_spec("traintools"):  # pip install traintools
    BASELINES["traintools"] = TraintoolsMonitors

__all__ = [
    "BASELINES",
    "AutoTrainerRules",
    "Baseline",
    "Finding",
    "SageMakerRules",
    "TraintoolsMonitors",
]
