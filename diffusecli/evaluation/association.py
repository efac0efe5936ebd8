"""The association of two fields of records: how it is measured, and what it would be with other shares of the fields.

A field's values are coded as indices; N rows of two fields are an array [N, 2] with counts or weights [N].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from diffusecli.evaluation.record_targets import numbers_of

CORRELATION, CRAMERS_V = "correlation", "Cramér's V"
_MOST_CELLS = 100_000  # of the table of two fields: a larger table needs more answers than anyone samples
_RAKED, _RAKED_ENOUGH = 100, 1e-6  # rounds of raking, and the change of weights that ends it


def raked(rows: np.ndarray, weights: np.ndarray, answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The weights of rows [R, 2] scaled until both fields have the shares of the answers [N, 2] (Deming and Stephan 1940).

    This keeps the target's association, as odds ratios. All weights are 0 if no row has values of both fields.
    """
    found = np.asarray(weights / weights.sum())
    for _ in range(_RAKED):
        before = found
        for field in (0, 1):
            size = 1 + max(int(rows[:, field].max()), int(answers[:, field].max()))
            wanted = np.bincount(answers[:, field], weights=counts, minlength=size) / counts.sum()
            now = np.bincount(rows[:, field], weights=found, minlength=size)
            found = np.asarray(found * np.divide(wanted, now, out=np.zeros(size), where=now > 0)[rows[:, field]])
        if np.abs(found - before).sum() < _RAKED_ENOUGH:
            break
    return found


def association(first: dict[str, float], second: dict[str, float]) -> tuple[str, Callable[[np.ndarray, np.ndarray], float] | None]:
    """The measure of association of two fields: a function of value indices [N, 2] and counts [N]; None if there is no usable one."""
    sizes, numbers = (len(first), len(second)), [numbers_of(own) for own in (first, second)]
    if sizes[0] * sizes[1] > _MOST_CELLS or min(sizes) < 2:
        return "", None
    x, y = numbers
    if x is not None and y is not None:
        of_numbers = x, y
        return CORRELATION, lambda rows, counts: correlation(of_numbers[0][rows[:, 0]], of_numbers[1][rows[:, 1]], counts)
    cells = sizes[0] * sizes[1]
    return CRAMERS_V, lambda rows, counts: cramers_v(
        np.bincount(rows[:, 0] * sizes[1] + rows[:, 1], weights=counts, minlength=cells).reshape(sizes)
    )


def cramers_v(table: np.ndarray) -> float:
    """Sqrt(X2 / (N (min(rows, columns) - 1))) with X2 of the test of independence (Cramér 1946); 0 if a field has only one value.

    >>> cramers_v(np.array([[5, 0], [0, 5]])), cramers_v(np.array([[1, 1], [1, 1]]))
    (1.0, 0.0)
    """
    shares = table / table.sum()
    rows, columns = shares.sum(1), shares.sum(0)
    independent = np.outer(rows, columns)
    square = float(np.divide((shares - independent) ** 2, independent, out=np.zeros_like(independent), where=independent > 0).sum())
    return math.sqrt(square / (min(table.shape) - 1))


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Weighted Pearson correlation; 0 if one of the two is constant.

    >>> round(correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), np.ones(3)), 6)
    1.0
    """
    w = weights / weights.sum()
    x, y = x - (w * x).sum(), y - (w * y).sum()
    spread = math.sqrt(float((w * x * x).sum() * (w * y * y).sum()))
    return float((w * x * y).sum() / spread) if spread > 0 else 0.0
