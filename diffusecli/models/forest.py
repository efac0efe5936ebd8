"""Many token trees as one sequence: prompts that begin alike share those tokens, and what hangs below each prompt follows it.

A step feeds parts of prefix trees and whole answers; each is a strand: a prompt, and tokens below its end. The prompts are put into a
prefix tree of their own, so the sequence is one tree of tokens in depth-first order. A token sees its ancestors and itself, which is
all that a mask or a blockwise attention has to know. Plain numpy; knows nothing of models.

Axis names: P prompt tokens, I tokens of a strand below its prompt, S tokens of the sequence.

A worked example. Two strands, prompts (7 8) and (7 9), with the tokens 1 and 2 below the first and 3 below the second:

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
    """A prompt and the tokens below its end, depth first."""

    prompt_ids: tuple[int, ...]  # P, at least one
    tokens: np.ndarray  # [I]
    depths: np.ndarray  # [I] 1 for those that follow the prompt
    ends: np.ndarray  # [I] one past the last token of its subtree, counted from the first below the prompt


@dataclass(frozen=True)
class Forest:
    """A sequence of S tokens: token u is an ancestor of v, or v itself, exactly when u <= v < ends[u]."""

    tokens: np.ndarray  # [S]
    positions: np.ndarray  # [S] how many ancestors it has
    ends: np.ndarray  # [S]
    last_prompt: np.ndarray  # per strand, as given: the place of its prompt's last token
    first_below: np.ndarray  # per strand: the place of the first token below

    @classmethod
    def of(cls, strands: Sequence[Strand]) -> Forest:
        """Lay the strands out, in the order of their prompts."""
        size = sum(len(strand.prompt_ids) + len(strand.tokens) for strand in strands)
        tokens, positions, ends = (np.zeros(size, dtype=np.int64) for _ in range(3))
        last_prompt, first_below = (np.zeros(len(strands), dtype=np.int64) for _ in range(2))
        path, at = np.zeros(0, dtype=np.int64), 0  # the places of the prompt above; where to go on
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
        """The places above a token, in order; in a range of places that begins there, no token has others before it."""
        return np.flatnonzero(self.ends[:place] > place)

    def sees(self, of: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether tokens see others, by their places; the two are broadcast against each other."""
        seen: np.ndarray = (others <= of) & (of < self.ends[others])
        return seen


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(index for index in range(length) if one[index] != other[index])
