"""The output layer of a 16-bit model with logits in float32.

A bf16 logit between 16 and 32 is a multiple of 1/8. So 16-bit logits alone change the log-probability of an answer by up to .06 nats per
token. The product of two 16-bit numbers is exact in float32: only the hidden states stay rounded. Training, exact figures and the samplers
all use this layer, so that they describe the same distribution.

Axis names: R rows, h hidden width, V vocabulary.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

NARROW = (torch.bfloat16, torch.float16)
_BLOCK = 2**13  # rows of the weights that are widened at once, if the device has no such product


def widen_output(model: Any) -> None:
    """Let the output layer of a 16-bit model return float32. Other output layers than plain linear ones are not changed."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.dtype not in NARROW:
        return
    head.__class__ = WideLinear
    if hasattr(head, "_old_forward"):  # accelerate calls it between moving weights
        head._old_forward = MethodType(WideLinear.forward, head)


class WideLinear(nn.Linear):
    """A frozen linear layer with 16-bit weights and float32 outputs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Outputs [..., V] in float32."""
        rows: Tensor = _WideProduct.apply(input.reshape(-1, input.shape[-1]), self.weight, self.bias)
        return rows.view(*input.shape[:-1], len(self.weight))  # not inside the function, because the loss overwrites logits


class _WideProduct(torch.autograd.Function):
    """`x weight' + bias` for x [R, h]. The gradient is that of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The output [R, V]."""
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        return wide_product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x."""
        (weight,) = ctx.saved_tensors
        return (gradient.to(weight.dtype) @ weight).to(ctx.dtype), None, None


def wide_product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """`x weight' + bias` [R, V], at least in float32, for x [R, h]; written into `out` if given."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    if weight.dtype != wide and x.dtype == weight.dtype and _widens(x.device, x.dtype):
        out = _narrow_product(x, weight, wide, out)
        return out if bias is None else out.add_(bias)
    if out is None:
        out = x.new_empty(len(x), len(weight), dtype=wide)
    if weight.dtype == wide:
        torch.mm(x.to(wide), weight.t(), out=out)
    else:
        x = x.to(wide)
        for start in range(0, len(weight), _BLOCK):
            block = slice(start, start + _BLOCK)
            out[:, block] = x @ weight[block].to(wide).t()
    return out if bias is None else out.add_(bias)


def _narrow_product(x: Tensor, weight: Tensor, wide: torch.dtype, out: Tensor | None) -> Tensor:
    """The device's own product. It is in memory once if the device can write it into a given tensor."""
    if out is not None and _widens(x.device, x.dtype, into=True):
        return torch.mm(x, weight.t(), out_dtype=wide, out=out)
    product = torch.mm(x, weight.t(), out_dtype=wide)
    return product if out is None else out.copy_(product)


@cache
def _widens(device: torch.device, dtype: torch.dtype, *, into: bool = False) -> bool:
    """Whether the device multiplies 16-bit matrices into float32, and with `into` also into a given tensor."""
    ones = torch.ones(16, 16, device=device, dtype=dtype)
    given = {"out": torch.empty(16, 16, device=device)} if into else {}
    try:
        torch.mm(ones, ones, out_dtype=torch.float32, **given)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True
