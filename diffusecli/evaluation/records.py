"""Figures of answers that are records: each field, each pair of fields, and in words what differs from the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffusecli.evaluation.association import CORRELATION
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.sdmetrics_score import Quality
from diffusecli.evaluation.verdicts import other_values, p_value
from diffusecli.system.errors import joined, many

PAIRS_LEVEL = SIGNIFICANCE / 2
"""The level of the test of all pairs together."""
_MOST_NAMED = 3  # fields in a verdict
_WORTH_SAYING = 0.01  # share of answers that do not fit the template
_EQUAL = 1e-6  # associations that differ by less are the same
_ALMOST_NONE = 0.25  # of a perfect sampler's Cramér's V, below which fields are almost independent


_WRONG_PAIR = {
    "too weak": "the association of {} is too weak",
    "too strong": "the association of {} is too strong",
    "opposite": "the association of {} is opposite",
    "almost none": "{} are almost independent, but should not be",
    "unwanted": "{} are associated, but should be independent",
}
"""How an association differs -> the words of the verdict."""


@dataclass(frozen=True)
class FurthestValue:
    """The value of a field whose share is furthest from its weight."""

    value: str
    weight: float
    share: float  # of the valid values


@dataclass(frozen=True)
class FieldFigures:
    """One field compared with its weights, among the answers that fit the template; of all answers if none does."""

    name: str
    values: int  # different ones among the targets
    valid: float  # share with one of these values
    tvd: float  # total variation distance; answers with another value or none are a separate cell
    tvd_floor: float  # mean of a perfect sampler at this N
    excess_tvd: float  # tvd - tvd_floor
    p_value: float  # of the test of fit among valid values
    verdict: str  # a phrase for a person
    too_even: bool = False  # the test rejects, because shares are closer to the weights than those of independent draws
    too_few: bool = False  # valid values, so that a p-value says nothing about their weights
    least_p: float = 0.0  # the lowest p-value that the test can give
    furthest: FurthestValue | None = None  # none without valid values
    other_values: bool = False  # too many of the answers have another value or none
    unknown: FurthestValue | None = None  # the most frequent value that no target has, with its share of the answers of the field


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
    left_out: float = 0.0  # share of answers that are not in the figures of fields

    @property
    def new(self) -> float:
        """Share of answers that are new combinations of known values."""
        return max(0.0, self.known - self.copies)

    @property
    def unreadable(self) -> str:
        """The share of answers without fields, which are not in the figures of fields; empty if it is small."""
        share = f"{100 * self.left_out:.1f} % of the answers were cut or do not fit the template"
        return f"{share}; the figures of fields leave them out" if self.left_out >= _WORTH_SAYING else ""

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
        return field_level(len(self.fields))

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
            measured = f"{pair.measure} {pair.sampled:z.3f}, perfect sampler{' with these shares of fields' if apart else ''} {expected:z.3f}"
            others = self._wrong_alike(pair)
            different = (
                [other.names for other in self.rejected_pairs if other is not pair and other not in others] if not apart else []
            )
            alike = f"{len(others)} more pairs" if len(others) > 1 else "".join(other.names for other in others)
            besides = f", and so for {alike}" if others else ""
            words = _WRONG_PAIR[pair.departure(expected)].format(pair.names)
            found.append(f"{words}: {measured} ({p_value(p, self.least_pairs_p)}){besides}")
            found += [f"{names} differ, too" for names in different[:_MOST_NAMED]]
        if found and (incomplete := [f for f in self.fields if f.other_values and f not in apart]):
            named = [f"{other_values(1 - f.valid)} of {f.name!r}" for f in incomplete[:_MOST_NAMED]]
            rest = len(incomplete) - _MOST_NAMED
            named[-1] += " in the records" if self.unreadable else ""
            found += [*named, *([f"and so of {many(rest, 'more field')}"] if rest > 0 else [])]
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


def field_level(fields: int) -> float:
    """Half of the joint level for the fields, shared equally (Bonferroni). `PAIRS_LEVEL` is the other half."""
    return SIGNIFICANCE / 2 / fields
