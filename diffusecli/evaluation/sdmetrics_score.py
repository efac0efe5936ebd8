"""SDMetrics' quality score of records, beside that of a perfect sampler with as many answers. Needs the extra `records`.

Knows what records should be, and answers that are taken apart.
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

_ROWS = 10_000  # of the table in which each record comes in proportion to its weight, or as many as there are records
_PERFECT = 5  # samples of a perfect sampler


@dataclass(frozen=True)
class Quality:
    """The mean of the similarity of columns and of pairs of columns, between 0 and 1."""

    score: float  # of the answers that fit the template, numbers in every field of numbers; nan where there are none
    perfect: float  # of as many records of a perfect sampler, the mean of five samples


def require_sdmetrics() -> Any:
    """The class of the report; raises `InputError` where it is not installed."""
    try:
        from sdmetrics.reports.single_table import QualityReport
    except ImportError as error:
        raise InputError("--sdmetrics needs the package sdmetrics, run `pip install 'diffuse-lm[records]'`") from error
    return QualityReport


def quality(target: RecordTarget, rows: Sequence[tuple[tuple[str, ...], int]], seed: int) -> Quality:
    """Of answers by their values and how often each came.

    Fields of many different numbers are numbers to SDMetrics, all others categories. Raises `InputError` where it is not installed.
    """
    report, numeric = require_sdmetrics(), [numbers_of(own) is not None for own in target.marginals]
    columns = {
        name: {"sdtype": "numerical" if number else "categorical"}
        for name, number in zip(target.template.fields, numeric, strict=True)
    }
    rng = np.random.default_rng(seed)
    wanted = _frame(_spelled(target, _shared_out(target, rng)), numeric, columns)
    answers = [values for values, count in rows if _are_numbers(values, numeric) for _ in range(count)]

    def score(some: Sequence[Sequence[str]]) -> float:
        if not some:
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constant columns, whose score is then of the others
            made = report()
            made.num_rows_subsample = None  # else it draws rows of large tables, without a seed
            made.generate(wanted, _frame(some, numeric, columns), {"columns": columns}, verbose=False)
        return float(made.get_score())

    perfect = [score(_spelled(target, target.draw(len(answers), rng))) for _ in range(_PERFECT if answers else 0)]
    return Quality(score(answers), float(np.mean(perfect)) if perfect else math.nan)


def _shared_out(target: RecordTarget, rng: np.random.Generator) -> np.ndarray:
    """A table of records that stands for the weights [M, F]: each as often as its weight says, to within one row; of several draws a sample."""
    if not len(target.rows):
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
