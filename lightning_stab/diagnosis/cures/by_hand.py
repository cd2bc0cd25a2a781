"""The cures that are a change of code or data, which nothing outside the program can make."""

from __future__ import annotations

from lightning_stab.diagnosis.cures.cure import Cure

# what is wrong by its form: nothing else is of use before it is repaired
FIRST = (
    Cure(
        "one-shape",
        "Give predictions and targets one shape: `prediction.squeeze(-1)` or"
        " `target.unsqueeze(-1)`.",
        answers=("shape-mismatch",),
        code=("loss = self.loss(prediction.squeeze(-1), target)",),
    ),
    Cure(
        "count-classes",
        "Count classes from 0, and make the output layer as wide as their number.",
        answers=("labels:class_out_of_range",),
        code=("self.head = nn.Linear(width, num_classes)  # targets in 0 .. num_classes - 1",),
    ),
    Cure(
        "binary-labels",
        "Code the labels as 0 and 1.",
        answers=("labels:impossible_targets",),
        code=("target = (label == positive_label).float()",),
    ),
    Cure(
        "labels-differ",
        "Look at the labels: a filter, a join or an encoding has left one value.",
        answers=("labels:constant_targets", "labels:improvement"),
        code=("print(torch.unique(targets, return_counts=True))",),
    ),
    Cure(
        "pairs",
        "Check that inputs and labels belong together, in training and in validation: a join, a"
        " sort or a shuffle of one of the two breaks the pairs.",
        answers=(
            *("labels:neighbour_agreement", "plateau:validation_learnt"),
            *("plateau:validation_fall", "overfitting:progress"),
        ),
        code=("dataset = TensorDataset(inputs, targets)  # before anything is shuffled",),
    ),
    Cure(
        "baseline",
        "Check that there is something to learn: fit a simple model to the same data.",
        answers=(
            *("labels:neighbour_agreement", "plateau:validation_learnt"),
            "plateau:validation_fall",
        ),
        code=("sklearn.ensemble.RandomForestClassifier().fit(x, y).score(x_val, y_val)",),
    ),
    Cure(
        "register-layers",
        "Keep layers in `nn.ModuleList` or `nn.ModuleDict`, not in a plain list or dict, and assign"
        " them to `self` after `super().__init__()`.",
        answers=("unused-parameters:unregistered",),
        code=("self.blocks = nn.ModuleList(blocks)",),
    ),
    Cure(
        "optimize-all",
        "Give `self.parameters()` to the optimizer after all layers have been made; if some are"
        " meant to stay as they are, say so with `requires_grad_(False)`.",
        answers=("unused-parameters:unoptimized",),
        code=("return torch.optim.AdamW(self.parameters())  # in configure_optimizers",),
    ),
    Cure(
        "reach-the-loss",
        "Look for a `.detach()`, `torch.no_grad()`, `.data` or `.item()` between them and the loss,"
        " or a layer that `forward` does not call; if they are meant to stay as they are, say so"
        " with `requires_grad_(False)`.",
        answers=("unused-parameters:without_gradient",),
        code=("loss = self.loss(self(x), y)  # without .detach() on the way",),
    ),
    Cure(
        "unfreeze",
        "Train them too (`requires_grad_(True)`), unless they were trained before.",
        answers=("unused-parameters:frozen_held",),
        code=("self.body.requires_grad_(True)",),
    ),
    Cure(
        "sigmoid-for-one",
        "Use a sigmoid for a single unit, best inside the loss: `BCEWithLogitsLoss`.",
        answers=("output-activation:softmax_of_one",),
        code=("loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)",),
        source="torch.nn.BCEWithLogitsLoss: it takes a logit",
    ),
    Cure(
        "softmax-over-classes",
        "Give the softmax the dimension of the classes: `softmax(x, dim=-1)`; before"
        " `cross_entropy` leave it out.",
        answers=("output-activation:softmax_of_batch",),
        code=("probabilities = torch.softmax(logits, dim=-1)",),
        source="torch.nn.CrossEntropyLoss: it takes logits",
    ),
    Cure(
        "clear-gradients",
        "Call `optimizer.zero_grad()` before each `self.manual_backward(loss)`, and leave"
        " `optimizer_zero_grad` as it is where you override it.",
        answers=("exploding-gradient:stale_gradients",),
        code=("optimizer.zero_grad()  # before self.manual_backward(loss)",),
    ),
    Cure(
        "fill-missing",
        "Look for missing values in the data; fill or drop them before training.",
        answers=("non-finite:nonfinite_inputs",),
        code=("x = torch.nan_to_num(x)  # or drop the rows",),
    ),
    Cure(
        "safe-loss",
        "Look for log(0), 0/0, the root of 0 and exp of large numbers in the loss; add a small"
        " epsilon, or use the `_with_logits` forms.",
        answers=("non-finite:loss_ratio",),  # the rules for what is NaN from the first step
        code=("loss = -(p + 1e-8).log().mean()",),
    ),
    Cure(
        "compare-modes",
        "Compare one validation batch in `train` and in `eval` mode, and look for what differs in"
        " validation: masks that hide everything, empty classes, samples of length 0.",
        answers=("non-finite:validation_nonfinite",),
        code=("module.eval(); module.validation_step(batch, 0)",),
    ),
    Cure(
        "prepare-alike",
        "Prepare training and validation rows alike: with the mean and standard deviation of the"
        " training rows.",
        answers=("validation-data",),
        code=("x_val = (x_val - x_train.mean(0)) / x_train.std(0)",),
    ),
    Cure(
        "check-metric",
        "Check how the metric is computed: thresholds, `argmax`, the shapes it compares.",
        answers=("metric",),
        code=("correct = logits.argmax(-1) == target  # both of shape [N]",),
    ),
    Cure(
        "rate-above-zero",
        "Give the optimizer a learning rate above 0, and look for a schedule that returns 0.",
        answers=("learning-rate-too-low:highest_rate",),
        code=("torch.optim.AdamW(self.parameters(), lr=1e-3)",),
    ),
)

# what remains where no callback and no number helps
LAST = (
    Cure(
        "normalise-queries",
        "Normalise queries and keys, or divide the logits by the root of the head's width.",
        answers=("saturated-units:attention_logits",),
        code=("q, k = self.norm(q), self.norm(k)  # before q @ k.transpose(-2, -1)",),
        source="Dehghani et al. 2023",
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
        answers=("plateau:warming_up",),
        code=("Trainer(overfit_batches=1)",),
    ),
    Cure(
        "free-output",
        "Look for an output that stands still: a ReLU or a clamp just before the loss.",
        answers=("dead-units:zero_gradient", "bad-initialization:zero_gradient"),
        code=("return self.head(x)  # without relu or clamp",),
    ),
    Cure(
        "bias-at-the-mean",
        "Or start the output layer's bias at the targets' mean.",
        answers=("target-scale",),
        code=("self.head.bias.data.fill_(targets.mean())",),
    ),
    Cure(
        "targets-in-range",
        "Or scale the targets into the range of the activation.",
        answers=("output-activation:unreachable_targets",),
        code=("targets = (targets - low) / (high - low)  # for a sigmoid",),
    ),
    Cure(
        "recurrent-cell",
        "Use an LSTM or GRU, make sequences shorter, or let attention or pooling reach the early"
        " steps.",
        answers=("vanishing-gradient:gradient_time_log10",),
        code=("self.rnn = nn.LSTM(features, width, batch_first=True)",),
        source="Bengio, Simard & Frasconi 1994; Hochreiter & Schmidhuber 1997",
    ),
    Cure(
        "length-of-schedule",
        "Let the warm-up end within the first tenth of the run, and the schedule last as long as"
        ' the run: `T_max` or `total_steps` in optimizer steps, and `"interval": "step"` or'
        ' `"epoch"` to match.',
        answers=("learning-rate-too-low:progress",),
        code=("CosineAnnealingLR(optimizer, T_max=self.trainer.estimated_stepping_batches)",),
    ),
    Cure(
        "adaptive-optimizer",
        "Use Adam, whose steps do not shrink with the gradient.",
        answers=("learning-rate-too-low:update_ratio", "learning-rate-too-low:reach"),
        code=("torch.optim.AdamW(self.parameters(), lr=1e-3)",),
        instead_of=("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adafactor"),
        source="Kingma & Ba 2015",
    ),
    Cure(
        "larger-batches-by-hand",
        "Make the loader's batches larger: batch normalisation needs 16 rows or more, and"
        " accumulated gradients do not give it any.",
        answers=("batch-size",),
        code=("DataLoader(dataset, batch_size=32, shuffle=True)",),
        source="Wu & He 2018",
    ),
    Cure(
        "loss-for-classes",
        "Use `torch.nn.CrossEntropyLoss` on logits, without a softmax before it, where exactly one"
        " class is right (`BCEWithLogitsLoss` for two classes).",
        answers=("loss-function",),
        code=("loss = torch.nn.functional.cross_entropy(logits, classes)",),
        source="Bishop 2006, section 4.3",
    ),
    Cure(
        "regularise",
        "Add data, augmentation, dropout or weight decay, or make the network smaller.",
        answers=("overfitting",),
        code=("self.dropout = nn.Dropout(0.1)",),
        source="Goodfellow, Bengio & Courville 2016, chapter 7",
    ),
    Cure(
        "until-validation-rises",
        "Train longer: raise `max_epochs` or `max_steps`, and stop by the validation loss.",
        answers=("too-short",),
        code=("Trainer(max_epochs=100, callbacks=BestWeightsEarlyStopping(patience=5))",),
        source="Prechelt 1998",
    ),
    Cure(
        "try-cures",
        "No one cause stands out: let `lightning-stab prescribe` try initialisation, scaled inputs,"
        " learning rates and a longer run, or start from a smaller network that learns.",
        answers=("underfitting",),
        code=("lightning-stab prescribe --config my.yaml  # in the shell",),
        source="Karpathy 2019, A recipe for training neural networks",
    ),
    Cure(
        "inspect-data",
        "Look for broken samples in the data: values far outside the usual range, log(0), 0/0 and"
        " the root of 0.",
        answers=("loss-spike", "non-finite:nonfinite_losses", "non-finite:nonfinite_gradients"),
        code=("x = x.clamp(-limit, limit)  # or leave the broken rows out",),
    ),
)
