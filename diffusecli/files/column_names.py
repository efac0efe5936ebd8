"""What the name of a column says about its numbers: that they count, or that they weigh in any way.

Knows names alone; whether the numbers fit is for those who read them.
"""

from __future__ import annotations

import re

_COUNTS = "counts?|n|freq|frequency|frequencies|size|anzahl|häufigkeit"

COUNT_LIKE = re.compile(rf"(?:{_COUNTS}|times|occurrences)", re.IGNORECASE)
"""Names of columns that say how often an answer came. Whole names, without a word before them: `word_count` counts something else."""

WEIGHT_LIKE = re.compile(
    rf"(?:\w+[ _-])?(?:{_COUNTS}|weights?|shares?|percent|percentages?|pct|prop|proportion|prob|probability|"
    r"respondents|votes|anteil|gewicht|prozent|%)",
    re.IGNORECASE,
)
"""Names of columns that weigh."""


def is_count_like(name: object) -> bool:
    """Whether it is the name of a column that says how often an answer came.

    >>> is_count_like("Count"), is_count_like("word_count"), is_count_like("weight")
    (True, False, False)
    """
    return isinstance(name, str) and bool(COUNT_LIKE.fullmatch(name))


def as_argument(name: str) -> str:
    """A name as it is typed on a command line, in quotes where it needs them.

    >>> as_argument("share"), as_argument("share of votes")
    ('share', "'share of votes'")
    """
    return name if re.fullmatch(r"[\w.%+-]+", name) else f"'{name}'"
