"""An attention module of LoRA layers as one autograd function over a token tree: the same result with fewer temporaries.

Queries, keys and values share one low-rank product; the rotary embedding is applied once to queries and keys
together; block attention (`block_attention.py`) reads the products in place. A module is recognised by a probe,
not by its name: with tensors instead of its layers, its input to attention must equal that of this function.

Axis names: S tokens, H query heads, G key heads, d head width.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusecli.models import block_attention
from diffusecli.models.attention import layout_now, over
from diffusecli.models.block_attention import Blocks, Places
from diffusecli.models.lora_products import LoraLayer, gradients, is_active, layers_of, of_inputs, products, restored
from diffusecli.models.probing import SCALES, UNSUPPORTED, agree, giving, samples

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Heads(NamedTuple):
    """The parameters of an attention module besides its layers."""

    queries: int  # H
    keys: int  # G
    width: int  # d
    scale: float
    window: int | None


class _Recorder:
    """A layout that records the arguments of attention and returns a given tensor."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def attend(self, _layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, /) -> Tensor:
        """[1, S, H, d]."""
        self.asked.append((query, key, value, scale, window))
        return self.answer.clone()


def fuse_attention(module: Any) -> bool:
    """Replace the forward of an attention module of four fused layers, if it computes the same function."""
    heads = heads_of(module)
    if heads is None:
        return False
    module.forward = MethodType(_forward, module)
    module._diffuse_heads = heads
    return True


def heads_of(module: Any) -> Heads | None:
    """How the module splits, rotates and scales its layers' outputs; None if it does anything else."""
    q, k, v, o = (getattr(module, name).get_base_layer() for name in PROJECTIONS)
    width = getattr(module, "head_dim", None)
    sizes = (q.out_features, k.out_features, v.out_features, o.in_features)
    if (
        not isinstance(width, int)
        or width % 2
        or any(size % width for size in sizes)
        or sizes[1] != sizes[2]
        or sizes[0] != sizes[3]
    ):
        return None
    heads, key_heads = sizes[0] // width, sizes[1] // width
    if heads % key_heads:
        return None
    x, *given, answer = samples([q.in_features, *sizes[:3], o.out_features, sizes[0]], q.weight.device)
    size = x.shape[0] * x.shape[1]
    turns = torch.randn(2, 1, size, width, generator=torch.Generator().manual_seed(1)).to(x.device)
    recorder = _Recorder(answer.view(1, size, heads, width))
    try:
        with torch.no_grad(), giving(module, PROJECTIONS, [one.view(1, size, -1) for one in given]) as taken, over(recorder):
            found = module(hidden_states=x.view(1, size, -1), position_embeddings=(turns[0], turns[1]), attention_mask=None)
        inputs = taken()
        (query, key, value, scale, window), *more = recorder.asked
    except UNSUPPORTED:  # other inputs or outputs
        return None
    cos, signed = turns[0, 0], _signed(turns[1, 0])
    expected = _turned(torch.cat([given[0].view(size, -1), given[1].view(size, -1)], 1).view(size, -1, width), cos, signed).split(
        [heads, key_heads]
    )
    pairs = [
        *((one, x) for one in inputs[:3]), (inputs[3], answer), (found[0], given[3]),
        (query.transpose(1, 2), expected[0].transpose(0, 1)), (key.transpose(1, 2), expected[1].transpose(0, 1)),
        (value.transpose(1, 2), given[2]),
    ]  # fmt: skip
    shaped = (
        (one.reshape(len(SCALES), size // len(SCALES), -1), other.reshape(len(SCALES), size // len(SCALES), -1))
        for one, other in pairs
    )
    if more or not isinstance(found, tuple) or not all(agree(one, other) for one, other in shaped):
        return None
    return Heads(heads, key_heads, width, float(scale), window)


def _forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The fused function for tree attention with an active adapter; otherwise the module's forward. Models differ in the order of arguments."""
    layout, layers = layout_now(), [getattr(self, name) for name in PROJECTIONS]
    turns: Any = kwargs.get("position_embeddings")
    ours = isinstance(layout, Blocks) and turns is not None and kwargs.get("past_key_values") is None
    if not ours or args or not all(is_active(layer, hidden_states) for layer in layers):
        return type(self).forward(self, hidden_states, *args, **kwargs)
    cos, sin = turns
    values = (value for layer in layers for value in LoraLayer.of(layer))
    return _Attention.apply(hidden_states, cos, sin, layout, self._diffuse_heads, *values), None


class _Attention(torch.autograd.Function):
    """One module, for x [1, S, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: Blocks, heads: Heads, *layers: Any) -> Tensor:
        """The output [1, S, out]."""
        q, k, v, o = layers_of(layers)
        flat, size, (count, key_heads, width, scale, window) = x.reshape(-1, x.shape[-1]), x.shape[1], heads
        places = Places(size, 1), Places(size, 1, count * size), Places(1, key_heads)
        rows = layout.rows(count, key_heads, places, scale, window, x.device, x.dtype)
        cos, signed = layout.once(("rotary", id(cos), id(sin)), lambda: (cos[0], _signed(sin[0]), cos, sin))[:2]
        joint = flat.new_empty(size, (count + key_heads) * width)
        (_, _, values), low = products(flat, [q, k, v], [joint[:, : count * width], joint[:, count * width :], None])
        turned = _turned(joint.view(size, -1, width), cos, signed)
        seen, kept = block_attention.forward(turned.view(-1, width), turned.view(-1, width), values.view(-1, width), rows)
        seen = seen.view(size, -1)
        (out,), o_low = products(seen, [o], [None])
        ctx.save_for_backward(
            flat, low, turned, values, seen, o_low, cos, signed, *q.tensors, *k.tensors, *v.tensors, *o.tensors, *kept
        )
        ctx.rows, ctx.heads, ctx.rests, ctx.shape = rows, heads, [layer.rest for layer in (q, k, v, o)], x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of each layer's A and B."""
        flat, low, turned, values, seen, o_low, cos, signed, *rest = ctx.saved_tensors
        q, k, v, o = restored(rest[:16], ctx.rests)
        count, _, width, *_ = ctx.heads
        of_seen, of_o = gradients(seen, o_low, [o], [gradient.reshape(-1, gradient.shape[-1])])
        of_turned, of_values = torch.empty_like(turned), torch.zeros_like(values)
        of_turned[count:].zero_()
        rows, of_rows = turned.view(-1, width), of_turned.view(-1, width)
        block_attention.backward(
            of_seen.view(-1, width), rows, rows, values.view(-1, width), ctx.rows, rest[16:],
            of_rows[: count * len(flat)], of_rows, of_values.view(-1, width),
        )  # fmt: skip
        of_joint = _turned_back(of_turned, cos, signed).view(len(flat), -1)
        parts = [of_joint[:, : count * width], of_joint[:, count * width :], of_values]
        of_x, of_inner = gradients(flat, low, [q, k, v], parts, of_x=ctx.needs_input_grad[0])
        return None if of_x is None else of_x.view(ctx.shape), None, None, None, None, *of_inputs([*of_inner, *of_o])


def _signed(sin: Tensor) -> Tensor:
    """[S, d]: the first half of the sines negated."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)


def _swapped(x: Tensor) -> Tensor:
    """The halves of the last axis swapped, as a new tensor."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1)


def _turned(x: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
    """The rotary embedding of x [S, heads, d]: [heads, S, d]."""
    heads = x.transpose(0, 1)
    return _swapped(heads).mul_(signed).addcmul_(heads, cos)


def _turned_back(gradient: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
    """The gradient of x [S, heads, d] from that of `_turned` [heads, S, d]."""
    tokens = gradient.transpose(0, 1)
    return _swapped(tokens).mul_(_swapped(signed)[:, None]).addcmul_(tokens, cos[:, None])
