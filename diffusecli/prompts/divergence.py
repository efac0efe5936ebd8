"""How far a model's exact probabilities are from the target weights."""

from __future__ import annotations

import numpy as np


def exact_kl(p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) = sum p (ln p - ln q) over targets of positive weight, nats."""
    likely = p > 0
    return float(np.sum(p[likely] * (np.log(p[likely]) - log_q[likely])))
