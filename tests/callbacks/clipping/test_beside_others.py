"""Clipping beside a module's own clipping, with groups that come later, and in bfloat16."""

import warnings

import lightning.pytorch as lightning
import pytest
import torch
from helpers.lightning_twins import Classifier, batches, built, fit
from torch import nn

from lightning_stab import GradientClipping


class Own(Classifier):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm):
        nn.utils.clip_grad_norm_(self.parameters(), 0.5)


def test_a_modules_own_clipping_is_reported_before_the_first_step():
    with pytest.warns(RuntimeWarning, match="`Own.configure_gradient_clipping` both change"):
        fit(built(Own), [GradientClipping()], batches(1))


@pytest.mark.parametrize("kind", [Classifier, Own])
def test_a_module_without_it_or_under_manual_optimisation_is_not(kind):
    module = built(kind)
    if kind is Own:
        module.automatic_optimization = False
        module.training_step = lambda batch, batch_idx: None
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", RuntimeWarning)
        fit(module, [GradientClipping()], batches(1))
    assert [w for w in heard if "both change" in str(w.message)] == []


def test_the_output_layer_is_looked_for_again_when_a_group_is_added():
    class Late(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.head(self.first(batch[0])), batch[1])

        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                self.optimizers().add_param_group({"params": list(self.head.parameters())})

        def on_before_zero_grad(self, optimizer):
            self.seen.append([self.first.weight.grad, self.head.weight.grad])

        def configure_optimizers(self):
            self.seen = []
            return torch.optim.SGD(self.first.parameters(), lr=0.1)

    class Compare(lightning.Callback):
        def __init__(self):
            self.unclipped, self.changed = {}, []

        def on_after_backward(self, trainer, module):
            self.unclipped = {n: p.grad.clone() for n, p in module.named_parameters()}

        def on_before_optimizer_step(self, trainer, module, optimizer):
            same = {
                n: torch.equal(p.grad, g)
                for (n, p), g in zip(
                    module.named_parameters(), self.unclipped.values(), strict=True
                )
            }
            self.changed.append({n.split(".")[0] for n, equal in same.items() if not equal})

    compare = Compare()
    fit(built(Late), [GradientClipping("adaptive", 1e-6), compare], batches(4))
    assert compare.changed == [set(), set(), {"first"}, {"first"}]


def test_in_bfloat16_the_bound_is_kept_more_exactly_than_lightning_keeps_it():
    class Norms(lightning.Callback):
        def __init__(self):
            self.norms = []

        def on_before_zero_grad(self, trainer, module, optimizer):
            gradients = [p.grad.double() for p in module.parameters() if p.grad is not None]
            if gradients:
                self.norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    norms = Norms()
    fit(
        built(Classifier, batch_norm=False, logs=False),
        [GradientClipping("norm", 0.05), norms],
        batches(8),
        precision="bf16-true",
    )
    assert norms.norms == pytest.approx([0.05] * len(norms.norms), rel=4e-3)  # an entry has 8 bits
