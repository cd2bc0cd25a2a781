import io
import pickle

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import initialize
from lightning_stab.callbacks.initialization.report import markdown_table, print_table
from lightning_stab.callbacks.initialization.weight_initialization import WeightInitialization
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.initialization import (
    InitializationSettings,
    WeightRecord,
    initialize_,
)


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.build()

    def build(self):
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)  # what was drawn stays to be seen


class LateNet(Net):
    def build(self):
        pass

    def configure_model(self):
        if not hasattr(self, "net"):
            Net.build(self)


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(8) % 2), batch_size=4)


def trainer(tmp_path, callbacks, **arguments):
    settings = {"accelerator": "cpu", "max_epochs": 1, "logger": False}
    return lightning.Trainer(
        default_root_dir=tmp_path,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**settings, **arguments},
    )


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def expected(seed=0):
    net = Net()
    initialize(net, next(iter(loader())), seed=seed)
    return weights(net)


@pytest.fixture(autouse=True)
def _no_process_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.mark.parametrize("module_class", [Net, LateNet])
def test_a_fit_starts_from_the_drawn_weights(tmp_path, module_class, capsys):
    module, callback = module_class(), WeightInitialization()
    trainer(tmp_path, callback).fit(module, loader())
    assert torch.equal(weights(module), expected())
    assert [(r.name, r.preceding, r.scheme) for r in callback.records] == [
        ("net.0.weight", "input", "mirrored orthogonal"),
        ("net.2.weight", "ReLU", "mirrored orthogonal"),
        ("net.4.weight", "Sigmoid", "balanced orthogonal"),
    ]
    assert "Weights initialised: 3 of 3" in capsys.readouterr().out


def test_the_seed_is_the_arguments_then_the_processs_then_fixed(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    for argument, seed in [(None, 5), (9, 9)]:
        module = Net()
        trainer(tmp_path, WeightInitialization(seed=argument)).fit(module, loader())
        assert torch.equal(weights(module), expected(seed))


def test_the_rest_of_the_runs_random_numbers_stay_the_same(tmp_path):
    states = []
    for callbacks in ([], [WeightInitialization()]):
        torch.manual_seed(3)
        trainer(tmp_path, callbacks).fit(Net(), loader())
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_never_on_resume_though_the_checkpoint_knows_nothing_of_it(tmp_path):
    first = trainer(tmp_path, [])
    first.fit(Net(), loader())
    first.save_checkpoint(tmp_path / "plain.ckpt")
    saved = weights(first.lightning_module)
    module, callback = Net(), WeightInitialization()
    second = trainer(tmp_path, callback, max_epochs=2)
    second.fit(module, loader(), ckpt_path=tmp_path / "plain.ckpt")
    assert torch.equal(weights(module), saved)
    assert callback.records == []
    assert callback.state_dict() == {"initialized": True}


def test_a_restored_mark_prevents_a_second_drawing(tmp_path):
    callback = WeightInitialization()
    first = trainer(tmp_path, callback)
    first.fit(Net(), loader())
    first.save_checkpoint(tmp_path / "marked.ckpt")
    checkpoint = torch.load(tmp_path / "marked.ckpt", weights_only=True)
    (state,) = (s for k, s in checkpoint["callbacks"].items() if "WeightInitialization" in k)
    module, restored = Net(), WeightInitialization()
    before = weights(module)
    restored.load_state_dict(state)
    trainer(tmp_path, restored).fit(module, loader())
    assert torch.equal(weights(module), before)
    fresh = Net()  # the mark belongs to the restored module only
    trainer(tmp_path, restored).fit(fresh, loader())
    assert torch.equal(weights(fresh), expected())


def test_a_second_fit_continues_and_a_new_module_is_drawn(tmp_path):
    callback, module, other = WeightInitialization(), Net(), Net()
    trainer(tmp_path, callback).fit(module, loader())
    with torch.no_grad():
        module.net[0].weight.fill_(0.5)  # stands for what training learned
    trainer(tmp_path, callback).fit(module, loader())
    assert (module.net[0].weight == 0.5).all()
    trainer(tmp_path, callback).fit(other, loader())
    assert torch.equal(weights(other), expected())


def test_validation_alone_draws_nothing(tmp_path):
    class Validated(Net):
        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)

    module = Validated()
    before = weights(module)
    trainer(tmp_path, WeightInitialization()).validate(module, loader(), verbose=False)
    assert torch.equal(weights(module), before)


def test_the_table_reaches_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    callback = WeightInitialization(exclude=["net.4.*"], verbose=False)
    trainer(tmp_path, callback, logger=logger).fit(Net(), loader())
    events = EventAccumulator(logger.log_dir).Reload()
    (event,) = events.Tensors("weight_initialization/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert text == markdown_table(callback.records)
    assert "| net.2.weight | 8 x 8 | ReLU | mirrored orthogonal | 1 |" in text
    assert "left alone: excluded" in text


def test_silent_when_not_verbose(tmp_path, capsys):
    trainer(tmp_path, WeightInitialization(verbose=False)).fit(Net(), loader())
    assert "initialised" not in capsys.readouterr().out


def printed(module, settings=None):
    console = Console(width=100, record=True, file=io.StringIO())
    print_table(initialize_(module, settings), console)
    return console.export_text()


def test_the_printed_table_puts_like_neighbours_in_one_row():
    net = nn.Sequential(*(m for _ in range(30) for m in (nn.Linear(8, 8), nn.Tanh())))
    text = printed(net)
    assert "2-58 (29)" in text
    assert text.count("xavier_normal") == 2


def test_neighbours_of_different_depth_are_named_by_both_ends():
    net = nn.ModuleDict({"first": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
    net["b"] = nn.ModuleDict({"c": nn.Linear(2, 2)})
    settings = InitializationSettings(exclude=["*"])
    assert "a.weight - b.c (2)" in printed(net, settings)


def test_a_sharding_strategy_is_refused(tmp_path):
    class FSDPStrategy(lightning.strategies.SingleDeviceStrategy):  # known by its name
        pass

    with pytest.raises(ConflictError, match="cannot work with `FSDPStrategy`"):
        trainer(tmp_path, WeightInitialization(), strategy=FSDPStrategy(torch.device("cpu"))).fit(
            Net(), loader()
        )


def test_it_pickles_after_a_fit(tmp_path):
    callback = WeightInitialization("orthogonal", gain=1.2)
    trainer(tmp_path, callback).fit(Net(), loader())
    copy = pickle.loads(pickle.dumps(callback))
    assert copy.settings == callback.settings
    assert copy.records == callback.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "zeros"}, "stay identical for ever"),
        ({"scheme": "xaver_normal"}, "Did you mean 'xavier_normal'"),
        ({"gain": -1}, "`gain` must be > 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"exclude": "head.*"}, "`exclude` must be a list"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        WeightInitialization(**arguments)


def test_yaml_round_trip():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WeightInitialization, "init")
    arguments = ["--init.exclude=['head.*']", "--init.gain=1.5", "--init.seed=3"]
    text = parser.dump(parser.parse_args(arguments))
    built = WeightInitialization(**parser.parse_string(text).init)
    assert built.settings == WeightInitialization(gain=1.5, exclude=["head.*"], seed=3).settings
    assert built.settings.seed == 3


def test_a_record_left_alone_shows_its_reason():
    table = markdown_table([WeightRecord("a", "", (), "input", reason="lazy")])
    assert table.splitlines()[-1] == "| a |  | input | left alone: lazy |  |  |  |"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("first", [True, False], ids=["finder-first", "finder-last"])
def test_a_finders_restore_is_no_reason_to_leave_the_weights_alone(tmp_path, first):
    drawing = WeightInitialization("orthogonal", verbose=False)
    for _ in range(2):  # used again, as in cross-validation
        finder = LearningRateFinder(num_training_steps=4)
        module = Net()
        module.lr, before = 0.0, [p.detach().clone() for p in module.parameters()]
        drawing.records = []
        trainer(tmp_path, [finder, drawing] if first else [drawing, finder]).fit(module, loader())
        assert drawing.records
        assert not any(map(torch.equal, before, module.parameters()))


def test_weights_of_a_checkpoint_that_was_validated_stay(tmp_path):
    drawing = WeightInitialization("orthogonal", verbose=False)
    first = trainer(tmp_path, [drawing])
    first.fit(Net(), loader())
    first.save_checkpoint(tmp_path / "run.ckpt")

    class Validated(Net):
        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)

    drawing, module = WeightInitialization("orthogonal", seed=5, verbose=False), Validated()
    second = trainer(tmp_path, [drawing])
    second.validate(module, loader(), ckpt_path=tmp_path / "run.ckpt", verbose=False)
    weights = [p.detach().clone() for p in module.parameters()]
    second.fit(module, loader())
    assert all(map(torch.equal, weights, module.parameters()))


def test_the_repr_makes_the_same_callback():
    for made in (
        WeightInitialization(),
        WeightInitialization("orthogonal", 1.2, exclude=["net.0.*"], schemes={"Linear": "keep"}),
    ):
        assert eval(repr(made)).settings == made.settings
    assert repr(WeightInitialization(seed=3)) == "WeightInitialization(seed=3)"
