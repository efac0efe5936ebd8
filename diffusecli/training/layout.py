"""The layout of parts of tries and whole answers in one sequence: tokens, positions, scored rows.

S packed tokens, E edges that leave scored nodes, R scored rows, T tokens of answers, J paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.architecture import attention_windows
from diffusecli.models.attention import additive_mask
from diffusecli.models.devices import sum_dtype
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.forest import Forest, Strand
from diffusecli.models.trie import ROOT, TokenTrie
from diffusecli.training.answers import Answer, Held


@dataclass(frozen=True)
class Part:
    """A range of internal nodes (packed) or of paths (rows), and the tokens fed for it."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class Packed:
    """The tensors of a pass. Rows of answers follow rows of edges."""

    forest: Forest
    input_ids: Tensor  # [1, S]
    position_ids: Tensor  # [1, S]
    scored: Tensor  # [R] indices of tokens whose next-token distribution is scored
    edge_rows: Tensor  # [E] the row of each edge's distribution
    edge_tokens: Tensor  # [E]
    edge_masses: Tensor  # [E]
    edges: tuple[int, ...]  # number of edges per part
    held: Held | None  # the answers of the last T rows

    @property
    def rows_of_edges(self) -> int:
        """R - T."""
        return len(self.scored) - (0 if self.held is None else len(self.held.weights))


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
    scored, rows, tokens, masses, count = [], [], [], [], 0
    for index, ((encoded, part), (strand, context)) in enumerate(zip(parts, below, strict=True)):
        trie, (scoring, edges) = encoded.trie, edges_of(encoded.trie, part)
        if len(scoring) > len(strand.tokens) - context:
            scored.append(forest.last_prompt[index : index + 1])
        scored.append(forest.first_below[index] + np.arange(context, len(strand.tokens)))
        row_of = np.empty(len(trie) + 1, dtype=np.int64)
        row_of[scoring] = np.arange(count, count + len(scoring))  # index -1 is ROOT
        rows.append(row_of[trie.parents[edges]])
        tokens.append(trie.tokens[edges])
        masses.append(trie.masses[edges])
        count += len(scoring)
    for index, answer in enumerate(answers, len(parts)):
        scored += [forest.last_prompt[index : index + 1], forest.first_below[index] + np.arange(len(answer.answer_ids) - 1)]

    def joined(arrays: Sequence[np.ndarray], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *arrays])).to(dtype).to(device)  # MPS has no float64

    return Packed(
        forest, torch.from_numpy(forest.tokens)[None].to(device), torch.from_numpy(forest.positions)[None].to(device),
        joined(scored), joined(rows), joined(tokens), joined(masses, sum_dtype(device)), tuple(map(len, tokens)),
        Held.of(answers, device) if answers else None,
    )  # fmt: skip


def dense_mask(config: Any, forest: Forest, dtype: torch.dtype, device: torch.device) -> Tensor | dict[str, Tensor]:
    """The mask that replaces the model's mask, with its window; one per layer type where only some layers have a sliding window."""
    places = np.arange(len(forest))
    allowed = torch.from_numpy(forest.sees(places[:, None], places[None, :])).to(device)
    window = attention_windows(config).get("sliding_window")
    if window is None or int(forest.positions.max()) < window:
        return additive_mask(allowed, dtype)
    positions = torch.from_numpy(forest.positions).to(device)
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
