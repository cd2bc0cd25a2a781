"""The callbacks under Hugging Face's Trainer: one of its own callbacks, which drives a `Watch`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_stab.callbacks import GradientClipping
from lightning_stab.callbacks._hooks.hooks import ModuleHooks
from lightning_stab.errors import ConflictError
from lightning_stab.loops.watch import Watch, watch

if TYPE_CHECKING:
    TrainerCallback = object
else:
    try:
        from transformers import TrainerCallback
    except ImportError:  # then there is no Trainer that it could be given to
        TrainerCallback = object

FILE_NAME = "lightning_stab.pt"  # in a checkpoint's folder


class WatchCallback(TrainerCallback):
    """Watch, guard, clip and diagnose a run of Hugging Face's Trainer.

    What its callbacks are not asked about is read from the model: the batch from what its forward
    pass is given, the loss from the ``loss`` that it returns. A loss that the Trainer makes by
    itself is not seen.

    Args:
        callbacks: as for `lightning_stab.watch`.
        log: where scalars go, as for `lightning_stab.watch`.

    Attributes:
        watch: the `Watch` of the latest run, with its ``findings``; None before the first.

    Raises:
        ConflictError: when training begins, for what `watch` refuses, under DeepSpeed and
            ``nn.DataParallel``, and for a `GradientClipping` beside ``max_grad_norm``.

    Example:
        >>> from lightning_stab import StepGuard
        >>> WatchCallback([StepGuard("skip")])
        WatchCallback([StepGuard(on_nonfinite='skip')])
    """

    def __init__(self, callbacks: Sequence[Any] | None = None, *, log: Any = None) -> None:
        self.callbacks, self.log = callbacks, log
        self.watch: Watch | None = None
        self._hooks = ModuleHooks()

    def __repr__(self) -> str:
        chosen = None if self.callbacks is None else list(self.callbacks)
        return f"WatchCallback({chosen!r})"

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Put the hooks on, and continue from the checkpoint from which the Trainer does."""
        self._end()  # a run that failed elsewhere
        optimizer, steps = given["optimizer"], args.gradient_accumulation_steps
        self._refuse(args)
        self.watch = watch(
            given["model"],
            getattr(optimizer, "optimizer", optimizer),
            self.callbacks,
            log=self.log,
            scaler=getattr(optimizer, "scaler", None),
            accumulate_grad_batches=steps,
            total_steps=state.max_steps,
        )
        if state.global_step:
            self._resume(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE_NAME)
        length = getattr(given.get("train_dataloader"), "__len__", lambda: math.inf)
        self.watch._trainer.num_training_batches = length()
        self.watch._has_epoch = True
        self.watch.__enter__()
        self._hooks.after(given["model"], self._after_forward)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin to count the batches of an epoch."""
        with self._running() as run:
            run._end_epoch()
            run._call("on_train_epoch_start")

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note that a batch has ended without a step."""
        with self._running() as run:
            run._call("on_after_backward")
            run._end_batch()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure, guard and clip the coming step."""
        optimizer = given["optimizer"]
        with self._running() as run:
            run._call("on_after_backward")
            run._call("on_before_optimizer_step", getattr(optimizer, "optimizer", optimizer))

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Log what the step gave."""
        with self._running() as run:
            run._trainer.global_step += 1
            run._end_batch()

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Tell the doctor what a validation within the run gave."""
        if self.watch is not None and self.watch._trainer.training:
            with self._running() as run:
                run.validated({k: v for k, v in given["metrics"].items() if k[:5] == "eval_"})

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save the callbacks' state beside the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        with self._running() as run:
            saved = run.state_dict()
        if state.is_world_process_zero and folder.is_dir():
            torch.save(saved, folder / FILE_NAME)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Diagnose the end, and take the hooks off."""
        self._end()

    def _refuse(self, args: Any) -> None:
        clips = any(isinstance(c, GradientClipping) for c in self.callbacks or ())
        if clips and args.max_grad_norm:
            raise ConflictError(
                "`GradientClipping` and the Trainer's `max_grad_norm` would both clip, got"
                f" `max_grad_norm={args.max_grad_norm}`. Set `max_grad_norm=0`."
            )
        if getattr(args, "deepspeed", None):
            raise ConflictError(
                "`WatchCallback` cannot work under DeepSpeed, whose engine keeps the gradients to"
                " itself. Use DDP or FSDP2."
            )
        if args.n_gpu > 1:
            raise ConflictError(
                f"`WatchCallback` cannot work with `nn.DataParallel`, got {args.n_gpu} GPUs in one"
                " process. Start with `torchrun`, or show one GPU by `CUDA_VISIBLE_DEVICES`."
            )

    def _resume(self, path: Path) -> None:
        assert self.watch is not None  # it has just been made
        if path.is_file():
            self.watch.load_state_dict(torch.load(path, weights_only=True))
        else:
            rank_zero_warn(
                f"`WatchCallback` found no {str(path)!r}: the guard, the clipping and the doctor"
                " begin as in a fresh run.",
                category=RuntimeWarning,
            )

    def _after_forward(self, module: Any, args: Any, output: Any) -> None:
        """Note the loss that the Trainer will differentiate."""
        loss = getattr(output, "loss", None) if not isinstance(output, dict) else output.get("loss")
        if isinstance(loss, Tensor) and loss.requires_grad and module.training:
            with self._running() as run:
                batch = run._batch if isinstance(run._batch, dict) else {}
                # of all items of a step, where the Trainer has told the model how many there are
                is_share = batch.get("num_items_in_batch") is not None
                run._note_loss(loss if is_share else run._share(loss))

    @contextlib.contextmanager
    def _running(self) -> Iterator[Watch]:
        """Give the present run; where its callbacks raise, leave nothing behind."""
        run = self.watch
        assert run is not None  # the Trainer calls ``on_train_begin`` first
        try:
            yield run
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None = None) -> None:
        self._hooks.remove()
        if self.watch is not None and self.watch._trainer.training:
            self.watch.__exit__(None, error, None)
