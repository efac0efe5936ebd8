"""Compare two sample sets of the same prompt: how much they differ, with a bootstrap interval.

Takes tallies and weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from diffusecli.prompts.matching import Tally

REPEATS = 999
_FEWEST = 199
_CELLS = 20_000_000  # resampled in total
_MOST_WITHOUT_REPLACEMENT = 10**9  # numpy's bound
_THINNED = 200  # subsets to average over when a set is thinned
_LOWEST_N = 50  # fewer answers give no usable estimate of the sampling error
COPIED = 0.001  # two samples are copies if equal counts are less likely than this
_MOST_SINGLE = 0.2  # share of answers that occur once; above it most outcomes are unseen, and entropy is only a lower bound


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; the bounds are nan if there are too few answers, or too many different ones, to resample."""

    value: float  # as observed
    low: float  # end of the interval
    high: float  # end of the interval

    @property
    def apart(self) -> bool:
        """Whether the interval excludes zero."""
        return not (math.isnan(self.low) or self.low <= 0 <= self.high)


@dataclass(frozen=True)
class Compared:
    """`after` minus `before`."""

    excess_tvd: Estimate
    entropy: Estimate  # nats


@dataclass(frozen=True)
class _Sides:
    """TVD and Miller-Madow entropy of one or more sets of counts, [B]."""

    tvd: np.ndarray
    entropy: np.ndarray


def compare(before: Tally, after: Tally, probabilities: tuple[float, ...], seed: int | Sequence[int]) -> Compared:
    """Differences of excess TVD (nan without targets) and of entropy at the same N.

    If N differs, the larger set is thinned to the size of the smaller (rarefaction, Hurlbert 1971): TVD and entropy depend on N, and
    subtracting the floor corrects this only close to the target. Raises nothing; both sets need at least one answer.
    The result of exchanged sides is the same with the other sign.
    """
    n = min(before.n, after.n)
    rng = np.random.default_rng(seed)
    exchanged = (before.n, before.cells) > (after.n, after.cells)
    sides = (after, before) if exchanged else (before, after)  # so that the random numbers do not depend on the order
    values = [_at(side, n, probabilities, rng) for side in sides]
    spread = [_resampled(side, probabilities, rng) for side in sides]
    if exchanged:
        values, spread = values[::-1], spread[::-1]
    tvd = math.nan if not probabilities else float(values[1].tvd.mean() - values[0].tvd.mean())
    entropy = float(values[1].entropy.mean() - values[0].entropy.mean())
    unknown = [no_interval(before, after, entropy=of_entropy) for of_entropy in (False, True)]
    return Compared(
        _estimate(tvd, spread[0].tvd, spread[1].tvd, known=not unknown[0]),
        _estimate(entropy, spread[0].entropy, spread[1].entropy, known=not unknown[1]),
    )


def no_interval(before: Tally, after: Tally, *, entropy: bool) -> str:
    """What there is too little or too much of for an interval of the difference; empty if there is one."""
    if min(before.n, after.n) < _LOWEST_N:
        return f"fewer than {_LOWEST_N} answers"
    if entropy and max(_single(before), _single(after)) > _MOST_SINGLE:
        return "too many answers that occur once"
    return "too many different answers" if max(len(before.cells), len(after.cells)) > _CELLS // _FEWEST else ""


def _estimate(value: float, before: np.ndarray, after: np.ndarray, *, known: bool) -> Estimate:
    """`value` with the spread of the resampled differences around their own mean.

    Resampling adds noise to noise, so resampled TVDs are too high and entropies too low on average. Only their spread
    estimates the sampling error (the basic bootstrap interval, Davison and Hinkley 1997, 5.2, minus its bias).
    """
    repeats = min(len(before), len(after))
    if not repeats or not known or math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    apart = after[:repeats] - before[:repeats]
    low, high = np.quantile(apart - apart.mean(), [0.025, 0.975])
    return Estimate(value, min(value, float(value - high)), max(value, float(value - low)))


def _at(side: Tally, n: int, probabilities: tuple[float, ...], rng: np.random.Generator) -> _Sides:
    """Figures of n of the answers, averaged over random subsets."""
    counts = _counts(side)
    if side.n == n:
        return _figures(counts[None, :], probabilities)
    draws = max(1, min(_THINNED, _CELLS // len(counts)))
    if side.n >= _MOST_WITHOUT_REPLACEMENT:  # sampling with replacement: no visible difference among 10⁹ answers
        return _figures(rng.multinomial(n, counts / side.n, size=draws), probabilities)
    return _figures(rng.multivariate_hypergeometric(counts, n, size=draws, method="marginals"), probabilities)


def _resampled(side: Tally, probabilities: tuple[float, ...], rng: np.random.Generator) -> _Sides:
    """Resample N answers with replacement, B times (Efron 1979): a multinomial over the distinct answers."""
    counts = _counts(side)
    repeats = min(REPEATS, _CELLS // len(counts))
    if repeats < _FEWEST:
        return _Sides(np.zeros(0), np.zeros(0))
    return _figures(rng.multinomial(side.n, counts / side.n, size=repeats), probabilities)


def _figures(counts: np.ndarray, probabilities: tuple[float, ...]) -> _Sides:
    """Figures of counts [B, cells], where each row sums to n and the targets' cells come first."""
    n, p = int(counts[0].sum()), np.array(probabilities)
    shares = counts / n
    off = 1 - shares[:, : len(p)].sum(1)
    plugin = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    tvd = (np.abs(shares[:, : len(p)] - p).sum(1) + off) / 2
    return _Sides(tvd, plugin + (np.count_nonzero(counts, axis=1) - 1) / (2 * n))


def _counts(side: Tally) -> np.ndarray:
    return np.array(side.cells)


def _single(side: Tally) -> float:
    """Good and Turing's unseen mass."""
    return float((_counts(side) == 1).sum()) / side.n


def are_copies(before: Tally, after: Tally) -> bool:
    """Whether two samples have exactly the same answers, and that is hardly chance."""
    return before == after and chance_of_equal(before.cells) < COPIED


def chance_of_equal(counts: Iterable[int]) -> float:
    """About how likely another sample of the same distribution has exactly these counts c_i of K texts: √(N / (4π)^(K-1) ∏ c_i).

    Stirling's approximation of the probability that two multinomial samples are equal, with the shares of this one.

    >>> round(chance_of_equal([50, 50]), 3), chance_of_equal([9])
    (0.056, 1.0)
    """
    some = [count for count in counts if count]
    log = math.log(sum(some)) - (len(some) - 1) * math.log(4 * math.pi) - sum(map(math.log, some)) if some else 0.0
    return math.exp(log / 2)
