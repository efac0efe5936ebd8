"""The figures of published work: divergences of one prompt's answers from its target, from counts or from the model's own probabilities.

Symbols: p weights [K], c counts [K] of n answers, q the model's own probabilities of the targets [K]. What is no target is an outcome of weight 0.
Figures that begin with `valid_` are of the answers that are targets alone.
"""

from __future__ import annotations

import math

import numpy as np

from diffusecli.evaluation.distance import expected_excess
from diffusecli.evaluation.perfect import mean_tvd

REPEATS = 2000
"""Of Monte Carlo, for the mean of a divergence that has no closed form."""

Figures = dict[str, float]


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits: the mean of KL(p || m) and KL(q || m), where m is the mean of p and q. Over the last axis.

    By hand, p = (1/2, 1/2), q = (1, 0): m = (3/4, 1/4), KL(p || m) = 1/2 log2(2/3) + 1/2 log2(2) = .2075, KL(q || m) = log2(4/3) = .4150.

    >>> round(float(jensen_shannon(np.array([0.5, 0.5]), np.array([1.0, 0.0]))), 4)
    0.3113
    >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    middle = (p + q) / 2

    def from_middle(some: np.ndarray) -> np.ndarray:
        ratio = np.divide(some, middle, out=np.ones_like(middle), where=some > 0)
        return np.asarray((some * np.log2(ratio)).sum(-1))

    return np.asarray((from_middle(p) + from_middle(q)) / 2)


def of_counts(p: np.ndarray, counts: np.ndarray, n: int) -> Figures:
    """Of n answers: share on target, TV, excess TV (above the mean TV of n draws from the target), Jensen-Shannon divergence."""
    valid = int(counts.sum())
    found = {"n": n, "valid": valid / n, **_of_shares(p, counts / n, "")}
    found["excess_tv"] = found["tv"] - mean_tvd(n, p)
    if valid:
        found |= _of_shares(p, counts / valid, "valid_")
        found["valid_excess_tv"] = found["valid_tv"] - mean_tvd(valid, p)
    return found


def of_probabilities(p: np.ndarray, q: np.ndarray, n: int) -> Figures:
    """Of the model's own distribution, without sampling noise; and what n answers show on average (`mean_…`)."""
    on_target = float(q.sum())
    found = {"n": n, "valid": on_target, **_of_shares(p, q, ""), **_of_shares(p, q / on_target, "valid_")}
    for prefix, shares in (("", q), ("valid_", q / on_target)):
        excess = expected_excess(n, shares, p)
        found[f"{prefix}mean_tv"], found[f"{prefix}excess_tv"] = excess + mean_tvd(n, p), excess
        found[f"{prefix}mean_js"] = mean_jensen_shannon(p, shares, n)
    return found


def mean_jensen_shannon(p: np.ndarray, q: np.ndarray, n: int) -> float:
    """The mean divergence of n answers of a model, by Monte Carlo with a fixed seed."""
    whole = np.append(q, max(0.0, 1 - float(q.sum())))
    drawn = np.random.default_rng(0).multinomial(n, whole / whole.sum(), size=REPEATS)
    return float(jensen_shannon(np.append(p, 0.0), drawn / n).mean())


def _of_shares(p: np.ndarray, shares: np.ndarray, prefix: str) -> Figures:
    off = max(0.0, 1 - float(shares.sum()))
    tv = (float(np.abs(shares - p).sum()) + off) / 2
    js = float(jensen_shannon(np.append(p, 0.0), np.append(shares, off)))
    return {f"{prefix}tv": tv, f"{prefix}js": js}


def summed(values: list[float], of: int) -> float:
    """The sum over a sweep of `of` parameters; of fewer, their mean times `of`.

    >>> summed([0.5, 0.25], 2), summed([0.5], 101)
    (0.75, 50.5)
    """
    return math.fsum(values) / len(values) * of
