"""Matrix products of LoRA layers with frozen weights, forward and backward; the low-rank part is added in place.

Four-bit weights are multiplied by bitsandbytes, and widened one layer at a time for the backward pass.
Layers with the same input share one low-rank product. It depends on PEFT's layers, not on models. If the frozen weights have 16 bits, the
low-rank part is computed in float32 and rounded once, after it is added, as in PEFT. But inputs are kept in 16 bits for the backward pass.
PEFT keeps a float32 copy for each layer.

Axis names: S tokens, r rank.
"""

from __future__ import annotations

import sys
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
    four_bits: Any = None  # how bitsandbytes has quantised W; None for plain weights

    @classmethod
    def of(cls, layer: Any) -> LoraLayer:
        """From a layer of PEFT."""
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return cls(base.weight, base.bias, a, b, float(layer.scaling[name]), getattr(base.weight, "quant_state", None))

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """What autograd saves."""
        return self[:_TENSORS]

    @property
    def rest(self) -> tuple[Any, ...]:
        """The fields that are not tensors."""
        return self[_TENSORS:]

    def plain(self, x: Tensor, out: Tensor | None) -> Tensor:
        """`x W' + bias` for x [S, in], written to `out` if given."""
        if self.four_bits is not None:
            from bitsandbytes import matmul_4bit  # type: ignore[import-not-found, unused-ignore]

            whole: Tensor = matmul_4bit(x, self.weight, quant_state=self.four_bits, bias=self.bias)
            return whole if out is None else out.copy_(whole)
        if self.bias is None:
            return torch.mm(x, self.weight.t(), out=out)
        return torch.addmm(self.bias, x, self.weight.t(), out=out)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """W in its own number format, or in this one if it has four bits."""
        if self.four_bits is None:
            return self.weight
        from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found, unused-ignore]

        whole: Tensor = dequantize_4bit(self.weight, self.four_bits)
        return whole.to(dtype)


_TENSORS = 4


def layers_of(values: Sequence[Any]) -> list[LoraLayer]:
    """The layers whose fields follow each other."""
    width = len(LoraLayer._fields)
    return [LoraLayer(*values[start : start + width]) for start in range(0, len(values), width)]


def restored(tensors: Sequence[Tensor], rests: Sequence[tuple[Any, ...]]) -> list[LoraLayer]:
    """The layers from what autograd saved of each in turn, and the rest of each."""
    return [LoraLayer(*tensors[_TENSORS * i : _TENSORS * (i + 1)], *rest) for i, rest in enumerate(rests)]


def format_of(base: Any) -> torch.dtype | None:
    """The number format in which a plain or four-bit linear layer computes; None for other layers."""
    if type(base) is torch.nn.Linear:
        return base.weight.dtype
    library = sys.modules.get("bitsandbytes")  # loaded if the layer is from it
    if library is None or type(base) is not library.nn.Linear4bit or base.weight.quant_state is None:
        return None
    found: torch.dtype | None = base.compute_dtype
    return found if base.bias is None or base.bias.dtype == found else None


def products(x: Tensor, layers: Sequence[LoraLayer], outs: Sequence[Tensor | None]) -> tuple[list[Tensor], Tensor]:
    """`x W' + bias + s (x A') B'` [S, out] of each layer, and `x A'` of all layers, concatenated [S, sum of r], for x [S, in].

    Products are written to `outs` where given.
    """
    low = x.float() @ _stacked(layers).t()
    found = []
    for layer, out, own in zip(layers, outs, low.split([len(layer.a) for layer in layers], dim=1), strict=True):
        found.append(_add(layer.plain(x, out), own, layer.b.t(), layer.scale))
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
        total = first[0] @ first[1].wide(first[0].dtype)
        for gradient, layer in others:
            total.addmm_(gradient, layer.wide(gradient.dtype))
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
    return [value for of_a, of_b in pairs for value in (None, None, of_a, of_b, None, None)]


def is_active(layer: Any, x: Tensor) -> bool:
    """Whether the adapter is enabled and neither merged nor cast."""
    cast = x.dtype not in FUSED or x.dtype != format_of(layer.get_base_layer()) or torch.is_autocast_enabled(x.device.type)
    return not (layer.disable_adapters or layer.merged or cast)


def _add(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """Add `scale` times the float32 product in place; a 16-bit total is rounded once."""
    return total.addmm_(left, right, alpha=scale) if total.dtype == left.dtype else total.add_(left @ right, alpha=scale)


def _stacked(layers: Sequence[LoraLayer]) -> Tensor:
    """A of all layers, stacked."""
    return layers[0].a if len(layers) == 1 else torch.cat([layer.a for layer in layers])
