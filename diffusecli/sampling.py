"""The counting sampler: N draws for the price of the distinct prefixes.

All N samples of a prompt start alike, so rows of (prefix, count) stand for them: the next-token
distribution of a prefix is computed once, `count` tokens are drawn from it, and each distinct token
drawn becomes a child row with its own count. Splitting a multinomial this way leaves the law of N
independent draws unchanged. Knows tensors and token ids; no files, no prompts' texts.

Axis names: R live rows, V vocabulary, T tokens so far.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.encoding import EncodedPrompt, decode_answer
from diffusecli.errors import InputError
from diffusecli.models import without_wrapper

_SLICE_ROWS = 32  # of [R, V] that become float64 distributions at once


@dataclass(frozen=True)
class SamplingSettings:
    """What is drawn and how. The defaults are the model's own softmax, nothing bent."""

    n_generations: int = 1000
    max_new_tokens: int = 50
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    seed: int = 0
    max_rows: int = 256  # live at once; memory only, never the result

    def __post_init__(self) -> None:
        """Raises `InputError` for what has no meaning."""
        for good, message in (
            (self.n_generations >= 1, f"--n-generations {self.n_generations}: must be 1 or more"),
            (self.max_new_tokens >= 1, f"--max-new-tokens {self.max_new_tokens}: must be 1 or more"),
            (self.temperature > 0, f"--temperature {self.temperature:g}: must be above 0 (1 is the model's own distribution)"),
            (self.top_k >= 0, f"--top-k {self.top_k}: must be 0 (off) or more"),
            (0 < self.top_p <= 1, f"--top-p {self.top_p:g}: must be above 0 and at most 1 (off)"),
            (0 <= self.min_p < 1, f"--min-p {self.min_p:g}: must be 0 (off) or more and below 1"),
            (0 <= self.seed < 2**63, f"--seed {self.seed}: must be 0 or more and below 2**63"),
            (self.max_rows >= 1, f"--max-rows {self.max_rows}: must be 1 or more"),
        ):
            if not good:
                raise InputError(message)


@dataclass(frozen=True)
class Draws:
    """The samples of one prompt, as counts of distinct texts, and what they cost."""

    counts: Counter[str]
    tokens_fed: int

    def shuffled(self, seed: int) -> list[str]:
        """Every sample on its own, in an order that the seed fixes."""
        texts = [text for text, count in sorted(self.counts.items()) for _ in range(count)]
        order = np.random.default_rng(seed).permutation(len(texts))
        return [texts[index] for index in order]


@dataclass(frozen=True)
class _Rows:
    """Children waiting to be fed: which cache row each continues, its text so far, how many samples follow it."""

    cache: Any  # of the parents
    parents: list[int]
    prefixes: list[tuple[int, ...]]
    counts: list[int]


@torch.inference_mode()
def draw(model: Any, tokenizer: Any, encoded: EncodedPrompt, settings: SamplingSettings) -> Draws:
    """Draw `n_generations` answers to one prompt.

    The random stream of a row is keyed by (seed, prompt tokens, prefix), so the result does not
    depend on `max_rows` or on the order of prompts. Waiting rows are taken depth first.
    """
    finished: Counter[tuple[int, ...]] = Counter()
    cache, logits = _feed(model, [encoded.prompt_ids], None, 0)
    fed = len(encoded.prompt_ids)
    waiting = _split(encoded, settings, _Rows(cache, [0], [()], [settings.n_generations]), logits, finished)
    while waiting:
        rows = waiting.pop()
        own = _select(rows.cache, rows.parents, reuse=not waiting or waiting[-1].cache is not rows.cache)
        length = len(encoded.prompt_ids) + len(rows.prefixes[0]) - 1
        cache, logits = _feed(model, [prefix[-1:] for prefix in rows.prefixes], own, length)
        fed += len(rows.prefixes)
        here = _Rows(cache, list(range(len(rows.prefixes))), rows.prefixes, rows.counts)
        waiting.extend(_split(encoded, settings, here, logits, finished))
    counts: Counter[str] = Counter()
    for ids, count in finished.items():
        counts[decode_answer(tokenizer, ids)] += count
    return Draws(counts, fed)


def _feed(model: Any, rows: Sequence[Sequence[int]], cache: Any, length: int) -> tuple[Any, Tensor]:
    """One forward pass over R rows of new tokens after `length` cached ones; returns the cache and logits [R, V]."""
    input_ids = torch.tensor([list(row) for row in rows], device=model.device)
    positions = torch.arange(length, length + input_ids.shape[1], device=model.device).expand_as(input_ids)
    out = model(input_ids=input_ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.past_key_values, out.logits[:, -1]


def _select(cache: Any, rows: list[int], *, reuse: bool) -> Any:
    """The cache of the given parent rows; `reuse` when nobody else waits for the parents' cache."""
    keys = cache.layers[0].keys
    if reuse and rows == list(range(len(keys))):
        return cache
    chosen = cache if reuse else copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(torch.tensor(rows, device=keys.device))
    return chosen


def _split(
    encoded: EncodedPrompt, settings: SamplingSettings, rows: _Rows, logits: Tensor, finished: Counter[tuple[int, ...]]
) -> list[_Rows]:
    """Draw each row's next tokens; ended answers go to `finished`, the rest come back in groups of `max_rows`, first on top."""
    parents: list[int] = []
    prefixes: list[tuple[int, ...]] = []
    counts: list[int] = []
    for row, (prefix, drawn) in enumerate(zip(rows.prefixes, _draw_tokens(encoded, settings, rows, logits), strict=True)):
        for token, count in drawn:
            if token in encoded.stop_ids:
                finished[prefix] += count
            elif len(prefix) + 1 == settings.max_new_tokens:
                finished[(*prefix, token)] += count
            else:
                parents.append(row)
                prefixes.append((*prefix, token))
                counts.append(count)
    groups = range(0, len(parents), settings.max_rows)
    cut = [slice(start, start + settings.max_rows) for start in reversed(groups)]
    return [_Rows(rows.cache, parents[part], prefixes[part], counts[part]) for part in cut]


def _draw_tokens(encoded: EncodedPrompt, settings: SamplingSettings, rows: _Rows, logits: Tensor) -> list[list[tuple[int, int]]]:
    """For each row, the distinct tokens drawn and how often, by inverting the cumulative distribution."""
    drawn = []
    for start in range(0, len(rows.counts), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        cumulative = _warp(logits[part], settings).cpu().double().softmax(-1).cumsum(-1).numpy()
        for row, prefix, count in zip(cumulative, rows.prefixes[part], rows.counts[part], strict=True):
            uniforms = _stream(settings.seed, encoded.prompt_ids, prefix).random(count)
            tokens, counts = np.unique(row.searchsorted(uniforms * row[-1], side="right"), return_counts=True)
            drawn.append(list(zip(tokens.tolist(), counts.tolist(), strict=True)))
    return drawn


def _stream(seed: int, prompt_ids: Sequence[int], prefix: Sequence[int]) -> np.random.Generator:
    """A counter-based generator of its own for every (seed, prompt, prefix)."""
    name = np.array([seed, len(prompt_ids), *prompt_ids, *prefix], dtype=np.int64).tobytes()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _warp(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Apply what was asked for and nothing else, in the order of `generate`: temperature, top-k, top-p, min-p."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = logits.float()
    ids: Any = None  # these warpers look at no ids
    if settings.temperature != 1:
        logits = TemperatureLogitsWarper(settings.temperature)(ids, logits)
    if settings.top_k:
        logits = TopKLogitsWarper(settings.top_k)(ids, logits)
    if settings.top_p < 1:
        logits = TopPLogitsWarper(settings.top_p)(ids, logits)
    if settings.min_p:
        logits = MinPLogitsWarper(settings.min_p)(ids, logits)
    return logits


def generate_rows(
    model: Any, prompts: Sequence[Sequence[int]], stop_ids: Iterable[int], *, max_new_tokens: int, seed: int
) -> list[tuple[int, ...]]:
    """One plain sample for each of several prompts, in one batch through `generate`; the terminator, if it came, included.

    Nothing of the checkpoint's generation config is left: it is put aside for the call.
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
                input_ids=input_ids, attention_mask=inside, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=stops[0],
            )[:, longest:].tolist()  # fmt: skip
    finally:
        inner.generation_config = kept
    ends = [next((i + 1 for i, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return [tuple(row[:end]) for row, end in zip(rows, ends, strict=True)]
