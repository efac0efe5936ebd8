"""Limits of a model's exact figures, from its most likely first tokens.

An answer begins with one of its first tokens, so its probability is at most that of these tokens. Tokens that are not listed have at most the
probability of the least likely one that is (the sampled one aside), and together at most the rest. Targets that begin with the same listed token share it.

A worked example. Weights a 1/2, b 1/2; listed: a .2, x .7; rest .1, and another token has at most .1. The answer a has at most .2, the
answer b at most .1, so KL >= .5 ln(.5/.2) + .5 ln(.5/.1) = 1.2629, TVD >= .3 + .4 = .7 and the mass on target is at most .3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.prompt import Prompt

if TYPE_CHECKING:
    from diffusecli.sampling.first_tokens import FirstTokens


@dataclass(frozen=True)
class BoundedFigures:
    """Limits of exact figures, from a server that lists only the most likely first tokens of an answer. No figure here is exact.

    For a prompt with several wordings, means over them.
    """

    kl_low: float  # KL(target || model) is at least this, nats
    tvd_low: float  # the TVD is at least this
    on_target_high: float  # the summed probability of the targets is at most this
    q_high: tuple[float, ...]  # the probability of each target is at most this
    listed: int  # first tokens that the server listed
    begun: int  # targets that begin with a listed token

    @property
    def shown(self) -> BoundedFigures:
        """The limits with as many decimals as reports show. They are not rounded to the nearest, so they still hold."""
        kl, tvd, on_target = (
            _rounded_down(self.kl_low, 4),
            _rounded_down(self.tvd_low, 3),
            -_rounded_down(-self.on_target_high, 3),
        )
        return replace(self, kl_low=kl, tvd_low=tvd, on_target_high=on_target)


def _rounded_down(value: float, digits: int) -> float:
    """The next lower number with so many decimals.

    >>> _rounded_down(0.0129, 3), _rounded_down(0.29, 2), _rounded_down(-0.9812, 3)
    (0.012, 0.29, -0.982)
    """
    return math.floor(round(value * 10**digits, 6)) / 10**digits if math.isfinite(value) else value


def bounded_figures(prompt: Prompt, of_wordings: Sequence[FirstTokens]) -> BoundedFigures:
    """The limits of a prompt from the first tokens of its wordings: the mean of limits is a limit of the mean."""
    each = [_of_wording(prompt, first) for first in of_wordings]
    columns = zip(*(one.q_high for one in each), strict=True)
    return BoundedFigures(
        _mean(one.kl_low for one in each), _mean(one.tvd_low for one in each), _mean(one.on_target_high for one in each),
        tuple(map(_mean, columns)), min(one.listed for one in each), min(one.begun for one in each),
    )  # fmt: skip


def _of_wording(prompt: Prompt, first: FirstTokens) -> BoundedFigures:
    p, most = np.array(prompt.probabilities), _Most.of(prompt, first)
    groups = _connected(most.begun)
    weight = np.array([p[some].sum() for some in groups])
    highest = np.array([most.together(some) for some in groups])
    on_target = most.together(range(len(p)))
    tvd = max(1 - on_target, float(np.maximum(0.0, weight - highest).sum()))
    alone = tuple(most.together([target]) for target in range(len(p)))
    return BoundedFigures(
        lowest_kl(weight, highest, on_target), tvd, on_target, alone, len(first.listed), sum(bool(some) for some in most.begun)
    )


@dataclass(frozen=True)
class _Most:
    """How likely targets can be at most."""

    first: FirstTokens
    begun: tuple[frozenset[int], ...]  # of each target the listed tokens, by place, with which it begins
    others: tuple[float, ...]  # of each target the most that tokens which are not listed add

    @classmethod
    def of(cls, prompt: Prompt, first: FirstTokens) -> _Most:
        """A target begins with a token if one of its texts does. Without `eos`, the token may also go on after the target."""
        texts: list[list[bytes]] = [[] for _ in prompt.targets]
        for answer in answer_texts(prompt):
            texts[answer.target].append(answer.text.encode("utf-8", "replace"))
        begun = tuple(
            frozenset(
                place for place, token in enumerate(first.listed)
                if any(first.may_begin(text, token, ended=prompt.eos) for text in own)
            )
            for own in texts
        )  # fmt: skip
        return cls(first, begun, tuple(_unlisted(first, own, prompt.eos) for own in texts))

    def together(self, targets: Sequence[int]) -> float:
        """The most that some targets have together."""
        tokens = frozenset().union(*(self.begun[target] for target in targets))
        listed = math.fsum(p for place, p in enumerate(self.first.listed.values()) if place in tokens)
        unknown = self.first.rest + self.first.textless
        return min(1.0, listed + min(unknown, math.fsum(self.others[target] for target in targets)))


def _unlisted(first: FirstTokens, texts: Sequence[bytes], eos: bool) -> float:
    """The most that tokens which are not listed add to a target: one for each beginning of its texts that is not listed.

    An empty answer is only its end, which has no text. Without `eos`, any token may go on after the target.
    """
    if not eos or b"" in texts:
        return first.rest + first.textless
    beginnings = {text[:end] for text in texts for end in range(1, len(text) + 1)}
    return min(first.rest, len(beginnings - first.listed.keys()) * first.least)


def _connected(begun: Sequence[frozenset[int]]) -> list[list[int]]:
    """Targets in groups: those that begin with the same token are in the same group.

    >>> _connected([frozenset(some) for some in ({0}, {1}, {0, 2}, (), {2})])
    [[0, 2, 4], [1], [3]]
    """
    leader: dict[int, int] = {}

    def of(token: int) -> int:
        while leader.setdefault(token, token) != token:
            token = leader[token]
        return token

    for tokens in begun:
        for token in tokens:
            leader[of(token)] = of(min(tokens))
    groups: dict[int, list[int]] = {}
    for target, tokens in enumerate(begun):
        groups.setdefault(of(min(tokens)) if tokens else -1 - target, []).append(target)
    return list(groups.values())


def lowest_kl(p: np.ndarray, highest: np.ndarray, together: float) -> float:
    """The lowest KL(p || q) of any q that is at most `highest` everywhere and sums to at most `together`, nats.

    It is reached at q = min(highest, c p), with the c that uses all of `together`: then no probability can be moved to lower it.

    >>> round(lowest_kl(np.array([0.5, 0.5]), np.array([0.2, 0.1]), 0.3), 4)
    1.2629
    >>> round(lowest_kl(np.array([0.5, 0.5]), np.array([0.25, 0.9]), 1.0), 4)  # .5 ln(.5/.25) + .5 ln(.5/.75)
    0.1438
    """
    p, highest = p[p > 0], highest[p > 0]
    if (highest <= 0).any():
        return math.inf
    order = np.argsort(highest / p)
    p, highest = p[order], highest[order]
    left = min(together, float(highest.sum()))
    q = highest.copy()
    for place in range(len(p)):  # those with the lowest limits take all they may; the others share the rest
        factor = left / float(p[place:].sum())
        if factor * p[place] <= highest[place]:
            q[place:] = factor * p[place:]
            break
        left -= float(highest[place])
    return max(0.0, float((p * np.log(p / q)).sum()))


def _mean(values: Iterable[float]) -> float:
    some = list(values)
    return math.fsum(some) / len(some)
