"""Answers that are records: each field against its own distribution, each pair of fields against their association.

Knows prompts with a template and counted answers. Symbols: N answers, F fields, B draws of a perfect sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from diffusecli.evaluation.metrics import figures
from diffusecli.evaluation.verdicts import verdict
from diffusecli.files.text import canonical
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.templates import marginals

_DRAWS = 200  # of a perfect sampler, for the associations that it shows
_MOST_CELLS = 4_000_000  # of the tables of two fields: larger ones say nothing at any N that is sampled
_NUMERIC = 10  # values beyond which two fields of numbers are compared by their correlation
_NO_VALUE = "\0"  # in place of a field of an answer that does not fit the template


@dataclass(frozen=True)
class FieldFigures:
    """One field of the answers against its own weights."""

    name: str
    values: int  # different ones among the targets
    valid: float  # share of answers with one of these values
    tvd: float  # total variation distance; other values, and answers that do not fit the template, are a cell of their own
    tvd_floor: float  # mean of a perfect sampler at this N
    excess_tvd: float  # tvd - tvd_floor
    p_value: float  # of the test of fit among valid values
    verdict: str  # a phrase for a person


@dataclass(frozen=True)
class PairFigures:
    """How strongly two fields go together, among answers whose values are all known."""

    first: str
    second: str
    measure: str  # Cramér's V, or correlation of two fields of numbers
    target: float  # of the weights
    perfect: float  # mean of a perfect sampler at this N: Cramér's V of few answers is too high
    sampled: float
    error: float  # sampled - perfect


@dataclass(frozen=True)
class RecordFigures:
    """Answers taken apart by the prompt's template."""

    fits: float  # share of answers that fit the template
    known: float  # share whose values are all values of targets
    copies: float  # share that are targets
    fields: tuple[FieldFigures, ...]
    pairs: tuple[PairFigures, ...]

    @property
    def worst_pair(self) -> PairFigures | None:
        """The pair whose association is furthest off."""
        known = [pair for pair in self.pairs if not math.isnan(pair.error)]
        return max(known, key=lambda pair: abs(pair.error), default=None)


def record_figures(prompt: Prompt, counts: Answers, seed: int) -> RecordFigures | None:
    """All figures of the fields; None where answers are no records, or there are none."""
    template, n = prompt.record, counts.total()
    if template is None or not n or not prompt.targets:
        return None
    weights = dict(zip(map(canonical, prompt.targets), prompt.probabilities, strict=True))
    wanted = marginals(template, weights)
    ended = [(_answer(prompt, text), count) for text, count in counts.finished.items()]
    taken = [(template.parse(text), count) for text, count in ended]
    taken += [(None, counts.unfinished.total())] if counts.unfinished else []
    rows = [(values, count) for values, count in taken if values is not None]
    known = [(values, count) for values, count in rows if all(value in own for value, own in zip(values, wanted, strict=True))]
    fields = []
    for place, (name, own) in enumerate(zip(template.fields, wanted, strict=True)):
        answers = Answers()
        for values, count in taken:
            answers.add(values[place] if values is not None else _NO_VALUE, count)
        alone = Prompt(request=prompt.question, targets=tuple(own), weights=tuple(own.values()))
        found = figures(alone, tally(alone, answers), seed=seed)
        fields.append(
            FieldFigures(
                name, len(own), found.valid, found.tvd, found.tvd_floor, found.excess_tvd, found.p_value, verdict(found, None)
            )
        )
    fits, all_known = (sum(count for _, count in some) / n for some in (rows, known))
    copies = sum(count for text, count in ended if text in weights) / n
    return RecordFigures(fits, all_known, copies, tuple(fields), tuple(_pairs(prompt, known, wanted, seed)))


def _answer(prompt: Prompt, text: str) -> str:
    """An answer without the beginning that responses give it."""
    text = canonical(text)
    beginnings = (canonical(variant) for variant in sorted(prompt.variants, key=len, reverse=True))
    return canonical(next((text.removeprefix(begins) for begins in beginnings if begins and text.startswith(begins)), text))


def _pairs(
    prompt: Prompt, known: Sequence[tuple[tuple[str, ...], int]], wanted: Sequence[dict[str, float]], seed: int
) -> list[PairFigures]:
    """The associations of all pairs of fields."""
    template = prompt.record
    if template is None or not known:
        return []
    places = [{value: place for place, value in enumerate(own)} for own in wanted]

    def coded(rows: Sequence[tuple[str, ...]]) -> np.ndarray:
        return np.array([[place[value] for place, value in zip(places, row, strict=True)] for row in rows])

    targets, p = coded([template.parse(canonical(text)) or () for text in prompt.targets]), np.array(prompt.probabilities)
    answers, counts = coded([values for values, _ in known]), np.array([count for _, count in known], dtype=float)
    draws = np.random.default_rng(seed).multinomial(int(counts.sum()), p, size=_DRAWS).astype(float)
    found = []
    for a, b in combinations(range(len(wanted)), 2):
        sizes = len(wanted[a]), len(wanted[b])
        numbers = [_numbers(wanted[place]) for place in (a, b)]
        if sizes[0] * sizes[1] > _MOST_CELLS or min(sizes) < 2:
            continue
        if numbers[0] is not None and numbers[1] is not None:
            values = numbers[0][targets[:, a]], numbers[1][targets[:, b]]
            own = numbers[0][answers[:, a]], numbers[1][answers[:, b]]
            target, perfect, sampled = (
                correlation(*values, p),
                [correlation(*values, drawn) for drawn in draws],
                correlation(*own, counts),
            )
            measure = "correlation"
        else:
            cells, own_cells = targets[:, a] * sizes[1] + targets[:, b], answers[:, a] * sizes[1] + answers[:, b]
            target, sampled = cramers_v(_table(cells, p, sizes)), cramers_v(_table(own_cells, counts, sizes))
            perfect = [cramers_v(_table(cells, drawn, sizes)) for drawn in draws]
            measure = "Cramér's V"
        mean = float(np.mean(perfect))
        found.append(PairFigures(template.fields[a], template.fields[b], measure, target, mean, sampled, sampled - mean))
    return found


def _numbers(own: dict[str, float]) -> np.ndarray | None:
    """The values of a field as numbers, where they are numbers and many."""
    if len(own) <= _NUMERIC:
        return None
    try:
        return np.array([float(value) for value in own])
    except ValueError:
        return None


def _table(cells: np.ndarray, weights: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    return np.bincount(cells, weights=weights, minlength=sizes[0] * sizes[1]).reshape(sizes)


def cramers_v(table: np.ndarray) -> float:
    """Sqrt(X2 / (N (min(rows, columns) - 1))) with X2 against independence (Cramér 1946); 0 where a field has one value only.

    >>> cramers_v(np.array([[5, 0], [0, 5]])), cramers_v(np.array([[1, 1], [1, 1]]))
    (1.0, 0.0)
    """
    shares = table / table.sum()
    rows, columns = shares.sum(1), shares.sum(0)
    independent = np.outer(rows, columns)
    square = float(np.divide((shares - independent) ** 2, independent, out=np.zeros_like(independent), where=independent > 0).sum())
    return math.sqrt(square / (min(table.shape) - 1))


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's, weighted; 0 where one of them does not vary.

    >>> round(correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), np.ones(3)), 6)
    1.0
    """
    w = weights / weights.sum()
    x, y = x - (w * x).sum(), y - (w * y).sum()
    spread = math.sqrt(float((w * x * x).sum() * (w * y * y).sum()))
    return float((w * x * y).sum() / spread) if spread > 0 else 0.0
