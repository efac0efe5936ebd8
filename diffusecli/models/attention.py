"""Attention by a layout of our own, and the layout of a packed prefix tree: a node looks at the prompt and at its few ancestors.

A dense mask makes every token look at every other and then forgets most of it; the cost of that grows
with the square of the tree. Here the prompt is attended densely and the ancestors are gathered.
Layers whose attention slides say so as they are called; then a token looks back over positions, not over places in the sequence.
Registered with transformers as an attention implementation; outside `over` it is plain sdpa.

Axis names: H query heads, G query heads per key head, P prompt tokens, I nodes, D the deepest node's depth, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusecli.models.architecture import without_wrapper

_NAME = "diffuse"


class Layout(Protocol):
    """Who looks at whom, in place of a model's own attention."""

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Query [B, H, S, d], key and value [B, H / G, S, d] of the tokens fed -> [B, S, H, d].

        A token looks at keys less than `window` positions back, itself included; None for all that come before.
        """


@dataclass(frozen=True)
class Tree:
    """Which tokens of a packed sequence a node looks at besides the prompt."""

    prompt_length: int
    ancestors: Tensor  # [I, D] places in the sequence of each node, its parent and so on, filled up with 0
    absent: Tensor  # [I, D] 0, or the lowest float where filled up
    _seen: dict[tuple[int | None, torch.device], _Seen] = field(default_factory=dict)  # found once for all layers of a pass

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """One packed sequence."""
        length, seen = self.prompt_length, self._within(window, key.device)
        prompt = causal(layer, query[:, :, :length], key[:, :, :length], value[:, :, :length], scale, seen.band)
        nodes = _NodeAttention.apply(query[0], key[0], value[0], seen, scale)
        return torch.cat([prompt, nodes[None]], dim=1)

    def _within(self, window: int | None, device: torch.device) -> _Seen:
        """What is seen through a window, on the device of a layer: a model may be spread over several."""
        if window is not None and self.prompt_length - 1 + self.ancestors.shape[1] < window:
            window = None
        if (window, device) not in self._seen:
            self._seen[window, device] = self._cut(window, device)
        return self._seen[window, device]

    def _cut(self, window: int | None, device: torch.device) -> _Seen:
        """Column a of `ancestors` is a positions back; token j of the prompt is as many as node and token are apart."""
        length, ancestors, absent = self.prompt_length, self.ancestors.to(device), self.absent.to(device)
        if window is None:
            return _Seen(length, 0, None, ancestors, absent, None)
        first = max(0, min(length, length + 1 - window))  # what the nodes of depth 1 see, at position `length`
        positions = length - 1 + (absent == 0).sum(1)
        beyond = positions[:, None] - torch.arange(first, length, device=device) >= window
        hidden = torch.zeros(beyond.shape, dtype=absent.dtype, device=device).masked_fill_(beyond, torch.finfo(absent.dtype).min)
        return _Seen(length, first, hidden, ancestors[:, :window], absent[:, :window], banded(length, window, device))


@dataclass(frozen=True)
class _Seen:
    """What the tokens of a packed sequence see in a layer."""

    length: int  # P
    first: int  # of the prompt's tokens that nodes see; n = P - first
    hidden: Tensor | None  # [I, n] 0, or the lowest float where a node is too far away
    ancestors: Tensor  # [I, D] as in `Tree`, D at most the window
    absent: Tensor  # [I, D]
    band: Tensor | None  # what the prompt sees of itself, see `banded`

    @property
    def prompt(self) -> slice:
        """The places that nodes see of the prompt."""
        return slice(self.first, self.length)

    @property
    def split(self) -> int:
        """Where, among what a node sees, its ancestors begin."""
        return self.length - self.first


class _Now:
    """The layout of the pass under way. No context variable: CUDA runs backward passes in threads of its own."""

    layout: Layout | None = None


@contextmanager
def over(layout: Layout) -> Iterator[None]:
    """Forward and backward passes inside see this layout."""
    _Now.layout = layout
    try:
        yield
    finally:
        _Now.layout = None


def causal(layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, band: Tensor | None) -> Tensor:
    """Plain attention of a sequence to itself, or to the `banded` part of it, through sdpa: [B, S, H, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output: Tensor = sdpa_attention_forward(layer, query, key, value, band, scaling=scale, is_causal=True)[0]
    return output


def banded(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """[1, 1, S, S] what each of `length` tokens sees of those before it through a window; None where that is everything."""
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_().triu_(1 - window)[None, None]


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 1, S, S] from what may be seen [S, S]: 0 there, the lowest float elsewhere. Eager and flex attention add it to the scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def enable(model: Any) -> bool:
    """Make the model attend by a layout inside `over`, where it attends by sdpa now; False when it does not or cannot."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    inner = without_wrapper(model)
    if inner.config._attn_implementation != _NAME:
        if inner.config._attn_implementation != "sdpa" or not inner._can_set_attn_implementation():
            return False
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        inner.set_attn_implementation(_NAME)
    return True


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if _Now.layout is None:
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)[0]
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _Now.layout.attend(module, query, key, value, scale, kwargs.get("sliding_window")), None


class _NodeAttention(torch.autograd.Function):
    """softmax(q k' scale) v of the nodes over the prompt and their ancestors.

    The backward pass keeps the weights and gathers keys and values of ancestors again: kept, they would be D times as large.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, seen: _Seen, scale: float) -> Tensor:
        """Query [H, S, d], key and value [H / G, S, d] -> [I, H, d]."""
        split, (nodes, _) = seen.split, seen.ancestors.shape
        heads, width = key.shape[0], query.shape[-1]
        asked = _asked(query, seen.length, heads, scale)
        of_prompt = over_prompt(asked, key[:, seen.prompt].transpose(1, 2))
        if seen.hidden is not None:
            of_prompt += seen.hidden
        of_ancestors = torch.einsum("hgid,hiad->hgia", asked, key[:, seen.ancestors]) + seen.absent
        wide = torch.promote_types(value.dtype, torch.float32)
        weights = torch.cat([of_prompt, of_ancestors], dim=-1).softmax(dim=-1, dtype=wide).to(value.dtype)
        out = over_prompt(weights[..., :split], value[:, seen.prompt])
        out += torch.einsum("hgia,hiad->hgid", weights[..., split:], value[:, seen.ancestors])
        ctx.save_for_backward(query, key, value, weights)
        ctx.seen, ctx.scale = seen, scale
        return out.reshape(-1, nodes, width).transpose(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, weights = ctx.saved_tensors
        seen, scale, heads, split = ctx.seen, ctx.scale, key.shape[0], ctx.seen.split
        asked = _asked(query, seen.length, heads, scale)
        out = gradient.transpose(0, 1).reshape(asked.shape)
        of_weights = torch.cat(
            [
                over_prompt(out, value[:, seen.prompt].transpose(1, 2)),
                torch.einsum("hgid,hiad->hgia", out, value[:, seen.ancestors]),
            ],
            dim=-1,
        )
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
        of_asked = over_prompt(of_scores[..., :split], key[:, seen.prompt])
        of_asked += torch.einsum("hgia,hiad->hgid", of_scores[..., split:], key[:, seen.ancestors])
        of_query = torch.zeros_like(query)
        of_query[:, seen.length :] = of_asked.reshape(query.shape[0], -1, query.shape[-1]) * scale
        return of_query, _towards(of_scores, asked, key, seen), _towards(weights, out, value, seen), None, None


def _asked(query: Tensor, length: int, heads: int, scale: float) -> Tensor:
    """[H, S, d] -> the nodes' queries, scaled [H / G, G, I, d]."""
    return (query[:, length:] * scale).view(heads, query.shape[0] // heads, -1, query.shape[-1])


def over_prompt(left: Tensor, right: Tensor) -> Tensor:
    """[H / G, G, I, n] x [H / G, n, m] -> [H / G, G, I, m]: one product per key head, its query heads below each other.

    G and I may stand in the other order.
    """
    return torch.bmm(left.flatten(1, 2), right).view(*left.shape[:3], right.shape[-1])


def _towards(weights: Tensor, rows: Tensor, like: Tensor, seen: _Seen) -> Tensor:
    """The sum of `rows` [H / G, G, I, d] by `weights` [H / G, G, I, n + D] at the places looked at: a tensor like keys or values."""
    split, (heads, size, width) = seen.split, like.shape
    total = like.new_zeros(like.shape)
    total[:, seen.prompt] = torch.bmm(weights[..., :split].flatten(1, 2).transpose(1, 2), rows.flatten(1, 2))
    parts = torch.einsum("hgia,hgid->hiad", weights[..., split:], rows)
    places = seen.ancestors.flatten() + size * torch.arange(heads, device=like.device)[:, None]
    total.view(-1, width).index_add_(0, places.flatten(), parts.reshape(-1, width))
    return total
