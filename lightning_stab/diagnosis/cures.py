"""The table of cures as data: what each answers, needs and says; no tensors.

It has two readers. `TrainingDoctor` makes its advice of it (`advice_for`), and `prescribe` tries
what can be tried. A cure answers findings, by id, or by ``id:fact`` where only a finding with that
fact among its evidence is meant. A finding that no row answers keeps the advice of its rule.

How a cure is applied stands in its callbacks; what it needs of a program is a name that
`prescription` knows how to look for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lightning_stab.diagnosis.facts import Facts
from lightning_stab.diagnosis.finding import Finding

SUITE = "lightning_stab."
OWN = "lightning_stab.prescription."
GOOD_UPDATE = 0.02  # of the weights, at which most first steps are safe
LEAST_UPDATE = 1e-3  # below which a run is slow
FARTHEST = 1e4  # times the present learning rate
USUAL_MOMENTUM, USUAL_DECAY = 0.9, 0.01


@dataclass(frozen=True)
class Cure:
    """One row.

    Attributes:
        id: its name.
        answers: ids of findings, or ``id:fact``.
        what: one sentence that says what to do; may name estimates in braces.
        callbacks: class paths and arguments; an argument ``"{name}"`` is an estimate.
        trainer: arguments of the Trainer, likewise.
        code: lines to change by hand; a row without callbacks and Trainer has nothing else.
        needs: what has to be there, by names of `prescription.needs`; all of them.
        advised: whether `TrainingDoctor` advises it too.
        source: where it comes from.
    """

    id: str
    answers: tuple[str, ...]
    what: str
    callbacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    advised: bool = True
    source: str = ""

    def answers_to(self, finding: Finding) -> bool:
        """Say whether this row answers a finding."""
        wanted = {finding.id, *(f"{finding.id}:{fact}" for fact in finding.evidence)}
        return not wanted.isdisjoint(self.answers)

    @property
    def is_automatic(self) -> bool:
        """Whether it can be applied without a change of code."""
        return bool(self.callbacks or self.trainer)


_DEPTH = (
    "vanishing-gradient:gradient_depth_log10",
    "exploding-gradient:gradient_depth_log10",
)
_HIGH = ("learning-rate-too-high",)

CURES = (
    Cure(
        "initialization",
        (
            "bad-initialization",
            *_DEPTH,
            "dead-units",
            "saturated-units:saturated_fraction",
            "exploding-gradient:gradient_time_log10",
        ),
        'Add `WeightInitialization(scheme="auto")`: it fits each layer to the activation before'
        " it.",
        callbacks=((SUITE + "WeightInitialization", {"scheme": "auto"}),),
        source="Saxe et al. 2014; He et al. 2015; Balduzzi et al. 2017",
    ),
    Cure(
        "output-activation",
        ("output-activation",),
        "Remove the {output_class} `{output_name}` at the end of the network: the loss needs what"
        " comes before it.",
        callbacks=((OWN + "ReplaceModules", {"by": {"{output_name}": "Identity"}}),),
        needs=("output activation",),
        advised=False,
        source="torch.nn.CrossEntropyLoss: it takes logits",
    ),
    Cure(
        "standardize-inputs",
        ("input-scale", "saturated-units:saturated_fraction"),
        "Standardise every input feature with the training set's mean and standard deviation:"
        " `StandardizeInputs()` of `lightning_stab.prescription` does it inside the first layer.",
        callbacks=((OWN + "StandardizeInputs", {"layer": "{first_layer}"}),),
        needs=("standardizable inputs",),
        source="LeCun et al. 1998",
    ),
    Cure(
        "standardize-targets",
        ("target-scale",),
        "Standardise the targets with the training set's mean and standard deviation, and undo it"
        " where you predict: `StandardizeTargets()` of `lightning_stab.prescription` does both"
        " inside the output layer.",
        callbacks=((OWN + "StandardizeTargets", {"layer": "{last_layer}"}),),
        needs=("real targets",),
        source="Bishop 1995, section 8.2",
    ),
    Cure(
        "clip-and-skip",
        ("loss-spike", "non-finite:nonfinite_losses", "non-finite:nonfinite_weights"),
        'Add `StepGuard(on_nonfinite="skip", on_spike="skip")`, which passes over broken batches,'
        ' and `GradientClipping(rule="norm", threshold={clip_threshold})`.',
        callbacks=(
            (SUITE + "StepGuard", {"on_nonfinite": "skip", "on_spike": "skip"}),
            (SUITE + "GradientClipping", {"rule": "norm", "threshold": "{clip_threshold}"}),
        ),
        source="Pascanu, Mikolov & Bengio 2013",
    ),
    Cure(
        "guard",
        ("non-finite",),
        'Add `StepGuard(on_nonfinite="skip")`: a bad step is not taken.',
        callbacks=((SUITE + "StepGuard", {"on_nonfinite": "skip"}),),
        source="docs/step_guard.md",
    ),
    Cure(
        "momentum",
        ("oscillating-loss", *_HIGH, "plateau", "loss-spike"),
        "Lower the momentum from {momentum} to {usual_momentum}.",
        callbacks=((OWN + "OptimizerSettings", {"momentum": "{usual_momentum}"}),),
        needs=("high momentum",),
        advised=False,
        source="Sutskever et al. 2013",
    ),
    Cure(
        "weight-decay",
        ("plateau", *_HIGH),
        "Lower the weight decay from {weight_decay} to {usual_decay}.",
        callbacks=((OWN + "OptimizerSettings", {"weight_decay": "{usual_decay}"}),),
        needs=("high weight decay",),
        advised=False,
        source="Loshchilov & Hutter 2019",
    ),
    Cure(
        "schedule",
        ("learning-rate-too-low:rate_left", "learning-rate-too-low:warming_up"),
        'Replace the schedule by `LearningRateDecay("cosine", interval="step",'
        ' combine="replace")`, which lasts as long as the run.',
        callbacks=(
            (
                SUITE + "LearningRateDecay",
                {
                    "schedule": "cosine",
                    "interval": "step",
                    "combine": "replace",
                    "warmup_steps": "{warmup_steps}",
                },
            ),
        ),
        needs=("schedule",),
        source="Loshchilov & Hutter 2017",
    ),
    Cure(
        "lower-learning-rate",
        (
            *_HIGH,
            "oscillating-loss",
            "dead-units",
            "saturated-units",
            "non-finite",
            "exploding-gradient",
            "loss-spike",
        ),
        "Lower the learning rate from {learning_rate} to {lower_rate}.",
        callbacks=((OWN + "OptimizerSettings", {"learning_rate": "{lower_rate}"}),),
        needs=("learning rate",),
        source="Bengio 2012",
    ),
    Cure(
        "higher-learning-rate",
        ("learning-rate-too-low", "plateau:learnt"),
        "Raise the learning rate from {learning_rate} to {higher_rate}.",
        callbacks=((OWN + "OptimizerSettings", {"learning_rate": "{higher_rate}"}),),
        needs=("learning rate", "no schedule to blame"),
        source="Bengio 2012",
    ),
    Cure(
        "leaky-activation",
        ("dead-units",),
        "Use LeakyReLU instead of ReLU, whose units can come back.",
        callbacks=((OWN + "ReplaceModules", {"by": {"ReLU": "LeakyReLU"}}),),
        code=("x = torch.nn.functional.leaky_relu(x)  # in place of relu(x)",),
        needs=("relu modules",),
        source="Maas, Hannun & Ng 2013",
    ),
    Cure(
        "batch-norm",
        (*_DEPTH, "saturated-units:saturated_fraction", "dead-units", "input-scale"),
        "Add batch normalisation before each activation.",
        callbacks=((OWN + "NormBeforeActivations", {"norm": "batch"}),),
        code=("x = activation(self.norm(self.layer(x)))  # self.norm = nn.BatchNorm1d(width)",),
        needs=("batch norm",),
        source="Ioffe & Szegedy 2015",
    ),
    Cure(
        "layer-norm",
        (*_DEPTH, "saturated-units:saturated_fraction"),
        "Add layer normalisation before each activation.",
        callbacks=((OWN + "NormBeforeActivations", {"norm": "layer"}),),
        code=("x = activation(self.norm(self.layer(x)))  # self.norm = nn.LayerNorm(width)",),
        needs=("layer norm",),
        advised=False,
        source="Ba, Kiros & Hinton 2016",
    ),
    Cure(
        "skip-connections",
        _DEPTH,
        "Add a skip connection around every two layers.",
        callbacks=((OWN + "SkipConnections", {"every": 2}),),
        code=("x = x + self.block(x)  # where both have one shape",),
        needs=("long sequence",),
        source="He et al. 2016",
    ),
    Cure(
        "clip",
        (
            "exploding-gradient:gradient_time_log10",
            "exploding-gradient:gradient_growth_log10",
            *_HIGH,
            "oscillating-loss",
        ),
        'Add `GradientClipping(rule="norm", threshold={clip_threshold})`: the usual norm of this'
        " run's first gradients.",
        callbacks=(
            (SUITE + "GradientClipping", {"rule": "norm", "threshold": "{clip_threshold}"}),
        ),
        source="Pascanu, Mikolov & Bengio 2013",
    ),
    Cure(
        "warm-up",
        (*_HIGH, "saturated-units:attention_logits"),
        'Add a warm-up: `LearningRateDecay("cosine", interval="step",'
        " warmup_steps={warmup_steps})`.",
        callbacks=(
            (
                SUITE + "LearningRateDecay",
                {"schedule": "cosine", "interval": "step", "warmup_steps": "{warmup_steps}"},
            ),
        ),
        needs=("no schedule",),
        source="Goyal et al. 2017",
    ),
    Cure(
        "huber-loss",
        ("loss-spike:target_peak", "target-scale"),
        "Use `torch.nn.HuberLoss`, which large errors do not dominate.",
        callbacks=((OWN + "ReplaceModules", {"by": {"MSELoss": "HuberLoss"}}),),
        code=("loss = torch.nn.functional.huber_loss(prediction, target)",),
        needs=("squared error module", "a metric that is not the loss"),
        source="Huber 1964",
    ),
    Cure(
        "best-weights",
        ("overfitting",),
        'Stop at the best epoch: `BestWeightsEarlyStopping(monitor="{metric}")` keeps its weights.',
        callbacks=(
            (SUITE + "BestWeightsEarlyStopping", {"monitor": "{metric}", "mode": "{mode}"}),
        ),
        advised=False,
        source="Prechelt 1998",
    ),
    Cure(
        "larger-batch",
        ("oscillating-loss:oscillation", "oscillating-loss:batch_variety"),
        "Make the batches larger: `accumulate_grad_batches={accumulate}`.",
        trainer={"accumulate_grad_batches": "{accumulate}"},
        advised=False,
        source="Smith et al. 2018",
    ),
    Cure(
        "longer-run",
        ("learning-rate-too-low:update_ratio", "plateau:learnt"),
        "Train for {longer_epochs} epochs instead of {epochs}.",
        trainer={"max_epochs": "{longer_epochs}"},
        needs=("epochs",),
        advised=False,
        source="the most frequent fault of published programs, see docs/prescribe.md",
    ),
    # what no machine can try
    Cure(
        "inspect-data",
        ("loss-spike", "non-finite:nonfinite_losses"),
        "Look for broken samples in the data: values far outside the usual range, log(0), 0/0 and"
        " the root of 0.",
        code=("x = x.clamp(-limit, limit)  # or leave the broken rows out",),
    ),
    Cure(
        "shuffle",
        ("oscillating-loss:batch_variety",),
        "Shuffle the training data: `DataLoader(..., shuffle=True)`.",
        code=("DataLoader(dataset, batch_size=..., shuffle=True)",),
    ),
    Cure(
        "fit-one-batch",
        ("plateau:learnt",),
        "Fit one batch alone first, and check that inputs and labels belong together: a network"
        " that cannot do that has a fault in its data, loss or architecture.",
        code=("Trainer(overfit_batches=1)",),
    ),
)
BY_ID: Mapping[str, Cure] = MappingProxyType({cure.id: cure for cure in CURES})


def cures_for(finding: Finding) -> list[Cure]:
    """Return the rows that answer a finding, the best first."""
    return [cure for cure in CURES if cure.answers_to(finding)]


def estimates(facts: Facts, gradient_norm: float = math.nan, steps: int = 0) -> dict[str, Any]:
    """Return the numbers that a run's facts suggest, rounded to be read.

    The learning rate is scaled so that a step changes the weights by 2 % of their size where it
    was too high, and by 0.1 % to 1 % where it was too low.

    Args:
        facts: of the run.
        gradient_norm: the usual norm of its first gradients.
        steps: optimizer steps of the whole run.
    """
    rate = facts.learning_rate
    first, recent = facts.early_update_ratio, facts.update_ratio
    lower = rate * GOOD_UPDATE / first if first > 0 else rate / 10
    higher = rate * GOOD_UPDATE / 2 / recent if recent > 0 else rate * 10
    known = {
        "learning_rate": rate,
        "lower_rate": min(max(lower, rate / FARTHEST), rate / 3),
        "higher_rate": max(min(higher, rate * FARTHEST), rate * 3),
        "clip_threshold": gradient_norm if 0 < gradient_norm < 1e4 else 1.0,
    }
    return {
        **{name: rounded(value) for name, value in known.items()},
        "warmup_steps": max(10, steps // 10),
        "usual_momentum": USUAL_MOMENTUM,
        "usual_decay": USUAL_DECAY,
    }


def rounded(value: float, digits: int = 1) -> float:
    """Return a number with few digits.

    Example:
        >>> rounded(0.00272)
        0.003
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """Return arguments with their estimates put in; an empty string is left out.

    Example:
        >>> filled({"threshold": "{clip_threshold}"}, {"clip_threshold": 0.5})
        {'threshold': 0.5}
    """
    if isinstance(template, Mapping):
        pairs = {filled(k, values): filled(v, values) for k, v in template.items()}
        return {k: v for k, v in pairs.items() if v != ""}
    if isinstance(template, str) and template.startswith("{"):
        return values.get(template[1:-1], "")
    return template


def missing_settings(arguments: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a callback which is there does not have.

    A guard that rewinds goes further than one that skips.
    """
    return {
        name: value
        for name, value in arguments.items()
        if str(there.get(name)) not in (str(value), "rewind")
    }


def advice_for(
    finding: Finding, values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return what to do about a finding: the table's rows, or the rule's own lines.

    Args:
        finding: what was found.
        values: estimates from the run.
        there: options of the callbacks that are there, by class name.
    """
    lines = [_line(cure, values, there) for cure in cures_for(finding) if cure.advised]
    known = tuple(line for line in lines if line)
    return known or finding.advice


def _line(cure: Cure, values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line; nothing where all that it advises is there."""
    names = {path.rpartition(".")[2]: arguments for path, arguments in cure.callbacks}
    if not names.keys() & there.keys():
        return "" if _is_unknown(cure, values) else cure.what.format_map(_Shown(values))
    parts = []
    for name, template in names.items():
        arguments = filled(template, values)
        if name not in there:
            parts.append(f"add `{name}({_call(arguments)})`")
        elif name == "GradientClipping":
            parts.append("use a lower `threshold` in the `GradientClipping` that is there")
        elif name in ("StepGuard", "OptimizerSettings") and (
            missing := missing_settings(arguments, there[name])
        ):
            parts.append(f"set `{_call(missing)}` in the `{name}` that is there")
    text = ", and ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def _is_unknown(cure: Cure, values: Mapping[str, Any]) -> bool:
    """Say whether a row names a number that nobody has measured."""
    wanted = [v for _, arguments in cure.callbacks for v in arguments.values()]
    names = [v[1:-1] for v in wanted if isinstance(v, str) and v.startswith("{")]
    return any(isinstance(values.get(n), float) and math.isnan(values[n]) for n in names)


def _call(arguments: Mapping[str, Any]) -> str:
    shown = (
        f'"{v}"' if isinstance(v, str) else f"{v:g}" if isinstance(v, float) else str(v)
        for v in arguments.values()
    )
    return ", ".join(f"{name}={value}" for name, value in zip(arguments, shown, strict=True))


class _Shown(dict[str, Any]):
    """Values that print themselves short."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return f"{value:g}" if isinstance(value, float) else value


def automatic(ids: Iterable[str]) -> list[Cure]:
    """Return the rows of some ids that can be tried."""
    return [BY_ID[id_] for id_ in ids if BY_ID[id_].is_automatic]
