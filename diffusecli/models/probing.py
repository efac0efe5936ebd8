"""Probes of a model: what it raises if it does not support them, and how a fused function is checked.

Such a function must compute the same as its module: the outputs of its layers are replaced by tensors of several scales.
This detects a clamp, a soft cap, a norm or another activation for any weights, without the cost of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

UNSUPPORTED = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, StopIteration)
"""What a model raises if it does not support what a probe tries. The caller passes errors that mean out of memory on."""

_ROWS = 4  # few, so that torch uses one thread
SCALES = (1.0, 30.0, 1e3, 1e5)  # of layer outputs: clamps and soft caps show at large values


def samples(widths: Sequence[int], device: torch.device) -> list[Tensor]:
    """A tensor [scale, row, width] for each width; the same in every call."""
    generator, scales = torch.Generator().manual_seed(0), torch.tensor(SCALES)[:, None, None]
    return [(torch.randn(len(SCALES), _ROWS, width, generator=generator) * scales).to(device) for width in widths]


@contextmanager
def giving(module: Any, names: Sequence[str], outputs: Sequence[Tensor]) -> Iterator[Callable[[], list[Tensor]]]:
    """Inside this context, the module's layers with these names return these tensors. Yields a function that returns their inputs, or raises `ValueError`."""
    taken: list[list[Tensor]] = [[] for _ in names]
    layers = [getattr(module, name) for name in names]
    kept = [vars(layer).get("forward") for layer in layers]

    def put_out(place: int) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            taken[place].append(x)
            return outputs[place].clone()

        return forward

    def found() -> list[Tensor]:
        return [once for (once,) in taken]

    for place, layer in enumerate(layers):
        layer.forward = put_out(place)
    try:
        yield found
    finally:
        for layer, forward in zip(layers, kept, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether they are equal at every scale (the first axis) up to rounding."""
    if found.shape != expected.shape:
        return False
    rounding = 1e-4 * expected.abs() + 1e-6 * expected.abs().amax((1, 2), keepdim=True)
    return bool(((found - expected).abs() <= rounding).all())
