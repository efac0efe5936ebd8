"""Many token trees as one sequence: prompts share common prefixes, and the tokens below each prompt follow it.

A step feeds parts of prefix trees and whole answers; each is a strand: a prompt, and tokens below its end. The prompts form another
prefix tree, so the sequence is one tree of tokens in depth-first order. A token attends to its ancestors and itself; masks and block
attention need no more. Plain numpy, independent of models.

Axis names: P prompt tokens, I tokens of a strand below its prompt, S tokens of the sequence.

Example: two strands, prompts (7 8) and (7 9), with the tokens 1 and 2 below the first and 3 below the second:

>>> one = Strand((7, 8), np.array([1, 2]), np.array([1, 1]), np.array([1, 2]))
>>> two = Strand((7, 9), np.array([3]), np.array([1]), np.array([1]))
>>> forest = Forest.of([one, two])
>>> forest.tokens.tolist(), forest.positions.tolist(), forest.ends.tolist()
([7, 8, 1, 2, 9, 3], [0, 1, 2, 2, 1, 2], [6, 4, 3, 4, 6, 6])
>>> forest.last_prompt.tolist(), forest.first_below.tolist()
([1, 4], [2, 5])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Strand:
    """A prompt and the tokens below its end, in depth-first order."""

    prompt_ids: tuple[int, ...]  # P, at least one
    tokens: np.ndarray  # [I]
    depths: np.ndarray  # [I] 1 for the first tokens after the prompt
    ends: np.ndarray  # [I] one past the last token of the subtree, counted from the first token below the prompt


@dataclass(frozen=True)
class Forest:
    """A sequence of S tokens: token u is an ancestor of v, or v itself, exactly when u <= v < ends[u]."""

    tokens: np.ndarray  # [S]
    positions: np.ndarray  # [S] number of ancestors
    ends: np.ndarray  # [S]
    last_prompt: np.ndarray  # per strand, in the given order: index of the prompt's last token
    first_below: np.ndarray  # per strand: index of the first token below

    @classmethod
    def of(cls, strands: Sequence[Strand]) -> Forest:
        """Lay out the strands, sorted by prompt."""
        size = sum(len(strand.prompt_ids) + len(strand.tokens) for strand in strands)
        tokens, positions, ends = (np.zeros(size, dtype=np.int64) for _ in range(3))
        last_prompt, first_below = (np.zeros(len(strands), dtype=np.int64) for _ in range(2))
        path, at = np.zeros(0, dtype=np.int64), 0  # indices of the prompt above; the next index
        before: tuple[int, ...] = ()
        for index in sorted(range(len(strands)), key=lambda index: strands[index].prompt_ids):
            strand = strands[index]
            shared, length = common_prefix(before, strand.prompt_ids), len(strand.prompt_ids)
            ends[path[shared:]] = at
            path = np.concatenate([path[:shared], np.arange(at, at + length - shared)])
            own, below = slice(at, at + length - shared), slice(at + length - shared, at + length - shared + len(strand.tokens))
            tokens[own], positions[own] = strand.prompt_ids[shared:], np.arange(shared, length)
            tokens[below], positions[below], ends[below] = strand.tokens, length - 1 + strand.depths, below.start + strand.ends
            last_prompt[index], first_below[index] = path[-1], below.start
            before, at = strand.prompt_ids, below.stop
        ends[path] = at
        return cls(tokens[:at], positions[:at], ends[:at], last_prompt, first_below)

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestors(self, place: int) -> np.ndarray:
        """The indices of a token's ancestors, in order. Tokens of a range that starts there have no other ancestors before the range."""
        return np.flatnonzero(self.ends[:place] > place)

    def sees(self, of: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether tokens attend to others, by index; the two arrays are broadcast."""
        seen: np.ndarray = (others <= of) & (of < self.ends[others])
        return seen


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix of two sequences."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(index for index in range(length) if one[index] != other[index])
