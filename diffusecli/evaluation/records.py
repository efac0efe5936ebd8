"""Answers that are records: compare each field with its distribution, and each pair of fields with their association.

Takes counted answers and the target distribution from `record_targets.py`. Symbols: N answers, F fields, B samples of a perfect sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.metrics import figures
from diffusecli.evaluation.perfect import monte_carlo_p
from diffusecli.evaluation.record_targets import RecordTarget, coded, numbers_of
from diffusecli.evaluation.sdmetrics_score import Quality, quality
from diffusecli.evaluation.verdicts import VALUES, p_value, too_few, verdict
from diffusecli.prompts.answer_texts import record_values
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching, tally, target_finder
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import joined

CORRELATION, CRAMERS_V = "correlation", "Cramér's V"
PAIRS_LEVEL = SIGNIFICANCE / 2
"""The level of the test of all pairs together."""
_DRAWS, _FEWEST = 999, 199  # samples of a perfect sampler, for their associations
_MOST_VALUES = 100_000_000  # of these samples in total
_MOST_CELLS = 100_000  # of the table of two fields: a larger table needs more answers than anyone samples
_MOST_NAMED = 3  # fields in a verdict
_RAKED, _RAKED_ENOUGH = 100, 1e-6  # rounds of raking, and the change of weights that ends it
_EQUAL = 1e-6  # associations that differ by less are the same
_ALMOST_NONE = 0.25  # of a perfect sampler's Cramér's V, below which fields are almost independent
_NO_VALUE = "\0"  # replaces the fields of an answer that does not fit the template


_WRONG_PAIR = {
    "too weak": "the association of {} is too weak",
    "too strong": "the association of {} is too strong",
    "opposite": "the association of {} is opposite",
    "almost none": "{} are almost independent, but should not be",
    "unwanted": "{} are associated, but should be independent",
}
"""How an association differs -> the words of the verdict."""


@dataclass(frozen=True)
class FieldFigures:
    """One field of the answers compared with its weights."""

    name: str
    values: int  # different ones among the targets
    valid: float  # share of answers with one of these values
    tvd: float  # total variation distance; answers with another value or none are a separate cell
    tvd_floor: float  # mean of a perfect sampler at this N
    excess_tvd: float  # tvd - tvd_floor
    p_value: float  # of the test of fit among valid values
    verdict: str  # a phrase for a person
    too_even: bool = False  # the test rejects, because shares are closer to the weights than those of independent draws
    too_few: bool = False  # valid values, so that a p-value says nothing about their weights
    least_p: float = 0.0  # the lowest p-value that the test can give


@dataclass(frozen=True)
class PairFigures:
    """Association of two fields, among answers whose values are all known."""

    first: str
    second: str
    measure: str  # Cramér's V, or correlation of two fields of numbers
    target: float  # of the weights
    perfect: float  # mean of a perfect sampler at this N; Cramér's V is too high with few answers
    sampled: float
    error: float  # sampled - perfect
    standard_error: float  # of a perfect sampler
    p_value: float  # of an error this large or larger, by simulation of perfect samplers
    by_fields: float = 0.0  # the part of the error that the sampled shares of the two fields alone would cause
    joint_p_value: float = math.nan  # as `p_value`, adjusted for all pairs (max-T, Westfall and Young)
    beyond_fields_p_value: float = math.nan  # the same of what the shares of the two fields do not explain

    @property
    def names(self) -> str:
        """Both fields."""
        return f"{self.first!r} and {self.second!r}"

    @property
    def given_fields(self) -> float:
        """A perfect sampler's, if the two fields had the sampled shares."""
        return self.perfect + self.by_fields

    def departure(self, expected: float) -> str:
        """How the association differs from the expected one, `perfect` or `given_fields`: a key of `_WRONG_PAIR`."""
        if self.measure == CORRELATION:
            if self.sampled * self.target < 0 and abs(self.target) > _EQUAL:
                return "opposite"
        elif self.target < _EQUAL:
            return "unwanted"
        elif self.sampled < _ALMOST_NONE * expected:
            return "almost none"
        return "too weak" if abs(self.sampled) < abs(expected) else "too strong"

    @property
    def beyond_fields(self) -> float:
        """The rest of the error, in standard errors."""
        rest = abs(self.error - self.by_fields)
        return rest / self.standard_error if rest > _EQUAL else 0.0


@dataclass(frozen=True)
class RecordFigures:
    """Answers split into fields by the prompt's template."""

    fits: float  # share of answers that fit the template
    known: float  # share whose values are all values of targets
    copies: float  # share that are targets
    fields: tuple[FieldFigures, ...]
    pairs: tuple[PairFigures, ...]
    repeats: int  # samples of a perfect sampler for the comparison of pairs
    pairs_p_value: float  # of the pair furthest off in standard errors, by simulation of all together; nan without pairs
    sdmetrics: Quality | None = None  # if requested
    beyond_fields_p_value: float = math.nan  # as `pairs_p_value`, of what the shares of the fields do not explain

    @property
    def new(self) -> float:
        """Share of answers that are new combinations of known values."""
        return max(0.0, self.known - self.copies)

    @property
    def worst_pair(self) -> PairFigures | None:
        """The pair whose association is furthest from the target, in standard errors."""
        return max(self.pairs, key=lambda pair: abs(pair.error) / pair.standard_error, default=None)

    @property
    def worst_field(self) -> FieldFigures | None:
        """The field with the lowest p-value; of those that share it, the one furthest from its weights."""
        tested = (field for field in self.fields if not math.isnan(field.p_value))
        return min(tested, key=lambda field: (field.p_value, -field.excess_tvd), default=None)

    @property
    def field_level(self) -> float:
        """The level of the test of each field."""
        return _field_level(len(self.fields))

    @property
    def doubt(self) -> str:
        """The fields and the pair that differ from the target, at a joint level of 5 % (Bonferroni), with the figures of the worst; empty if none does."""
        found = []
        if apart := self.wrong_fields:
            names = [repr(field.name) for field in apart[:_MOST_NAMED]]
            more = [f"{len(apart) - _MOST_NAMED} more"] if len(apart) > _MOST_NAMED else []
            several, worst, last = len(apart) > 1, apart[0], apart[-1]
            subject = (
                f"the fields {joined([*names, *more])} differ from their" if several else f"the field {names[0]} differs from its"
            )
            measured = f"TVD{f' of {names[0]}' if several else ''} {worst.tvd:.3f}, perfect sampler {worst.tvd_floor:.3f}"
            highest = "highest " if several and last.p_value > worst.p_value else ""
            found.append(f"{subject} weights: {measured} ({highest}{p_value(last.p_value, last.least_p)})")
        if (pair := self.wrong_pair) is not None:
            expected, p = self._expected(pair), self.beyond_fields_p_value if apart else self.pairs_p_value
            measured = f"{pair.measure} {pair.sampled:z.3f}, perfect sampler{' with these shares' if apart else ''} {expected:z.3f}"
            others = self._wrong_alike(pair)
            alike = f"{len(others)} more pairs" if len(others) > 1 else "".join(other.names for other in others)
            besides = f" (and {alike})" if others else ""
            words = _WRONG_PAIR[pair.departure(expected)].format(pair.names + besides)
            found.append(f"{words}: {measured} ({p_value(p, self.least_pairs_p)})")
        return "; ".join(found)

    @property
    def wrong_pair(self) -> PairFigures | None:
        """The worst pair if it differs from the target; if fields differ, by more than their shares explain."""
        if not self.wrong_fields:
            return self.worst_pair if self.pairs_p_value < PAIRS_LEVEL else None
        both = self.pairs_p_value < PAIRS_LEVEL and self.beyond_fields_p_value < PAIRS_LEVEL
        return max(self.pairs, key=lambda pair: pair.beyond_fields, default=None) if both else None

    def _expected(self, pair: PairFigures) -> float:
        """The association that a perfect sampler would show; if fields differ, with their sampled shares."""
        return pair.given_fields if self.wrong_fields else pair.perfect

    def _wrong_alike(self, worst: PairFigures) -> list[PairFigures]:
        """The other pairs that differ as this one does; if fields differ, by more than their shares explain."""
        words, fields = worst.departure(self._expected(worst)), bool(self.wrong_fields)
        return [
            pair
            for pair in self.pairs
            if pair is not worst and pair.departure(self._expected(pair)) == words
            and pair.joint_p_value < PAIRS_LEVEL and (not fields or pair.beyond_fields_p_value < PAIRS_LEVEL)
        ]  # fmt: skip

    @property
    def rejected_pairs(self) -> list[PairFigures]:
        """All pairs whose association differs from the target, and the pair of the verdict."""
        wrong = self.wrong_pair
        return [pair for pair in self.pairs if pair.joint_p_value < PAIRS_LEVEL or pair is wrong]

    @property
    def wrong_fields(self) -> list[FieldFigures]:
        """The fields that differ from their weights, the worst first."""
        found = [f for f in self.fields if not f.too_even and f.p_value < self.field_level]
        return sorted(found, key=lambda field: (field.p_value, -field.excess_tvd))

    def too_few(self, pair: PairFigures) -> bool:
        """Whether so few values of a field of the pair are valid that a test which does not reject says nothing."""
        return not pair.p_value < SIGNIFICANCE and any(f.too_few for f in self.fields if f.name in (pair.first, pair.second))

    @property
    def least_pairs_p(self) -> float:
        """The lowest p-value that the test of pairs can give."""
        return 1 / (self.repeats + 1)

    @property
    def finest_p(self) -> float:
        """The lowest possible `least_p` for pairs; 0 without pairs."""
        return 2 / (self.repeats + 1) if self.pairs else 0.0

    @property
    def least_p(self) -> float:
        """The lowest p-value of fields and pairs, corrected for their number (Bonferroni); nan if nothing was tested."""
        return self.lowest_p[0]

    @property
    def lowest_p(self) -> tuple[float, str]:
        """The lowest corrected p-value, and its field or pair."""
        found = []
        if (field := self.worst_field) is not None:
            found.append((len(self.fields) * field.p_value, f"field {field.name!r}"))
        if (pair := self.worst_pair) is not None:
            found.append((self.pairs_p_value, f"fields {pair.first!r} and {pair.second!r} together"))
        p, what = min((one for one in found if not math.isnan(one[0])), key=lambda one: one[0], default=(math.nan, ""))
        return (p if math.isnan(p) else min(1.0, 2 * p)), what


def record_figures(
    prompt: Prompt, counts: Answers, seed: int, matching: Matching | None = None, *, sdmetrics: bool = False
) -> RecordFigures | None:
    """All figures of the fields; None if answers are not records, or there are none. Raises `InputError` if SDMetrics is not installed."""
    template, n = prompt.record, counts.total()
    if template is None or not n or not prompt.targets:
        return None
    target, finder = RecordTarget.of(prompt, template), target_finder(prompt, matching or Matching())
    taken: list[tuple[tuple[str, ...] | None, int]] = []
    copies = 0
    for text, count in counts.items():
        place = finder(text)
        cut = counts.unfinished[text] if prompt.eos or place is None else 0
        taken += [(None, cut)] if cut else []
        if count > cut:
            copies += 0 if place is None else count - cut
            taken.append((_values(prompt, text, place), count - cut))
    rows = [(values, count) for values, count in taken if values is not None]
    known = [(values, count) for values, count in rows if target.knows(values)]
    fields, level = [], _field_level(len(template.fields))
    for place, (name, own) in enumerate(zip(template.fields, target.marginals, strict=True)):
        answers = Answers()
        for values, count in taken:
            answers.add(values[place] if values is not None else _NO_VALUE, count)
        alone = Prompt(request=prompt.question, targets=tuple(own), weights=tuple(own.values()))
        found = figures(alone, tally(alone, answers), seed=seed, level=level)
        of_field = found.valid, found.tvd, found.tvd_floor, found.excess_tvd, found.p_value
        judged = verdict(found, None, VALUES, level), found.too_even, too_few(found, level)
        fields.append(FieldFigures(name, len(own), *of_field, *judged, least_p=found.least_p))
    fits, all_known = (sum(count for _, count in some) / n for some in (rows, known))
    scored = quality(target, rows, seed) if sdmetrics else None
    pairs, repeats, together, beyond = _pairs(target, known, seed)
    return RecordFigures(fits, all_known, copies / n, tuple(fields), pairs, repeats, together, scored, beyond)


def _field_level(fields: int) -> float:
    """Half of the joint level for the fields, shared equally (Bonferroni). `PAIRS_LEVEL` is the other half."""
    return SIGNIFICANCE / 2 / fields


def _values(prompt: Prompt, text: str, place: int | None) -> tuple[str, ...] | None:
    """The fields of an answer: those of its target in any spelling, otherwise those of its text."""
    if place is not None and not prompt.in_parts:
        return record_values(prompt, prompt.targets[place])
    return record_values(prompt, text) if prompt.eos else None


def _pairs(
    target: RecordTarget, known: Sequence[tuple[tuple[str, ...], int]], seed: int
) -> tuple[tuple[PairFigures, ...], int, float, float]:
    """Associations of all pairs of fields among answers with known values, the number of perfect samples, and two p-values.

    The first is of the pair furthest off, the second of the pair furthest from what the shares of its fields explain.
    """
    if not known:
        return (), 0, math.nan, math.nan
    answers, counts = coded(target.marginals, [values for values, _ in known]), np.array([count for _, count in known], dtype=float)
    draws = max(_FEWEST, min(_DRAWS, _MOST_VALUES // (int(counts.sum()) * len(target.marginals))))
    perfect = list(target.samples(int(counts.sum()), draws, seed))
    pairs, furthest, beyond, furthest_null = [], 0.0, 0.0, np.zeros(draws)
    for a, b in combinations(range(len(target.marginals)), 2):
        measure, associated = _association(target.marginals[a], target.marginals[b])
        if associated is None:
            continue
        wanted = associated(target.rows[:, [a, b]], target.weights) if len(target.rows) else 0.0
        null = np.array([associated(rows[:, [a, b]], np.ones(len(rows))) for rows in perfect])
        sampled, mean = associated(answers[:, [a, b]], counts), float(null.mean())
        away, away_null, spread = abs(sampled - mean), np.abs(null - mean), max(float(null.std()), 1e-9)
        p_value = float(monte_carlo_p(np.count_nonzero(away_null >= away - 1e-12), draws))
        furthest, furthest_null = max(furthest, away / spread), np.maximum(furthest_null, away_null / spread)
        names = target.template.fields
        by_fields = 0.0
        if len(target.rows):
            raked = _raked(target.rows[:, [a, b]], target.weights, answers[:, [a, b]], counts)
            by_fields = associated(target.rows[:, [a, b]], raked) - wanted if raked.any() else 0.0
        pairs.append(PairFigures(names[a], names[b], measure, wanted, mean, sampled, sampled - mean, spread, p_value, by_fields))
        beyond = max(beyond, pairs[-1].beyond_fields)
    if not pairs:
        return (), draws, math.nan, math.nan

    def joint(away: float) -> float:
        return float(monte_carlo_p(np.count_nonzero(furthest_null >= away - 1e-9), draws))

    pairs = [
        replace(pair, joint_p_value=joint(abs(pair.error) / pair.standard_error), beyond_fields_p_value=joint(pair.beyond_fields))
        for pair in pairs
    ]
    return tuple(pairs), draws, joint(furthest), joint(beyond)


def _raked(rows: np.ndarray, weights: np.ndarray, answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The weights of rows [R, 2] scaled until both fields have the shares of the answers [N, 2] (Deming and Stephan 1940).

    This keeps the target's association, as odds ratios. All weights are 0 if no row has values of both fields.
    """
    raked = np.asarray(weights / weights.sum())
    for _ in range(_RAKED):
        before = raked
        for field in (0, 1):
            size = 1 + max(int(rows[:, field].max()), int(answers[:, field].max()))
            wanted = np.bincount(answers[:, field], weights=counts, minlength=size) / counts.sum()
            now = np.bincount(rows[:, field], weights=raked, minlength=size)
            raked = np.asarray(raked * np.divide(wanted, now, out=np.zeros(size), where=now > 0)[rows[:, field]])
        if np.abs(raked - before).sum() < _RAKED_ENOUGH:
            break
    return raked


def _association(first: dict[str, float], second: dict[str, float]) -> tuple[str, Callable[[np.ndarray, np.ndarray], float] | None]:
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
