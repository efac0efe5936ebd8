"""Matrix products of LoRA layers with frozen weights, forward and backward; the low-rank part is added in place.

Layers with the same input share one low-rank product. It depends on PEFT's layers, not on models. If the frozen weights have 16 bits, the
low-rank part is computed in float32 and rounded once, after it is added, as in PEFT. But inputs are kept in 16 bits for the backward pass.
PEFT keeps a float32 copy for each layer.

Axis names: S tokens, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusecli.models.wide_output import NARROW

FUSED = (torch.float32, *NARROW)
"""Number formats of frozen weights."""


class LoraLayer(NamedTuple):
    """W [out, in] and bias [out] are frozen, A [r, in] and B [out, r] are trained."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float

    @classmethod
    def of(cls, layer: Any) -> LoraLayer:
        """From a layer of PEFT."""
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        return cls(base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All but the scale."""
        return self[:-1]


def products(x: Tensor, layers: Sequence[LoraLayer], outs: Sequence[Tensor | None]) -> tuple[list[Tensor], Tensor]:
    """`x W' + bias + s (x A') B'` [S, out] of each layer, and `x A'` of all layers, concatenated [S, sum of r], for x [S, in].

    Products are written to `outs` where given.
    """
    low = x.float() @ _stacked(layers).t()
    found = []
    for layer, out, own in zip(layers, outs, low.split([len(layer.a) for layer in layers], dim=1), strict=True):
        bias = layer.bias
        whole = torch.mm(x, layer.weight.t(), out=out) if bias is None else torch.addmm(bias, x, layer.weight.t(), out=out)
        found.append(_add(whole, own, layer.b.t(), layer.scale))
    return found, low


def gradients(
    x: Tensor, low: Tensor, layers: Sequence[LoraLayer], of_products: Sequence[Tensor], *, of_x: bool = True
) -> tuple[Any, list[Tensor]]:
    """Gradients of x [S, in] (None unless `of_x`), and of A and B of each layer in turn, from those of the products [S, out]."""
    ranks = [len(layer.a) for layer in layers]
    of_low = torch.empty_like(low)
    for layer, gradient, own in zip(layers, of_products, of_low.split(ranks, dim=1), strict=True):
        torch.mm(gradient.float(), layer.b, out=own).mul_(layer.scale)
    total = None
    if of_x:
        first, *others = zip(of_products, layers, strict=True)
        total = first[0] @ first[1].weight
        for gradient, layer in others:
            total.addmm_(gradient, layer.weight)
        _add(total, of_low, _stacked(layers))
    of_a = (of_low.t() @ x.float()).split(ranks)
    # (low' g)' instead of g' low: the same, but much faster if low has few columns
    of_b = [
        (own.t() @ gradient.float()).mul_(layer.scale).t()
        for layer, gradient, own in zip(layers, of_products, low.split(ranks, dim=1), strict=True)
    ]
    return total, [value for pair in zip(of_a, of_b, strict=True) for value in pair]


def of_inputs(adapters: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of A and B in turn, as an autograd function returns them for the fields of `LoraLayer`s."""
    pairs = zip(adapters[::2], adapters[1::2], strict=True)
    return [value for of_a, of_b in pairs for value in (None, None, of_a, of_b, None)]


def is_active(layer: Any, x: Tensor) -> bool:
    """Whether the adapter is enabled and neither merged nor cast."""
    cast = x.dtype not in FUSED or x.dtype != layer.get_base_layer().weight.dtype or torch.is_autocast_enabled(x.device.type)
    return not (layer.disable_adapters or layer.merged or cast)


def _add(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """Add `scale` times the float32 product in place; a 16-bit total is rounded once."""
    return total.addmm_(left, right, alpha=scale) if total.dtype == left.dtype else total.add_(left @ right, alpha=scale)


def _stacked(layers: Sequence[LoraLayer]) -> Tensor:
    """A of all layers, stacked."""
    return layers[0].a if len(layers) == 1 else torch.cat([layer.a for layer in layers])
