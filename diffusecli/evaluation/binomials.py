"""The binomial distribution, intervals of shares and adjusted p-values, from `scipy.special`: importing `scipy.stats` takes a second.

Symbols: N draws, k of them of one kind, p the probability of that kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_TAIL = 0.025  # on each side of a 95 % interval


def at_most(k: Any, n: int, p: Any) -> np.ndarray:
    """P(X <= k) for X binomial (N, p): the regularised incomplete beta function I of 1 - p at (N - k, k + 1)."""
    from scipy.special import betainc

    k, p = np.broadcast_arrays(np.asarray(k, float), np.asarray(p, float))
    inside = np.clip(k, 0, max(n - 1, 0))
    found = betainc(n - inside, inside + 1, 1 - p) if n else np.ones_like(p)
    return np.where(k < 0, 0.0, np.where(k >= n, 1.0, found))


def more_than(k: Any, n: int, p: Any) -> np.ndarray:
    """P(X > k), with full precision also for small values: I of p at (k + 1, N - k)."""
    from scipy.special import betainc

    k, p = np.broadcast_arrays(np.asarray(k, float), np.asarray(p, float))
    inside = np.clip(k, 0, max(n - 1, 0))
    found = betainc(inside + 1, n - inside, p) if n else np.zeros_like(p)
    return np.where(k < 0, 1.0, np.where(k >= n, 0.0, found))


def exactly(k: Any, n: int, p: Any) -> np.ndarray:
    """P(X = k) for whole k >= 0; 0 for k > N."""
    from scipy.special import betaln, xlog1py, xlogy

    k = np.asarray(k, float)
    inside = np.minimum(k, n)
    ways = -betaln(1 + n - inside, 1 + inside) - np.log(n + 1)
    return np.where(k > n, 0.0, np.exp(ways + xlogy(inside, p) + xlog1py(n - inside, -np.asarray(p, float))))


def mean_deviation(n: int, q: Any, p: Any) -> np.ndarray:
    """E|X/N - p| for X binomial (N, q), exactly, for N > 0.

    E|X - a| = Nq - a + 2 (a P(X <= v) - Nq P(Y <= v - 1)) with a = Np, v = floor(a) and Y binomial (N - 1, q), since
    x P(X = x) = Nq P(Y = x - 1). For q = 1/2, p = 1, N = 2: X/N is 0, 1/2, 1 with 1/4, 1/2, 1/4, so the mean of |X/N - 1| is 1/2.

    >>> float(mean_deviation(2, 0.5, 1.0)), float(mean_deviation(2, 0.5, 0.5)), float(mean_deviation(500, 0.0, 0.25))
    (0.5, 0.25, 0.25)
    """
    q, p = np.broadcast_arrays(np.asarray(q, float), np.asarray(p, float))
    v = np.floor(n * p)
    below = p * at_most(v, n, q) - q * at_most(v - 1, n - 1, q)
    return np.asarray(np.maximum(q - p + 2 * below, 0))


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval (1934) for a share of k in n. Each end is wrong with at most 2.5 % for every true share.

    Verdicts depend on its ends. Approximate intervals such as Wilson's are wrong more often for rare outcomes: at a true share of 1 % and
    N = 100, their lower end is above it with 7.9 %, and this one with 1.8 %.

    At its ends P(X >= k) and P(X <= k) are 2.5 %. For 0 in n the upper end is 1 - .025^(1/n):

    >>> [round(bound, 4) for bound in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    from scipy.special import betaincinv

    if n == 0:
        return 0.0, 1.0
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, _TAIL))
    return low, 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - _TAIL))


def false_discoveries(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's (1995) adjusted p-values: the i-th smallest of m is multiplied by m / i, and is at most the next larger one.

    >>> [round(float(value), 3) for value in false_discoveries(np.array([0.5, 0.01, 0.02]))]
    [0.5, 0.03, 0.03]
    """
    m, order = len(p_values), np.argsort(p_values)
    scaled = p_values[order] * m / np.arange(1, m + 1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.clip(adjusted, 0, 1)
