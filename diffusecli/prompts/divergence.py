"""How far a model's exact probabilities are from the target weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exact_kl(p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) = sum p (ln p - ln q) over targets of positive weight, nats."""
    likely = p > 0
    return float(np.sum(p[likely] * (np.log(p[likely]) - log_q[likely])))


def exact_tvd(p: np.ndarray, q: np.ndarray) -> float:
    """Total variation distance: (sum |p - q| + 1 - sum q) / 2. What q has off target counts as one more outcome.

    >>> round(exact_tvd(np.array([0.5, 0.5]), np.array([0.4, 0.4])), 4)
    0.2
    """
    return float(np.abs(p - q).sum() + max(0.0, 1 - float(q.sum()))) / 2


def summed(owners: Sequence[int], log_probs: np.ndarray, targets: int) -> np.ndarray:
    """Ln of the summed probabilities of the texts of each target [K]; `owners` are their targets."""
    totals = np.full(targets, -np.inf)
    np.logaddexp.at(totals, np.array(owners, dtype=int), log_probs)
    return totals
