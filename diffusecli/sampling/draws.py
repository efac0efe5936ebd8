"""Draws from next-token distributions, counted. Each prefix has its own random stream.

Axis names: R live rows, V vocabulary, B blocks of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.devices import uploaded
from diffusecli.models.overflow import NotNumbersError
from diffusecli.sampling.settings import SamplingSettings

_SLICE_ROWS = 64  # rows of [R, V] converted to probabilities at once
_BLOCK = 1024  # tokens per block of the vocabulary; a draw searches blocks, then tokens in a block
_DRAWS_AT_ONCE = 1_000_000  # of all rows of a slice together
_FEW_DRAWS = 16  # per row: each searched separately; more draws are sorted


def draw_tokens(
    prompts: Sequence[Sequence[int]], settings: SamplingSettings, live: Live, logits: Tensor
) -> list[list[tuple[int, int]]]:
    """For each row, the distinct tokens drawn and their counts. Overwrites the logits [R, V]; `prompts` are token ids."""
    drawn = []
    for start in range(0, len(live.counts), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        exps = _exponentials(_warp(logits[part], settings))
        cumulative = _cumulative(exps)
        rows = zip(live.prompts[part], live.prefixes[part], strict=True)
        streams = [_stream(settings.seed, prompts[prompt], prefix) for prompt, prefix in rows]
        totals: list[Counter[int]] = [Counter() for _ in streams]
        left = live.counts[part]
        while any(left):
            now = _first(left, _DRAWS_AT_ONCE)
            left = [count - some for count, some in zip(left, now, strict=True)]
            found = _invert(exps, cumulative, [stream.random((count, 2)) for stream, count in zip(streams, now, strict=True)])
            for total, pairs in zip(totals, found, strict=True):
                total.update(dict(pairs))
        drawn += [sorted(total.items()) for total in totals]
    return drawn


def _first(counts: Sequence[int], most: int) -> list[int]:
    """The first `most` of all draws, row by row.

    >>> _first([5, 0, 4, 3], 7)
    [5, 0, 2, 0]
    """
    before = [0, *accumulate(counts)]
    return [max(0, min(count, most - start)) for count, start in zip(counts, before, strict=False)]


def _exponentials(logits: Tensor) -> Tensor:
    """exp(logits - their maximum) [R, V], at least float32."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.sub_(wide.amax(-1, keepdim=True)).exp_()


def _invert(exps: Tensor, cumulative: np.ndarray, uniforms: Sequence[np.ndarray]) -> list[list[tuple[int, int]]]:
    """The tokens drawn from each row by its uniforms [D, 2]: the first chooses a block of tokens, the second the token in it.

    Only the sums of blocks and the chosen blocks leave the device. Both searches use float64. With two uniforms the sum for a token
    covers at most one block, so rounding elsewhere in the vocabulary does not affect it. A few draws are searched one by one, for
    all rows together; many draws are sorted, and the ends of blocks and tokens are searched among them.
    """
    chosen = [_Chosen.of(row, cumulative[row], u) for row, u in enumerate(uniforms) if len(u) > _FEW_DRAWS]
    few = [row for row, u in enumerate(uniforms) if 0 < len(u) <= _FEW_DRAWS]
    rows = np.repeat(few, [len(uniforms[row]) for row in few]).astype(np.int64)
    of_few = np.concatenate([uniforms[row] for row in few]) if few else np.zeros((0, 2))
    blocks = _search_each(cumulative[rows], of_few[:, 0])
    weights = _blocks(
        exps, np.concatenate([rows, *(one.rows for one in chosen)]), np.concatenate([blocks, *(one.hit for one in chosen)])
    )
    found: list[list[tuple[int, int]]] = [[] for _ in uniforms]
    tokens = _find_each(blocks, weights[: len(rows)], of_few[:, 1])
    for (row, token), count in Counter(zip(rows.tolist(), tokens.tolist(), strict=True)).items():
        found[row].append((token, count))
    start = len(rows)
    for one in chosen:
        found[one.row] = one.counted(weights[start : start + len(one.hit)])
        start += len(one.hit)
    return [sorted(pairs) for pairs in found]


def _cumulative(exps: Tensor) -> np.ndarray:
    """Cumulated sums over blocks of tokens [R, B] in float64; the last block may be shorter. Raises `NotNumbersError`."""
    whole = exps.shape[-1] // _BLOCK * _BLOCK
    sums = [exps[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)] if whole else []
    if whole < exps.shape[-1]:
        sums.append(exps[:, whole:].sum(-1, keepdim=True))
    cumulative: np.ndarray = torch.cat(sums, dim=-1).cpu().double().numpy().cumsum(-1)
    if not np.isfinite(cumulative[:, -1]).all():
        raise NotNumbersError
    return cumulative


def _find_each(blocks: np.ndarray, weights: Sequence[np.ndarray], uniforms: np.ndarray) -> np.ndarray:
    """The token of each draw [D], from its block, the block's weights and its uniform."""
    padded = np.zeros((len(blocks), max(map(len, weights), default=0)))  # a shorter block is padded with zeros
    for row, block in zip(padded, weights, strict=True):
        row[: len(block)] = block
    tokens: np.ndarray = blocks * _BLOCK + _search_each(padded.cumsum(-1), uniforms) if len(blocks) else blocks
    return tokens


def _search_each(ends: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """In each row of cumulative masses [D, n], the first index above a share of the total [D]; never one without mass."""
    last = (ends < ends[:, -1:]).sum(-1)
    found: np.ndarray = np.minimum((ends <= (uniforms * ends[:, -1])[:, None]).sum(-1), last)
    return found


@dataclass(frozen=True)
class _Chosen:
    """Many draws from one row, sorted by their blocks."""

    row: int
    hit: np.ndarray  # the blocks with draws
    shares: list[np.ndarray]  # the second uniforms of the draws in each of them

    @classmethod
    def of(cls, row: int, cumulative: np.ndarray, uniforms: np.ndarray) -> _Chosen:
        """The draws of uniforms [D, 2]."""
        blocks = np.minimum(
            cumulative.searchsorted(uniforms[:, 0] * cumulative[-1], side="right"), cumulative.searchsorted(cumulative[-1])
        )
        order = blocks.astype(np.min_scalar_type(len(cumulative))).argsort(kind="stable")  # radix sort for narrow types
        sizes = np.bincount(blocks)
        hit = np.flatnonzero(sizes)
        return cls(row, hit, np.split(uniforms[order, 1], sizes[hit].cumsum()[:-1]))

    @property
    def rows(self) -> np.ndarray:
        """The row of each block."""
        return np.full_like(self.hit, self.row)

    def counted(self, weights: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        """The tokens with their counts, from the weights of the blocks."""
        found: list[tuple[int, int]] = []
        for block, own, inside in zip(self.hit.tolist(), weights, self.shares, strict=True):
            ends = own.cumsum(dtype=np.float64)
            counts = np.diff(_edges(ends, np.sort(inside) * ends[-1]), prepend=0)
            tokens = np.flatnonzero(counts)
            found += zip((tokens + block * _BLOCK).tolist(), counts[tokens].tolist(), strict=True)
        return found


def _edges(ends: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How many of the sorted values are below each cumulative mass; all are below the last one with mass."""
    edges = at.searchsorted(ends, side="left")
    edges[ends.searchsorted(ends[-1], side="left") :] = len(at)
    return edges


def _blocks(exps: Tensor, rows: np.ndarray, blocks: np.ndarray) -> list[np.ndarray]:
    """The blocks at (row, block) as arrays. The host waits for the device once."""
    width = exps.shape[-1]
    if exps.device.type == "cpu":
        pairs = zip(rows.tolist(), blocks.tolist(), strict=True)
        return [exps[row, block * _BLOCK : (block + 1) * _BLOCK].numpy() for row, block in pairs]
    (starts,) = uploaded([torch.from_numpy(rows * width + blocks * _BLOCK)], exps.device)
    places = starts[:, None] + torch.arange(min(_BLOCK, width), device=exps.device)
    found = exps.reshape(-1)[places.clamp_(max=exps.numel() - 1)].cpu().numpy()
    return [own[: width - block * _BLOCK] for own, block in zip(found, blocks.tolist(), strict=True)]


def _stream(seed: int, prompt_ids: Sequence[int], prefix: Sequence[int]) -> np.random.Generator:
    """A separate counter-based generator for every (seed, prompt, prefix)."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(_digest(seed, prompt_ids, prefix), dtype=np.uint64)))


def stream_seed(seed: int, prompt_ids: Sequence[int], start: int, offset: int) -> int:
    """A 31-bit seed for an engine with its own generator, different for every position among the samples of a prompt.

    The position is `offset` samples after the first `start`.
    """
    return int.from_bytes(_digest(seed, prompt_ids, (start, offset))[:4], "little") >> 1


def seed_of_stream(seed: int, stream: int) -> int:
    """The seed for `Wanted.stream`: stream 0 has the seed itself, others have seeds without relation to it."""
    return seed if stream == 0 else int.from_bytes(_digest(seed, (), (stream,))[:8], "little") >> 1


def _digest(seed: int, prompt_ids: Sequence[int], rest: Sequence[int]) -> bytes:
    name = np.array([seed, len(prompt_ids), *prompt_ids, *rest], dtype=np.int64).tobytes()
    return hashlib.blake2b(name, digest_size=16).digest()


def _warp(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Apply the settings in the order of `generate`: temperature, top-k, top-p, min-p."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = logits.float()
    if settings.temperature != 1:
        logits = logits - logits.amax(-1, keepdim=True)  # so that a tiny temperature does not overflow
    ids: Any = None  # these warpers do not use ids
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
    """Prefixes of equal length with their prompts and sample counts; in rows, or waiting to be fed."""

    prompts: list[int]  # indices of prompts
    prefixes: list[tuple[int, ...]]
    counts: list[int]

    def __len__(self) -> int:
        """How many prefixes."""
        return len(self.prefixes)

    def of(self, rows: Sequence[int]) -> Live:
        """The prefixes of these rows, in this order."""
        return Live([self.prompts[i] for i in rows], [self.prefixes[i] for i in rows], [self.counts[i] for i in rows])

    def of_prompt(self, prompt: int) -> list[int]:
        """The sample counts of a prompt's rows."""
        return [count for own, count in zip(self.prompts, self.counts, strict=True) if own == prompt]

    def in_groups(self, size: int) -> list[list[int]]:
        """Groups of at most `size` rows: whole prompts if they fit, so that one prompt ends before the next begins.

        >>> Live([1, 0, 1, 0], [(5,), (5,), (6,), (7,)], [1, 1, 1, 1]).in_groups(3)
        [[1, 3], [0, 2]]
        >>> Live([0, 0, 0, 1], [(5,), (6,), (7,), (5,)], [1, 1, 1, 1]).in_groups(2)
        [[0, 1], [2, 3]]
        """
        by_prompt: dict[int, list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            by_prompt.setdefault(prompt, []).append(row)
        groups: list[list[int]] = [[]]
        for _, rows in sorted(by_prompt.items()):
            if len(rows) <= size < len(groups[-1]) + len(rows):
                groups.append([])
            for start in range(0, len(rows), size):
                piece = rows[start : start + size]
                if len(groups[-1]) + len(piece) > size:
                    groups.append([])
                groups[-1] += piece
        return [group for group in groups if group]
