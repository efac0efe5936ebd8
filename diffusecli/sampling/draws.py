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

from diffusecli.models.devices import sum_dtype, uploaded
from diffusecli.models.overflow import NotNumbersError
from diffusecli.sampling.settings import SamplingSettings

_SLICE_ROWS = 64  # rows of [R, V] converted to probabilities at once
_BLOCK = 1024  # tokens per block of the vocabulary; a draw searches blocks, then tokens in a block
_DRAWS_AT_ONCE = 1_000_000  # of all rows of a slice together
_SEARCHED_AT_ONCE = 4096  # draws that are searched one by one; each needs a block in float64
_FEW_DRAWS = 16  # per row: searched one by one; the CPU sorts more draws


def draw_tokens(
    prompts: Sequence[Sequence[int]], settings: SamplingSettings, live: Live, logits: Tensor
) -> list[list[tuple[int, int]]]:
    """For each row, the distinct tokens drawn and their counts. Overwrites the logits [R, V]; `prompts` are token ids.

    The host waits for the device once, for the tokens of all rows; more often beyond `_DRAWS_AT_ONCE`. Raises `NotNumbersError`.
    """
    drawn: list[Counter[int]] = [Counter() for _ in live.counts]
    searched: list[tuple[np.ndarray, Tensor]] = []  # the row of each draw, and its token, which is still on the device
    for start in range(0, len(live.counts), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        exps = _exponentials(_warp(logits[part], settings))
        sums = _sums(exps)
        rows = zip(live.prompts[part], live.prefixes[part], strict=True)
        streams = [_stream(settings.seed, prompts[prompt], prefix) for prompt, prefix in rows]
        left = live.counts[part]
        while any(left):
            now = _first(left, _DRAWS_AT_ONCE)
            left = [count - some for count, some in zip(left, now, strict=True)]
            few, counted = _invert(exps, sums, [stream.random((count, 2)) for stream, count in zip(streams, now, strict=True)])
            searched += [(rows + start, tokens) for rows, tokens in few]
            for row, pairs in counted.items():
                drawn[start + row].update(pairs)
            if any(left):
                _collect(searched, drawn)
    _collect(searched, drawn)
    return [sorted(counts.items()) for counts in drawn]


def _collect(searched: list[tuple[np.ndarray, Tensor]], drawn: Sequence[Counter[int]]) -> None:
    """Add the searched tokens to the counts of their rows, and empty the list. The host waits for the device here only."""
    if not searched:
        return
    rows, tokens = np.concatenate([own for own, _ in searched]), torch.cat([own for _, own in searched]).cpu().numpy()
    searched.clear()
    if tokens.min() < 0:
        raise NotNumbersError
    for (row, token), count in Counter(zip(rows.tolist(), tokens.tolist(), strict=True)).items():
        drawn[row][token] += count


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


def _sums(exps: Tensor) -> Tensor:
    """Sums over blocks of tokens [R, B], in float64 if the device has it; the last block may be shorter."""
    whole = exps.shape[-1] // _BLOCK * _BLOCK
    sums = [exps[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)] if whole else []
    if whole < exps.shape[-1]:
        sums.append(exps[:, whole:].sum(-1, keepdim=True))
    return torch.cat(sums, dim=-1).to(sum_dtype(exps.device))


def _invert(
    exps: Tensor, sums: Tensor, uniforms: Sequence[np.ndarray]
) -> tuple[list[tuple[np.ndarray, Tensor]], dict[int, dict[int, int]]]:
    """The tokens drawn from each row by its uniforms [D, 2]: the first chooses a block of tokens, the second the token in it.

    Both searches use float64 if the device has it. With two uniforms the sum for a token covers at most one block, so rounding elsewhere in
    the vocabulary does not affect it. Returns the row and the token of each draw that is searched one by one, and the counted tokens of
    other rows: the CPU sorts many draws, and searches the ends of blocks and tokens among them.
    """
    sorts = exps.device.type == "cpu"
    many = [row for row, u in enumerate(uniforms) if sorts and len(u) > _FEW_DRAWS]
    few = [row for row, u in enumerate(uniforms) if len(u) and row not in many]
    rows = np.repeat(np.array(few, dtype=np.int64), [len(uniforms[row]) for row in few])
    of_few = np.concatenate([uniforms[row] for row in few]) if few else np.zeros((0, 2))
    parts = [slice(start, start + _SEARCHED_AT_ONCE) for start in range(0, len(rows), _SEARCHED_AT_ONCE)]
    found = [(rows[part], _search(exps, sums, rows[part], of_few[part])) for part in parts]
    return found, {row: _Chosen.of(sums[row].numpy().cumsum(), uniforms[row]).counted(exps[row].numpy()) for row in many}


def _search(exps: Tensor, sums: Tensor, rows: np.ndarray, uniforms: np.ndarray) -> Tensor:
    """The token of each draw [D]; -1 if its row has no probabilities. The host does not wait for the device."""
    own, uniform = uploaded([torch.from_numpy(rows), torch.from_numpy(uniforms).to(sums.dtype)], exps.device)
    own_sums, width = sums[own], min(_BLOCK, exps.shape[-1])
    ends = own_sums.cumsum(-1)
    first = _search_each(own_sums, ends, uniform[:, 0]) * _BLOCK
    start = first.clamp(max=exps.shape[-1] - width)  # a shorter last block is searched with tokens before it, which get no mass
    before = torch.arange(width, device=exps.device) < (first - start)[:, None]
    masses = exps.unfold(-1, width, 1)[own, start].masked_fill_(before, 0)
    tokens = start + _search_each(masses, masses.cumsum(-1, dtype=sums.dtype), uniform[:, 1])
    return tokens.where(ends[:, -1].isfinite(), -1)


def _search_each(masses: Tensor, ends: Tensor, uniforms: Tensor) -> Tensor:
    """In each row of masses [D, n] and their cumulated sums, the first index above a share of the total [D]; never one without mass.

    A GPU may round the sums at a mass of zero differently from the sum before it, so they are not used.
    """
    own = ends.where(masses > 0, 0)
    total = own.amax(-1, keepdim=True)
    return ((own > uniforms[:, None] * total) | (own == total)).byte().argmax(-1)


@dataclass(frozen=True)
class _Chosen:
    """Many draws from one row, sorted by their blocks."""

    hit: np.ndarray  # the blocks with draws
    shares: list[np.ndarray]  # the second uniforms of the draws in each of them

    @classmethod
    def of(cls, ends: np.ndarray, uniforms: np.ndarray) -> _Chosen:
        """The draws of uniforms [D, 2]. Raises `NotNumbersError`."""
        if not np.isfinite(ends[-1]):
            raise NotNumbersError
        blocks = np.minimum(ends.searchsorted(uniforms[:, 0] * ends[-1], side="right"), ends.searchsorted(ends[-1]))
        order = blocks.astype(np.min_scalar_type(len(ends))).argsort(kind="stable")  # radix sort for narrow types
        sizes = np.bincount(blocks)
        hit = np.flatnonzero(sizes)
        return cls(hit, np.split(uniforms[order, 1], sizes[hit].cumsum()[:-1]))

    def counted(self, exps: np.ndarray) -> dict[int, int]:
        """The tokens with their counts, from the row's exponentials [V]."""
        found: dict[int, int] = {}
        for block, inside in zip(self.hit.tolist(), self.shares, strict=True):
            ends = exps[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64)
            counts = np.diff(_edges(ends, np.sort(inside) * ends[-1]), prepend=0)
            tokens = np.flatnonzero(counts)
            found.update(zip((tokens + block * _BLOCK).tolist(), counts[tokens].tolist(), strict=True))
        return found


def _edges(ends: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How many of the sorted values are below each cumulative mass; all are below the last one with mass."""
    edges = at.searchsorted(ends, side="left")
    edges[ends.searchsorted(ends[-1], side="left") :] = len(at)
    return edges


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
