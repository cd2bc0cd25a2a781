"""Published ways to diagnose a training run, rewritten to stand beside the suite's in a table.

Each is a callback that changes nothing and collects `findings`. Two are re-implemented from what
their authors published, two are packages that are asked through what they offer. They serve the
benchmark only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from benchmarks.diagnosis.baselines.autotrainer import AutoTrainerRules
from benchmarks.diagnosis.baselines.findings import Baseline, Finding
from benchmarks.diagnosis.baselines.log_reader import HyperassistLog
from benchmarks.diagnosis.baselines.peer import TraintoolsMonitors
from benchmarks.diagnosis.baselines.sagemaker import SageMakerRules

BASELINES: dict[str, Callable[[], Baseline]] = {
    "AUTOTRAINER rules": AutoTrainerRules,
    "SageMaker rules": SageMakerRules,
}
if importlib.util.find_spec("traintools"):  # pip install traintools
    BASELINES["traintools"] = TraintoolsMonitors
if importlib.util.find_spec("hyperassist"):  # pip install hyperassist
    BASELINES["hyperassist"] = HyperassistLog

__all__ = [
    "BASELINES",
    "AutoTrainerRules",
    "Baseline",
    "Finding",
    "HyperassistLog",
    "SageMakerRules",
    "TraintoolsMonitors",
]
