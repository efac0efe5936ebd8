"""Figures of a perfect sampler: the distribution of every statistic under the target itself, by Monte Carlo, and means exactly.

Takes weights and N. Symbols: N draws, K cells of positive weight p_i, counts c_i, B repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from diffusecli.evaluation.binomials import exactly

REPEATS = 9_999
TINY = 1e-300  # smaller weights count as zero: their reciprocal would overflow
FLOOR_REPEATS = 1_999  # enough for a mean and a 95 % quantile
_FEWEST = 999
_CELLS = 30_000_000  # binomials, or draws, in total: about two seconds
_BATCH_CELLS = 2_000_000  # at once


@dataclass(frozen=True)
class Statistics:
    """Figures of B sets of counts: [B] each."""

    g: np.ndarray
    pearson: np.ndarray
    tvd: np.ndarray
    seen: np.ndarray  # distinct cells with a count
    entropy: np.ndarray  # Miller-Madow, nats

    @property
    def repeats(self) -> int:
        """B."""
        return len(self.g)


def statistics(counts: np.ndarray, p: np.ndarray) -> Statistics:
    """Statistics of counts [B, K], where each row sums to N; all p > 0."""
    rows, cells = counts.nonzero()
    return _of_seen(rows, cells, counts[rows, cells], p, len(counts), int(counts[0].sum()))


def _of_seen(rows: np.ndarray, cells: np.ndarray, counts: np.ndarray, p: np.ndarray, repeats: int, n: int) -> Statistics:
    """Statistics from the cells with a count (row, cell and count of each), of B rows that each sum to N.

    G = 2 (sum c ln c - sum c ln Np), X^2 = sum c^2 / Np - N, TVD = 1/2 sum |c / N - p|,
    H = ln N - sum c ln c / N + (m - 1) / 2N with m cells seen (Miller 1955).
    """
    real, expected = counts.astype(np.float64), n * p[cells]

    def by_row(values: np.ndarray) -> np.ndarray:
        return np.bincount(rows, values, repeats)

    c_log_c = by_row(real * np.log(real))
    seen = np.bincount(rows, minlength=repeats)
    return Statistics(
        g=2 * (c_log_c - by_row(real * np.log(expected))),
        pearson=by_row(real**2 / expected) - n,
        tvd=(p.sum() + by_row(np.abs(real - expected) - expected) / n) / 2,  # an unseen cell adds its p
        seen=seen,
        entropy=math.log(n) - c_log_c / n + (seen - 1) / (2 * n),
    )


@lru_cache(maxsize=64)
def perfect_sampler(probabilities: tuple[float, ...], n: int, seed: int, most: int = REPEATS) -> Statistics:
    """Statistics of B times N draws from the target; B is 9 999 or `most`, fewer if both N and the number of targets exceed 3 000. N is positive."""
    p = np.array([value for value in probabilities if value > TINY])
    return drawn_from(p, p / p.sum(), n, np.random.default_rng(seed), max(_FEWEST, min(most, _CELLS // min(len(p), n))))


def drawn_from(p: np.ndarray, q: np.ndarray, n: int, rng: np.random.Generator, repeats: int) -> Statistics:
    """Statistics of B times N draws from q, compared with p: cell by cell, or draw by draw if there are more cells than draws."""
    size = max(1, _BATCH_CELLS // min(len(p), n))
    batches = [_batch(p, q, n, rng, min(size, repeats - start)) for start in range(0, repeats, size)]
    return Statistics(*(np.concatenate([getattr(batch, field.name) for batch in batches]) for field in fields(Statistics)))


def _batch(p: np.ndarray, q: np.ndarray, n: int, rng: np.random.Generator, repeats: int) -> Statistics:
    if len(p) <= n:
        return statistics(rng.multinomial(n, q, size=repeats), p)
    cumulative = q.cumsum()
    cells = cumulative.searchsorted(
        np.sort(rng.random((repeats, n)) * cumulative[-1], axis=1), "right"
    )  # "right": never a cell of weight zero
    first = np.ones((repeats, n), dtype=bool)
    first[:, 1:] = cells[:, 1:] != cells[:, :-1]
    starts = np.flatnonzero(first)  # of each seen cell, among all draws, row by row
    return _of_seen(starts // n, cells.ravel()[starts], np.diff(starts, append=repeats * n), p, repeats, n)


def p_value(null: np.ndarray, seen: float) -> float:
    """The p-value of a statistic whose large values are evidence against the target. Values that differ by rounding are equal."""
    return float(monte_carlo_p(np.count_nonzero(null >= seen - 1e-9 * max(1.0, abs(seen))), len(null)))


def monte_carlo_p(as_extreme: Any, repeats: int) -> Any:
    """(1 + #{T* as extreme as T}) / (B + 1), for one count or an array: valid at every N (Davison and Hinkley 1997, 4.2)."""
    return (1 + as_extreme) / (repeats + 1)


def mean_absolute_deviation(n: int, p: np.ndarray) -> np.ndarray:
    """E|X/N - p| for X binomial (N, p), exactly: 2 v (1 - p) P(X = v) / N with v = floor(Np) + 1 (de Moivre 1730).

    >>> [round(float(value), 4) for value in mean_absolute_deviation(10, np.array([0.5, 0.0, 1.0]))]
    [0.123, 0.0, 0.0]
    """
    above = np.floor(n * p) + 1
    return np.asarray(2 * above * (1 - p) * exactly(above, n, p) / n)


def mean_tvd(n: int, p: np.ndarray) -> float:
    """The floor: the mean TVD of N draws from the target itself.

    >>> [round(mean_tvd(1000, np.full(k, 1 / k)), 3) for k in (10, 100, 200)]
    [0.038, 0.124, 0.175]
    """
    return float(mean_absolute_deviation(n, p).sum() / 2) if n else math.nan
