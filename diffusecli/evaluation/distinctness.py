"""Distinct of 10: how many different texts are expected among 10 answers to an open-ended prompt.

Takes counted texts. NoveltyBench (Zhang et al. 2025, arXiv 2504.05228) counts the different answers among 10 generations, and a trained
classifier decides which ones are equivalent. Here answers are equal if their normalised texts are equal. Two answers that say the same in
other words count as two, so the figure is usually larger than theirs. It is no bound: normalising also merges texts that a reader may
distinguish, such as "~5" and "5".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

DRAWS = 10
"""Answers of which the distinct ones are counted, as in NoveltyBench."""

_OPENING = "\"'“”„‘’‚«»‹›([{<*_`~¿¡"  # no full stop: .5 is not 5
_CLOSING = "\"'“”„‘’‚«»‹›)]}>*_`~.,;:!?…。，、！？：；"


def normalised(text: str) -> str:
    r"""A text in lower case, with single spaces, without quotes, brackets, Markdown signs and closing punctuation at its ends.

    A text of only such signs stays as it is.

    >>> [normalised(text) for text in (" **Red  Fox!** ", "{red\nfox}", "-5", ".5", "5 %", "?!")]
    ['red fox', 'red fox', '-5', '.5', '5 %', '?!']
    """
    line = " ".join(text.casefold().split())
    return line.lstrip(_OPENING + " ").rstrip(_CLOSING + " ") or line


def distinct_of(samples: Mapping[str, int], draws: int = DRAWS) -> tuple[float, float]:
    """Expected number of different normalised texts among `draws` answers drawn without replacement, and its standard error.

    With N answers, c_i of text i, the expected number is Σ 1 - C(N - c_i, draws) / C(N, draws). Its error is the jackknife's over answers (Efron
    and Stein 1981): about right, and up to half too large if all answers are equally likely. Fewer than `draws` answers give nan for both, and
    exactly `draws` for the error. So do texts with equal counts, as if all N answers differ: the jackknife gives 0 then, and nothing is known.

    >>> value, error = distinct_of({"a": 2, "b": 1}, draws=2)  # of ab, ab, aa: 5 / 3; without an a: ab; without b: aa
    >>> round(value, 4), round(error, 4)
    (1.6667, 0.6667)
    """
    texts = Counter[str]()
    for text, count in samples.items():
        texts[normalised(text)] += count
    sizes, of_size = np.unique(np.array([count for count in texts.values() if count], dtype=np.int64), return_counts=True)
    n = int((sizes * of_size).sum())
    if n < draws:
        return math.nan, math.nan
    found = float(of_size @ _seen(sizes, n, draws))
    if n == draws or len(sizes) == 1:
        return found, math.nan
    others = _seen(sizes, n - 1, draws)
    without_one = (
        of_size @ others - others + _seen(sizes - 1, n - 1, draws)
    )  # of each size: the value if one of its answers is left out
    weights = sizes * of_size / n
    spread = float(weights @ (without_one - weights @ without_one) ** 2)
    return found, math.sqrt((n - 1) * spread)


def _seen(counts: np.ndarray, n: int, draws: int) -> np.ndarray:
    """Probability that a text with this count is among `draws` of n answers."""
    missing = np.ones(len(counts))
    for drawn in range(draws):
        missing *= np.maximum(n - counts - drawn, 0) / (n - drawn)
    return 1 - missing
