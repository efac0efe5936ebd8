"""The test of fit: whether counts are independent draws from the target, and which departures it would detect.

Three statistics, because each misses something. G and Pearson's X^2 get *smaller* if the rare targets of a long tail never
occur. The number of distinct targets detects that. TVD detects shares shifted between many targets. Each gets a p-value from the
same Monte Carlo draws of a perfect sampler. The lowest of the three is compared with the lowest of each of those draws (min-P,
Westfall and Young 1993, 2.3), so the level is correct for any dependence between them.

Takes counts and weights. Symbols: k draws, K cells of positive weight p_i, counts c_i, B repeats, q the sampler's own distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np

from diffusecli.evaluation.departures import Departure, departures
from diffusecli.evaluation.perfect import REPEATS, TINY, Statistics, drawn_from, monte_carlo_p, p_value, perfect_sampler, statistics

SIGNIFICANCE = 0.05
POWER = 0.8
_STATISTICS = {"g": True, "tvd": False, "seen": True}  # whether both tails count
_POWER_REPEATS = 400
_FEWEST_REPEATS = 100
_POWER_CELLS = 400_000  # binomials, or draws, for one departure
_STEPS = 8  # of the search for the smallest departure: within 3 % of it
_SMALLEST = 1e-4  # TVD


@dataclass(frozen=True)
class Fit:
    """The test among on-target samples. All p-values are Monte Carlo; nan with nothing on target."""

    g: float  # 2 sum c ln(c / kp)
    pearson: float  # X^2 = sum (c - kp)^2 / kp
    df: int  # degrees of freedom
    p_value: float  # of the three statistics jointly
    g_p_value: float  # two-sided
    tvd_p_value: float  # of the TVD among on-target samples
    seen_p_value: float  # of the distinct targets, two-sided
    pearson_p_value: float  # not part of the joint test
    repeats: int  # B
    too_even: bool  # every share is closer to its weight than in independent draws, and no target is missing


def goodness_of_fit(counts: np.ndarray, probabilities: tuple[float, ...], seed: int) -> Fit:
    """Test counts [K] of the targets among on-target samples, because a single off-target sample would reject.

    A sample of a target of weight zero makes G and X^2 infinite and rejects.
    """
    k, p = int(counts.sum()), np.array(probabilities)
    possible = p > TINY
    df = int(possible.sum()) - 1
    if k == 0:
        return _extreme(math.nan, math.nan, df, 0)
    null = null_of(probabilities, k, seed)
    if counts[~possible].any():
        return _extreme(math.inf, 1 / (null.repeats + 1), df, null.repeats)
    seen = statistics(counts[possible][None, :], p[possible] / p[possible].sum())
    values = {name: float(rounded[0]) for name, rounded in _comparable(seen, k).items()}
    g, tvd, distinct = (null.tail[name].p_value(value) for name, value in values.items())
    joint = null.joint(values)
    low = null.tail["g"].is_low(values["g"]) and not null.tail["seen"].is_low(values["seen"])
    return Fit(
        float(seen.g[0]), float(seen.pearson[0]), df, joint, g, tvd, distinct, p_value(null.law.pearson, float(seen.pearson[0])),
        null.repeats, low and joint < SIGNIFICANCE and min(tvd, distinct) >= SIGNIFICANCE,
    )  # fmt: skip


def _extreme(statistic: float, p: float, df: int, repeats: int) -> Fit:
    """The result if there is nothing to test, or no test is needed."""
    return Fit(statistic, statistic, df, p, p, p, p, p, repeats, too_even=False)


def _comparable(drawn: Statistics, k: int) -> dict[str, np.ndarray]:
    """The three statistics without the digits that depend on the order of summation, so values that differ by rounding are equal."""
    unit = {"g": max(1e-9, 1e-12 * k * math.log(k + 1)), "tvd": 1e-9, "seen": 1}
    return {name: np.round(getattr(drawn, name) / unit[name]) for name in _STATISTICS}


@dataclass(frozen=True)
class _Tail:
    """One statistic of the B draws."""

    values: np.ndarray
    two_sided: bool

    @cached_property
    def ordered(self) -> np.ndarray:
        return np.sort(self.values)

    @cached_property
    def at_least(self) -> np.ndarray:
        """For each draw, how many of the B are at least as large; [B]."""
        return self._count(self.values)[0]

    @cached_property
    def at_most(self) -> np.ndarray:
        """For each draw, how many are at most as large; [B]."""
        return self._count(self.values)[1]

    def _count(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return len(self.ordered) - self.ordered.searchsorted(values, "left"), self.ordered.searchsorted(values, "right")

    def is_low(self, value: float) -> bool:
        """Whether the value is below the median of the draws."""
        above, below = self._count(np.array([value]))
        return bool(below[0] < above[0])

    def p_value(self, value: float) -> float:
        """The p-value of one value that is not among the draws."""
        return float(self.shares(np.array([value]))[0])

    def shares(self, values: np.ndarray) -> np.ndarray:
        """The p-values of values that are not among the draws."""
        above, below = self._count(values)
        return self._p(above, below)

    def with_one_more(self, value: float) -> np.ndarray:
        """The p-value of each draw among all draws and that value, [B]: observed and drawn are exchangeable under the target."""
        others_above, others_below = self.at_least - 1, self.at_most - 1
        return self._p(others_above + (value >= self.values), others_below + (value <= self.values))

    def _p(self, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        """The p-value from the counts of others above and below: the upper tail, or twice the smaller tail."""
        repeats = len(self.values)
        if self.two_sided:
            return np.asarray(np.minimum(1, 2 * monte_carlo_p(np.minimum(above, below), repeats)))
        return np.asarray(monte_carlo_p(above, repeats))


@dataclass(frozen=True)
class _Null:
    """A perfect sampler's draws, prepared for the test."""

    law: Statistics
    k: int

    @property
    def repeats(self) -> int:
        return self.law.repeats

    @cached_property
    def tail(self) -> dict[str, _Tail]:
        return {name: _Tail(values, _STATISTICS[name]) for name, values in _comparable(self.law, self.k).items()}

    def joint(self, observed: dict[str, float]) -> float:
        """The share of perfect samplers whose lowest p-value is at most this one."""
        lowest = min(self.tail[name].p_value(value) for name, value in observed.items())
        drawn = np.minimum.reduce([self.tail[name].with_one_more(value) for name, value in observed.items()])
        return float(monte_carlo_p(np.count_nonzero(drawn <= lowest * (1 + 1e-9)), self.repeats))

    @cached_property
    def lowest(self) -> np.ndarray:
        """The lowest p-value of each draw, in ascending order."""
        return np.sort(self._lowest_p(self.law))

    def critical(self, level: float) -> float:
        """The critical value of the lowest p-value: at most this share of perfect samplers have one as low."""
        as_small = self.lowest.searchsorted(self.lowest, "right")
        return float(self.lowest[as_small <= level * (self.repeats + 1)].max(initial=0.0))

    def rejects(self, drawn: Statistics, critical: float) -> np.ndarray:
        """Which of these sets of counts the test rejects."""
        return np.asarray(self._lowest_p(drawn) <= critical)

    def _lowest_p(self, drawn: Statistics) -> np.ndarray:
        return np.asarray(
            np.minimum.reduce([self.tail[name].shares(values) for name, values in _comparable(drawn, self.k).items()])
        )


@lru_cache(maxsize=64)
def null_of(probabilities: tuple[float, ...], k: int, seed: int) -> _Null:
    """The null distribution: statistics of k draws from the target itself."""
    return _Null(perfect_sampler(probabilities, k, seed, REPEATS), k)


@lru_cache(maxsize=256)
def detectable_tvd(probabilities: tuple[float, ...], k: int, seed: int = 0, level: float = SIGNIFICANCE) -> float:
    """The smallest TVD among k valid answers that the test of this level detects in 80 % of cases, for every kind of departure.

    By simulation of four departures: shares shifted between targets, the rarest targets missing, a temperature below 1, one above 1.
    The result is the smallest TVD of the departure that is hardest to detect. If that one is not detected even at its largest TVD, nothing
    can be promised: 1. nan without draws, and with a single target.
    """
    p = np.sort([value for value in probabilities if value > TINY])[::-1]
    p = p / p.sum()
    if k == 0 or len(p) < 2:
        return math.nan
    null = null_of(probabilities, k, seed)
    critical = null.critical(level)
    repeats = int(np.clip(_POWER_CELLS // min(len(p), k), _FEWEST_REPEATS, _POWER_REPEATS))

    def detected(departure: Departure, tvd: float) -> bool:
        drawn = drawn_from(p, departure(p, tvd), k, np.random.default_rng(seed), repeats)
        return bool(null.rejects(drawn, critical).mean() >= POWER)

    hardest = missed = 0.0
    for departure, furthest in departures(p):
        reach = 0.999 * furthest
        if reach > hardest and (hardest == 0 or not detected(departure, hardest)):
            if detected(departure, reach):
                hardest = _smallest(partial(detected, departure), hardest, reach)
            else:
                missed = max(missed, reach)
    return 1.0 if missed > hardest else hardest


def _smallest(detected: Callable[[float], bool], low: float, reach: float) -> float:
    """The smallest TVD above `low` that is detected, where the reach is."""
    low, high = max(low, _SMALLEST), max(reach, _SMALLEST)
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if detected(middle) else (middle, high)
    return high
