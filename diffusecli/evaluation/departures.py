"""Ways in which a sampler may differ from the target, each at a chosen distance (TVD).

Takes only weights. Symbols: p_i weights of the cells, largest first; q the sampler's own distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

Departure = Callable[[np.ndarray, float], np.ndarray]
"""Takes p (largest weight first) and a TVD, and returns a q at that distance. The TVD is at most the departure's reach."""


def shifted(p: np.ndarray, tvd: float) -> np.ndarray:
    """Every second target too often, the others too rarely, in proportion to their weights."""
    up = np.arange(len(p)) % 2 == 0
    return np.asarray(np.where(up, p * (1 + tvd / p[up].sum()), p * (1 - tvd / p[~up].sum())))


def tail_missing(p: np.ndarray, tvd: float) -> np.ndarray:
    """The rarest targets are never drawn, and the most frequent of these too rarely."""
    before = np.cumsum(p) - p
    left = np.clip(1 - tvd - before, 0, p)
    untouched = left >= p
    return np.asarray(np.where(untouched, p * (1 + tvd / p[untouched].sum()), left))


def tempered(p: np.ndarray, tvd: float, *, furthest: float) -> np.ndarray:
    """Sampled at another temperature: q in proportion to p^b, with b between 1 and `furthest`."""
    near, far = 1.0, furthest
    for _ in range(50):
        middle = (near + far) / 2
        near, far = (middle, far) if _distance(p, power(p, middle)) < tvd else (near, middle)
    return power(p, near)


_COLDEST, _HOTTEST = 1000.0, 0.0  # exponents: only the likeliest targets; all targets equally likely


def power(p: np.ndarray, b: float) -> np.ndarray:
    """p^b, normalised."""
    logs = b * np.log(p)
    q = np.exp(logs - logs.max())
    return np.asarray(q / q.sum())


def _distance(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.abs(p - q).sum() / 2)


def departures(p: np.ndarray) -> list[tuple[Departure, float]]:
    """Ways to differ from weights p (largest first), and the largest TVD that each can reach."""
    by_temperature = [(partial(tempered, furthest=b), _distance(p, power(p, b))) for b in (_COLDEST, _HOTTEST)]
    return [(shifted, float(p[1::2].sum())), (tail_missing, float(1 - p[0])), *by_temperature]
