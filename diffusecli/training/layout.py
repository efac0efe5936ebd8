"""The layout of parts of tries and whole answers in one sequence: tokens, positions, scored rows.

S packed tokens, E edges that leave scored nodes, R scored rows, T tokens of answers, J paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.architecture import attention_windows
from diffusecli.models.attention import additive_mask
from diffusecli.models.devices import sum_dtype, uploaded
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.forest import Forest, Strand
from diffusecli.models.trie import ROOT, TokenTrie
from diffusecli.training.answers import Answer, Held

SLICE_ROWS = 192  # rows of logits in memory at once


@dataclass(frozen=True)
class Part:
    """A range of internal nodes (packed) or of paths (rows), and the tokens fed for it."""

    start: int
    end: int
    tokens: int


class Slice(NamedTuple):
    """Rows whose logits are in memory at once: of edges, or (`edges` None) of answers."""

    rows: slice
    edges: slice | None


@dataclass(frozen=True)
class Packed:
    """The tensors of a pass. Rows of answers follow rows of edges. Edges are sorted by slices; in a slice they keep their order."""

    forest: Forest
    input_ids: Tensor  # [1, S]
    position_ids: Tensor  # [1, S]
    scored: np.ndarray  # [R] indices of tokens whose next-token distribution is scored
    scored_ids: Tensor  # [R] the same on the device
    edge_rows: Tensor  # [E] the row of each edge's distribution, counted from the first row of its slice
    edge_tokens: Tensor  # [E]
    edge_masses: Tensor  # [E]
    edges: tuple[int, ...]  # number of edges per part
    order: np.ndarray  # [E] the place of each edge in the parts
    slices: tuple[Slice, ...]
    held: Held | None  # the answers of the last T rows

    @property
    def rows_of_edges(self) -> int:
        """R - T."""
        return len(self.scored) - (0 if self.held is None else len(self.held.weights))

    def by_part(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the edges [E], for each part in the order of its child nodes."""
        of_parts = np.empty_like(values)
        of_parts[self.order] = values
        return np.split(of_parts, np.cumsum(self.edges)[:-1]) if self.edges else []

    def with_masses(self, masses: Sequence[np.ndarray]) -> Packed:
        """The same with other masses, for each part in the order of its child nodes."""
        own = torch.from_numpy(np.concatenate(masses)[self.order]).to(self.edge_masses.dtype)
        return replace(self, edge_masses=uploaded([own], self.edge_masses.device)[0])

    def of_edges(self) -> Packed:
        """Without the answers."""
        slices = tuple(one for one in self.slices if one.edges is not None)
        return replace(self, scored=self.scored[: self.rows_of_edges], slices=slices, held=None)


def edges_of(trie: TokenTrie, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The nodes whose next tokens a part scores (the first part includes ROOT), and the child nodes of those edges."""
    own = trie.internal[part.start : part.end]
    scoring = np.concatenate([[ROOT], own]) if part.start == 0 else own
    wanted = np.zeros(len(trie) + 1, dtype=bool)  # index -1 is ROOT
    wanted[scoring] = True
    return scoring, np.flatnonzero(wanted[trie.parents])


def nodes_of(trie: TokenTrie, part: Part) -> np.ndarray:
    """The nodes that are fed for a part: the ancestors of its first node, and its own nodes."""
    own = trie.internal[part.start : part.end]
    context = np.array(trie.ancestors(int(own[0]))[:-1] if len(own) else [], dtype=np.int64)
    return np.concatenate([context, own])  # depth-first order: ancestors come first


def strand_of(encoded: EncodedPrompt, part: Part) -> tuple[Strand, int]:
    """The prompt, the ancestors and the internal nodes of the part; and the number of ancestors."""
    trie, fed = encoded.trie, nodes_of(encoded.trie, part)
    below = Strand(encoded.prompt_ids, trie.tokens[fed], trie.depths[fed], np.searchsorted(fed, trie.ends[fed]))
    return below, len(fed) - (part.end - part.start)


def strand_of_answer(answer: Answer) -> Strand:
    """A plain row: the instruction and the answer without its last token."""
    length = len(answer.answer_ids) - 1
    tokens = np.array(answer.answer_ids[:-1], dtype=np.int64)
    return Strand(answer.prompt_ids, tokens, np.arange(1, length + 1), np.full(length, length))


def pack(parts: Sequence[tuple[EncodedPrompt, Part]], answers: Sequence[Answer], device: torch.device) -> Packed:
    """Lay out parts of prompts' tries, then answers, in one sequence. Each attends only to its own tokens."""
    below = [strand_of(encoded, part) for encoded, part in parts]
    forest = Forest.of([*(strand for strand, _ in below), *map(strand_of_answer, answers)])
    scored, rows, tokens, trie_masses, count = [], [], [], [], 0
    for index, ((encoded, part), (strand, context)) in enumerate(zip(parts, below, strict=True)):
        trie, (scoring, edges) = encoded.trie, edges_of(encoded.trie, part)
        if len(scoring) > len(strand.tokens) - context:
            scored.append(forest.last_prompt[index : index + 1])
        scored.append(forest.first_below[index] + np.arange(context, len(strand.tokens)))
        row_of = np.empty(len(trie) + 1, dtype=np.int64)
        row_of[scoring] = np.arange(count, count + len(scoring))  # index -1 is ROOT
        rows.append(row_of[trie.parents[edges]])
        tokens.append(trie.tokens[edges])
        trie_masses.append(trie.masses[edges])
        count += len(scoring)
    for index, answer in enumerate(answers, len(parts)):
        scored += [forest.last_prompt[index : index + 1], forest.first_below[index] + np.arange(len(answer.answer_ids) - 1)]

    order, edge_rows, slices = _sliced(_joined(rows), count, len(_joined(scored)))
    masses = torch.from_numpy(_joined(trie_masses).astype(np.float64)[order]).to(sum_dtype(device))  # MPS has no float64
    whole = [forest.tokens[None], forest.positions[None], _joined(scored), edge_rows, _joined(tokens)[order]]
    columns = Held.columns(answers) if answers else []
    input_ids, position_ids, scored_ids, own_rows, own_tokens, own_masses, *held = uploaded(
        [*map(torch.from_numpy, whole), masses, *columns], device
    )
    return Packed(
        forest, input_ids, position_ids, _joined(scored), scored_ids, own_rows, own_tokens, own_masses, tuple(map(len, tokens)), order, slices,
        Held(*held) if answers else None,
    )  # fmt: skip


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])


def _sliced(edge_rows: np.ndarray, of_edges: int, rows: int) -> tuple[np.ndarray, np.ndarray, tuple[Slice, ...]]:
    """Edges sorted by slices [E], their rows within the slices [E], and the slices. No slice mixes rows of edges and of answers.

    The device need not search for the edges of a slice, because the host knows them.
    """
    slice_of = edge_rows // SLICE_ROWS
    order = np.argsort(slice_of, kind="stable")
    starts = range(0, of_edges, SLICE_ROWS)
    bounds = np.searchsorted(slice_of[order], np.arange(len(starts) + 1))
    of_rows = [slice(start, min(start + SLICE_ROWS, of_edges)) for start in starts]
    slices = [Slice(own, slice(int(a), int(b))) for own, a, b in zip(of_rows, bounds[:-1], bounds[1:], strict=True)]
    slices += [Slice(slice(start, min(start + SLICE_ROWS, rows)), None) for start in range(of_edges, rows, SLICE_ROWS)]
    return order, edge_rows[order] % SLICE_ROWS, tuple(slices)


def dense_mask(config: Any, forest: Forest, dtype: torch.dtype, device: torch.device) -> Tensor | dict[str, Tensor]:
    """The mask that replaces the model's mask, with its window; one per layer type where only some layers have a sliding window."""
    places = np.arange(len(forest))
    seen, positions = torch.from_numpy(forest.sees(places[:, None], places[None, :])), torch.from_numpy(forest.positions)
    window = attention_windows(config).get("sliding_window")
    if window is None or int(forest.positions.max()) < window:
        return additive_mask(uploaded([seen], device)[0], dtype)
    allowed, positions = uploaded([seen, positions], device)
    near = positions[:, None] - positions < window
    by_type = {"full_attention": allowed, "sliding_attention": allowed & near}
    types = set(getattr(config.get_text_config(), "layer_types", None) or ["sliding_attention"])
    # another type raises KeyError, and the probe chooses rows
    masks = {kind: additive_mask(by_type[kind], dtype) for kind in types}
    return masks if len(masks) > 1 else masks.popitem()[1]


def path_sums(trie: TokenTrie, found: Mapping[Part, np.ndarray]) -> np.ndarray:
    """The sum [J] of the edges' log-probabilities along each path, from the results of each part."""
    totals = np.zeros(len(trie))
    for part, log_probs in found.items():
        totals[edges_of(trie, part)[1]] = log_probs
    return trie.down_to(totals)[trie.leaves]
