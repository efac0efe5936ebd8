"""Plain sampling in batches through transformers' `generate`, with nothing of the checkpoint's settings left.

For single answers to many prompts, and for models whose memory cannot be kept by rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from diffusecli.models import without_wrapper
from diffusecli.sampling import SamplingSettings


def generate_rows(
    model: Any, prompts: Sequence[Sequence[int]], stop_ids: Iterable[int], *, settings: SamplingSettings, seed: int
) -> list[tuple[int, ...]]:
    """One sample for each of several prompts, in one batch through `generate`; the terminator, if it came, included.

    Bent as `settings` say, `seed` in place of theirs, and by nothing else: the checkpoint's generation config is put
    aside for the call.
    """
    from transformers import GenerationConfig

    inner = without_wrapper(model)
    stops, longest = sorted(stop_ids), max(map(len, prompts))
    input_ids = torch.tensor([[*[0] * (longest - len(p)), *p] for p in prompts], device=model.device)
    inside = torch.tensor([[*[0] * (longest - len(p)), *[1] * len(p)] for p in prompts], device=model.device)
    kept, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(seed)
            rows = inner.generate(
                input_ids=input_ids, attention_mask=inside, do_sample=True, temperature=settings.temperature,
                top_k=settings.top_k, top_p=settings.top_p, min_p=settings.min_p or None, max_new_tokens=settings.max_new_tokens,
                eos_token_id=stops, pad_token_id=stops[0],
            )[:, longest:].tolist()  # fmt: skip
    finally:
        inner.generation_config = kept
    ends = [next((i + 1 for i, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return [tuple(row[:end]) for row, end in zip(rows, ends, strict=True)]
