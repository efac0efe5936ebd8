"""Devices: which there are, what they support, copies to them, their memory and random numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from diffusecli.models.architecture import without_wrapper
from diffusecli.system import memory
from diffusecli.system.errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_on(precision: str, device: torch.device) -> str:
    """The precision; `auto`: bf16 on CUDA devices that compute in it, fp32 elsewhere, so that all CPUs give the same results."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def number_format(precision: str, device: str) -> torch.dtype:
    """The number format of the base model. Raises the errors of `choose_device`."""
    return PRECISIONS[precision_on(precision, choose_device(device)) if precision == "auto" else precision]


def four_bits(computing: torch.dtype) -> Any:
    """NF4 weights (Dettmers and others, "QLoRA", 2023) that compute in this format."""
    from transformers import BitsAndBytesConfig

    require_bitsandbytes()
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computing)


def keep_four_bits(model: Any) -> None:
    """Keep bitsandbytes from repacking weights on CPUs with AVX512-BF16: it does so at the first use without a gradient.

    Repacked weights pass no gradient afterwards, and their scales are rounded to bf16.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def require_bitsandbytes() -> None:
    """Raises `InputError` if bitsandbytes is not installed."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("quantize nf4 needs bitsandbytes. Run `pip install 'diffuse-lm[nf4]'` or remove the setting")


def choose_device(wanted: str) -> torch.device:
    """The device; `auto`: the accelerator of this machine (CUDA, Apple's MPS or another one), otherwise the CPU."""
    if wanted == "auto":
        found = torch.accelerator.current_accelerator()
        return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"the device '{wanted}' is unknown or not available. Use auto, cpu, cuda, cuda:0, … or mps") from error
    return device


def devices_of(model: Any) -> list[torch.device]:
    """The devices that hold a model's weights. With `device_map` there may be several."""
    return list(dict.fromkeys(weight.device for weight in model.parameters() if weight.device.type != "meta"))


def is_spread(model: Any) -> bool:
    """Whether `device_map` has placed layers on several devices. Their hooks move every tensor that the model gets to the first device."""
    return len(set(getattr(without_wrapper(model), "hf_device_map", {}).values())) > 1


@cache
def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype for sums: float64, or float32 on devices without it, such as Apple's MPS."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64


def uploaded(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """CPU tensors on a device: one copy per dtype, because each copy has a fixed cost. The host does not wait for the device."""
    if device.type == "cpu":
        return list(tensors)
    places: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.dtype, []).append(place)
    found = list(tensors)
    for alike in places.values():
        joined = torch.cat([tensors[place].reshape(-1) for place in alike])
        moved = joined.to(device, non_blocking=device.type != "mps")  # MPS may read the source after it is freed
        for place, part in zip(alike, moved.split([tensors[place].numel() for place in alike]), strict=True):
            found[place] = part.view(tensors[place].shape)
    return found


def free_memory(device: torch.device) -> float:
    """Free bytes on a device, with the blocks that torch has freed but keeps."""
    if device.type == "cpu":
        return memory.free_memory()
    own = torch.get_device_module(device)
    if hasattr(own, "mem_get_info"):
        return float(own.mem_get_info(device)[0] + own.memory_reserved(device) - own.memory_allocated(device))
    if hasattr(own, "recommended_max_memory"):  # MPS: a part of the main memory
        return max(0.0, min(memory.free_memory(), float(own.recommended_max_memory() - own.current_allocated_memory())))
    return memory.free_memory()


def peak_memory_mb(devices: Collection[torch.device] = ()) -> int:
    """Peak memory in MB, added up over the accelerators among these devices; of the process without an accelerator that records it."""
    accelerators = [device for device in devices if device.type != "cpu"]
    modules = [torch.get_device_module(device) for device in accelerators]
    if not modules or not all(hasattr(own, "max_memory_allocated") for own in modules):
        return memory.peak_memory_mb()
    return round(sum(own.max_memory_allocated(device) for own, device in zip(modules, accelerators, strict=True)) / 1e6)


def release_memory(device: torch.device) -> None:
    """Give the blocks that torch has freed but keeps back to the device."""
    if (release := getattr(torch.get_device_module(device), "empty_cache", None)) is not None:
        release()


@contextmanager
def own_random_numbers(model: Any, seed: int) -> Iterator[None]:
    """Inside this context, random numbers on the CPU and on the model's devices follow from the seed; afterwards they continue as before."""
    accelerators = [device for device in devices_of(model) if device.type != "cpu"]
    kind = accelerators[0].type if accelerators else "cuda"
    own = torch.get_device_module(kind)
    several = bool(signature(own.get_rng_state).parameters)  # older versions of MPS have one state, and no argument for the device
    with torch.random.fork_rng(accelerators if several else [], device_type=kind):
        before = None if several else own.get_rng_state()
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if before is not None:
                own.set_rng_state(before)
