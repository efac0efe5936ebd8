"""`TokenTrie`: a weighted prefix tree over token ids in flat arrays, without tensors.

Independent of tokenizers, tensors and models. Axis names: N nodes, J paths (one per target string).

Example: three strings over the tokens a=1, b=2, c=3 and the terminator z=0:

    path      weight        node  token  parent  mass   end
    a b z     .5            0     a      root    .75    5
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
>>> trie.tokens.tolist()
[1, 2, 0, 3, 0, 2, 0]
>>> trie.masses.tolist()
[0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
>>> trie.path(1)
(1, 3, 0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain

import numpy as np

ROOT = -1
"""The parent of first tokens: the end of the prompt, which is not a node itself."""


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """A prefix tree in depth-first order: a node's subtree is the nodes `[node, ends[node])`."""

    tokens: np.ndarray  # [N] the token of each node
    parents: np.ndarray  # [N] the parent node, or ROOT
    depths: np.ndarray  # [N] 1 for first tokens
    ends: np.ndarray  # [N] one past the last node of its subtree
    masses: np.ndarray  # [N] summed weight of the paths through it
    leaves: np.ndarray  # [J] the last node of each path
    weights: np.ndarray  # [J] as given

    @classmethod
    def build(cls, paths: Sequence[Sequence[int]], weights: Sequence[float]) -> TokenTrie:
        """Merge `paths` into one tree. Children are in the order of the first paths through them.

        Raises `ValueError` when a path is empty, equals another or is a prefix of another:
        next-token distributions could not distinguish them.
        """
        # 1. the paths, one after the other
        lengths = np.fromiter(map(len, paths), np.int64, len(paths))
        flat = np.fromiter(chain.from_iterable(paths), np.int64, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        if not lengths.all():
            raise ValueError(_ALIKE)
        # 2. depth-first order; a path shares its first tokens with the path before it, and adds the others
        order, shared = _depth_first(flat, starts, lengths)
        added = lengths[order] - shared
        first = np.cumsum(added) - added  # the first node that each path adds
        depths = shared.repeat(added) + counting(added) + 1
        tokens = flat[(starts[order] + shared).repeat(added) + counting(added)]
        # 3. a node's parent is the node before it; for the first new node of a path it is a node of an earlier path
        parents = np.arange(-1, len(tokens) - 1)
        parents[first] = _above(shared, first)
        leaves = np.empty(len(paths), np.int64)
        leaves[order] = first + added - 1
        given = np.array(weights, dtype=np.float64)
        levels = _levels(depths)
        sizes = _summed(parents, levels, np.ones(len(tokens), np.int64))
        masses = np.zeros(len(tokens))
        masses[leaves] = given
        return cls(tokens, parents, depths, np.arange(len(tokens)) + sizes, _summed(parents, levels, masses), leaves, given)

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenTrie) and all(
            np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True)
        )

    def __hash__(self) -> int:
        return hash((len(self), len(self.leaves)))

    def _arrays(self) -> Iterator[np.ndarray]:
        return (getattr(self, field.name) for field in fields(self))

    @cached_property
    def internal(self) -> np.ndarray:
        """The nodes with children, in depth-first order: the tokens that a forward pass must feed."""
        return np.flatnonzero(self.ends > np.arange(1, len(self) + 1))

    @cached_property
    def children(self) -> tuple[np.ndarray, np.ndarray]:
        """All nodes grouped by parent, the root's first [N]; and the start of each group, from the root on [N + 2].

        >>> order, starts = TokenTrie.build([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25]).children
        >>> order[starts[0] : starts[1]].tolist(), order[starts[1] : starts[2]].tolist()  # children of the root, of node 0
        ([0, 5], [1, 3])
        """
        return np.argsort(self.parents, kind="stable"), np.cumsum(np.bincount(self.parents + 2, minlength=len(self) + 2))

    @cached_property
    def cumulative(self) -> tuple[np.ndarray, np.ndarray]:
        """The paths in depth-first order [J], and the sum of the weights up to each [J]."""
        order = np.argsort(self.leaves)
        return order, np.cumsum(self.weights[order])

    @cached_property
    def deepest(self) -> int:
        """The depth of the deepest internal node; 0 if there is none."""
        return int(self.depths[self.internal].max(initial=0))

    def scaled(self, factor: float) -> TokenTrie:
        """The same tree with every weight multiplied, which scales its part of a loss."""
        return self if factor == 1 else replace(self, masses=factor * self.masses, weights=factor * self.weights)

    def reweighted(self, weights: Sequence[float] | np.ndarray) -> TokenTrie:
        """The same tree with other weights [J].

        >>> TokenTrie.build([(1, 2), (1, 3)], [0.5, 0.5]).reweighted([0.25, 0.75]).masses.tolist()
        [1.0, 0.25, 0.75]
        """
        given, masses = np.array(weights, dtype=np.float64), np.zeros(len(self))
        masses[self.leaves] = given
        return replace(self, masses=_summed(self.parents, self.levels, masses), weights=given)

    @property
    def entropy(self) -> float:
        """H of the path weights in nats: the lowest possible loss."""
        positive = self.weights[self.weights > 0]
        return float(-(positive * np.log(positive)).sum())

    def loss(self, log_probs: np.ndarray) -> float:
        """- sum_k w_k ln q(path k) in nats, from ln q of the paths [J]."""
        return float(-np.dot(self.weights, log_probs))

    def down_to(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` [N] over each node and its ancestors [N].

        >>> TokenTrie.build([(1, 2), (1, 3), (4,)], [0.5, 0.25, 0.25]).down_to(np.array([1.0, 2.0, 3.0, 4.0])).tolist()
        [1.0, 3.0, 4.0, 4.0]
        """
        totals, (by_depth, ends) = values.astype(np.float64), self.levels
        for depth in range(2, len(ends)):
            level = by_depth[ends[depth - 1] : ends[depth]]
            totals[level] += totals[self.parents[level]]
        return totals

    @cached_property
    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """The nodes sorted by depth [N], and the number of nodes up to each depth, from 0 on."""
        return _levels(self.depths)

    def path(self, index: int) -> tuple[int, ...]:
        """The tokens of path `index`, from the first to the leaf."""
        return tuple(self.tokens[self.ancestors(int(self.leaves[index]))].tolist())

    def ancestors(self, node: int) -> list[int]:
        """The nodes from the first token down to `node` itself."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = int(self.parents[node])
        return nodes[::-1]


_ALIKE = "the paths must be distinct and not empty, and none may be a prefix of another"


def _depth_first(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The paths [J] in depth-first order, and the length of the prefix that each shares with the one before it [J].

    Paths with the same prefix form a group, a range of positions in the order. Token by token, groups of several paths are split:
    within each, paths are ordered by the first path with the same next token.
    """
    order, shared, span = np.arange(len(starts)), np.zeros(len(starts), np.int64), int(flat.max(initial=0)) + 1
    # positions in groups of several paths, and their groups
    places, groups = order.copy(), np.zeros(len(starts), np.int64)
    for depth in range(int(lengths.max(initial=0)) + 1):
        if len(places) < 2:
            break
        paths = order[places]
        if (lengths[paths] <= depth).any():
            raise ValueError(_ALIKE)
        _, first, which = np.unique(groups * span + flat[starts[paths] + depth], return_index=True, return_inverse=True)
        of = first[which]
        by_first = np.argsort(of, kind="stable")
        order[places], groups = paths[by_first], of[by_first]
        with_last = np.concatenate([[False], groups[1:] == groups[:-1]])
        shared[places[with_last]] += 1
        several = with_last | np.concatenate([with_last[1:], [False]])
        places, groups = places[several], groups[several]
    return order, shared


def _above(shared: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The parent of the first new node of each path [J]: at depth `shared`, added by the last earlier path that shares fewer tokens."""
    found = np.full(len(shared), ROOT)
    for depth in np.unique(shared[shared > 0]).tolist():
        own, able = np.flatnonzero(shared == depth), np.flatnonzero(shared < depth)
        adding = able[np.searchsorted(able, own) - 1]
        found[own] = first[adding] + depth - 1 - shared[adding]
    return found


def counting(counts: np.ndarray) -> np.ndarray:
    """0, 1, … for each count.

    >>> counting(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(counts.sum()) - (np.cumsum(counts) - counts).repeat(counts)


def _summed(parents: np.ndarray, levels: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> np.ndarray:
    """The sum of `values` [N] over each node's subtree [N]."""
    totals, (by_depth, ends) = values.copy(), levels
    for depth in range(len(ends) - 1, 1, -1):
        level = by_depth[ends[depth - 1] : ends[depth]][::-1]
        np.add.at(totals, parents[level], totals[level])
    return totals


def _levels(depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.argsort(depths, kind="stable"), np.cumsum(np.bincount(depths, minlength=1))
