"""Answers without a list of valid ones: how many different answers there are, and how many more to expect.

Takes counted texts. Those with the same normalised text are one answer (`distinctness.py`). Symbols: N samples, S distinct, f_1 seen once, f_2 seen twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diffusecli.evaluation.distinctness import DRAWS, distinct_of, normalised
from diffusecli.prompts.answers import by_count

_USUAL = 0.05
_FEWEST_LINES = 2


@dataclass(frozen=True)
class Outcome:
    """A text and its count."""

    text: str  # an answer, in its most frequent spelling
    count: int  # how often it occurs
    unfinished: int = 0  # how many of these were cut at the limit


@dataclass(frozen=True)
class Diversity:
    """How many different answers N samples have, and estimates for the unseen ones."""

    n: int  # samples
    distinct: int  # S
    once: int  # f_1
    twice: int  # f_2
    unseen_mass: float  # f_1 / N (Good 1953): probability that the next answer is a new one
    chao1: float  # estimated minimum number of different answers
    distinct_of_10: float  # different normalised texts expected among 10 of the answers; nan for fewer than 10
    distinct_of_10_error: float  # its standard error (jackknife); nan for fewer than 11, and if all texts are equally frequent
    beyond: float  # share of samples outside the targets listed or trained on; nan if there are none
    top: tuple[Outcome, ...]  # the most frequent answers

    @property
    def error_is_unknown(self) -> bool:
        """Whether there are enough answers for an error, but all texts are equally frequent, as if all answers differ."""
        return self.n > DRAWS and math.isnan(self.distinct_of_10_error)


def diversity(
    samples: Mapping[str, int], beyond: float = math.nan, most: int = 10, unfinished: Mapping[str, int] | None = None
) -> Diversity:
    """Figures of counted texts. Texts that are equal when normalised are one answer. Answers that were cut count with the text that they have.

    >>> found = diversity({"a": 5, "b": 2, "c": 1, "d": 1})
    >>> found.distinct, round(found.unseen_mass, 3), found.chao1
    (4, 0.222, 4.5)
    >>> [(outcome.text, outcome.count) for outcome in diversity({"*Fox*": 1, "Fox": 2, "Owl.": 1}).top]
    [('Fox', 3), ('Owl.', 1)]
    """
    merged, cut = _merged(samples, unfinished or {})
    n = sum(merged.values())
    times = Counter(merged.values())
    ranked = by_count(merged)[:most]
    among_ten, error = distinct_of(merged)
    return Diversity(
        n=n,
        distinct=len(merged),
        once=times[1],
        twice=times[2],
        unseen_mass=times[1] / n if n else math.nan,
        chao1=chao1(len(merged), times[1], times[2]),
        distinct_of_10=among_ten,
        distinct_of_10_error=error,
        beyond=beyond,
        top=tuple(Outcome(text, count, cut[text]) for text, count in ranked),
    )


def _merged(samples: Mapping[str, int], unfinished: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """Counts by answer, and how many of these were cut. The most frequent spelling stands for all."""
    spelling: dict[str, str] = {}
    merged, cut = Counter[str](), Counter[str]()
    for text, count in by_count(samples):
        one = spelling.setdefault(normalised(text), text)
        merged[one] += count
        cut[one] += unfinished.get(text, 0)
    return merged, cut


def chao1(distinct: int, once: int, twice: int) -> float:
    """S + f_1 (f_1 - 1) / 2 (f_2 + 1), the bias-corrected lower bound of the number of different answers (Chao 1984, 1987).

    >>> chao1(distinct=10, once=4, twice=2)
    12.0
    """
    return distinct + once * (once - 1) / (2 * (twice + 1))


@dataclass(frozen=True)
class Line:
    """The diversity of one line of answers with several lines."""

    heading: str  # the text before the colon, or the number of the line
    diversity: Diversity  # of these lines


def by_line(samples: Mapping[str, int], known: Iterable[str] = (), unfinished: Mapping[str, int] | None = None) -> tuple[Line, ...]:
    r"""Diversity by line, for answers with several lines: `Name: {Ann}` belongs to the heading `Name`, others to `line 1`, `line 2`, ….

    Includes headings that occur in at least 5 % of answers; empty if answers have one line. `known` are the targets whose
    lines may be repeated. The last line of an answer that was cut is left out.

    >>> lines = by_line({"Name: Ann\nParis": 2, "Name: Bob\nParis": 1}, ["Name: Ann\nRome"])
    >>> [(line.heading, line.diversity.distinct, round(line.diversity.beyond, 2)) for line in lines]
    [('Name', 2, 0.33), ('line 2', 1, 1.0)]
    """
    found, n = _by_heading(samples, unfinished or {}), sum(samples.values())
    of_targets = _by_heading(dict.fromkeys(known, 1), {})
    usual = {heading: counts for heading, counts in found.items() if counts.total() >= _USUAL * n}
    if len(usual) < _FEWEST_LINES:
        return ()
    return tuple(Line(heading, diversity(counts, _beyond(counts, of_targets.get(heading)))) for heading, counts in usual.items())


def _by_heading(samples: Mapping[str, int], unfinished: Mapping[str, int]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for text, count in samples.items():
        lines, cut = [part.strip() for part in text.split("\n")], unfinished.get(text, 0)
        of_each = [*[count] * (len(lines) - 1), count - cut]  # the last line of a cut answer may be incomplete
        for place, (line, times) in enumerate(((line, times) for line, times in zip(lines, of_each, strict=True) if line), 1):
            heading, colon, _ = line.partition(":")
            if times:
                found.setdefault(heading if colon else f"line {place}", Counter())[line] += times
    return found


def _beyond(counts: Counter[str], known: Counter[str] | None) -> float:
    if not known:
        return math.nan
    return sum(count for line, count in counts.items() if line not in known) / counts.total()
