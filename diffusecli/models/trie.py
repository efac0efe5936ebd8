"""`TokenTrie`: a weighted prefix tree over token ids, without tensors.

Knows nothing of tokenizers, tensors or models. Axis names: N nodes, K paths (one per target string).

A worked example. Three strings over the tokens a=1, b=2, c=3 and the terminator z=0:

    path      weight        node  token  parent  mass   end
    a b z     .5            0     a      root    .75    4
    a c z     .25           1     b      0       .5     3
    b z       .25           2     z      1       .5     3
                            3     c      0       .25    5
                            4     z      3       .25    5
                            5     b      root    .25    7
                            6     z      5       .25    7

The mass of a node is the summed weight of the paths through it, so the cross-entropy of whole
strings, - sum_k p_k ln q(path k), equals - sum_v mass(v) ln q(token(v) | path to parent(v)): every
distinct prefix is scored once, however many paths share it.

>>> trie = TokenTrie.build([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25])
>>> trie.tokens
(1, 2, 0, 3, 0, 2, 0)
>>> trie.masses
(0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25)
>>> trie.path(1)
(1, 3, 0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

ROOT = -1
"""The parent of first tokens: the end of the prompt, which is not a node itself."""


class TrieArrays(NamedTuple):
    """A prefix tree's fields as arrays, see `TokenTrie`."""

    tokens: np.ndarray  # [N]
    parents: np.ndarray  # [N]
    depths: np.ndarray  # [N]
    ends: np.ndarray  # [N]
    internal: np.ndarray  # [I]
    leaves: np.ndarray  # [K]
    masses: np.ndarray  # [N]


@dataclass(frozen=True)
class TokenTrie:
    """A prefix tree in depth-first order: a node's subtree is the nodes `[node, ends[node])`."""

    tokens: tuple[int, ...]  # N: the token each node stands for
    parents: tuple[int, ...]  # N: the node before it, or ROOT
    depths: tuple[int, ...]  # N: 1 for first tokens
    ends: tuple[int, ...]  # N: one past the last node of its subtree
    masses: tuple[float, ...]  # N: summed weight of the paths through it
    leaves: tuple[int, ...]  # K: where each path ends
    weights: tuple[float, ...]  # K: as given

    @classmethod
    def build(cls, paths: Sequence[Sequence[int]], weights: Sequence[float]) -> TokenTrie:
        """Merge `paths` into one tree.

        Raises `ValueError` when a path is empty, equals another or is the beginning of another:
        then no distribution over next tokens could tell them apart.
        """
        children: dict[int, dict[int, int]] = {ROOT: {}}  # creation ids, not yet depth-first
        leaf_ids = []
        for path in paths:
            at = ROOT
            for token in path:
                inside = children[at]
                if token not in inside:
                    inside[token] = len(children) - 1
                    children[inside[token]] = {}
                at = inside[token]
            leaf_ids.append(at)
        return cls._ordered(children, leaf_ids, weights)

    @classmethod
    def _ordered(cls, children: dict[int, dict[int, int]], leaf_ids: list[int], weights: Sequence[float]) -> TokenTrie:
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        place = {ROOT: ROOT}
        waiting = [(ROOT, token, child) for token, child in reversed(children[ROOT].items())]
        while waiting:
            parent, token, child = waiting.pop()
            place[child] = len(tokens)
            tokens.append(token)
            parents.append(place[parent])
            depths.append(1 + (depths[place[parent]] if parent != ROOT else 0))
            waiting.extend((child, inner, node) for inner, node in reversed(children[child].items()))
        leaves = [place[leaf] for leaf in leaf_ids]
        if ROOT in leaves or len(set(leaves)) < len(leaves) or any(children[leaf] for leaf in leaf_ids):
            raise ValueError("the paths must be different, not empty, and none the beginning of another")
        return cls(
            tuple(tokens), tuple(parents), tuple(depths), _subtree_ends(parents),
            _masses(parents, leaves, weights), tuple(leaves), tuple(weights),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def internal(self) -> tuple[int, ...]:
        """The nodes with children, in depth-first order: all that a forward pass must be fed."""
        return tuple(node for node, end in enumerate(self.ends) if end > node + 1)

    @cached_property
    def deepest(self) -> int:
        """The depth of the deepest internal node; 0 where there is none."""
        return max((self.depths[node] for node in self.internal), default=0)

    @cached_property
    def arrays(self) -> TrieArrays:
        """The same as arrays, made once: what each step lays out anew."""
        lists = (self.tokens, self.parents, self.depths, self.ends, self.internal, self.leaves)
        whole = [np.array(values, dtype=np.int64) for values in lists]
        return TrieArrays._make([*whole, np.array(self.masses, dtype=np.float64)])

    def scaled(self, factor: float) -> TokenTrie:
        """The same tree with every weight multiplied: what it adds to a loss is."""
        if factor == 1:
            return self
        masses, weights = (tuple(factor * value for value in values) for values in (self.masses, self.weights))
        return replace(self, masses=masses, weights=weights)

    def reweighted(self, weights: Sequence[float]) -> TokenTrie:
        """The same tree with other weights [K].

        >>> TokenTrie.build([(1, 2), (1, 3)], [0.5, 0.5]).reweighted([0.25, 0.75]).masses
        (1.0, 0.25, 0.75)
        """
        return replace(self, masses=_masses(self.parents, self.leaves, weights), weights=tuple(weights))

    @property
    def entropy(self) -> float:
        """H of the path weights in nats: the least the loss can be."""
        return -math.fsum(w * math.log(w) for w in self.weights if w > 0)

    def path(self, index: int) -> tuple[int, ...]:
        """The tokens of path `index`, from the first to the leaf."""
        return tuple(self.tokens[node] for node in self.ancestors(self.leaves[index]))

    def ancestors(self, node: int) -> list[int]:
        """The nodes from the first token down to `node` itself."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]


def _subtree_ends(parents: Sequence[int]) -> tuple[int, ...]:
    ends = list(range(1, len(parents) + 1))
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] != ROOT:
            ends[parents[node]] = max(ends[parents[node]], ends[node])
    return tuple(ends)


def _masses(parents: Sequence[int], leaves: Sequence[int], weights: Sequence[float]) -> tuple[float, ...]:
    masses = [0.0] * len(parents)
    for leaf, weight in zip(leaves, weights, strict=True):
        masses[leaf] = weight
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] != ROOT:
            masses[parents[node]] += masses[node]
    return tuple(masses)
