"""The model's output layer: check that it alone computes the logits; run the model without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffusecli.models.architecture import without_wrapper
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.probing import UNSUPPORTED
from diffusecli.models.wide_output import WideLinear
from diffusecli.system.memory import out_of_memory

_PROBE_SCALES = (1.0, 30.0, 1000.0)  # of logits: soft caps and clamps show at large values


def output_layer(model: Any) -> Any | None:
    """The output layer if it is a plain, frozen linear layer; otherwise None."""
    head = without_wrapper(model).get_output_embeddings()
    plain = type(head) in (torch.nn.Linear, WideLinear) and not head.weight.requires_grad and not hasattr(head, "_hf_hook")
    return head if plain else None


def is_all_of_the_logits(model: Any, probe: EncodedPrompt) -> bool:
    """Whether the model's logits are the output of its plain output layer, up to a factor: no soft cap, no clamp.

    The probe replaces the layer's output by tensors of several scales, to detect changes to large logits.
    """
    head = output_layer(model)
    if head is None:
        return False
    scales = torch.tensor(_PROBE_SCALES)[:, None, None]
    ids = torch.tensor([probe.prompt_ids[-4:]] * len(_PROBE_SCALES), device=model.device)
    logits = torch.randn(*ids.shape, len(head.weight), generator=torch.Generator().manual_seed(0)) * scales
    logits = logits.to(ids.device, model.dtype)
    head.forward = lambda _: logits.clone()
    try:
        with torch.no_grad():
            found = model(input_ids=ids, use_cache=False).logits
    except UNSUPPORTED as error:
        if out_of_memory(error):
            raise
        return False
    finally:
        del head.forward
    if found.shape != logits.shape:
        return False
    factor = (found.cpu().double() / logits.cpu().double()).flatten()  # MPS has no float64
    return torch.allclose(factor, factor.median().expand_as(factor), rtol=1e-4 if model.dtype == torch.float32 else 0.02, atol=0)


@contextmanager
def without_output_layer(head: Any | None) -> Iterator[None]:
    """Inside this context, the model's "logits" are the hidden states before its output layer."""
    if head is None:
        yield
        return
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward
