"""The builder of every architecture."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.diagnosis.corpus import (
    attention,
    deep,
    generative,
    images,
    mlp,
    recurrent,
    regression,
    several,
    text,
)
from benchmarks.diagnosis.corpus.data import Settings
from benchmarks.diagnosis.corpus.parts import Setup

FAMILIES: dict[str, Callable[[Settings], Setup]] = {
    "mlp_digits": mlp.mlp_digits,
    "layernorm_mlp": mlp.layernorm_mlp,
    "binary_mlp": mlp.binary_mlp,
    "tabular_mlp": mlp.tabular_mlp,
    "deep_sigmoid": deep.deep_sequential,
    "deep_gelu": deep.deep_functional,
    "deep_relu": deep.deep_sequential,
    "deep_tanh": deep.deep_on_table,
    "cnn_plain": images.cnn_plain,
    "cnn_batchnorm": images.cnn_batchnorm,
    "resnet": images.resnet,
    "mixer": images.mixer,
    "regression_mlp": regression.regression_mlp,
    "multitask": regression.multitask,
    "rnn": recurrent.rnn,
    "gru": recurrent.gru,
    "lstm": recurrent.lstm,
    "sequence_regression": recurrent.sequence_regression,
    "transformer_encoder": attention.transformer_encoder,
    "transformer_lm": attention.transformer_lm,
    "autoencoder": generative.autoencoder,
    "gan": generative.gan,
    "two_optimizers": several.two_optimizers,
    "text_bag": text.text_bag,
    "text_cnn": text.text_cnn,
}
