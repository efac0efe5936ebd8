"""Attention with a custom layout instead of the model's own.

Registered with transformers as an attention implementation; outside `over` it is plain sdpa. Layers with a sliding window pass it
in the call. The window then counts positions, not places in the sequence.

Axis names: B sequences, H query heads, G query heads per key head, S tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusecli.models.architecture import without_wrapper

_NAME = "diffuse"


class Layout(Protocol):
    """Which tokens attend to which, instead of the model's own attention."""

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, /) -> Tensor:
        """Query [B, H, S, d], key and value [B, H / G, S, d] of the tokens fed -> [B, S, H, d].

        A token attends to keys fewer than `window` positions back, including itself; None: to all earlier keys.
        """


class _Now:
    """The current layout. Not a context variable, because CUDA runs backward passes in other threads."""

    layout: Layout | None = None


def layout_now() -> Layout | None:
    """The current layout, or None."""
    return _Now.layout


@contextmanager
def over(layout: Layout) -> Iterator[None]:
    """Forward and backward passes inside this context use the layout."""
    before, _Now.layout = _Now.layout, layout
    try:
        yield
    finally:
        _Now.layout = before


def causal(layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, band: Tensor | None) -> Tensor:
    """Plain attention of a sequence to itself, or to the `banded` part of it, through sdpa: [B, S, H, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output: Tensor = sdpa_attention_forward(layer, query, key, value, band, scaling=scale, is_causal=True)[0]
    return output


def banded(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Mask [1, 1, S, S] of a window over `length` tokens; None if it hides nothing."""
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_().triu_(1 - window)[None, None]


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask [1, 1, S, S] from `allowed` [S, S]: 0 if allowed, otherwise the lowest float. Eager and flex attention add it to the scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def enable(model: Any) -> bool:
    """Make a model with sdpa attention use the layout inside `over`. Returns False if it cannot."""
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
