"""Plain batched sampling with transformers' `generate`, without the checkpoint's generation settings.

For single answers to many prompts, and for models whose cache cannot be kept by rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffusecli.models.architecture import without_wrapper
from diffusecli.models.devices import own_random_numbers, uploaded
from diffusecli.models.overflow import require_numbers
from diffusecli.sampling.row_choice import tolerance
from diffusecli.sampling.settings import SamplingSettings

_PROBE_TOKENS = 4  # in the probe's prompt, and generated after it


def generate_rows(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Iterable[int],
    *,
    settings: SamplingSettings,
    seed: int,
    use_cache: bool = True,
) -> list[tuple[int, ...]]:
    """One sample for each of several prompts, in one batch through `generate`; with the terminator if the answer ended.

    Only `settings` change the distribution (with `seed` instead of theirs): the checkpoint's generation config is
    disabled for the call. Raises `NotNumbersError` when logits are NaN.
    """
    from transformers import LogitsProcessorList

    stops, longest = sorted(stop_ids), max(map(len, prompts))
    ids = torch.tensor([[*[0] * (longest - len(p)), *p] for p in prompts])
    places = torch.tensor([[*[0] * (longest - len(p)), *[1] * len(p)] for p in prompts])
    input_ids, inside = uploaded([ids, places], model.device)
    with own_random_numbers(model, seed), _without_generation_config(model) as inner:
        rows = inner.generate(
            input_ids=input_ids, attention_mask=inside, do_sample=True, temperature=settings.temperature,
            top_k=settings.top_k, top_p=settings.top_p, min_p=settings.min_p or None, max_new_tokens=settings.max_new_tokens,
            eos_token_id=stops or None, pad_token_id=stops[0] if stops else 0, use_cache=use_cache,
            logits_processor=LogitsProcessorList([_numbers_only]),
        )[:, longest:].tolist()  # fmt: skip
    ends = [next((i + 1 for i, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return [tuple(row[:end]) for row, end in zip(rows, ends, strict=True)]


def _numbers_only(_ids: Tensor, logits: Tensor) -> Tensor:
    """A logits processor that only checks for NaN, because sampling from NaN fails with unclear errors."""
    require_numbers(logits)
    return logits


def choose_cache(model: Any) -> bool | None:
    """Whether `generate` may use the model's cache: its logits must agree with those of whole rows. None if they do not even without a cache.

    Some models mix the states of rows in a batch. Raises `NotNumbersError` when logits of whole rows are NaN.
    """
    first = model.config.get_text_config().vocab_size // 3
    input_ids = torch.arange(first, first + 2 * _PROBE_TOKENS, device=model.device).view(2, _PROBE_TOKENS)
    inside = torch.ones_like(input_ids)
    for use_cache in (True, False):
        with _without_generation_config(model) as inner:
            done = inner.generate(
                input_ids=input_ids, attention_mask=inside, do_sample=False, max_new_tokens=_PROBE_TOKENS, use_cache=use_cache,
                eos_token_id=None, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            whole = model(input_ids=done.sequences, use_cache=False).logits[:, _PROBE_TOKENS - 1 : -1]
        require_numbers(whole)
        stepped = torch.stack(done.logits, dim=1)
        gap = float((whole.float().softmax(-1) - stepped.float().softmax(-1)).abs().sum(-1).max() / 2)
        if gap <= tolerance(model.dtype):
            return use_cache
    return None


@contextmanager
def _without_generation_config(model: Any) -> Iterator[Any]:
    """The transformers model with an empty generation config."""
    from transformers import GenerationConfig

    inner = without_wrapper(model)
    kept, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        with torch.no_grad():
            yield inner
    finally:
        inner.generation_config = kept
