"""Answers in parts (several draws, independent fields): a tree of combinations that is never listed, built only along drawn paths.

Each part has a prefix tree of its values; a path through one continues at the root of the next. It uses tries and weights, no tokenizers
and no models.

Axis names: F parts, V values of a part, m sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffusecli.models.sampled_tree import SampledTree, draw_paths, sampled_tree
from diffusecli.models.trie import ROOT, TokenTrie


@dataclass(frozen=True, eq=False)
class Sequences:
    """Answers in parts, each drawn given the parts before it."""

    places: tuple[TokenTrie, ...]  # F; path k of each has the tokens of value k and of the text after it
    weights: Callable[[Sequence[int]], np.ndarray]  # from the values drawn so far to the distribution of the next [V]

    @property
    def longest(self) -> int:
        """The maximum tokens of a sequence."""
        return sum(int(trie.depths.max()) for trie in self.places)

    def at(self, drawn: Sequence[int]) -> TokenTrie:
        """The tree of the next part, with its weights given the drawn values."""
        trie = self.places[len(drawn)]
        weights = self.weights(drawn)
        return trie if np.array_equal(weights, trie.weights) else trie.reweighted(weights)

    def sample(self, count: int, seed: int | Sequence[int]) -> SampledTree:
        """The tree that `count` drawn sequences visit, with the exact conditional distribution at each node.

        At each draw, sequences with the same prefix are distributed by stratified sampling, so the mean over samples is the whole tree.
        """
        return self._grown((), count, count, np.random.default_rng(seed))

    def _grown(self, drawn: tuple[int, ...], count: int, of: int, rng: np.random.Generator) -> SampledTree:
        """The part of the tree below the draws so far, visited by `count` of the sequences."""
        trie = self.at(drawn)
        paths = draw_paths(trie, rng.random(count))
        here = sampled_tree(trie, paths).scaled(count / of)
        if len(drawn) + 1 == len(self.places):
            return here
        chosen, counts = np.unique(paths, return_counts=True)
        ends = dict(zip(paths.tolist(), here.drawn.tolist(), strict=True))
        leaves = np.array([ends[path] for path in chosen.tolist()])
        order = np.argsort(leaves)
        below = [self._grown((*drawn, int(chosen[i])), int(counts[i]), of, rng) for i in order]
        return grafted(here, leaves[order], below)


def grafted(tree: SampledTree, leaves: np.ndarray, below: Sequence[SampledTree]) -> SampledTree:
    """A tree with other trees attached below some of its leaves (in ascending order). The drawn paths continue in those."""
    sizes = np.array([len(other) for other in below])
    before = np.concatenate([[0], np.cumsum(sizes)])  # number of earlier nodes from the trees below
    moved = np.arange(len(tree)) + before[np.searchsorted(leaves, np.arange(len(tree)))]
    ends = tree.ends + before[np.searchsorted(leaves, tree.ends)]
    total = len(tree) + int(sizes.sum())
    starts = moved[leaves] + 1

    def joined(own: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
        found = np.empty(total, own.dtype)
        found[moved] = own
        for start, values in zip(starts.tolist(), others, strict=True):
            found[start : start + len(values)] = values
        return found

    parents = np.where(tree.parents == ROOT, ROOT, moved[tree.parents])
    of_others = [np.where(o.parents == ROOT, start - 1, o.parents + start) for o, start in zip(below, starts.tolist(), strict=True)]
    masses = joined(tree.masses, [other.masses for other in below])
    all_parents = joined(parents, of_others)
    onward = np.bincount(all_parents + 1, weights=masses, minlength=total + 1)[1:]
    depths = joined(tree.depths, [other.depths + depth for other, depth in zip(below, tree.depths[leaves].tolist(), strict=True)])
    return replace(
        tree,
        tokens=joined(tree.tokens, [other.tokens for other in below]),
        parents=all_parents,
        depths=depths,
        ends=joined(ends, [other.ends + start for other, start in zip(below, starts.tolist(), strict=True)]),
        masses=masses,
        leaves=np.arange(total),
        weights=masses - onward,
        drawn=np.concatenate([other.drawn + start for other, start in zip(below, starts.tolist(), strict=True)]),
        conditionals=joined(tree.conditionals, [other.conditionals for other in below]),
        lowest=tree.lowest + sum(other.lowest for other in below),
        places=joined(tree.places, [other.places + 1 for other in below]),
    )
