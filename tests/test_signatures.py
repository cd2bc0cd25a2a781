"""The defaults of what users call: each is a promise, written out here, apart from the code.

One that is changed on purpose is one word to change here, and a line of the changelog.
"""

import ast
import inspect
import math
import pkgutil
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pydoc import locate

import lightning_stab
import lightning_stab.callbacks
from lightning_stab.callbacks.activations.activation_monitor import ActivationOptions
from lightning_stab.callbacks.clipping.options import ClippingOptions
from lightning_stab.callbacks.decay.options import DecayOptions
from lightning_stab.callbacks.doctor.training_doctor import DoctorOptions
from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheckOptions
from lightning_stab.callbacks.gradients.gradient_monitor import GradientMonitorOptions
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.initialization.weight_initialization import (
    WeightInitializationSettings,
)
from lightning_stab.callbacks.report.stability_report import ReportOptions
from lightning_stab.callbacks.stopping.record import StoppingOptions

CALLS = """
recommended(init=False, check=False, monitor=True, activations=False, clip=False, guard=True,
    decay=False, stop=False, doctor=True, report=True)
initialize(batch=None, scheme='auto', gain=None, loss_fn=None, bias='zeros', include=(),
    exclude=(), schemes=None, embedding_std=None, output_prior=None, seed=0)
check_gradients(loss_fn=None, mode='auto', coordinates=None, num_directions=2, tolerance=1e-7,
    max_samples=None, seed=0, settings=None)
watch(callbacks=None, log=None, scheduler=None, scaler=None, fabric=None,
    accumulate_grad_batches=1, total_steps=None)
ActivationMonitor(every_n_steps=200, window=1000, include=('*',), exclude=())
BestWeightsEarlyStopping(patience=3, patience_unit='checks', mode='min', min_delta=0.0,
    relative_min_delta=False, stall='any', warmup_checks=0, warmup_steps=0, rising_checks=None,
    oscillation_window=None, oscillation_amplitude=0.05, restore_best=True, folder=None,
    check_every_n_steps=None, verbose=False, strict=True, check_finite=True,
    stopping_threshold=None, divergence_threshold=None, check_on_train_epoch_end=None,
    log_rank_zero_only=False)
GradientCheck(on_fail='raise', every_n_epochs=None, mode='auto', coordinates=None,
    num_directions=2, max_samples=None, on_resume=False, seed=0)
GradientClipping(rule='norm', threshold=None, method='zscore', per_parameter_group=False,
    exclude=(), exclude_output=True, every_n_steps=50)
GradientMonitor(every_n_steps=50, dense_steps=10, per_parameter=(), statistics=(
    'nonfinite_fraction', 'update_ratio', 'cosine', 'depth', 'noise_scale'),
    histogram_every_n_steps=None, progress_bar=False)
LearningRateDecay(schedule='exponential', interval='epoch', gamma=None, every=10, power=1.0,
    total=None, time_scale=None, growth=1, floor=None, ceiling=1.0, warmup_steps=0,
    function='linear', monitor=None, mode='min', patience=3, min_delta=0.0, smoothing=0.98,
    window=10, amplitude=0.05, check_every_n_steps=50, reload_best=False, combine='refuse')
StabilityReport(on_finding=None, on_event=None, every_n_epochs=0, verbose=True)
StepGuard(on_nonfinite='raise', on_spike='ignore', max_consecutive=10, window=128, min_window=64,
    deviations=6.0, loss_jump=0.2, gradient_factor=5.0, early_factor=100.0, rewind_after=3,
    snapshot_every_n_steps=50, lr_factor=0.5, forensics=False)
TrainingDoctor(ignore=(), thresholds=None, every_n_steps=200, print_findings=True,
    log_facts=False)
WeightInitialization(scheme='auto', gain=None, bias='zeros', exclude=(), embedding_std=None,
    seed=None, verbose=True, include=(), schemes=None, output_prior=None, use_batch=True,
    on_resume=False)
data.DigitsDataModule(batch_size=64, image=False, seed=0, val_fraction=0.15, test_fraction=0.15,
    num_workers=0)
data.MNISTDataModule(data_dir='data/mnist', batch_size=64, image=False, seed=0, val_fraction=0.1,
    num_workers=0)
models.MLPClassifier(in_features=64, num_classes=10, depth=4, width=128, activation='relu',
    batch_norm=True, dropout=0.0, optimizer='adam', learning_rate=0.001, momentum=0.9,
    weight_decay=0.0)
models.ConvClassifier(in_channels=1, image_size=8, num_classes=10, depth=3, width=32,
    activation='relu', batch_norm=True, dropout=0.0, optimizer='adam', learning_rate=0.001,
    momentum=0.9, weight_decay=0.0)
prescription.prescribe(metric='val_loss', mode='min', trainer_kwargs=None, max_cost=5.0, seeds=2,
    jobs=1, engine='local', cures=None)
prescription.candidate.Candidate(callbacks=(), in_yaml=False, code=(), change=None, untried='',
    length=1.0)
prescription.surgery.SkipConnections(every=2)
prescription.surgery.SkipOptions(every=2)
diagnosis.finding.Finding(source='', since=0, seen=1, state='raised', withdrawn_at=None,
    explained_by='')
diagnosis.rule.Rule(advice=(), persistence=1, is_event=False,
    source='measured for this rule, see docs/training_doctor.md')
functional.activation_kinds.activation_of_class(exactly=False)
functional.activations.unit_dimension(dimension=None, features=0)
functional.activations.unit_is_dead(unit=-1)
functional.activations.unit_peaks(unit=-1)
functional.clipping.clip_adaptively_(threshold=0.01, weight_floor=0.001, unit_dims=None)
functional.clipping.unit_norms(unit_dim=0)
functional.gradcheck.check.CheckSettings(mode='auto', coordinates=None, num_directions=2,
    tolerance=1e-7, seed=0)
functional.gradcheck.differences.richardson(ratio=2.0)
functional.gradcheck.report.GradientReport(notes=(), num_forwards=0, num_backwards=0,
    seconds=0.0, skipped=False)
functional.gradcheck.report.ParameterRecord(relative_error=0.0, coordinate=None, analytic=0.0,
    numeric=0.0, step=0.0, function=None, loss=0, note='')
functional.gradcheck.search.check_line(tolerance=1e-7)
functional.gradcheck.verdicts.compare(tolerance=1e-7)
functional.gradcheck.verdicts.find_agreement(tolerance=1e-7)
functional.gradient_statistics.count_zero_and_nonfinite(nonfinite=True)
functional.initialization.apply.initialize_(settings=None, seed=0, program=None)
functional.initialization.gains.Preceding(gain=1.0, rectifier=False)
functional.initialization.gains.ScalarFunction.slope_square(scale=1.0)
functional.initialization.gains.ScalarFunction.variance(scale=1.0)
functional.initialization.schemes.WeightShape(blocks=1)
functional.initialization.schemes.scheme_std(gain=1.0)
functional.initialization.structured.Structure(mirror_in=False, mirror_out=False, delta=False,
    blocks=1)
functional.initialization.structured.fast_orthogonal(gain=1.0)
functional.initialization.structured.orthogonal(gain=1.0, device=None)
functional.initialization.structured.variance_keeping_orthogonal(gain=1.0, device=None)
functional.loss_baselines.class_frequencies(ignore_index=-100)
functional.loss_baselines.cross_entropy(label_smoothing=0.0)
functional.norm_history.PercentileHistory(threshold=10.0, size=10000, warmup=1)
functional.norm_history.ZScoreHistory(threshold=2.5, decay=0.97, warmup=25)
functional.norms.tensor_norms(norm_type=2.0)
functional.norms.total_norm(norm_type=2.0)
functional.sampling.few_entries(most=1048576)
functional.sampling.few_rows(most=1048576)
functional.sampling.per_sample(most=1048576)
functional.spikes.SpikeDetector(window=128, minimum=64, deviations=6.0, jump=0.0, factor=0.0,
    early_factor=100.0, early_minimum=5)
functional.statistics.ExponentialStatistics(decay=0.97, warmup=25)
functional.stopping.Position(check=0, epoch=0, step=0)
functional.stopping.Track(best=nan, observed=0, finite=0)
functional.stopping.improves(by=0.0)
functional.stopping.oscillates(mode='min', turning=-0.3)
"""
OPTIONS = {
    "ActivationMonitor": ActivationOptions,
    "BestWeightsEarlyStopping": StoppingOptions,
    "GradientCheck": GradientCheckOptions,
    "GradientClipping": ClippingOptions,
    "GradientMonitor": GradientMonitorOptions,
    "LearningRateDecay": DecayOptions,
    "StabilityReport": ReportOptions,
    "StepGuard": GuardOptions,
    "TrainingDoctor": DoctorOptions,
    "WeightInitialization": WeightInitializationSettings,
}
# parts of the gradient check and of the initialisation that only these themselves call
OWN = {
    *("Activation", "BranchReplay", "DetachedValues", "Examination.note", "Line.losses_at"),
    *("Plan", "Point", "Problem.gradients", "Problem.losses", "Problem.rounding_noise"),
    *("Problem.run", "Use"),
}


def promised():
    """Return the defaults that are written out above, by the name of the call."""
    for node in ast.parse(CALLS).body:
        call = node.value
        names = {"nan": math.nan}
        yield (
            ast.unparse(call.func),
            {k.arg: eval(ast.unparse(k.value), {}, names) for k in call.keywords},
        )


def defaults(function):
    """Return the defaults of a signature that are plain values."""
    found = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    plain = (bool, int, float, str, tuple, type(None))
    return {name: value for name, value in found.items() if type(value) in plain}


def test_every_default_is_the_one_that_is_promised():
    for name, values in promised():
        found = defaults(attrgetter(name)(lightning_stab))  # a module may have a function's name
        assert list(map(repr, found.items())) == list(map(repr, values.items())), name


def test_a_callbacks_options_have_its_defaults():
    for name in lightning_stab.callbacks.__all__:
        own = defaults(getattr(lightning_stab.callbacks, name))
        options = defaults(OPTIONS[name])
        # of the options some are set by no argument of the callback
        assert repr(own) == repr({k: options[k] for k in own}), name
        assert is_dataclass(OPTIONS[name])
        assert {field.name for field in fields(OPTIONS[name])} >= own.keys()


def calls_of(module):
    for name, found in vars(module).items():
        if name.startswith("_") or getattr(found, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(found) or (inspect.isclass(found) and is_dataclass(found)):
            yield name, found
        for own, method in vars(found).items() if inspect.isclass(found) else ():
            if inspect.isfunction(method) and not own.startswith("_"):
                yield f"{name}.{own}", method


def test_no_call_of_the_mathematics_is_left_out():
    known = {name.partition("functional.")[2] for name, _ in promised()}
    package = lightning_stab.functional
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = locate(info.name)
        for name, call in calls_of(module):
            numbers = [v for v in defaults(call).values() if type(v) in (bool, int, float)]
            own = f"{info.name.partition('functional.')[2]}.{name}"
            assert not numbers or name in OWN or own in known, own
