"""LoRA's linear layers as one autograd function each: the same function, fewer temporaries.

PEFT computes `W x + s B (A x)` as three products, a scaling and a sum, each with a tensor as large as
the output that is written and read again. Here the low-rank part is added in place, forwards and
backwards. Knows PEFT's layers and nothing else; what it does not recognise keeps PEFT's own way.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def fuse(model: Any) -> int:
    """Give every plain LoRA linear layer of `model` the fused product; returns how many there were.

    Layers with dropout, DoRA, quantised or 16-bit bases are left alone, and the output layer: its logits are written over.
    """
    from peft.tuners.lora import Linear

    head = model.get_base_model().get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, Linear) and m is not head and _is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _is_plain(layer: Any) -> bool:
    base = layer.get_base_layer()
    name = next(iter(layer.lora_A), None)
    return (
        type(base) is nn.Linear
        and list(layer.lora_A) == [name]
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant  # DoRA and its kin
        and not layer.lora_bias.get(name, False)
        and not layer.fan_in_fan_out
        and base.weight.dtype == layer.lora_A[name].weight.dtype == torch.float32
    )


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """PEFT's forward where the adapter is off, folded in or cast; the fused product elsewhere."""
    if (
        self.disable_adapters
        or self.merged
        or args
        or kwargs
        or x.dtype != torch.float32
        or torch.is_autocast_enabled(x.device.type)
    ):
        return type(self).forward(self, x, *args, **kwargs)
    base, name = self.get_base_layer(), self.active_adapters[0]
    return _LoraLinear.apply(
        x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, float(self.scaling[name])
    )


class _LoraLinear(torch.autograd.Function):
    """`x W' + bias + s (x A') B'` for x [..., in], W [out, in], A [r, in], B [out, r]; W and bias are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """The output [..., out]."""
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()  # [S, r]
        out = torch.nn.functional.linear(flat, weight, bias).addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, weight, a, b, low = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        low_gradient = (gradient @ b).mul_(ctx.scale)  # [S, r]
        of_x = (gradient @ weight).addmm_(low_gradient, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, low_gradient.t() @ x, (gradient.t() @ low).mul_(ctx.scale), None
