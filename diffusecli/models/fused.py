"""LoRA linear layers, and MLPs of them, as one autograd function each: the same result with fewer temporaries.

PEFT computes `W x + s B (A x)` as three products, a scaling and a sum, each with a temporary tensor as large as
the output. Here the low-rank part is added in place, in the forward and the backward pass. For a gated MLP the
backward pass keeps the outputs of its two inner layers and recomputes the activation and the product, which is cheap:
the widest tensors of a model are kept twice, not four times.
It supports PEFT's layers on plain and four-bit weights. Other modules are not changed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from diffusecli.models.attention import enable
from diffusecli.models.fused_attention import PROJECTIONS, fuse_attention
from diffusecli.models.fused_norm import fuse_norm
from diffusecli.models.lora_products import (
    FUSED,
    LoraLayer,
    format_of,
    gradients,
    is_active,
    layers_of,
    of_inputs,
    products,
    restored,
)
from diffusecli.models.probing import UNSUPPORTED, agree, giving, samples


def fuse(model: Any) -> int:
    """Give every plain LoRA linear layer of `model` the fused product. Returns their number.

    Layers with dropout, DoRA or bases with eight bits are not changed, nor is the output layer, whose logits are overwritten.
    A module that computes `down_proj(silu(gate_proj(x)) * up_proj(x))` of three such layers becomes one function.
    """
    from peft.tuners import lora

    kinds = (lora.Linear, lora.Linear4bit) if hasattr(lora, "Linear4bit") else (lora.Linear,)  # the latter with bitsandbytes
    head = model.get_base_model().get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, kinds) and m is not head and _is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    fused, by_tree, gated = set(layers), enable(model), dict[Hashable, bool]()
    for module in model.modules():
        fuse_norm(module)
        if "forward" in vars(module):
            continue
        if by_tree and {getattr(module, name, None) for name in PROJECTIONS} <= fused:
            fuse_attention(module)
        elif {getattr(module, name, None) for name in _GATED} <= fused:
            kind = _kind(module, _GATED)
            if kind not in gated:
                gated[kind] = _is_gated_mlp(module)
            if gated[kind]:
                module.forward = MethodType(_gated_forward, module)
    return len(layers)


_GATED = ("gate_proj", "up_proj", "down_proj")


def _is_plain(layer: Any) -> bool:
    base = layer.get_base_layer()
    name = next(iter(layer.lora_A), None)
    return (
        format_of(base) in FUSED
        and list(layer.lora_A) == [name]
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant  # DoRA and similar
        and not layer.lora_bias.get(name, False)
        and not any(weight.requires_grad for weight in base.parameters())
        and not layer.fan_in_fan_out
        and not _is_changed(layer)
        and not _is_changed(base)
        and layer.lora_A[name].weight.dtype == torch.float32
    )


def _is_changed(module: Any) -> bool:
    """Whether a module has hooks or its own forward. Using its weights directly would bypass them."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _kind(module: Any, but: Collection[str] = ()) -> Hashable:
    """Everything that a module's function depends on, except the children in `but`. Of modules with equal keys only one needs a probe.

    Plain values, such as a limit or a layer's index, are compared; tensors, hooks and other objects must be identical.
    """
    own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    tensors = [*module._parameters.values(), *module._buffers.values()]
    hooks = [hook for some in (module._forward_pre_hooks, module._forward_hooks) for hook in some.values()]
    return (
        type(module),
        module.training,
        tuple((name, type(value), value if isinstance(value, bool | int | float | str | None) else id(value)) for name, value in own.items()),
        tuple(map(id, [*tensors, *hooks])),
        tuple((name, _kind(child)) for name, child in module.named_children() if name not in but),
    )  # fmt: skip


def _is_gated_mlp(module: Any) -> bool:
    """Whether the module computes the fused function from its layers' outputs. Names alone do not determine the function."""
    gate, up, down = (getattr(module, name).get_base_layer() for name in _GATED)
    x, gated, wide, out = samples([gate.in_features, gate.out_features, up.out_features, down.out_features], gate.weight.device)
    try:
        with torch.no_grad(), giving(module, _GATED, [gated, wide, out]) as taken:
            found = module(x)
        expected = torch.nn.functional.silu(gated) * wide
        same = [agree(had, wanted) for had, wanted in zip(taken(), (x, x, expected), strict=True)]
    except UNSUPPORTED:  # other inputs or outputs
        return False
    return isinstance(found, Tensor) and agree(found, out) and all(same)


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """PEFT's forward if the adapter is off, merged or cast; otherwise the fused product."""
    if args or kwargs or not is_active(self, x):
        return type(self).forward(self, x, *args, **kwargs)
    return _LoraLinear.apply(x, *LoraLayer.of(self))


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    """The module's forward if an adapter is not active; otherwise the fused function."""
    layers = [getattr(self, name) for name in _GATED]
    if not all(is_active(layer, x) for layer in layers):
        return type(self).forward(self, x)
    return _GatedMlp.apply(x, *(value for layer in layers for value in LoraLayer.of(layer)))


class _LoraLinear(torch.autograd.Function):
    """One layer, for x [..., in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *layer: Any) -> Tensor:
        """The output [..., out]."""
        (own,) = layers_of(layer)
        flat = x.reshape(-1, x.shape[-1])
        (out,), low = products(flat, [own], [None])
        ctx.save_for_backward(flat, low, *own.tensors)
        ctx.rests, ctx.shape = [own.rest], x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, low, *tensors = ctx.saved_tensors
        of_x, adapter = gradients(
            x, low, restored(tensors, ctx.rests), [gradient.reshape(-1, gradient.shape[-1])], of_x=ctx.needs_input_grad[0]
        )
        return None if of_x is None else of_x.view(ctx.shape), *of_inputs(adapter)


class _GatedMlp(torch.autograd.Function):
    """`down(silu(gate(x)) * up(x))` for x [..., in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *layers: Any) -> Tensor:
        """The output [..., in]."""
        gate, up, down = layers_of(layers)
        flat = x.reshape(-1, x.shape[-1])
        (gated, wide), low = products(flat, [gate, up], [None, None])
        (out,), down_low = products(torch.nn.functional.silu(gated).mul_(wide), [down], [None])
        ctx.save_for_backward(flat, gated, wide, low, down_low, *gate.tensors, *up.tensors, *down.tensors)
        ctx.rests, ctx.shape = [gate.rest, up.rest, down.rest], x.shape
        return out.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of each layer's A and B."""
        x, gated, wide, low, down_low, *tensors = ctx.saved_tensors
        gate, up, down = restored(tensors, ctx.rests)
        active = torch.nn.functional.silu(gated)
        of_product, of_down = gradients(active * wide, down_low, [down], [gradient.reshape(-1, gradient.shape[-1])])
        of_wide = active.mul_(of_product)
        of_gated = torch.ops.aten.silu_backward(of_product.mul_(wide), gated)
        of_x, of_inner = gradients(x, low, [gate, up], [of_gated, of_wide], of_x=ctx.needs_input_grad[0])
        return None if of_x is None else of_x.view(ctx.shape), *of_inputs([*of_inner, *of_down])
