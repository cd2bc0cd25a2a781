"""The callbacks in a loop that has no Trainer, with the very code that runs under one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_stab.arguments import integer
from lightning_stab.callbacks import GradientMonitor, StepGuard, TrainingDoctor
from lightning_stab.callbacks._hooks.compiled import is_compiled_part
from lightning_stab.callbacks._hooks.hooks import ModuleHooks
from lightning_stab.callbacks._trainer.loop_trainer import LoopTrainer
from lightning_stab.callbacks._trainer.step import will_step
from lightning_stab.diagnosis import Finding
from lightning_stab.errors import ConflictError
from lightning_stab.loops import given

Closure = Callable[[], Tensor]
UNKNOWN_BATCHES = (
    "Of the batches only what enters the module was seen: targets and the length of an epoch are"
    " not known. Iterate over `batches(loader)`."
)


def watch(
    module: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    callbacks: Sequence[Any] | None = None,
    *,
    log: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    fabric: Any = None,
    accumulate_grad_batches: int = 1,
    total_steps: int | None = None,
) -> Watch:
    """Watch, guard, clip and diagnose a loop that has no Trainer: plain torch, or Fabric.

    The callbacks are those of a Trainer, and so are their arguments, tags, messages and states.

    Args:
        module: what is trained, also as ``DistributedDataParallel`` or Fabric has wrapped it.
        optimizer: of its parameters, or several, each of which is then given to ``step``.
        callbacks: `GradientMonitor`, `ActivationMonitor`, `GradientClipping`, `StepGuard` and
            `TrainingDoctor`, any of them. None: `GradientMonitor`, `StepGuard`, `TrainingDoctor`.
        log: where scalars go: a function ``log(values, step)``, a ``SummaryWriter`` of
            ``torch.utils.tensorboard`` or a logger of Lightning, or several of them. None: nowhere,
            or to Fabric's loggers.
        scheduler: one that advances with each step, or several; it waits where a step is not taken.
        scaler: the ``GradScaler`` of a plain loop; Fabric has its own.
        fabric: the ``Fabric`` that has set up module and optimizer.
        accumulate_grad_batches: calls of ``step`` for one step of the optimizer; each loss is
            divided by it.
        total_steps: steps of the whole run, by which the doctor judges how far it is.

    Raises:
        InvalidArgumentError: for an argument of the wrong kind.
        ConflictError: for what cannot work without a Trainer, and under sharding by FSDP1 or
            DeepSpeed.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with watch(net, sgd, [StepGuard("skip")]) as w:
        ...     for x in w.batches(torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])):
        ...         w.step(net(x).square().mean())
        >>> w.num_steps, w.num_skipped
        (2, 1)
    """
    integer("accumulate_grad_batches", accumulate_grad_batches, minimum=1)
    if total_steps is not None:
        integer("total_steps", total_steps, minimum=1)
    default = (GradientMonitor(), StepGuard(), TrainingDoctor())
    chosen = given.listed(default if callbacks is None else callbacks)
    own = given.plain_module(module, fabric)
    given.check_callbacks(chosen, own)
    optimizers = given.optimizers(optimizer, accumulate_grad_batches)
    plain = [given.plain_optimizer(each) for each in optimizers]
    trainer = LoopTrainer(
        own,
        plain,
        chosen,
        loggers=given.loggers(log, fabric),
        lr_scheduler_configs=given.schedules(scheduler, plain),
        scaler=given.scaler(scaler, fabric),
        accumulate_grad_batches=accumulate_grad_batches,
        total_steps=total_steps,
    )
    return Watch(trainer, optimizers, fabric)


class Watch:
    """What `watch` returns: a context, within which each step goes through `step`.

    Attributes:
        callbacks: the callbacks, whose own attributes tell more.
    """

    def __init__(self, trainer: LoopTrainer, optimizers: list[Any], fabric: Any) -> None:
        self.callbacks = trainer.callbacks
        self._trainer: Any = trainer
        self._module = trainer.lightning_module
        self._optimizers, self._fabric = optimizers, fabric  # as Fabric has wrapped them
        self._scaler = trainer.precision_plugin.scaler
        self._hooks = ModuleHooks()
        self._follows_loader = self._has_batch = self._has_backward = self._has_epoch = False
        self._is_cleared = self._is_ready = False
        self._batch: Any = None
        self._batch_idx = -1
        self._set_up()

    def __repr__(self) -> str:
        names = ", ".join(type(each).__name__ for each in self._optimizers)
        return f"watch({type(self._module).__name__}, {names}, {self.callbacks!r})"

    @property
    def num_steps(self) -> int:
        """Steps up to now, also those that were not taken."""
        return int(self._trainer.global_step)

    @property
    def num_skipped(self) -> int:
        """Steps that the guard has not taken. On a GPU its verdict may come one step later."""
        return sum(c.num_skipped for c in self.callbacks if isinstance(c, StepGuard))

    @property
    def findings(self) -> list[Finding]:
        """What the doctor has found and not taken back."""
        doctors = [c for c in self.callbacks if isinstance(c, TrainingDoctor)]
        return [finding for doctor in doctors for finding in doctor.findings]

    @property
    def unseen(self) -> tuple[str, ...]:
        """What could not be seen, a sentence each."""
        doctors = [c for c in self.callbacks if isinstance(c, TrainingDoctor)]
        blind = doctors and self._trainer.progress.total.ready and not self._has_epoch
        sentences = [sentence for doctor in doctors for sentence in doctor.unseen]
        return (*sentences, UNKNOWN_BATCHES) if blind else tuple(sentences)

    @property
    def is_accumulating(self) -> bool:
        """Whether the present batch ends without a step: for Fabric's ``no_backward_sync``."""
        if self._has_batch:
            return not will_step(self._trainer)
        ready = self._trainer.progress.current.ready + 1  # of the coming batch
        return bool(ready % self._trainer.accumulate_grad_batches)

    def __enter__(self) -> Watch:
        if self._trainer.training:
            raise ConflictError("This `watch` is on already. Leave it before you enter it again.")
        self._set_up()
        self._trainer.training = True
        self._is_cleared = False
        if not is_compiled_part(self._module):
            self._hooks.before(self._module, self._before_forward)
        self._call("on_fit_start")
        self._call("on_train_start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.remove()
        self._follows_loader = False
        try:
            if error is not None:
                self._fail(error)
                return
            try:
                self._end_batch()
                self._end_epoch()
                self._call("on_train_end")
            except BaseException as own:
                self._fail(own)
                raise
        finally:
            self._trainer.training = self._is_ready = False
            self._call("teardown", stage="fit")

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches of one epoch, so that they and the length of an epoch are known.

        A loop without it works, too; then only what enters the module is known of a batch.
        """
        self._require_on("batches")
        self._end_batch()
        self._end_epoch()
        trainer, length = self._trainer, getattr(loader, "__len__", None)
        trainer.num_training_batches = torch.inf if length is None else length()
        self._has_epoch = self._follows_loader = True
        self._call("on_train_epoch_start")
        try:
            for batch, is_last in given.with_end(loader, ahead=trainer.accumulate_grad_batches > 1):
                trainer.is_last_batch = is_last
                self._begin_batch(batch)
                yield batch
                self._end_batch()
        finally:
            self._follows_loader = False
            if trainer.training:
                self._end_batch()

    def backward(self, loss: Tensor) -> None:
        """Clear old gradients and differentiate a loss, for a ``step`` without one.

        With one optimizer its gradients are cleared before the first loss of a step; with several
        that is left to the caller, as under Lightning's manual optimisation.
        """
        self._require_on("backward")
        given.check_loss(loss)
        if not self._has_batch:
            self._begin_batch(None)
        if self._trainer.takes_one_step and not self._is_cleared:
            self._optimizers[0].zero_grad()
        self._is_cleared = True
        share = self._share(loss)
        self._note_loss(share)
        if self._fabric is not None:
            self._fabric.backward(share)
        else:
            (share if self._scaler is None else self._scaler.scale(share)).backward()
        self._call("on_after_backward")

    def step(self, loss: Tensor | Closure | None = None, optimizer: Any = None) -> None:
        """Take one step with the gradient of a loss: clear, differentiate, judge, clip, step.

        It calls ``zero_grad``, ``backward``, the optimizer's ``step``, and that of the schedules
        that `watch` was given. The gradients stay until the next one, to be looked at.

        Args:
            loss: what ``backward`` is called of; a function that returns it, for optimizers that
                evaluate several times (LBFGS, SAM); None after calls of `backward`.
            optimizer: which one steps, where `watch` was given several.

        Raises:
            UnstableStepError: where the guard ends the run.
        """
        self._require_on("step")
        own = given.one_of_optimizers(optimizer, self._optimizers)
        if not self._has_batch:
            self._begin_batch(None)
        if callable(loss) and not isinstance(loss, Tensor):
            self._step_with_closure(own, loss)
        else:
            if loss is not None:
                if not self._trainer.takes_one_step:
                    own.zero_grad()
                self.backward(loss)
            if loss is None or will_step(self._trainer):
                self._step(own)
        if not self._follows_loader:
            self._end_batch()

    def validated(self, metrics: Mapping[str, Any], batches: Iterable[Any] = ()) -> None:
        """Tell the doctor what a validation gave.

        Args:
            metrics: by names that say so, such as ``val_loss`` and ``val_accuracy``.
            batches: a few batches of the validation, to be compared with those of training.
        """
        self._require_on("validated")
        self._end_batch()
        self._trainer.callback_metrics.update(metrics)
        self._call("on_validation_start")
        for number, batch in enumerate(batches):
            self._call("on_validation_batch_start", batch, number)
        self._call("on_validation_end")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the callbacks, as plain values and tensors."""
        if self._has_backward and will_step(self._trainer):
            self._end_batch()  # so that all of the step is in it
        states = {callback.state_key: callback.state_dict() for callback in self.callbacks}
        return {"loop": self._trainer.state_dict(), "callbacks": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; called before the ``with``.

        Raises:
            ConflictError: within it.
        """
        if self._trainer.training:
            raise ConflictError("`load_state_dict` must be called before `with`, not within it.")
        self._set_up()
        self._trainer.load_state_dict(state["loop"])
        for callback in self.callbacks:
            if state["callbacks"].get(callback.state_key):
                callback.load_state_dict(state["callbacks"][callback.state_key])

    def _share(self, loss: Tensor) -> Tensor:
        """Return what a loss adds to that of a step."""
        share: Tensor = loss / self._trainer.accumulate_grad_batches
        return share

    def _note_loss(self, share: Tensor) -> None:
        """Tell the callbacks which loss is about to be differentiated."""
        self._has_backward = True
        scaler = self._scaler
        self._call("on_before_backward", share if scaler is None else scaler.scale(share))

    def _set_up(self) -> None:
        """Let the callbacks refuse what they cannot work with, once for each run."""
        if not self._is_ready:
            self._call("setup", stage="fit")
            self._is_ready = True

    def _call(self, hook: str, *arguments: Any, **keywords: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self._trainer, self._module, *arguments, **keywords)

    def _require_on(self, name: str) -> None:
        if not self._trainer.training:
            raise ConflictError(f"`{name}` must be called within `with watch(...) as w:`.")

    def _before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Begin a batch of a loop that does not iterate over `batches`."""
        if not self._has_batch and module.training and torch.is_grad_enabled():
            self._begin_batch(args or kwargs)

    def _begin_batch(self, batch: Any) -> None:
        trainer = self._trainer
        trainer.progress.current.ready += 1
        trainer.progress.total.ready += 1
        self._has_batch, self._has_backward = True, False
        self._batch, self._batch_idx = batch, self._batch_idx + 1
        self._call("on_train_batch_start", batch, self._batch_idx)

    def _end_batch(self) -> None:
        if not self._has_batch:
            return
        self._has_batch, batch = False, self._batch
        self._batch = None
        self._call("on_train_batch_end", None, batch, self._batch_idx)
        self._trainer.progress.total.completed += 1
        if will_step(self._trainer):
            self._trainer.fit_loop.epoch_loop._batches_that_stepped += 1

    def _end_epoch(self) -> None:
        if self._trainer.progress.current.ready:
            self._call("on_train_epoch_end")
            self._trainer.progress.current.ready, self._batch_idx = 0, -1
            self._trainer.current_epoch += 1

    def _step(self, optimizer: Any) -> None:
        self._call("on_before_optimizer_step", given.plain_optimizer(optimizer))
        if self._scaler is not None and self._fabric is None:
            self._scaler.step(optimizer)
            self._scaler.update()
        else:
            optimizer.step()
        self._note_step()

    def _step_with_closure(self, optimizer: Any, closure: Closure) -> None:
        if self._scaler is not None or self._trainer.accumulate_grad_batches > 1:
            raise ConflictError(
                "A step with a function that returns the loss works with no loss scaler and with"
                " `accumulate_grad_batches=1` only. Call `step` with the loss itself."
            )

        def evaluate() -> Tensor:
            loss = closure()
            optimizer.zero_grad()
            self.backward(loss)
            return loss

        optimizer.step(evaluate)
        self._note_step()

    def _note_step(self) -> None:
        self._is_cleared = False
        self._trainer.global_step += 1
        for config in self._trainer.lr_scheduler_configs:
            if config.interval == "step":  # else the guard holds it
                config.scheduler.step()

    def _fail(self, error: BaseException) -> None:
        for callback in self.callbacks:
            callback.on_exception(self._trainer, self._module, error)
        self._trainer.strategy.on_exception(error)
        self._has_batch = False
