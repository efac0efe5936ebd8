"""How far the rounding of a 16-bit model moves its exact figures.

Some targets are scored again in float32 (see `unrounded.py`). The difference d = ln q (16 bits) - ln q (float32) of each is measured,
not estimated. A figure of few targets is measured whole, with all texts of each. Of more targets some texts are drawn, one from each
stratum of the weight, and the standard error of independent draws is added.

Example: two targets of weight .5, d = .03 and d = .01. Their KL is .02 nats too low. If these are 2 of 200 targets, drawn by weight, the
standard deviation .0141 adds 1.96 * .0141 / sqrt(2) * sqrt(1 - 2 / 200) = .0195.

Axis names: J paths, m scored again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.sampled_tree import SampledTree, draw_paths
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.divergence import exact_kl
from diffusecli.training.loss import target_log_probs

_PATHS, _PATHS_IN_ALL = 128, 512
"""Paths of a wording that are scored again, and of all together."""

MOST_SCORED = 16
"""Wordings that are scored again; the others get the largest rounding found."""


@dataclass(frozen=True)
class Rounding:
    """Limits, with 95 % confidence, of the change of exact figures by rounding; nan if unknown."""

    kl: float = 0.0  # nats
    tvd: float = 0.0

    @classmethod
    def worst(cls, some: Sequence[Rounding]) -> Rounding:
        """The largest of each."""
        return cls(*(float(np.max([getattr(one, name) for one in some], initial=0.0)) for name in ("kl", "tvd")))


UNKNOWN = Rounding(math.nan, math.nan)


@dataclass(frozen=True)
class _All:
    """All paths of a wording, and ln q of each [J] in the model's own number format."""

    encoded: EncodedPrompt
    log_probs: np.ndarray

    def rounding(self, unrounded: np.ndarray) -> Rounding:
        """The rounding of KL and TVD, from ln q without rounding [J], both summed over the texts of each target.

        The KL changes by - sum_k p_k d_k. The TVD changes by at most that of q and q' (without rounding), also if answers are pooled
        over wordings, and that of as many draws.
        """
        own, other = (target_log_probs(self.encoded, log_probs) for log_probs in (self.log_probs, unrounded))
        p, moved = np.array(self.encoded.prompt.probabilities), np.exp(own) - np.exp(other)
        return Rounding(abs(exact_kl(p, other) - exact_kl(p, own)), float(np.abs(moved).sum() + abs(moved.sum())) / 2)


@dataclass(frozen=True)
class _Drawn:
    """Some paths of a wording, drawn by weight, and ln q of each [m] in the model's own number format."""

    encoded: EncodedPrompt
    log_probs: np.ndarray
    shares: np.ndarray  # [m] of the draws
    weights: np.ndarray  # [m] of the paths
    of: int  # J

    @classmethod
    def some(cls, encoded: EncodedPrompt, log_probs: np.ndarray, most: int) -> _Drawn:
        """At most so many paths, from ln q of all [J]. Each text of a target has the share of q in the target's weight."""
        trie, offsets = encoded.trie, np.random.default_rng(0).random(most)
        if isinstance(trie, SampledTree):
            strata = (np.arange(most) + offsets) * (len(trie.drawn) / most)
            drawn = trie.drawn[strata.astype(int)] if len(trie.drawn) > most else trie.drawn
            weights = np.exp(trie.down_to(np.log(np.maximum(trie.conditionals, 1e-300))))
        else:
            owners = np.array(encoded.owners)
            inside = np.exp(log_probs - target_log_probs(encoded, log_probs)[owners])
            weights = np.array(encoded.prompt.probabilities)[owners] * inside
            drawn = draw_paths(trie.reweighted(weights), offsets)
        places, counts = np.unique(drawn, return_counts=True)
        shares = counts / counts.sum()
        few = TokenTrie.build([trie.path(int(place)) for place in places], shares.tolist())
        small = replace(encoded, trie=few, owners=(0,) * len(places), choices=())
        return cls(small, log_probs[places], shares, weights[places], len(trie.leaves))

    def rounding(self, unrounded: np.ndarray) -> Rounding:
        """The rounding of KL and TVD, from ln q without rounding [m].

        The KL changes by the mean of - d over the draws, to first order in d if targets have several texts. The TVD changes by at most
        sum |q - q'| over all texts, the mean of q / weight |1 - exp(-d)|.
        """
        difference = self.log_probs - unrounded
        with np.errstate(divide="ignore"):
            moved = np.exp(self.log_probs - np.log(self.weights)) * np.abs(np.expm1(-difference))
        kl, kl_error = self._mean(difference)
        tvd, tvd_error = self._mean(moved)
        return Rounding(abs(kl) + 1.96 * kl_error, min(1.0, tvd + 1.96 * tvd_error))

    def _mean(self, values: np.ndarray) -> tuple[float, float]:
        """The mean and its standard error."""
        mean, count = float(self.shares @ values), len(values)
        if count < 2:
            return mean, 0.0
        variance = float(self.shares @ (values - mean) ** 2) * count / (count - 1)
        return mean, math.sqrt(variance / count * max(0.0, 1 - count / self.of))


def _chosen(encoded: EncodedPrompt, log_probs: np.ndarray, most: int) -> _All | _Drawn:
    """What is scored again: all paths if they are at most so many, otherwise some."""
    whole = not isinstance(encoded.trie, SampledTree) and len(encoded.trie.leaves) <= most
    return _All(encoded, log_probs) if whole else _Drawn.some(encoded, log_probs, most)


def measured(
    groups: Sequence[Sequence[tuple[EncodedPrompt, np.ndarray]]], score: Callable[[Sequence[EncodedPrompt]], list[np.ndarray]]
) -> list[Rounding]:
    """The rounding of each group of wordings with ln q of their paths [J]: the largest of those that are scored again.

    `score` returns ln q without rounding. Groups without such a wording get the largest of all groups.
    """
    if not groups:
        return []
    room = max(1, MOST_SCORED // len(groups))
    few = [some[:room] for some in groups[:: -(-len(groups) // MOST_SCORED)]]
    most = max(_PATHS // 4, min(_PATHS, _PATHS_IN_ALL // max(1, sum(map(len, few)))))
    chosen = [[_chosen(*one, most) for one in some] for some in few]
    scores = iter(score([one.encoded for some in chosen for one in some]))
    found = [Rounding.worst([one.rounding(next(scores)) for one in some]) for some in chosen]
    if len(found) == len(groups):
        return found
    own = dict(zip(range(0, len(groups), -(-len(groups) // MOST_SCORED)), found, strict=True))
    return [own.get(place, Rounding.worst(found)) for place in range(len(groups))]
