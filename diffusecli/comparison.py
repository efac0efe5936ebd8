"""Two sample sets of the same prompt side by side: how much they differ, with a bootstrap interval.

Knows tallies and weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusecli.matching import Tally
from diffusecli.perfect import mean_tvd

REPEATS = 1_999
_FEWEST = 199
_CELLS = 20_000_000  # resampled in all


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; nan bounds where there are too many different answers to resample."""

    value: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether zero lies outside."""
        return not (math.isnan(self.low) or self.low <= 0 <= self.high)


@dataclass(frozen=True)
class Resampled:
    """Excess TVD and Miller-Madow entropy of a sample set and of its bootstrap resamples, [B] each."""

    excess_tvd: float
    entropy: float
    excess_tvds: np.ndarray
    entropies: np.ndarray


def resample(tallied: Tally, probabilities: tuple[float, ...], seed: int) -> Resampled:
    """Draw N answers anew from the answers themselves, B times (Efron 1979): a multinomial over the distinct ones."""
    p, n = np.array(probabilities), tallied.n
    seen = np.array([*tallied.counts, *tallied.off_target.values()])
    repeats = min(REPEATS, _CELLS // max(len(seen), 1))
    drawn = np.concatenate([seen[None, :], np.zeros((0, len(seen)), int)])
    if repeats >= _FEWEST:
        drawn = np.concatenate([drawn, np.random.default_rng(seed).multinomial(n, seen / n, size=repeats)])
    counts = drawn[:, : len(p)]
    off = (n - counts.sum(1)) / n
    tvd = (np.abs(counts / n - p).sum(1) + off) / 2 - mean_tvd(n, p)
    shares = drawn / n
    plugin = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    corrected = plugin + (np.count_nonzero(drawn, axis=1) - 1) / (2 * n)
    return Resampled(float(tvd[0]), float(corrected[0]), tvd[1:], corrected[1:])


def difference(before: np.ndarray, after: np.ndarray, value: float) -> Estimate:
    """`value` with the spread of the resampled differences around their own mean.

    Resampling adds noise to noise, so resampled TVDs lie too high and entropies too low as a whole; only how they
    scatter tells of the sampling error (the basic bootstrap interval, Davison and Hinkley 1997, 5.2, its bias taken off).
    """
    if not (len(before) and len(after)):
        return Estimate(value, math.nan, math.nan)
    repeats = min(len(before), len(after))
    apart = after[:repeats] - before[:repeats]
    low, high = np.quantile(apart - apart.mean(), [0.025, 0.975])
    return Estimate(value, float(value - high), float(value - low))
