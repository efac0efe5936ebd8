"""SDMetrics' quality score of records, and the score of a perfect sampler with as many answers. Needs the extra `records`.

Takes the target distribution of records, and answers split into fields.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusecli.evaluation.record_targets import RecordTarget, numbers_of
from diffusecli.system.errors import InputError

_ROWS = 10_000  # rows of the reference table, where counts are proportional to weights; more if there are more records
_PERFECT = 5  # samples of a perfect sampler


@dataclass(frozen=True)
class Quality:
    """The mean of the similarity of columns and of pairs of columns, between 0 and 1."""

    score: float  # of the answers that fit the template and have numbers in every numeric field; nan if there are none
    perfect: float  # of as many records of a perfect sampler; mean of five samples


def require_sdmetrics() -> Any:
    """The class `QualityReport`; raises `InputError` if SDMetrics is not installed."""
    try:
        from sdmetrics.reports.single_table import QualityReport
    except ImportError as error:
        raise InputError("--sdmetrics needs the package sdmetrics. Run `pip install 'diffuse-lm[records]'`") from error
    return QualityReport


def quality(target: RecordTarget, rows: Sequence[tuple[tuple[str, ...], int]], seed: int) -> Quality:
    """The quality score of answers, given by their values and counts.

    Fields with many different numbers are numerical for SDMetrics, all others categorical. Raises `InputError` if it is not installed.
    """
    report, numeric = require_sdmetrics(), [numbers_of(own) is not None for own in target.marginals]
    columns = {
        name: {"sdtype": "numerical" if number else "categorical"}
        for name, number in zip(target.template.fields, numeric, strict=True)
    }
    rng = np.random.default_rng(seed)
    wanted = _frame(_spelled(target, _reference_table(target, rng)), numeric, columns)
    answers = [values for values, count in rows if _are_numbers(values, numeric) for _ in range(count)]

    def score(some: Sequence[Sequence[str]]) -> float:
        if not some:
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about constant columns; they do not enter the score
            made = report()
            made.num_rows_subsample = None  # otherwise it subsamples large tables without a seed
            made.generate(wanted, _frame(some, numeric, columns), {"columns": columns}, verbose=False)
        return float(made.get_score())

    perfect = [score(_spelled(target, target.draw(len(answers), rng))) for _ in range(_PERFECT if answers else 0)]
    return Quality(score(answers), float(np.mean(perfect)) if perfect else math.nan)


def _reference_table(target: RecordTarget, rng: np.random.Generator) -> np.ndarray:
    """A reference table of records [M, F]: counts follow the weights to within one row; for several draws per answer a random sample."""
    if not len(target.rows) or target.partial:
        return target.draw(_ROWS, rng)
    most = max(_ROWS, len(target.rows))
    ends = np.floor(target.weights.cumsum() / target.weights.sum() * most + 0.5).astype(np.int64)
    return target.rows.repeat(np.diff(ends, prepend=0), axis=0)


def _spelled(target: RecordTarget, rows: np.ndarray) -> list[tuple[str, ...]]:
    values = [list(own) for own in target.marginals]
    return [tuple(own[place] for own, place in zip(values, row, strict=True)) for row in rows.tolist()]


def _are_numbers(values: Sequence[str], numeric: Sequence[bool]) -> bool:
    try:
        return all(math.isfinite(float(value)) for value, number in zip(values, numeric, strict=True) if number)
    except ValueError:
        return False


def _frame(rows: Sequence[Sequence[str]], numeric: Sequence[bool], columns: dict[str, Any]) -> Any:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({name: float for name, number in zip(columns, numeric, strict=True) if number})
