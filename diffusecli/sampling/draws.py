"""Which tokens follow which prefixes: draws from next-token distributions, counted, each prefix by a random stream of its own.

Axis names: R live rows, V vocabulary, B blocks of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.overflow import NotNumbersError
from diffusecli.sampling.settings import SamplingSettings

_SLICE_ROWS = 64  # of [R, V] that become probabilities at once


_BLOCK = 1024  # tokens of the vocabulary that are summed before one of them is looked for


_DRAWS_AT_ONCE = 1_000_000  # of a row


def draw_tokens(prompt_ids: Sequence[int], settings: SamplingSettings, live: Live, logits: Tensor) -> list[list[tuple[int, int]]]:
    """For each row, the distinct tokens drawn and how often. Logits [R, V] are written over."""
    drawn = []
    for start in range(0, len(live.counts), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        exps = _exponentials(_warp(logits[part], settings))
        streams = [_stream(settings.seed, prompt_ids, prefix) for prefix in live.prefixes[part]]
        totals: list[Counter[int]] = [Counter() for _ in streams]
        left = live.counts[part]
        while any(left):
            now = [min(count, _DRAWS_AT_ONCE) for count in left]
            left = [count - some for count, some in zip(left, now, strict=True)]
            found = _invert(exps, [stream.random(count) for stream, count in zip(streams, now, strict=True)])
            for total, pairs in zip(totals, found, strict=True):
                total.update(dict(pairs))
        drawn += [sorted(total.items()) for total in totals]
    return drawn


def _exponentials(logits: Tensor) -> Tensor:
    """exp(logits - their maximum) [R, V], at least float32."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.sub_(wide.amax(-1, keepdim=True)).exp_()


def _invert(exps: Tensor, uniforms: Sequence[np.ndarray]) -> list[list[tuple[int, int]]]:
    """Invert each row's cumulative distribution at its uniforms: first the block of tokens is found, then the token in it.

    Only sums of blocks, and the blocks hit, leave the device; both searches are in float64.
    """
    whole = exps.shape[-1] // _BLOCK * _BLOCK
    sums = [exps[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)] if whole else []
    if whole < exps.shape[-1]:
        sums.append(exps[:, whole:].sum(-1, keepdim=True))
    masses = torch.cat(sums, dim=-1).cpu().double().numpy()  # [R, B]
    cumulative = masses.cumsum(-1)
    if not np.isfinite(cumulative[:, -1]).all():
        raise NotNumbersError
    hits = []  # row, block, where in the block's mass each draw falls, as shares of it
    for row, (ends, mass, u) in enumerate(zip(cumulative, masses, uniforms, strict=True)):
        at = u * ends[-1]
        blocks = _search(ends, at)
        hit = np.flatnonzero(np.bincount(blocks)).tolist()  # no sorting of a million draws
        for block in hit:
            inside = at if len(hit) == 1 else at[blocks == block]
            hits.append((row, block, np.maximum((inside - (ends[block] - mass[block])) / mass[block], 0)))
    found: list[list[tuple[int, int]]] = [[] for _ in uniforms]
    for (row, block, shares), weights in zip(hits, _blocks(exps, [(row, block) for row, block, _ in hits]), strict=True):
        ends = weights.cumsum()
        counts = np.bincount(_search(ends, shares * ends[-1]))
        tokens = np.flatnonzero(counts)
        found[row] += zip((tokens + block * _BLOCK).tolist(), counts[tokens].tolist(), strict=True)
    return found


def _search(ends: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The first index whose cumulative mass is above each value, and never one without mass, whatever rounding does."""
    return np.minimum(ends.searchsorted(at, side="right"), ends.searchsorted(ends[-1], side="left"))


def _blocks(exps: Tensor, places: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The blocks at (row, block) as float64 arrays."""
    cut = [exps[row, block * _BLOCK : (block + 1) * _BLOCK] for row, block in places]
    if exps.device.type != "cpu":  # one transfer for all
        lengths = [len(block) for block in cut]
        cut = list(torch.cat(cut).cpu().split(lengths))
    return [block.numpy().astype(np.float64) for block in cut]


def _stream(seed: int, prompt_ids: Sequence[int], prefix: Sequence[int]) -> np.random.Generator:
    """A counter-based generator of its own for every (seed, prompt, prefix)."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(_digest(seed, prompt_ids, prefix), dtype=np.uint64)))


def stream_seed(seed: int, prompt_ids: Sequence[int], start: int, offset: int) -> int:
    """A seed of 31 bits for an engine that has its own generator, another for every place among the samples of a prompt.

    The place is `offset` samples after the first `start`.
    """
    return int.from_bytes(_digest(seed, prompt_ids, (start, offset))[:4], "little") >> 1


def _digest(seed: int, prompt_ids: Sequence[int], rest: Sequence[int]) -> bytes:
    name = np.array([seed, len(prompt_ids), *prompt_ids, *rest], dtype=np.int64).tobytes()
    return hashlib.blake2b(name, digest_size=16).digest()


def _warp(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Apply what was asked for and nothing else, in the order of `generate`: temperature, top-k, top-p, min-p."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = logits.float()
    if settings.temperature != 1:
        logits = logits - logits.amax(-1, keepdim=True)  # a tiny temperature must not make infinities of them
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


@dataclass
class Live:
    """Prefixes of one length with the samples that follow each; in a row group, or waiting to be fed."""

    prefixes: list[tuple[int, ...]]
    counts: list[int]

    def part(self, start: int, end: int) -> Live:
        """Some of the prefixes."""
        return Live(self.prefixes[start:end], self.counts[start:end])

    def in_groups(self, size: int) -> list[Live]:
        """Cut into groups, the first last, as a stack wants them."""
        return [self.part(start, start + size) for start in reversed(range(0, len(self.prefixes), size))]
