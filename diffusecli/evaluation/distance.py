"""Distance of a sampler from the target: the TVD of its answers, and an interval for the sampler's own TVD.

The TVD of a sample is too large on average, by up to its floor. No estimate corrects this if targets are expected less than a few
times: many distributions give counts of 0 and 1. So this module gives bounds, each from a known inequality.

Takes counts and weights. Symbols: N draws, c_i counts, p_i weights, q the sampler's own distribution, o its share of impossible answers.
"""

from __future__ import annotations

import math

import numpy as np

from diffusecli.evaluation.binomials import clopper_pearson, mean_deviation
from diffusecli.evaluation.perfect import TINY, Statistics, drawn_from, mean_tvd

_SIDE = 0.975  # of each side of a 95 % interval
_NORMAL = 1.96  # the same in standard deviations
_FEWEST = 10  # fewer answers do not show their own noise
_REPEATS = 200
_CELLS = 200_000  # binomials drawn: takes 0.01 s


def total_variation(counts: np.ndarray, n: int, p: np.ndarray) -> float:
    """TVD = 1/2 sum |c_i / N - p_i|, including the cell of off-target samples (p = 0).

    >>> round(total_variation(np.array([6, 4]), 10, np.array([.5, .5])), 12)
    0.1
    """
    if n == 0:
        return math.nan
    off = 1 - counts.sum() / n
    return float((np.abs(counts / n - p).sum() + off) / 2)


def expected_excess(n: int, q: np.ndarray, p: np.ndarray) -> float:
    """Expected excess TVD of N draws from a model, exactly, from its probabilities q of the targets [K].

    E TVD = 1/2 (sum E|X_i/N - p_i| + 1 - sum q) with X_i binomial (N, q_i), off-target draws a separate cell as in
    `total_variation`, minus the floor `mean_tvd`. 0 if the model is the target.

    By hand, for N = 1, q = (1, 0), p = (1/2, 1/2): every draw has a TVD of 1/2, and so does every draw of a perfect sampler.
    For N = 2 the model still has 1/2; a perfect sampler has 0 in half of all cases and 1/2 in the others, 1/4 on average:

    >>> halves, one = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    >>> expected_excess(1, one, halves), expected_excess(2, one, halves), expected_excess(2, halves, halves)
    (0.0, 0.25, 0.0)
    """
    q = np.minimum(q, 1)
    expected = float(mean_deviation(n, q, p).sum() + max(0.0, 1 - q.sum())) / 2
    return round(expected - mean_tvd(n, p), 12)


def tvd_interval(counts: np.ndarray, n: int, p: np.ndarray, perfect: Statistics) -> tuple[float, float]:
    """About 95 % confidence bounds of TVD(q, p), from counts [K] of the targets among N answers and draws of a perfect sampler at N.

    Off-target answers are handled first: they alone cause a TVD of o. Then, with q the distribution of all answers,

    - lower: TVD(q, p) >= o, and >= TVD(sample, p) - TVD(sample, q) by the triangle inequality; the last term is noise, whose
      quantile follows from q; the larger of those under p and under a smoothed sample counts; and >= |q(A) - p(A)| for the set A of the
      rarest targets, however many: all their shares are known to within sqrt(ln(2 / .025) / 2N) at once (Massart 1990);
    - upper: TVD(q, p) <= E TVD(sample, p), because the distance is convex, and its standard deviation is at most 1 / (2 sqrt N);
      and TVD(q, p) <= o + 1/2 sqrt(sum (r - p)^2 / p) by the Cauchy-Schwarz inequality, with r the distribution of valid answers,
      whose chi-square distance has the unbiased estimate sum c (c - 1) / (k (k - 1) p) - 1 at every k.
    """
    if n == 0:
        return math.nan, math.nan
    possible = p > TINY
    seen, weights = counts[possible], p[possible] / p[possible].sum()
    k = int(seen.sum())
    observed = total_variation(seen, n, weights)
    off_low, off_high = clopper_pearson(n - k, n)
    noise = max(float(np.quantile(law.tvd, _SIDE)) for law in (perfect, _noise_of(_smoothed(seen, n, weights), n)))
    lower = max(observed - noise if n >= _FEWEST else 0.0, _bound_by_rarest(seen / n, n, weights))
    upper = min(observed + _NORMAL / (2 * math.sqrt(n)), off_high + _bound_by_chi_square(seen, k, weights))
    low = max(lower, off_low, 0.0)
    return low, max(low, min(upper, 1.0))


def _noise_of(q: np.ndarray, n: int) -> Statistics:
    """Statistics of N draws from q, compared with q itself."""
    q = q[q > 0]
    return drawn_from(q, q, n, np.random.default_rng(0), min(_REPEATS, max(50, _CELLS // min(len(q), n))))


def _smoothed(seen: np.ndarray, n: int, p: np.ndarray) -> np.ndarray:
    """The sample's shares [K + 1], impossible answers last. Good and Turing's unseen mass is spread over the targets not seen, by weight."""
    unseen = seen == 0
    mass = (seen == 1).sum() / n if unseen.any() else 0.0
    shares = np.append(seen, n - seen.sum()) / n * (1 - mass)
    if mass:
        shares[:-1] += mass * p * unseen / p[unseen].sum()
    return np.asarray(shares)


def _bound_by_rarest(shares: np.ndarray, n: int, p: np.ndarray) -> float:
    """A lower bound from the shares of the m rarest targets, for all m together."""
    order = np.argsort(p, kind="stable")
    return float(np.abs(np.cumsum((shares - p)[order])).max()) - math.sqrt(math.log(2 / (1 - _SIDE)) / (2 * n))


def _bound_by_chi_square(seen: np.ndarray, k: int, p: np.ndarray) -> float:
    """An upper bound of the TVD among valid answers: half the root of the upper bound of their chi-square distance."""
    if k < 2:
        return 1.0
    pairs = k * (k - 1)
    ratio = (seen / k) / p
    distance = float((seen * (seen - 1.0) / p).sum()) / pairs - 1
    of_the_sum = 4 / k * max(0.0, float((ratio**2 * seen).sum()) / k - (distance + 1) ** 2)
    of_the_pairs = 2 / pairs * max(len(p) - 1.0, float((ratio**2).sum()))
    return math.sqrt(max(0.0, distance + _NORMAL * math.sqrt(of_the_sum + of_the_pairs))) / 2
