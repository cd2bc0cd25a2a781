"""Small modules of other projects, each with data that it can learn: from configs, no network.

A program is a function that returns a LightningModule, a dataset and how its samples are collated.
It skips the test where its package is not installed.
"""

import lightning.pytorch as lightning
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Wrapped(lightning.LightningModule):
    """A plain module, the loss of a batch, and an optimizer."""

    def __init__(self, net, loss, optimizer=torch.optim.AdamW, lr=3e-3):
        super().__init__()
        self.net, self.loss, self.optimizer, self.lr = net, loss, optimizer, lr

    def training_step(self, batch, batch_idx):
        loss = self.loss(self.net, batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(self.net, batch), batch_size=len(batch))

    def configure_optimizers(self):
        return self.optimizer([p for p in self.parameters() if p.requires_grad], lr=self.lr)


def words(num=96, length=12):
    """Return sentences that count upwards, each from a place of its own."""
    start = torch.randint(20, (num, 1), generator=torch.Generator().manual_seed(0))
    return (start + torch.arange(length)) % 20


def _gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=20,
        n_positions=12,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def gpt2():
    """A language model, which drops out and whose output is tied to its embedding."""
    return (
        Wrapped(_gpt2(), lambda net, b: net(b[0], labels=b[0]).loss),
        TensorDataset(words()),
        None,
    )


def bert():
    """A classifier of sentences."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=12,
        num_labels=2,
    )
    data = TensorDataset(words(), (words()[:, 0] >= 10).long())
    net = transformers.BertForSequenceClassification(config)
    return Wrapped(net, lambda net, b: net(input_ids=b[0], labels=b[1]).loss), data, None


def lora():
    """GPT-2 whose weights are frozen, with low-rank ones beside them."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True
    )
    net = peft.get_peft_model(_gpt2(), config)
    module = Wrapped(net, lambda net, b: net(b[0], labels=b[0]).loss, lr=3e-2)
    return module, TensorDataset(words()), None


def vision():
    """A residual net of timm, with batch normalisation."""
    pytest.importorskip("torchvision", exc_type=ImportError)  # timm imports it
    timm = pytest.importorskip("timm")
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = torch.randn(64, 3, 32, 32, generator=generator) + 2.0 * y[:, None, None, None]
    net = timm.create_model("test_resnet", num_classes=2)
    loss = nn.functional.cross_entropy
    return Wrapped(net, lambda net, b: loss(net(b[0]), b[1]), lr=1e-3), TensorDataset(x, y), None


def temporal_fusion():
    """The temporal fusion transformer of pytorch-forecasting, on sines."""
    forecasting = pytest.importorskip("pytorch_forecasting")
    pandas = pytest.importorskip("pandas")
    time = torch.arange(40).repeat(4)
    series = torch.arange(4).repeat_interleave(40)
    frame = pandas.DataFrame(
        {
            "time": time.numpy(),
            "series": [str(int(s)) for s in series],
            "value": (torch.sin(time / 3.0 + series) + 2.0).numpy(),
        }
    )
    data = forecasting.TimeSeriesDataSet(
        frame,
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=8,
        max_prediction_length=2,
        static_categoricals=["series"],
        time_varying_known_reals=["time"],
        time_varying_unknown_reals=["value"],
    )
    module = forecasting.TemporalFusionTransformer.from_dataset(
        data,
        hidden_size=8,
        attention_head_size=2,
        hidden_continuous_size=4,
        learning_rate=1e-2,
        optimizer="adam",
        log_interval=-1,
    )
    return module, data, data._collate_fn


def molecules():
    """Chemprop's message-passing net, on the number of atoms of small molecules."""
    data = pytest.importorskip("chemprop.data")
    from chemprop import models
    from chemprop import nn as layers

    chains = ["C" * n + end for n in range(1, 9) for end in ("O", "N", "Cl", "F", "C=O", "OC")]
    points = [data.MoleculeDatapoint.from_smi(s, [float(len(s)) / 4 - 1]) for s in chains]
    net = models.MPNN(
        layers.BondMessagePassing(d_h=32, depth=2),
        layers.MeanAggregation(),
        layers.RegressionFFN(input_dim=32, hidden_dim=32),
        batch_norm=True,
    )
    return net, data.MoleculeDataset(points), data.collate_batch


def molecules_with_adam():
    """The same net under Adam alone.

    Chemprop's own schedule asks for the number of batches before the loader's state is restored,
    so that Lightning resumes it at another batch, with the suite or without.
    """
    net, data, collate = molecules()
    net.configure_optimizers = lambda: torch.optim.Adam(net.parameters(), lr=1e-3)
    return net, data, collate


def deepar():
    """GluonTS's recurrent net, on sines with a little noise."""
    module = pytest.importorskip("gluonts.torch.model.deepar.lightning_module")
    kwargs = {"freq": "D", "context_length": 8, "prediction_length": 4, "hidden_size": 16}
    net = module.DeepARLightningModule({**kwargs, "lags_seq": [1, 2]}, lr=1e-2)
    past = net.model._past_length
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(past + 4)
    noise = 0.1 * torch.randn(64, past + 4, generator=generator)
    target = torch.sin(time / 2.0 + torch.arange(64)[:, None]) + 3.0 + noise
    samples = [
        {
            "feat_static_cat": torch.zeros(1, dtype=torch.long),
            "feat_static_real": torch.zeros(1),
            "past_time_feat": time[:past, None] / past,
            "past_target": values[:past],
            "past_observed_values": torch.ones(past),
            "future_time_feat": time[past:, None] / past,
            "future_target": values[past:],
            "future_observed_values": torch.ones(4),
        }
        for values in target
    ]
    return net, samples, None


class _ScheduleFree(Wrapped):
    """Trains at other weights than it is measured with, as its authors ask it to be used."""

    def on_train_epoch_start(self):
        self.optimizers().optimizer.train()

    def on_validation_model_train(self):
        super().on_validation_model_train()
        self.optimizers().optimizer.train()

    def on_validation_model_eval(self):
        super().on_validation_model_eval()
        self.optimizers().optimizer.eval()


def schedule_free():
    """A small net under a schedule-free optimizer."""
    optimizer = pytest.importorskip("schedulefree").AdamWScheduleFree
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    loss = nn.functional.cross_entropy
    module = _ScheduleFree(net, lambda net, b: loss(net(b[0]), b[1]), optimizer, lr=5e-2)
    return module, TensorDataset(x, (x[:, 0] > 0).long()), None


PROGRAMS = {
    f.__name__: f
    for f in (
        gpt2,
        bert,
        lora,
        vision,
        temporal_fusion,
        molecules,
        molecules_with_adam,
        deepar,
        schedule_free,
    )
}
