"""Devices, number formats, free and peak memory."""

from __future__ import annotations

from typing import Any

import torch

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


def require_bitsandbytes() -> None:
    """Raises `InputError` if bitsandbytes is not installed."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("quantize nf4 needs bitsandbytes. Run `pip install 'diffuse-lm[nf4]'` or remove the setting")


def choose_device(wanted: str) -> torch.device:
    """The device; `auto`: CUDA, then Apple's MPS, then the CPU."""
    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"the device '{wanted}' is unknown or not available. Use auto, cpu, cuda, cuda:0, … or mps") from error
        return device
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype for sums: float64, except on Apple's MPS, which does not have it."""
    return torch.float32 if device.type == "mps" else torch.float64


def free_memory(device: torch.device) -> float:
    """Free bytes on a device."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else memory.free_memory()


def peak_memory_mb() -> int:
    """Peak memory of the process in MB; with CUDA that of the GPU."""
    return round(float(torch.cuda.max_memory_allocated()) / 1e6) if torch.cuda.is_available() else memory.peak_memory_mb()
