"""A device without double precision, emulated on the CPU: what Apple's MPS refuses is refused here.

A tensor of the device holds a CPU tensor. Its ``device`` is ``mps``; operations run on the values
held and give tensors of the device again. What torch raises on MPS is raised here: for a result in
double precision, for a conversion to it on the way to the host, for tensors of two devices in one
operation, for an operation that has no kernel there. Not emulated is what the real device rounds or
orders differently, and that it runs while the host goes on.
"""

import contextlib
import functools
import re
from pathlib import Path
from unittest import mock

import torch
import torchgen
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("mps", 0)
WIDE = (torch.float64, torch.complex128)
MESSAGE = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
FROM_DATA = ("tensor", "as_tensor", "asarray")


class Box:
    """What a tensor holds; ``deepcopy`` takes it for no tensor of its own."""

    def __init__(self, value):
        self.value = value

    def __deepcopy__(self, memo):
        return Box(self.value.clone())


class DeviceTensor(torch.Tensor):
    """A tensor of the emulated device.

    For C++ it is on ``meta``, the one device besides the CPU whose autograd runs in every build.
    """

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.box = Box(held)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    @property
    def held(self):
        return self.box.value

    @property
    def device(self):
        return DEVICE

    @property
    def is_mps(self):
        return True

    @property
    def is_meta(self):
        return False

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        if isinstance(value, DeviceTensor):
            torch.Tensor.data.__set__(self, value)
            self.box = value.box
        elif isinstance(self, torch.nn.Parameter):
            torch.utils.swap_tensors(self, torch.nn.Parameter(value, self.requires_grad))
        else:
            torch.utils.swap_tensors(self, value.detach().requires_grad_(self.requires_grad))

    def untyped_storage(self):
        return self.held.untyped_storage()

    def data_ptr(self):
        return self.held.data_ptr()

    def numpy(self, **kwargs):
        raise TypeError("can't convert mps:0 device type tensor to numpy.")

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, **kwargs):
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **kwargs})

    def __getitem__(self, place):
        return super().__getitem__(listed(place))

    def __setitem__(self, place, value):
        super().__setitem__(listed(place), value)

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __repr__(self, **kwargs):
        return f"{self.held!r} on {DEVICE}"

    def __reduce_ex__(self, protocol):
        return self.held.clone().__reduce_ex__(protocol)


def run(func, args, kwargs):
    """Run an operation on what the tensors of the device hold."""
    given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
    ours = [each for each in given if isinstance(each, DeviceTensor)]
    device = kwargs.get("device")
    if device is not None and torch.device(device).type in ("mps", "meta" if ours else "mps"):
        kwargs = {**kwargs, "device": torch.device("cpu")}
        on_device = True
    else:
        on_device = bool(ours) and device is None
    if func is aten.copy_.default:
        on_device = isinstance(args[0], DeviceTensor)
    refuse(func, args, kwargs, given, ours, on_device)
    held = {id(each.held): each for each in ours}
    if ours and torch.Tag.inplace_view in func.tags:  # what C++ knows of the shape changes as well
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, DeviceTensor) else x, (args, kwargs))
    assert not any(x.is_meta for x in given if type(x) is torch.Tensor), func
    result = func(*args, **kwargs)
    return tree_map(lambda x: wrapped(x, held, on_device), result)


def refuse(func, args, kwargs, given, ours, on_device):
    """Raise what the real device raises."""
    if func in COPIES:
        target = kwargs.get("dtype") if func is COPIES[0] else args[0].dtype
        source = args[-1] if func is COPIES[1] else args[0]
        if isinstance(source, DeviceTensor) and target in WIDE and target != source.dtype:
            raise TypeError(MESSAGE)
        return
    others = [x for x in given if x.ndim and not isinstance(x, DeviceTensor)]
    if ours and others and func not in INDEXED:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found mps:0 and cpu! ({func})"
        )
    if on_device and func._schema.name.removeprefix("aten::") in without_kernel():
        raise NotImplementedError(f"The operator {func} is not implemented for the MPS device.")


def wrapped(result, held, on_device):
    if not isinstance(result, torch.Tensor):
        return result
    if id(result) in held:
        return held[id(result)]
    if not on_device or isinstance(result, DeviceTensor):
        return result
    if result.dtype in WIDE:
        raise TypeError(MESSAGE)
    return DeviceTensor(result)


@functools.cache
def without_kernel():
    """Return the operations that torch's own table gives no kernel on MPS, in none of their forms.

    An operation that is put together from others counts as having one.
    """
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = {re.match(r"[\w.]+", e)[0]: e for e in table.read_text().split("\n- func: ")[1:]}
    without, with_one = set(), set()
    for name, entry in entries.items():
        delegate = re.search(r"structured_delegate: ([\w.]+)", entry)
        kernels = re.search(
            r"\n  dispatch:\n((?:    .*\n)+)", entries[delegate[1]] if delegate else entry
        )
        has_one = not kernels or re.search(r"MPS|Composite", kernels[1])
        (with_one if has_one else without).add(name.split(".")[0])
    return without - with_one


class Operations(TorchDispatchMode):
    """Makes tensors on the device, where that is asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Functions(TorchFunctionMode):
    """Gives the device its number, without which torch asks the driver for one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {name: numbered(value) for name, value in (kwargs or {}).items()}
        return func(*map(numbered, args), **kwargs)


def numbered(argument):
    """Return the device with its number, and anything else as it is."""
    if isinstance(argument, str) and argument == "mps":
        return DEVICE
    return DEVICE if isinstance(argument, torch.device) and argument.type == "mps" else argument


def from_data(function):
    """Return a function that makes a tensor from data, on the device too."""

    def make(*args, device=None, **kwargs):
        if numbered(device) != DEVICE:
            return function(*args, device=device, **kwargs)
        return function(*args, device="cpu", **kwargs).to(DEVICE)

    return make


def listed(place):
    """Return indices with tensors for lists, which torch itself makes tensors of, unseen."""
    if isinstance(place, list):
        return torch.tensor(place)
    return tuple(map(listed, place)) if isinstance(place, tuple) else place


def where(condition, *values, plain=torch.where, **kwargs):
    """Choose between tensors and numbers, which torch itself makes tensors of, unseen."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if tensors and isinstance(condition, DeviceTensor):
        values = [v if isinstance(v, torch.Tensor) else tensors[0].new_tensor(v) for v in values]
    return plain(condition, *values, **kwargs)


def to(tensor, *args, plain=torch.Tensor.to, **kwargs):
    """Move to another tensor's device, which torch itself would read where C++ sees it."""
    if args and isinstance(args[0], DeviceTensor):
        args = (DEVICE, args[0].dtype, *args[1:])
    return plain(tensor, *args, **kwargs)


class KindOfGenerator(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, torch._C.Generator)


class Generator(metaclass=KindOfGenerator):
    """Makes a generator, of the CPU in place of one of the device."""

    def __new__(cls, device="cpu"):
        return torch._C.Generator("cpu" if numbered(device) == DEVICE else device)


@contextlib.contextmanager
def emulated():
    """Let ``mps`` be a device of this process while the body runs."""
    made = {name: from_data(getattr(torch, name)) for name in FROM_DATA}
    made |= {"Generator": Generator, "where": where}
    patched = mock.patch.multiple(torch, **made), mock.patch.object(torch.Tensor, "to", to)
    with patched[0], patched[1], Operations(), Functions():
        yield


class Emulation(CPUAccelerator):
    """Takes a device that is none of the CPU."""

    def setup_device(self, device):
        pass


def on_device():
    """Return what has a Trainer run on the emulated device."""
    strategy = SingleDeviceStrategy(device=DEVICE, accelerator=Emulation())
    return {"accelerator": "auto", "strategy": strategy}
