"""What is drawn to go wrong, and what only looks as if it did: the documented list.

A change is one difference from a healthy twin. Whether it is a fault is decided by how the
programs end (`labels.py`), but for the structural ones, which are wrong by their form.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.diagnosis.elsewhere.data import SETS
from benchmarks.diagnosis.elsewhere.nets import NETS

Settings = dict[str, Any]
PERCEPTRONS = (
    *("relu_", "tanh_", "elu_", "gelu_", "silu_", "leaky_", "keras", "dropout_"),
    *("mish_", "selu_", "layernorm_"),
    *("softsign_", "prelu_", "rms_", "batchnorm_tanh"),
    *("hardswish_", "batchnorm_gelu"),
    *("softplus_", "celu_", "snake_"),
    *("relu6_", "squared_relu_"),
    *("hardtanh_", "arctan_", "rrelu_"),
    *("bent_", "tanhexp_"),
    *("quick_gelu_", "isru_"),
    *("smelu_", "acon_"),
    *("logish_", "rational_"),
)
RELU = ("relu_", "keras", "cnn_max", "dropout_", "cnn_batchnorm")


@dataclass(frozen=True)
class Change:
    """One difference from the twin.

    Attributes:
        name: what it is.
        words: the same for people.
        ids: names of findings that are right, the best first; empty for one meant to be harmless.
        structural: wrong by its form, so that it counts as sick however the run ends.
        fits: whether it can be done to a program.
        draw: the settings that differ.
    """

    name: str
    words: str
    ids: tuple[str, ...]
    draw: Callable[[random.Random, Settings], Settings]
    fits: Callable[[Settings], bool] = lambda s: True
    structural: bool = False


def _shape(*shapes: str) -> Callable[[Settings], bool]:
    return lambda s: SETS[s["data"]][1] in shapes


def _task(*tasks: str) -> Callable[[Settings], bool]:
    return lambda s: task_of(s) in tasks


def _net(*starts: str) -> Callable[[Settings], bool]:
    return lambda s: s["net"].startswith(starts)


def _is_numeric(s: Settings) -> bool:
    return SETS[s["data"]][1] != "tokens"


def task_of(settings: Settings) -> str:
    """Return `classes`, `binary`, `numbers` or `labels`."""
    task = SETS[settings["data"]][2]
    return "binary" if task == "classes" and settings["units"] == 1 else task


def _fixed(**settings: Any) -> Callable[[random.Random, Settings], Settings]:
    return lambda rng, s: dict(settings)


def _rate(low: float, high: float) -> Callable[[random.Random, Settings], Settings]:
    return lambda rng, s: {"lr": s["lr"] * 10 ** rng.uniform(low, high)}


def _scaled(low: float, high: float, **more: Any) -> Callable[[random.Random, Settings], Settings]:
    return lambda rng, s: {"scale": 10 ** rng.uniform(low, high), **more}


def _shorter(rng: random.Random, s: Settings) -> Settings:
    return {"epochs": max(1, s["epochs"] // rng.choice((15, 25)))}


def _few_rows(s: Settings) -> Settings:
    """Return 16 rows, with about as many steps as before."""
    batch = min(s["batch"], 16)
    steps = s["epochs"] * -(-s["rows"] // s["batch"])
    return {"rows": 16, "batch": batch, "epochs": min(200, max(1, steps * batch // 16))}


def _is_long(s: Settings) -> bool:
    return bool(s["epochs"] >= 15)


def _normalises(s: Settings) -> bool:
    return "batchnorm" in s["net"]


HIGH, LOW = "learning-rate-too-high", "learning-rate-too-low"
SCALE, START, OUTPUT = "input-scale", "bad-initialization", "output-activation"
UNUSED, LABELS = "unused-parameters", "labels"
FAULTS = (
    Change("rate_high", "learning rate times 30 to 1000", (HIGH, "non-finite"), _rate(1.5, 3)),
    Change("rate_low", "learning rate divided by 1,000", (LOW,), _rate(-3.3, -2.7)),
    Change("rate_lower", "learning rate divided by 10^4 to 10^6", (LOW,), _rate(-6, -4)),
    Change("rate_zero", "learning rate 0", (LOW,), _fixed(lr=0.0)),
    Change(
        "decays", "the rate is gone after 2 % of the run", (LOW,), _fixed(schedule="jump:.02:1e-5")
    ),
    Change("warms_up", "a warm-up of 100 runs", (LOW,), _fixed(schedule="warmup:100")),
    Change(
        "clipped",
        "gradients clipped to 1e-4",
        (LOW,),
        _fixed(clip=1e-4),
        lambda s: s["optimizer"] == "sgd",
    ),
    Change(
        "raw_features",
        "features of sizes 1 to 1000",
        (SCALE,),
        _scaled(2, 3.5, scale_of_each=True),
        _shape("table", "series"),
    ),
    Change("large_inputs", "inputs times 100 to 1000", (SCALE,), _scaled(2, 3), _is_numeric),
    Change("tiny_inputs", "inputs divided by 10^3 to 10^4", (SCALE,), _scaled(-4, -3), _is_numeric),
    Change("offset_inputs", "inputs plus 100", (SCALE,), _fixed(offset=100.0), _is_numeric),
    Change(
        "large_targets",
        "targets times 100 to 10,000",
        ("target-scale", HIGH),
        lambda rng, s: {"targets": 10 ** rng.uniform(2, 4)},
        _task("numbers"),
    ),
    Change(
        "softmax_twice",
        "a softmax before cross-entropy",
        (OUTPUT,),
        _fixed(output="softmax", loss="cross_entropy"),
        _task("classes"),
        structural=True,
    ),
    Change(
        "sigmoid_twice",
        "a sigmoid before the loss's own",
        (OUTPUT,),
        lambda rng, s: {
            "output": "sigmoid",
            "loss": "labels" if task_of(s) == "labels" else "bce_logits",
        },
        _task("binary", "labels"),
        structural=True,
    ),
    Change(
        "softmax_of_one",
        "a softmax over a single unit",
        (OUTPUT,),
        _fixed(output="softmax", loss="bce_logits"),
        _task("binary"),
        structural=True,
    ),
    Change(
        "softmax_of_batch",
        "a softmax over the rows of a batch",
        (OUTPUT,),
        _fixed(output="softmax_of_batch", loss="cross_entropy"),
        _task("classes"),
        structural=True,
    ),
    Change(
        "sigmoid_classes",
        "a sigmoid before cross-entropy",
        (OUTPUT,),
        _fixed(output="sigmoid", loss="cross_entropy"),
        _task("classes"),
        structural=True,
    ),
    Change(
        "relu_output",
        "a ReLU at the end",
        (OUTPUT, "dead-units"),
        _fixed(output="relu"),
        _task("classes", "numbers"),
    ),
    Change(
        "tanh_output",
        "a tanh at the end, targets times 5",
        (OUTPUT,),
        _fixed(output="tanh", targets=5.0),
        _task("numbers"),
    ),
    Change(
        "squared_error",
        "squared error of probabilities",
        ("loss-function",),
        _fixed(loss="mse_of_probabilities"),
        _task("classes"),
    ),
    Change(
        "absolute_error",
        "absolute error of probabilities",
        ("loss-function",),
        _fixed(loss="mae_of_probabilities"),
        _task("classes"),
    ),
    Change(
        "each_class_alone",
        "a sigmoid for each of exclusive classes",
        (OUTPUT, "loss-function"),
        _fixed(loss="each_class_alone"),
        _task("classes"),
    ),
    Change(
        "broadcast",
        "[N] minus [N, 1]",
        ("shape-mismatch",),
        _fixed(broadcast=True),
        lambda s: task_of(s) == "numbers" and s["units"] == 1 and s["batch"] > 1,
        structural=True,
    ),
    Change(
        "shuffled",
        "targets that do not belong to the rows",
        (LABELS, "plateau", "overfitting"),
        _fixed(shuffled=True),
    ),
    Change("constant", "the same target for all rows", (LABELS,), _fixed(constant=True)),
    Change(
        "outside",
        "labels -1 and 2 instead of 0 and 1",
        (LABELS,),
        lambda rng, s: {
            "outside": True,
            "loss": "labels" if task_of(s) == "labels" else "bce_logits",
        },
        _task("binary", "labels"),
        structural=True,  # the loss has no least value, however the metric ends
    ),
    Change(
        "zeros",
        "all parameters start at 0",
        (START,),
        _fixed(init="zeros"),
        _net(*PERCEPTRONS, "cnn_"),
    ),
    Change(
        "large_start",
        "weights start 10 to 30 times as large",
        (START, "exploding-gradient", "saturated-units"),
        lambda rng, s: {"init": rng.uniform(10, 30)},
    ),
    Change(
        "small_start",
        "weights start at a hundredth",
        ("vanishing-gradient", START),
        _fixed(init=0.01),
    ),
    Change(
        "deep_sigmoid",
        "twelve sigmoid layers more",
        ("vanishing-gradient",),
        _fixed(deeper=12, activation="sigmoid"),
        _net(*PERCEPTRONS),
    ),
    Change("dead", "biases start at -10", ("dead-units", START), _fixed(init="dead"), _net(*RELU)),
    Change(
        "detached",
        "the body is detached from the loss",
        (UNUSED,),
        _fixed(detached=True),
        structural=True,
    ),
    Change(
        "head_alone",
        "only the head is in the optimizer",
        (UNUSED,),
        _fixed(optimize="head"),
        structural=True,
    ),
    Change(
        "body_alone",
        "the head is not in the optimizer",
        (UNUSED,),
        _fixed(optimize="body"),
        structural=True,
    ),
    Change(
        "frozen_body", "the body is frozen before it was trained", (UNUSED,), _fixed(frozen=True)
    ),
    Change(
        "keeps_gradients", "no zero_grad", ("exploding-gradient",), _fixed(keeps_gradients=True)
    ),
    Change(
        "decay",
        "a weight decay that outweighs the loss",
        ("over-regularized", "plateau"),
        lambda rng, s: {
            "weight_decay": (0.5 if s["optimizer"] not in ("adamw", "lion") else 0.2 / s["lr"])
        },
    ),
    Change("drops_all", "dropout of 0.98", ("over-regularized",), _fixed(dropout=0.98)),
    Change(
        "pairs",
        "batches of 2 for batch normalisation",
        ("batch-size",),
        _fixed(batch=2),
        _normalises,
    ),
    Change("short", "a fifteenth of the epochs", ("too-short",), _shorter, _is_long),
    Change(
        "sorted",
        "rows in the order of their classes",
        ("oscillating-loss", "plateau"),
        _fixed(sorted=True),
        _task("classes", "binary"),
    ),
    Change(
        "few_rows",
        "16 rows",
        ("overfitting",),
        lambda rng, s: _few_rows(s),
    ),
    Change(
        "nan_rows", "NaN in 2 % of the rows", ("non-finite",), _fixed(bad_rows="nan"), _is_numeric
    ),
    Change(
        "wild_rows",
        "2 % of the rows times 10,000",
        ("loss-spike", SCALE),
        _fixed(bad_rows=1e4),
        _is_numeric,
    ),
    Change(
        "log_of_zero",
        "the logarithm of a probability that may be 0",
        ("non-finite",),
        _fixed(log_of_zero=True),
        _task("classes"),
    ),
    Change(
        "val_raw",
        "validation rows that are not standardised",
        ("validation-data",),
        _fixed(val_raw=True),
        _shape("table", "series"),
    ),
)
HARMLESS = (
    Change("rate_up", "learning rate times 2.5", (), lambda rng, s: {"lr": s["lr"] * 2.5}),
    Change("rate_down", "learning rate divided by 3", (), lambda rng, s: {"lr": s["lr"] / 3}),
    Change("cosine", "a cosine down to 0", (), _fixed(schedule="cosine")),
    Change("warm_up", "a warm-up over a tenth of the run", (), _fixed(schedule="warmup:.1")),
    Change("one_cycle", "the one-cycle schedule", (), _fixed(schedule="onecycle")),
    Change("noisy_labels", "a tenth of the targets exchanged", (), _fixed(label_noise=0.1)),
    Change("some_dropout", "dropout of 0.2", (), _fixed(dropout=0.2)),
    Change("some_decay", "a little weight decay", (), lambda rng, s: {"weight_decay": 1e-4}),
    Change("clipped_at_1", "gradients clipped to 1", (), _fixed(clip=1.0)),
    Change("accumulates", "two batches per step", (), _fixed(accumulate=2)),
    Change("much_longer", "twice the epochs", (), lambda rng, s: {"epochs": 2 * s["epochs"]}),
    Change("half_again", "weights start 1.5 times as large", (), _fixed(init=1.5)),
    Change("in_order", "rows in the order in which they were drawn", (), _fixed(in_order=True)),
    Change("larger_inputs", "inputs times 3", (), _fixed(scale=3.0), _is_numeric),
    Change("half_the_rows", "half the rows", (), lambda rng, s: {"rows": s["rows"] // 2}),
)
BY_NAME = {change.name: change for change in (*FAULTS, *HARMLESS)}


def nets_for(part: str, shape: str) -> list[str]:
    """Return the architectures of a part that take inputs of a shape."""
    return [name for name, (own, shapes, _) in NETS.items() if own == part and shape in shapes]
