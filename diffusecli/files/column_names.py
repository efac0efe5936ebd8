"""Recognise columns of counts and weights by name.

Checks names only; callers check the numbers.
"""

from __future__ import annotations

import re

_COUNTS = "counts?|n|freq|frequency|frequencies|size|anzahl|häufigkeit"

COUNT_LIKE = re.compile(rf"(?:{_COUNTS}|times|occurrences)", re.IGNORECASE)
"""Names of count columns. Whole names only: `word_count` counts something else."""

WEIGHT_LIKE = re.compile(
    rf"(?:\w+[ _-])?(?:{_COUNTS}|weights?|shares?|percent|percentages?|pct|prop|proportion|prob|probability|"
    r"respondents|votes|anteil|gewicht|prozent|%)",
    re.IGNORECASE,
)
"""Names of weight columns."""


def is_count_like(name: object) -> bool:
    """Whether it is the name of a column of answer counts.

    >>> is_count_like("Count"), is_count_like("word_count"), is_count_like("weight")
    (True, False, False)
    """
    return isinstance(name, str) and bool(COUNT_LIKE.fullmatch(name))


def as_argument(name: str) -> str:
    """A name as an argument on the command line, quoted if needed.

    >>> as_argument("share"), as_argument("share of votes")
    ('share', "'share of votes'")
    """
    return name if re.fullmatch(r"[\w.%+-]+", name) else f"'{name}'"
