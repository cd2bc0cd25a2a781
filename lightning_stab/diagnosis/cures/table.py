"""The table of cures as data: what each answers, needs and says; no tensors.

A row names the findings that it is for by id, or by ``id:fact`` where only a finding with that
fact among its evidence is meant. How a cure is applied stands in its callbacks; what it needs of a
program is a name that `prescription` knows how to look for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lightning_stab.diagnosis.finding import Finding

SUITE = "lightning_stab."
OWN = "lightning_stab.prescription."


@dataclass(frozen=True)
class Cure:
    """One row.

    Attributes:
        id: its name.
        what: one sentence that says what to do; may name estimates in braces.
        answers: the findings for which it is advised, and tried.
        tried_for: the findings for which it is tried, and not advised.
        callbacks: class paths and arguments; an argument ``"{name}"`` is an estimate.
        trainer: arguments of the Trainer, likewise.
        code: lines to change by hand; a row without callbacks and Trainer has nothing else.
        needs: what has to be there, by the names of `prescription.candidates`; all of them.
        source: where it comes from.
    """

    id: str
    what: str
    answers: tuple[str, ...] = ()
    tried_for: tuple[str, ...] = ()
    callbacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    source: str = ""

    @property
    def is_automatic(self) -> bool:
        """Whether it can be applied without a change of code."""
        return bool(self.callbacks or self.trainer)


_DEPTH = (
    "vanishing-gradient:gradient_depth_log10",
    "exploding-gradient:gradient_depth_log10",
)
_HIGH = "learning-rate-too-high"
_BROKEN = ("non-finite:nonfinite_losses", "non-finite:nonfinite_weights")
_SATURATED = "saturated-units:saturated_fraction"
_NOTHING_LEARNT = "plateau:warming_up"  # the one rule of `plateau` that asks for it

CURES = (
    Cure(
        "initialization",
        'Add `WeightInitialization(scheme="auto")`: it fits each layer to the activation before'
        " it.",
        answers=(
            *("bad-initialization", *_DEPTH, "dead-units", _SATURATED),
            "exploding-gradient:gradient_time_log10",
        ),
        tried_for=("vanishing-gradient:gradient_time_log10", "exploding-gradient"),
        callbacks=((SUITE + "WeightInitialization", {"scheme": "auto"}),),
        source="Saxe et al. 2014; He et al. 2015; Balduzzi et al. 2017",
    ),
    Cure(
        "output-activation",
        "Remove the {output_class} `{output_name}` at the end of the network: the loss needs what"
        " comes before it.",
        tried_for=("output-activation",),
        callbacks=((OWN + "ReplaceModules", {"by": {"{output_name}": "Identity"}}),),
        needs=("output activation",),
        source="torch.nn.CrossEntropyLoss: it takes logits",
    ),
    Cure(
        "standardize-inputs",
        "Standardise every input feature with the training set's mean and standard deviation:"
        " `StandardizeInputs()` of `lightning_stab.prescription` does it inside the first layer.",
        answers=("input-scale", _SATURATED),
        tried_for=("dead-units",),
        callbacks=((OWN + "StandardizeInputs", {"layer": "{first_layer}"}),),
        needs=("standardizable inputs",),
        source="LeCun et al. 1998",
    ),
    Cure(
        "standardize-targets",
        "Standardise the targets with the training set's mean and standard deviation, and undo it"
        " where you predict: `StandardizeTargets()` of `lightning_stab.prescription` does both"
        " inside the output layer.",
        answers=("target-scale",),
        tried_for=("loss-spike:target_peak",),
        callbacks=((OWN + "StandardizeTargets", {"layer": "{last_layer}"}),),
        needs=("real targets",),
        source="Bishop 1995, section 8.2",
    ),
    Cure(
        "clip-and-skip",
        'Add `StepGuard(on_nonfinite="skip", on_spike="skip")`, which passes over broken batches,'
        ' and `GradientClipping(rule="norm", threshold={clip_threshold})`.',
        answers=("loss-spike",),
        tried_for=(*_BROKEN, "input-scale"),
        callbacks=(
            (SUITE + "StepGuard", {"on_nonfinite": "skip", "on_spike": "skip"}),
            (SUITE + "GradientClipping", {"rule": "norm", "threshold": "{clip_threshold}"}),
        ),
        source="Pascanu, Mikolov & Bengio 2013",
    ),
    Cure(
        "guard",
        'Add `StepGuard(on_nonfinite="skip")`: a bad step is not taken; with `forensics=True` the'
        " batch is kept for inspection.",
        answers=(*_BROKEN, "non-finite:nonfinite_gradients"),
        callbacks=((SUITE + "StepGuard", {"on_nonfinite": "skip"}),),
        source="docs/step_guard.md",
    ),
    Cure(
        "normalise-queries",
        "Normalise queries and keys, or divide the logits by the root of the head's width.",
        answers=("saturated-units:attention_logits",),
        code=("q, k = self.norm(q), self.norm(k)  # before q @ k.transpose(-2, -1)",),
        source="Dehghani et al. 2023",
    ),
    Cure(
        "shuffle",
        "Shuffle the training data: `DataLoader(..., shuffle=True)`.",
        answers=("oscillating-loss:batch_variety",),
        code=("DataLoader(dataset, batch_size=..., shuffle=True)",),
    ),
    Cure(
        "draw-weights",
        "Draw the weights of these layers at random, smaller where the outputs start too large. A"
        " layer may start at zero only where nothing but the loss or a sum follows.",
        answers=("bad-initialization",),
        code=("torch.nn.init.xavier_normal_(layer.weight)",),
        source="Goodfellow, Bengio & Courville 2016, section 8.4",
    ),
    Cure(
        "fit-one-batch",
        "Fit one batch alone first, and check that inputs and labels belong together: a network"
        " that cannot do that has a fault in its data, loss or architecture.",
        answers=(_NOTHING_LEARNT,),
        code=("Trainer(overfit_batches=1)",),
    ),
    Cure(
        "momentum",
        "Lower the momentum from {momentum} to {usual_momentum}.",
        tried_for=("oscillating-loss", _HIGH, "plateau", "loss-spike", "non-finite"),
        callbacks=((OWN + "OptimizerSettings", {"momentum": "{usual_momentum}"}),),
        needs=("high momentum",),
        source="Sutskever et al. 2013",
    ),
    Cure(
        "weight-decay",
        "Lower the weight decay from {weight_decay} to {usual_decay}.",
        tried_for=("over-regularized", "plateau", _HIGH, "vanishing-gradient", "dead-units"),
        callbacks=((OWN + "OptimizerSettings", {"weight_decay": "{usual_decay}"}),),
        needs=("high weight decay",),
        source="Loshchilov & Hutter 2019",
    ),
    Cure(
        "dropout",
        "Lower the dropout from {dropout} to {usual_dropout}.",
        tried_for=("over-regularized", "plateau"),
        callbacks=((OWN + "DropoutSettings", {"p": "{usual_dropout}"}),),
        needs=("high dropout",),
        source="Srivastava et al. 2014",
    ),
    Cure(
        "schedule",
        'Replace the schedule by `LearningRateDecay("cosine", interval="step",'
        ' combine="replace", warmup_steps={warmup_steps})`, which lasts as long as the run.',
        answers=("learning-rate-too-low:progress",),
        tried_for=("learning-rate-too-low", _HIGH, "loss-spike", "non-finite", "plateau"),
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
        "Lower the learning rate from {learning_rate} to {lower_rate}, and start again.",
        answers=(
            *(_HIGH, "dead-units", "saturated-units", *_BROKEN),
            *("oscillating-loss", "exploding-gradient:gradient_growth_log10"),
        ),
        tried_for=("exploding-gradient", "loss-spike", "bad-initialization", "input-scale"),
        callbacks=((OWN + "OptimizerSettings", {"learning_rate": "{lower_rate}"}),),
        needs=("learning rate",),
        source="Bengio 2012",
    ),
    Cure(
        "higher-learning-rate",
        "Raise the learning rate from {learning_rate} to {higher_rate}.",
        answers=("learning-rate-too-low:update_ratio", _NOTHING_LEARNT),
        tried_for=("learning-rate-too-low", "plateau", "target-scale"),
        callbacks=((OWN + "OptimizerSettings", {"learning_rate": "{higher_rate}"}),),
        needs=("learning rate",),
        source="Bengio 2012",
    ),
    Cure(
        "leaky-activation",
        "Use LeakyReLU or GELU instead of ReLU.",
        answers=("dead-units",),
        callbacks=((OWN + "ReplaceModules", {"by": {"ReLU": "LeakyReLU"}}),),
        code=("x = torch.nn.functional.leaky_relu(x)  # in place of relu(x)",),
        needs=("relu modules",),
        source="Maas, Hannun & Ng 2013",
    ),
    Cure(
        "batch-norm",
        "Add batch normalisation before each activation.",
        answers=(*_DEPTH, _SATURATED, "input-scale"),
        tried_for=("dead-units",),
        callbacks=((OWN + "NormBeforeActivations", {"norm": "batch"}),),
        code=("x = activation(self.norm(self.layer(x)))  # self.norm = nn.BatchNorm1d(width)",),
        needs=("batch norm",),
        source="Ioffe & Szegedy 2015",
    ),
    Cure(
        "layer-norm",
        "Add layer normalisation before each activation.",
        tried_for=(*_DEPTH, _SATURATED),
        callbacks=((OWN + "NormBeforeActivations", {"norm": "layer"}),),
        code=("x = activation(self.norm(self.layer(x)))  # self.norm = nn.LayerNorm(width)",),
        needs=("layer norm",),
        source="Ba, Kiros & Hinton 2016",
    ),
    Cure(
        "skip-connections",
        "Add a skip connection around every two layers.",
        answers=_DEPTH,
        callbacks=((OWN + "SkipConnections", {"every": 2}),),
        code=("x = x + self.block(x)  # where both have one shape",),
        needs=("long sequence",),
        source="He et al. 2016",
    ),
    Cure(
        "clip",
        'Add `GradientClipping(rule="norm", threshold={clip_threshold})`: the usual norm of this'
        " run's first gradients.",
        answers=(
            *(_HIGH, "exploding-gradient:gradient_time_log10"),
            "exploding-gradient:gradient_growth_log10",
        ),
        tried_for=("oscillating-loss", "exploding-gradient", "target-scale"),
        callbacks=(
            (SUITE + "GradientClipping", {"rule": "norm", "threshold": "{clip_threshold}"}),
        ),
        source="Pascanu, Mikolov & Bengio 2013",
    ),
    Cure(
        "warm-up",
        'Add a warm-up: `LearningRateDecay("cosine", interval="step",'
        " warmup_steps={warmup_steps})`.",
        answers=("saturated-units:attention_logits",),
        tried_for=(_HIGH,),
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
        "Use `torch.nn.HuberLoss`, which large errors do not dominate.",
        answers=("loss-spike:target_peak",),
        tried_for=("target-scale",),
        callbacks=((OWN + "ReplaceModules", {"by": {"MSELoss": "HuberLoss"}}),),
        code=("loss = torch.nn.functional.huber_loss(prediction, target)",),
        needs=("squared error module", "a metric that is not the loss"),
        source="Huber 1964",
    ),
    Cure(
        "best-weights",
        'Stop at the best epoch: `BestWeightsEarlyStopping(monitor="{metric}")` keeps its weights.',
        tried_for=("overfitting",),
        callbacks=(
            (SUITE + "BestWeightsEarlyStopping", {"monitor": "{metric}", "mode": "{mode}"}),
        ),
        source="Prechelt 1998",
    ),
    Cure(
        "larger-batch",
        "Make the batches larger: `accumulate_grad_batches={accumulate}`.",
        tried_for=("oscillating-loss", "loss-spike"),
        trainer={"accumulate_grad_batches": "{accumulate}"},
        source="Smith et al. 2018",
    ),
    Cure(
        "longer-run",
        "Train for {longer_epochs} epochs instead of {epochs}.",
        tried_for=("too-short", "learning-rate-too-low:update_ratio", "plateau"),
        trainer={"max_epochs": "{longer_epochs}"},
        needs=("epochs",),
    ),
    Cure(
        "inspect-data",
        "Look for broken samples in the data: values far outside the usual range, log(0), 0/0 and"
        " the root of 0.",
        answers=("loss-spike", "non-finite:nonfinite_losses", "non-finite:nonfinite_gradients"),
        code=("x = x.clamp(-limit, limit)  # or leave the broken rows out",),
    ),
)
BY_ID: Mapping[str, Cure] = MappingProxyType({cure.id: cure for cure in CURES})


def cures_for(finding: Finding) -> list[Cure]:
    """Return the rows to be tried for a finding, in the order of the table."""
    names = names_of(finding)
    return [cure for cure in CURES if names & {*cure.answers, *cure.tried_for}]


def names_of(finding: Finding) -> set[str]:
    """Return by which names a row may mean a finding."""
    return {finding.id, *(f"{finding.id}:{fact}" for fact in finding.evidence)}
