"""Function modes see what runs in their thread, and leave the others on the stack alone."""

import contextlib
import threading

import torch
from torch._C import _len_torch_function_stack
from torch.overrides import TorchFunctionMode

from lightning_stab.functional.function_mode import FunctionMode, unwatched


class Other(TorchFunctionMode):
    """A mode of somebody else."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_a_mode_runs_every_function_and_leaves_from_under_others():
    seen = []

    def call(function, args, kwargs):
        seen.append(function)
        torch.sin(torch.zeros(()))  # not shown: the mode is off here
        return function(*args, **kwargs)

    mode = FunctionMode(call)
    mode.enter()
    assert torch.relu(torch.tensor(-1.0)).item() == 0
    with Other():
        torch.tanh(torch.tensor(0.0))
        mode.leave()
        assert _len_torch_function_stack() == 1
        torch.sigmoid(torch.tensor(0.0))
    mode.leave()
    assert _len_torch_function_stack() == 0
    assert torch.relu in seen
    assert torch.tanh in seen
    assert torch.sigmoid not in seen
    assert torch.sin not in seen


def test_leaving_a_mode_that_is_not_on_keeps_the_stack():
    with Other(), Other():
        FunctionMode(lambda function, args, kwargs: None).leave()
        assert _len_torch_function_stack() == 2


def test_a_mode_belongs_to_its_thread():
    seen = []

    def call(function, args, kwargs):
        seen.append(function)
        return function(*args, **kwargs)

    mode = FunctionMode(call)
    mode.enter()
    other = threading.Thread(target=lambda: (torch.relu(torch.ones(1)), mode.leave()))
    other.start()
    other.join()
    assert seen == []
    assert _len_torch_function_stack() == 1  # what another thread takes off is not on its stack
    mode.leave()
    assert _len_torch_function_stack() == 0


def test_what_runs_unwatched_is_shown_to_no_function_mode_and_to_all_others():
    class Other(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Other.calls += 1
            return func(*args, **(kwargs or {}))

    seen = []

    def call(function, args, kwargs):
        seen.append(function)
        return function(*args, **kwargs)

    below, above = FunctionMode(call), FunctionMode(call)
    below.enter()
    try:
        with Other():
            above.enter()
            with unwatched():
                with contextlib.suppress(ValueError), unwatched():
                    raise ValueError
                torch.ones(2)
                above.leave()  # whoever watches may stop meanwhile
            hidden, of_others = list(seen), Other.calls
            torch.ones(2)
            shown = len(seen)
    finally:
        above.leave()
        below.leave()
    assert (hidden, of_others, shown) == ([], 1, 1)
    assert _len_torch_function_stack() == 0


def test_a_mode_that_comes_with_what_is_run_unwatched_sees_it():
    seen = {"watcher": 0, "own": 0}

    def counts(name):
        def call(function, args, kwargs):
            seen[name] += 1
            return function(*args, **kwargs)

        return call

    with FunctionMode(counts("watcher")), unwatched():
        with FunctionMode(counts("own")):
            torch.ones(2)
        torch.ones(2)
    assert seen == {"watcher": 0, "own": 1}
