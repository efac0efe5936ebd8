"""Sampled steps on large prefix trees: draw a few paths, and use the exact conditional distribution at each node they visit.

With W(c | v) = W(c) / W(v), the share of the paths through v that continue with c, the loss of the whole tree is

    L = sum_v W(v) CE(W(. | v), q(. | v))    (CE: cross-entropy over all children of v, nats).

Draw m paths by their weights, and let n_v of them pass through v. The sum over the visited nodes

    sum_v (n_v / m) CE(W(. | v), q(. | v))

has the mean L, because n_v has the mean m W(v); the same holds for its gradient. Only the set of visited nodes is random; nodes near the
root are always visited. Stratified sampling, one path from each m-th of the total weight, keeps n_v within 2 of m W(v) and never varies more
than independent draws. (Systematic sampling, one random number for all m paths, may: with 8 paths, the numbers 100 to 159 get every 7.5th
number, so only four different last digits, and the estimates vary 1.5 times as much as their standard errors say.)

Example: paths a, bc, bd with weights .5, .25, .25, and m = 2. One path is a, the other is bc or bd. So the edges from the root
have their masses, .5 and .5, and b is visited once: c and d get (1 / 2) (.25 / .5) = .25 each, whichever was drawn. That is the whole tree.

Axis names: N nodes of the whole tree, S nodes of the sampled one, m drawn paths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from diffusecli.models.trie import ROOT, TokenTrie, counting


class Estimates(NamedTuple):
    """Figures of a whole distribution, estimated from the drawn paths."""

    kl: float  # KL(target || model), nats
    error: float  # its standard error
    on_target: float  # probability of all targets
    tvd: float  # total variation distance


@dataclass(frozen=True, eq=False)
class SampledTree(TokenTrie):
    """The nodes that some paths of a tree visit, and all their children.

    Masses are those of the estimate above. `leaves` are all nodes, and `weights` the mass of a node minus that of its children,
    so that a sum over paths equals the sum over edges here, too: - sum_k w_k ln q(path k) = - sum_v mass(v) ln q(token(v) | parent).
    """

    drawn: np.ndarray  # [m] last nodes of the drawn paths
    conditionals: np.ndarray  # [S] W(v | parent of v)
    lowest: float  # the lowest possible loss of the whole tree, nats
    places: np.ndarray  # [S] index of a token's draw, for several draws in one answer

    @property
    def entropy(self) -> float:
        """The lowest possible loss of the whole tree, nats."""
        return self.lowest

    def scaled(self, factor: float) -> SampledTree:
        """The same tree with every mass multiplied."""
        return replace(self, masses=factor * self.masses, weights=factor * self.weights, lowest=factor * self.lowest)

    def loss(self, log_probs: np.ndarray) -> float:
        """The lowest possible loss plus the estimated divergence, which has less variance than the cross-entropy."""
        return self.lowest + float(self.masses[self.parents == ROOT].sum()) * self.estimates(log_probs).kl

    def estimates(self, log_probs: np.ndarray) -> Estimates:
        """Estimates from ln q of the paths to all nodes [S].

        KL(target || model) is the mean over targets of the sum of KL(W(. | v) || q(. | v)) over the nodes on their path; its standard
        error is that of independent draws, which stratified ones do not exceed. The on-target mass is the mean of q / p over
        targets, the total variation distance that of max(0, 1 - q / p).
        """
        return self._estimates(log_probs, np.ones(len(self), dtype=bool))

    def of_draws(self, log_probs: np.ndarray) -> list[Estimates]:
        """Estimates for each draw given the earlier draws (means over these). The KLs add up to that of the whole answer."""
        return [self._estimates(log_probs, self.places == place) for place in range(int(self.places.max(initial=-1)) + 1)]

    def _estimates(self, log_probs: np.ndarray, counted: np.ndarray) -> Estimates:
        """Estimates from the counted nodes only, [S]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = np.log(self.conditionals)
            log_q = log_probs - np.where(self.parents == ROOT, 0.0, log_probs[self.parents])
            terms = np.where(counted & (self.conditionals > 0), self.conditionals * (log_p - log_q), 0.0)
            ratios = np.exp(self.down_to(np.where(counted, log_q - log_p, 0.0))[self.drawn])
        of_parents = np.bincount(self.parents + 1, weights=terms, minlength=len(self) + 1)[self.parents + 1]  # KL there [S]
        kls = self.down_to(of_parents)[self.drawn]
        error = float(kls.std(ddof=1) / np.sqrt(len(kls))) if len(kls) > 1 else 0.0
        return Estimates(float(kls.mean()), error, min(1.0, float(ratios.mean())), float(np.maximum(0.0, 1 - ratios).mean()))


def draw_paths(trie: TokenTrie, offsets: np.ndarray) -> np.ndarray:
    """Stratified sampling of paths [m] by their weights, in depth-first order, from random numbers [m] in [0, 1).

    Draw i looks up (i + its number) / m in the cumulated weights, so the number of draws from any range of paths is within 2 of m times
    its weight.

    >>> trie = TokenTrie.build([(1,), (2, 1), (2, 2)], [0.5, 0.25, 0.25])
    >>> draw_paths(trie, np.array([0.9, 0.3])).tolist(), draw_paths(trie, np.array([0.1, 0.7])).tolist()
    ([0, 1], [0, 2])
    """
    order, cumulative = trie.cumulative
    points = (np.arange(len(offsets)) + offsets) / len(offsets) * cumulative[-1]
    last = np.searchsorted(cumulative, cumulative[-1])  # the last path with weight, in case of rounding
    return order[np.minimum(np.searchsorted(cumulative, points, side="right"), last)]


def sampled_tree(trie: TokenTrie, paths: np.ndarray) -> SampledTree:
    """The part of a tree that drawn paths [m] visit. The mean of its masses over draws is that of the whole tree."""
    # 1. the visited nodes, and how many paths pass through each
    drawn = trie.leaves[paths]
    walked, above = [], trie.parents[drawn]
    while len(above := above[above != ROOT]):
        walked.append(above)
        above = trie.parents[above]
    visited, counts = np.unique(np.concatenate([np.full(len(drawn), ROOT), *walked]), return_counts=True)  # the root comes first
    # 2. all their children
    order, starts = trie.children
    sizes = starts[visited + 2] - starts[visited + 1]
    by_parent = order[starts[visited + 1].repeat(sizes) + counting(sizes)]
    kept = np.sort(by_parent)
    # 3. n_v / m W(c | v)
    parents, total = trie.parents[kept], trie.cumulative[1][-1]
    of_parents = np.concatenate([trie.masses, [total]])[parents]  # index -1 is the root
    conditionals = trie.masses[kept] / of_parents
    masses = total * counts[np.searchsorted(visited, parents)] / len(drawn) * conditionals
    own = np.where(parents == ROOT, ROOT, np.searchsorted(kept, parents))
    onward = np.bincount(own + 1, weights=masses, minlength=len(kept) + 1)[1:]
    return SampledTree(
        trie.tokens[kept], own, trie.depths[kept], np.searchsorted(kept, trie.ends[kept]), masses, np.arange(len(kept)), masses - onward,
        np.searchsorted(kept, drawn), conditionals, trie.entropy, np.zeros(len(kept), dtype=np.int64),
    )  # fmt: skip
