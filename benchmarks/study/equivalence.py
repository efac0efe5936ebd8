"""Whether two models answer equally well: two one-sided tests (TOST) of paired answers, and how many questions they need.

Symbols: N questions that both models answer, d_i = right after - right before (-1, 0 or 1), m its mean, s its standard deviation, D the margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

MARGIN = 0.01
ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Equivalence:
    """The result of both tests."""

    n: int
    lost: int
    gained: int
    change: float  # m: change of the share of right answers
    low: float  # 90 % interval of m: inside (-D, D) if and only if the tests show equivalence at 5 %
    high: float
    p_value: float  # the larger of the two
    needed: int  # questions for a power of 80 %, if the models are equal and change as many answers as here

    @property
    def shown(self) -> bool:
        """Whether the models are equivalent within the margin."""
        return self.p_value < ALPHA


def equivalence(n: int, lost: int, gained: int, margin: float = MARGIN) -> Equivalence:
    """Test that the mean of d is within ±D: H0 m <= -D and H0 m >= D, each by Student's t with N - 1 degrees of freedom.

    Without a changed answer s is 0. Then p is the probability of no change in N questions if a share D of them changed: (1 - D)^N.

    By hand, N = 100, 2 lost, 2 gained, D = .1: m = 0, s = sqrt(4 / 99) = .2010, t = .1 / .0201 = 4.975.

    >>> found = equivalence(100, 2, 2, 0.1)
    >>> found.change, round(found.high, 4), found.shown
    (0.0, 0.0334, True)
    """
    change = (gained - lost) / n
    needed = questions_needed((lost + gained) / n, margin)
    squares = (lost + gained) - n * change**2  # sum of (d - m)^2
    if squares == 0:  # every d is the same
        return Equivalence(n, lost, gained, change, change, change, 1.0 if change else (1 - margin) ** n, needed)
    error = math.sqrt(squares / (n - 1) / n)
    law = stats.t(n - 1)
    p_value = max(float(law.sf((change + margin) / error)), float(law.cdf((change - margin) / error)))
    half = float(law.ppf(1 - ALPHA)) * error
    return Equivalence(n, lost, gained, change, change - half, change + half, p_value, needed)


def questions_needed(changed: float, margin: float = MARGIN) -> int:
    """Questions for a power of 80 % if two equal models answer this share of them differently: (z(.95) + z(.9))^2 changed / D^2.

    Of 4 % and one point: (1.6449 + 1.2816)^2 * .04 / .0001 = 3425.7.

    >>> questions_needed(0.04)
    3426
    """
    quantiles = float(stats.norm.ppf(1 - ALPHA) + stats.norm.ppf((1 + POWER) / 2))
    return math.ceil(quantiles**2 * changed / margin**2)
