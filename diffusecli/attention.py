"""Attention over a packed prefix tree: a node looks at the prompt and at its few ancestors, and pays for no more.

A dense mask makes every token look at every other and then forgets most of it; the cost of that grows
with the square of the tree. Here the prompt is attended densely and the ancestors are gathered.
Registered with transformers as an attention implementation; outside a packed pass it is plain sdpa.

Axis names: H query heads, G query heads per key head, P prompt tokens, I nodes, D the deepest node's depth, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusecli.models import without_wrapper

_NAME = "diffuse_tree"


@dataclass(frozen=True)
class Tree:
    """Which tokens of a packed sequence a node looks at besides the prompt."""

    prompt_length: int
    ancestors: Tensor  # [I, D] places in the sequence of each node's ancestors and itself, filled up with 0
    absent: Tensor  # [I, D] 0, or the lowest float where filled up


class _Now:
    """The tree of the pass under way. No context variable: CUDA runs backward passes in threads of its own."""

    tree: Tree | None = None


@contextmanager
def over(tree: Tree) -> Iterator[None]:
    """Forward and backward passes inside see this tree."""
    _Now.tree = tree
    try:
        yield
    finally:
        _Now.tree = None


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 1, S, S] from what may be seen [S, S]: 0 there, the lowest float elsewhere. Eager and flex attention add it to the scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def enable(model: Any) -> bool:
    """Make the model attend by tree inside `over`, where it attends by sdpa now; False when it does not or cannot."""
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
    """Query [1, H, S, d], key and value [1, H / G, S, d] -> [1, S, H, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tree = _Now.tree
    if tree is None:
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)[0]
        return output, None
    length = tree.prompt_length
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    prompt = sdpa_attention_forward(
        module, query[:, :, :length], key[:, :, :length], value[:, :, :length], None, scaling=scale, is_causal=True
    )[0]
    nodes = _attend_nodes(query[0], key[0], value[0], tree, scale)
    return torch.cat([prompt, nodes[None]], dim=1), None


def _attend_nodes(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float) -> Tensor:
    """Query [H, S, d], key and value [H / G, S, d] -> [I, H, d] for the nodes."""
    length, (nodes, _) = tree.prompt_length, tree.ancestors.shape
    heads, width = key.shape[0], query.shape[-1]
    groups = query.shape[0] // heads
    asked = (query[:, length:] * scale).view(heads, groups, nodes, width)
    # the prompt, densely: [H / G, G I, P]
    flat = asked.reshape(heads, groups * nodes, width)
    of_prompt = torch.bmm(flat, key[:, :length].transpose(1, 2)).view(heads, groups, nodes, length)
    # the ancestors, gathered: [H / G, I, D, d]
    places = tree.ancestors.to(key.device)
    keys, values = key[:, places], value[:, places]
    of_ancestors = torch.einsum("hgid,hiad->hgia", asked, keys) + tree.absent.to(key.device)
    weights = (
        torch.cat([of_prompt, of_ancestors], dim=-1)
        .softmax(dim=-1, dtype=torch.promote_types(value.dtype, torch.float32))
        .to(value.dtype)
    )
    out = torch.bmm(weights[..., :length].reshape(heads, groups * nodes, length), value[:, :length])
    out = out.view(heads, groups, nodes, width) + torch.einsum("hgia,hiad->hgid", weights[..., length:], values)
    return out.reshape(heads * groups, nodes, width).transpose(0, 1)
