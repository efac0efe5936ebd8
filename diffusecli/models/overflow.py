"""Explain NaN logits: fp16 overflow or damaged weights.

Code that uses logits calls `require_numbers`; code that has the model reports the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffusecli.system.errors import InputError

_OTHER_PRECISION = "Use precision bf16 or fp32 (`precision` in the config, or --precision)"


class NotNumbersError(Exception):
    """Logits, or values computed from them, are NaN."""


def require_numbers(logits: Tensor) -> None:
    """Raises `NotNumbersError` unless every row of logits [..., V] is a distribution; single logits may be -inf."""
    if not bool(logits.float().logsumexp(-1).isfinite().all()):
        raise NotNumbersError


@contextmanager
def blamed(model: Any, name: str) -> Iterator[None]:
    """Raises `cause` in place of `NotNumbersError`."""
    try:
        yield
    except NotNumbersError as error:
        raise cause(model, name) from error


def cause(model: Any, name: str = "the model") -> InputError:
    """Why a model's logits are NaN, and the fix."""
    damaged = next((path for path, weight in _weights(model) if bool(weight.isnan().any())), "")
    if damaged:
        what = "the adapter" if "lora_" in damaged else "the model"
        return InputError(f"{name}: weights of {what} are NaN ({damaged}). Fetch or train it again")
    if model.dtype == torch.float16:
        large = next((path for path, weight in _weights(model) if bool(weight.isinf().any())), "")
        where = f" already in its weights ({large})" if large else ""
        return InputError(f"{name}: fp16 overflowed{where}: the model computes numbers above 65504. {_OTHER_PRECISION}")
    infinite = next((path for path, weight in _weights(model) if bool(weight.isinf().any())), "")
    if infinite:
        return InputError(f"{name}: weights of the model are infinite ({infinite}). Fetch it again")
    dtype = str(model.dtype).removeprefix("torch.")
    remedy = "Use precision fp32" if model.dtype == torch.bfloat16 else "Fetch the model again, or use another"
    return InputError(f"{name}: the model's logits are NaN in {dtype}, although its weights are finite. {remedy}")


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Floating-point weights; of a sharded model only this process's part."""
    for path, weight in model.named_parameters():
        own = weight.to_local() if hasattr(weight, "to_local") else weight
        if own.is_floating_point() and not own.is_meta:
            yield path, own.detach()
