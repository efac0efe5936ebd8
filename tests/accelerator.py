"""A pretended accelerator: a device "gpu" whose tensors compute on the CPU and refuse to meet those of another device.

It has two GPUs with their own random numbers. It counts where the host waits for the device and copies to it, by line of code.
With `Device.float64` off it behaves like Apple's MPS. As on a real GPU, numbers may come from the CPU, and so may an index, which costs a wait.

`install` changes torch for the whole process, so tests on the device run in a process of their own (`tests/test_accelerator.py`).
"""

import sys
from collections import Counter
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

GPUS = 2
_MAY_MIX = {"aten::copy_", "aten::_to_copy"}
_INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_WAIT = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::repeat_interleave", "aten::bincount",
}  # fmt: skip
_CREATE = (
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "randperm",
    "linspace",
)  # otherwise they resize an empty tensor
_THROUGH = ("/tests/accelerator.py", "/diffusecli/models/devices.py")  # whoever calls these is the cause


class Counts:
    """Where the host waited for the device, and copied to it: `file:line` -> times."""

    def __init__(self):
        self.waits, self.uploads = Counter(), Counter()

    def own(self, kind):
        """Without those in libraries."""
        return Counter({line: times for line, times in getattr(self, kind).items() if line.startswith("diffusecli/")})


class Device:
    """The state of the pretended accelerator."""

    float64 = True
    counts = Counts()
    random: list = []  # noqa: RUF012  # the state of each GPU's random numbers
    free, allocated, reserved, peak = Counter(), Counter(), Counter(), Counter()  # bytes, by GPU

    @classmethod
    def reset(cls):
        cls.float64, cls.counts = True, Counts()
        cls.free, cls.allocated, cls.reserved, cls.peak = Counter(), Counter(), Counter(), Counter()
        Module.manual_seed_all(0)


@contextmanager
def counting():
    """Counts of what happens inside."""
    before, Device.counts = Device.counts, Counts()
    try:
        yield Device.counts
    finally:
        Device.counts = before


def _number(device):
    return device if isinstance(device, int) else torch.device(device).index or 0


class Module:
    """For this device what `torch.cuda` is for CUDA."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: GPUS)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    mem_get_info = staticmethod(lambda device=0: (Device.free[_number(device)], 10**12))
    memory_allocated = staticmethod(lambda device=0: Device.allocated[_number(device)])
    memory_reserved = staticmethod(lambda device=0: Device.reserved[_number(device)])
    max_memory_allocated = staticmethod(lambda device=0: Device.peak[_number(device)])

    @staticmethod
    def empty_cache():
        Device.reserved = Counter(Device.allocated)

    @staticmethod
    def manual_seed_all(seed):
        Device.random = [torch.Generator().manual_seed(seed + gpu).get_state() for gpu in range(GPUS)]

    @staticmethod
    def get_rng_state(device=0):
        return Device.random[_number(device)]

    @staticmethod
    def set_rng_state(state, device=0):
        Device.random[_number(device)] = state


class Gpu(torch.Tensor):
    """A tensor on a pretended GPU: a plain tensor, and the number of the GPU."""

    @staticmethod
    def __new__(cls, plain, gpu, requires_grad=False):
        with torch.inference_mode(False):  # a view of a plain tensor must be one, also in inference mode
            made = torch.Tensor._make_wrapper_subclass(
                cls, plain.size(), strides=plain.stride(), storage_offset=plain.storage_offset(), dtype=plain.dtype,
                device=torch.device("gpu", gpu),
            )  # fmt: skip
        made.plain, made.gpu = plain.detach(), gpu
        return made

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.plain, self.gpu = value.plain, value.gpu

    def tolist(self):
        _note("waits")
        return self.plain.tolist()

    def as_subclass(self, kind):
        """As of a plain tensor: of this class, too, and with a gradient. torch itself cannot make it from an object of another class."""
        with torch._C.DisableTorchFunctionSubclass():
            made = torch.ops.aten.alias(self)
        made.__class__ = _both(kind)
        return made

    def __repr__(self):
        return f"Gpu({self.plain}, {self.gpu})"

    def __tensor_flatten__(self):  # `Module.to` swaps tensors that have it
        return ["plain"], self.gpu

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, *args, **(kwargs or {}))


@cache
def _both(kind):
    """A class of tensors, for tensors of the device."""
    return Gpu if issubclass(Gpu, kind) else type(f"{kind.__name__}OnGpu", (kind, Gpu), {})


def _run(function, *args, **kwargs):
    """An operator with tensors of the device, or one that creates such a tensor."""
    if torch.is_inference_mode_enabled() and function._can_decompose():
        done = function.decompose(*args, **kwargs)
        if done is not NotImplemented:
            return done
    name = function._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, Gpu)]
    if ours and name not in _MAY_MIX:
        _require_one_device(name, args, tensors, ours)
    device = (
        torch.device(kwargs["device"]) if kwargs.get("device") is not None else args[0].device if name == "aten::copy_" else None
    )
    if ours and (name in _WAIT or (device is not None and device.type == "cpu")):
        _note("waits")
    to_device = device.type == "gpu" if device is not None else bool(ours) and name != "aten::_local_scalar_dense"
    gpu = (device.index or 0) if device is not None and device.type == "gpu" else ours[0].gpu if ours else 0
    if name == "aten::copy_" and to_device and not isinstance(args[1], Gpu):
        _upload(waits=not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])))
    plain_args, plain_kwargs = tree_map_only(Gpu, lambda tensor: tensor.plain, (args, kwargs))
    if device is not None and "device" in kwargs:
        plain_kwargs["device"] = torch.device("cpu")
    if name == "aten::_fused_sdp_choice":
        return 0  # plain products
    with _random_numbers(gpu, torch.Tag.nondeterministic_seeded in function.tags and to_device):
        found = function(*plain_args, **plain_kwargs)
    assert all(tensor.shape == tensor.plain.shape for tensor in ours), f"{name} resizes its tensors: add it to _CREATE"
    if not to_device:
        return args[0] if name == "aten::copy_" else found
    if not Device.float64 and any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in tree_leaves(found)):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
    wrapped = tree_map_only(torch.Tensor, lambda tensor: Gpu(tensor, gpu), found)
    return return_and_correct_aliasing(function, args, kwargs, wrapped) if ours else wrapped


def _require_one_device(name, args, tensors, ours):
    """Raises what a real device raises."""
    strange = [tensor for tensor in tensors if not isinstance(tensor, Gpu) and tensor.ndim]
    if strange and name in _INDEX and isinstance(args[0], Gpu):
        indices = {id(index) for index in args[1]}
        if any(id(tensor) in indices for tensor in strange):
            _upload(waits=True)
        strange = [tensor for tensor in strange if id(tensor) not in indices]
    if strange or len({tensor.gpu for tensor in ours}) > 1:
        found = sorted({str(tensor.device) for tensor in (*strange, *ours)})
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {', '.join(found)}")


@contextmanager
def _random_numbers(gpu, wanted):
    """Inside this context, operators draw from the GPU's random numbers."""
    if not wanted:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(Device.random[gpu])
    try:
        yield
    finally:
        Device.random[gpu] = torch.get_rng_state()
        torch.set_rng_state(before)


def _upload(*, waits):
    _note("uploads")
    if waits:
        _note("waits")


def _note(kind):
    getattr(Device.counts, kind)[_line()] += 1


def _line():
    """The innermost line outside torch and `_THROUGH`, as `package/file.py:line`."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/torch/" not in path and not path.startswith("<") and not path.endswith(_THROUGH):
            for package in ("diffusecli", "transformers", "peft", "accelerate", "tests"):
                if f"/{package}/" in path:
                    return f"{package}/{path.rpartition(f'/{package}/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def install():
    """Register the device "gpu"."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("gpu", backend_module=Module)
    everything, of_torch = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(_run, "PrivateUse1")
    for name in _CREATE:
        operator, _, overload = name.partition(".")
        of_torch.impl(name, partial(_run, getattr(getattr(torch.ops.aten, operator), overload or "default")), "PrivateUse1")
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` of this device copies a CPU tensor
    Device.reset()
    return everything, of_torch  # operators are registered as long as these exist
