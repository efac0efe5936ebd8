"""The counting sampler: N draws for the price of the distinct prefixes.

All N samples of a prompt start alike, so rows of (prefix, count) stand for them: the next-token
distribution of a prefix is computed once, `count` tokens are drawn from it, and each distinct token
drawn becomes a child row with its own count. Splitting a multinomial this way leaves the law of N
independent draws unchanged. Knows tensors and token ids; no files. How rows are kept is `rows.py`.

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

from diffusecli.models.architecture import shape_of
from diffusecli.models.devices import free_memory
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.overflow import NotNumbersError
from diffusecli.prompts.answers import Answers
from diffusecli.sampling.rows import Rows
from diffusecli.sampling.settings import SamplingSettings, Standing, Watch
from diffusecli.system.errors import MachineError
from diffusecli.system.memory import out_of_memory

_SLICE_ROWS = 64  # of [R, V] that become probabilities at once
_BLOCK = 1024  # tokens of the vocabulary that are summed before one of them is looked for
_DRAWS_AT_ONCE = 1_000_000  # of a row
_MOST_ROWS = 1024  # more are not faster, and logits of the whole vocabulary are kept for each


def rows_at_once(model: Any, max_new_tokens: int) -> int:
    """The most rows of this model whose keys, values, logits and layers take half of the memory that is free now."""
    text, shape, size = model.config.get_text_config(), shape_of(model.config, 0), model.dtype.itemsize
    queries = getattr(text, "num_attention_heads", None) or 1
    heads = getattr(text, "num_key_value_heads", None) or queries
    width = getattr(text, "head_dim", None) or shape.hidden_size // queries
    keys = shape.layers * heads * width  # of a token; values take as much
    layers = 8 * shape.hidden_size + 4 * shape.intermediate_size
    a_row = size * (2 * keys * max_new_tokens + layers) + shape.vocabulary * (4 + size)
    return max(1, min(_MOST_ROWS, int(0.5 * free_memory(model.device) / a_row)))


@dataclass
class _Live:
    """Prefixes of one length with the samples that follow each; in a row group, or waiting to be fed."""

    prefixes: list[tuple[int, ...]]
    counts: list[int]

    def part(self, start: int, end: int) -> _Live:
        return _Live(self.prefixes[start:end], self.counts[start:end])

    def in_groups(self, size: int) -> list[_Live]:
        """Cut into groups, the first last, as a stack wants them."""
        return [self.part(start, start + size) for start in reversed(range(0, len(self.prefixes), size))]


class CountingSampler:
    """Draws answers to one prompt.

    The random stream of a prefix is keyed by (seed, prompt tokens, prefix), so the result depends neither on how many
    rows go at once nor on the order of prompts.

    What does not fit among the rows waits as bare tokens and is fed anew later, so that memory is bounded by
    `max_rows` rows of `max_new_tokens`; when even that is too much, half as many go on.
    """

    def __init__(
        self, rows: Rows, tokenizer: Any, encoded: EncodedPrompt, settings: SamplingSettings, max_rows: int, watch: Watch = lambda _: None
    ) -> None:  # fmt: skip
        """`rows` continue the prompt `encoded`."""
        self._rows, self._tokenizer, self._encoded, self._settings = rows, tokenizer, encoded, settings
        self.max_rows, self._watch = max_rows, watch
        self.counts = Answers()
        self.tokens_fed = 0

    @torch.inference_mode()
    def draw(self) -> Answers:
        """`n_generations` answers, counted.

        Raises `MachineError` when memory does not suffice for a single row, `NotNumbersError` when probabilities are not numbers.
        """
        waiting = [_Live([()], [self._settings.n_generations])]
        while waiting:
            group = waiting.pop()
            if len(group.prefixes) > self.max_rows:
                waiting += group.in_groups(self.max_rows)
                continue
            try:
                self._grow(group, waiting)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                waiting.append(group)
        return self.counts

    def _grow(self, group: _Live, waiting: list[_Live]) -> None:
        """Feed a group to the ends of its answers. When memory runs out `group` holds what is yet to be drawn from."""
        logits = self._replay(group)
        while True:
            parents, children = self._split(group, logits)
            del logits
            overflow = children.part(self.max_rows, len(children.prefixes))
            waiting += overflow.in_groups(self.max_rows)
            group.prefixes, group.counts = children.prefixes[: self.max_rows], children.counts[: self.max_rows]
            self._watch(Standing(self.counts, self._settings.n_generations, len(group.prefixes), self.tokens_fed))
            if not group.prefixes:
                return
            logits = self._extend(group, parents[: self.max_rows])

    def _replay(self, group: _Live) -> Tensor:
        """Logits [R, V] after every prefix of a group, fed from the prompt on, each distinct prefix once."""
        before: list[tuple[int, ...]] = [()]
        logits = self._rows.start()
        self.tokens_fed += len(self._encoded.prompt_ids) if not self.tokens_fed else 0
        for length in range(1, len(group.prefixes[0]) + 1):
            level = [*dict.fromkeys(prefix[:length] for prefix in group.prefixes)]
            places = {prefix: row for row, prefix in enumerate(before)}
            step = _Live(level, [0] * len(level)) if length < len(group.prefixes[0]) else group
            logits = self._extend(step, [places[prefix[:-1]] for prefix in step.prefixes])
            before = step.prefixes
        return logits

    def _extend(self, live: _Live, parents: Sequence[int]) -> Tensor:
        """Feed the last token of each prefix; `live` is put in the order of the rows."""
        order, logits = self._rows.extend(parents, [prefix[-1] for prefix in live.prefixes])
        live.prefixes, live.counts = [live.prefixes[i] for i in order], [live.counts[i] for i in order]
        self.tokens_fed += len(order)
        return logits

    def _split(self, live: _Live, logits: Tensor) -> tuple[list[int], _Live]:
        """Draw each row's next tokens: ended answers are counted, the others are children, with the rows they continue."""
        parents: list[int] = []
        children = _Live([], [])
        drawn = _draw_tokens(self._encoded.prompt_ids, self._settings, live, logits)
        for row, (prefix, tokens) in enumerate(zip(live.prefixes, drawn, strict=True)):
            for token, count in tokens:
                grown = (*prefix, token)
                if token in self._encoded.stop_ids:
                    self.counts.add(self._encoded.text(self._tokenizer, prefix), count)
                elif (end := self._ended(grown)) is not None:
                    text, finished = end
                    self.counts.add(text, count, unfinished=not finished)
                else:
                    parents.append(row)
                    children.prefixes.append(grown)
                    children.counts.append(count)
        return parents, children

    def _ended(self, prefix: tuple[int, ...]) -> tuple[str, bool] | None:
        """The text of an answer that holds a stop string or has reached the limit, and whether it is finished: the former."""
        whole = len(prefix) == self._settings.max_new_tokens
        if not (whole or self._settings.stop):
            return None
        text, stopped = cut_at_stop(self._encoded.text(self._tokenizer, prefix), self._settings.stop)
        return (text, stopped) if whole or stopped else None

    def _halve(self, error: Exception) -> None:
        if self.max_rows == 1:
            raise MachineError(
                "memory does not suffice for one answer, set a smaller --max-new-tokens or precision bf16"
            ) from error
        self.max_rows = -(-self.max_rows // 2)
        self._rows.start()  # lets go of the rows


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text up to the first stop string in it, and whether there was one."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _draw_tokens(prompt_ids: Sequence[int], settings: SamplingSettings, live: _Live, logits: Tensor) -> list[list[tuple[int, int]]]:
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
