"""The table of cures: what each answers, needs and says, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lightning_stab.diagnosis.cures.by_hand import FIRST, LAST
from lightning_stab.diagnosis.cures.cure import Cure, names_of
from lightning_stab.diagnosis.finding import Finding

SUITE = "lightning_stab."
OWN = "lightning_stab.prescription."

_DEPTH = ("vanishing-gradient:gradient_depth_log10", "exploding-gradient:gradient_depth_log10")
_HIGH = "learning-rate-too-high"
_BROKEN = ("non-finite:nonfinite_losses", "non-finite:nonfinite_weights")
_SATURATED = "saturated-units:saturated_fraction"
_STEPS_TOO_SMALL = ("learning-rate-too-low:update_ratio", "learning-rate-too-low:reach")
_LOGITS_BOUNDED = ("doubled_softmax", "doubled_sigmoid", "squashed_logits", "rectified_logits")
_STANDS_STILL = "plateau:recent_improvement"
_TO_LOGITS = (
    "Remove the activation at the end of the network: the loss needs what comes before it. Where"
    " probabilities are needed, apply it outside the loss."
)
_NOTHING_LEARNT = "plateau:warming_up"  # the one rule of `plateau` that asks for it

_AUTOMATIC = (
    Cure(
        "momentum",
        "Lower the momentum from {momentum} to {usual_momentum}.",
        answers=("oscillating-loss", _HIGH, "loss-spike", *_BROKEN),
        tried_for=("plateau", "non-finite"),
        callbacks=((OWN + "OptimizerSettings", {"momentum": "{usual_momentum}"}),),
        needs=("high momentum",),
        source="Sutskever et al. 2013",
    ),
    Cure(
        "initialization",
        'Add `WeightInitialization(scheme="auto")`: it fits each layer to the activation before'
        " it.",
        answers=(
            *("bad-initialization", *_DEPTH, "dead-units", "saturated-units"),
            *("vanishing-gradient:gradient_time_log10", "exploding-gradient:gradient_time_log10"),
        ),
        tried_for=("exploding-gradient", "plateau", "too-short", "underfitting"),
        late_for=(_HIGH,),
        callbacks=((SUITE + "WeightInitialization", {"scheme": "auto"}),),
        source="Saxe et al. 2014; He et al. 2015; Balduzzi et al. 2017",
    ),
    Cure(
        "output-activation",
        _TO_LOGITS,
        answers=tuple(
            f"output-activation:{fact}" for fact in (*_LOGITS_BOUNDED, "unreachable_targets")
        ),
        tried_for=("output-activation",),
        callbacks=((OWN + "ReplaceModules", {"by": {"{output_name}": "Identity"}}),),
        code=("logits = self.head(x)  # without softmax, sigmoid or relu",),
        needs=("output activation",),
        source="torch.nn.CrossEntropyLoss: it takes logits",
    ),
    Cure(
        "logits-for-loss",
        _TO_LOGITS,
        tried_for=tuple(f"output-activation:{fact}" for fact in _LOGITS_BOUNDED),
        callbacks=((OWN + "LogitsForLoss", {}),),
        code=("logits = self.head(x)  # without softmax, sigmoid or relu",),
        needs=("no output activation module",),
        source="torch.nn.CrossEntropyLoss: it takes logits",
    ),
    Cure(
        "without-last-activation",
        "Leave out the activation at the end of the network: targets lie outside its range.",
        tried_for=("output-activation:unreachable_targets",),
        callbacks=((OWN + "WithoutLastActivation", {}),),
        code=("prediction = self.head(x)  # without tanh, relu or sigmoid",),
        needs=("no output activation module",),
        source="Bishop 2006, section 5.2: a regression has linear outputs",
    ),
    Cure(
        "fitting-loss",
        "Use the loss that fits the targets, `torch.nn.{fitting_loss}`, on what comes before the"
        " last activation.",
        tried_for=("loss-function",),
        callbacks=(
            (
                OWN + "ReplaceModules",
                {"by": {"{loss_class}": "{fitting_loss}", "{output_name}": "Identity"}},
            ),
        ),
        code=("loss = torch.nn.functional.cross_entropy(logits, classes)",),
        needs=("loss module that another fits", "a metric that is not the loss"),
        source="Bishop 2006, section 4.3",
    ),
    Cure(
        "shuffle",
        "Shuffle the training data: `DataLoader(..., shuffle=True)`.",
        answers=("oscillating-loss:batch_variety",),
        loader={"shuffle": True},
        code=("DataLoader(dataset, batch_size=..., shuffle=True)",),
        needs=("plain loader", "data in a fixed order"),
        source="Bengio 2012",
    ),
    Cure(
        "group-norm",
        "Replace batch normalisation by group normalisation, which does not look across the batch.",
        answers=("batch-size",),
        callbacks=((OWN + "GroupNormForBatchNorm", {}),),
        code=("self.norm = nn.GroupNorm(groups, channels)  # for nn.BatchNorm2d(channels)",),
        needs=("batch normalisation",),
        source="Wu & He 2018",
    ),
    Cure(
        "larger-loader-batch",
        "Make the loader's batches larger: {larger_batch} rows instead of {batch_size}.",
        tried_for=("batch-size",),
        loader={"batch_size": "{larger_batch}"},
        code=("DataLoader(dataset, batch_size={larger_batch}, shuffle=True)",),
        needs=("plain loader",),
        source="Wu & He 2018",
    ),
    Cure(
        "reset-norms",
        "Start normalisation layers with a gain of 1 and a shift of 0, not {norm_gain} and"
        " {norm_shift}: `ResetNorms()` of `lightning_stab.prescription` does it.",
        answers=("saturated-units", *_DEPTH),
        tried_for=("bad-initialization", _HIGH, "plateau", "dead-units", "underfitting"),
        callbacks=((OWN + "ResetNorms", {}),),
        code=("torch.nn.init.ones_(self.norm.weight)",),
        needs=("unusual norms",),
        source="Ba, Kiros & Hinton 2016",
    ),
    Cure(
        "standardize-inputs",
        "Standardise every input feature with the training set's mean and standard deviation:"
        " `StandardizeInputs()` of `lightning_stab.prescription` does it inside the first layer.",
        answers=("input-scale", _SATURATED),
        tried_for=("dead-units", "underfitting"),
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
        tried_for=(*_BROKEN, "input-scale", "underfitting"),
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
        answers=(*_BROKEN, "non-finite:nonfinite_gradients", "non-finite:nonfinite_inputs"),
        callbacks=((SUITE + "StepGuard", {"on_nonfinite": "skip"}),),
        source="docs/step_guard.md",
    ),
    Cure(
        "weight-decay",
        "Lower the weight decay to {usual_decay}: it pulls harder than the loss.",
        answers=("over-regularized:weight_growth", "over-regularized:weight_decay"),
        tried_for=("over-regularized", "plateau", _HIGH, "vanishing-gradient", "dead-units"),
        callbacks=((OWN + "OptimizerSettings", {"weight_decay": "{usual_decay}"}),),
        needs=("high weight decay",),
        source="Loshchilov & Hutter 2019",
    ),
    Cure(
        "dropout",
        "Lower the dropout probability to {usual_dropout}.",
        answers=("over-regularized:dropout",),
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
        tried_for=(
            *("exploding-gradient", "loss-spike", "bad-initialization", "input-scale"),
            *("plateau:learnt", "underfitting"),
        ),
        callbacks=((OWN + "OptimizerSettings", {"learning_rate": "{lower_rate}"}),),
        needs=("learning rate",),
        source="Bengio 2012",
    ),
    Cure(
        "higher-learning-rate",
        "Raise the learning rate from {learning_rate} to {higher_rate}.",
        answers=(*_STEPS_TOO_SMALL, _NOTHING_LEARNT),
        tried_for=("learning-rate-too-low", "plateau", "target-scale", "underfitting"),
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
        "decay",
        'Let the learning rate decay: `LearningRateDecay("cosine", interval="step")`.',
        answers=(_STANDS_STILL, "oscillating-loss:oscillation"),
        tried_for=("oscillating-loss",),
        callbacks=((SUITE + "LearningRateDecay", {"schedule": "cosine", "interval": "step"}),),
        needs=("no schedule",),
        source="Loshchilov & Hutter 2017",
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
        answers=("overfitting", _STANDS_STILL),
        callbacks=(
            (SUITE + "BestWeightsEarlyStopping", {"monitor": "{metric}", "mode": "{mode}"}),
        ),
        source="Prechelt 1998",
    ),
    Cure(
        "larger-batch",
        "Make the batches larger: `accumulate_grad_batches={accumulate}`.",
        answers=("oscillating-loss",),
        tried_for=("loss-spike",),
        trainer={"accumulate_grad_batches": "{accumulate}"},
        source="Smith et al. 2018",
    ),
    Cure(
        "smaller-batch",
        "Make the batches smaller: {smaller_batch} rows instead of {batch_size}, for more steps in"
        " as many epochs.",
        tried_for=("too-short", *_STEPS_TOO_SMALL),
        loader={"batch_size": "{smaller_batch}"},
        code=("DataLoader(dataset, batch_size={smaller_batch}, shuffle=True)",),
        needs=("plain loader", "large batches"),
        source="Masters & Luschi 2018",
    ),
    Cure(
        "longer-run",
        "Train for {longer_epochs} epochs instead of {epochs}.",
        answers=("too-short",),
        tried_for=("learning-rate-too-low:update_ratio", "plateau", "underfitting"),
        trainer={"max_epochs": "{longer_epochs}"},
        needs=("epochs",),
    ),
)
CURES = (*FIRST, *_AUTOMATIC, *LAST)
BY_ID: Mapping[str, Cure] = MappingProxyType({cure.id: cure for cure in CURES})


def cures_for(finding: Finding) -> list[Cure]:
    """Return the rows to be tried for a finding, in the order of the table."""
    names = names_of(finding.id, finding.evidence)
    return [cure for cure in CURES if cure.is_tried_for(names)]
