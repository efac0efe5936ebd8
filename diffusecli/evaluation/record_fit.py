"""Answers that are records: compare each field with its distribution, and each pair of fields with their association.

Takes counted answers and the target distribution from `record_targets.py`. Symbols: N answers, F fields, B samples of a perfect sampler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from diffusecli.evaluation.association import association, raked
from diffusecli.evaluation.metrics import figures
from diffusecli.evaluation.perfect import monte_carlo_p
from diffusecli.evaluation.record_targets import RecordTarget, coded
from diffusecli.evaluation.records import FieldFigures, FurthestValue, PairFigures, RecordFigures, field_level
from diffusecli.evaluation.sdmetrics_score import quality
from diffusecli.evaluation.verdicts import VALUES, is_off, too_few, verdict
from diffusecli.prompts.answer_texts import record_values, target_values
from diffusecli.prompts.answers import Answers, by_count
from diffusecli.prompts.matching import Matching, Tally, tally, target_finder
from diffusecli.prompts.prompt import Prompt

_DRAWS, _FEWEST = 999, 199  # samples of a perfect sampler, for their associations
_MOST_VALUES = 100_000_000  # of these samples in total
_NO_VALUE = "\0"  # replaces the fields of an answer that does not fit the template, if none does


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
    judged_alone = rows if rows and prompt.eos else taken  # those that are no records are judged once, as a whole
    left_out = 1 - sum(count for _, count in judged_alone) / n
    fields, level = [], field_level(len(template.fields))
    for place, (name, own) in enumerate(zip(template.fields, target.marginals, strict=True)):
        answers = Answers()
        for values, count in judged_alone:
            answers.add(values[place] if values is not None else _NO_VALUE, count)
        alone = Prompt(request=prompt.question, targets=tuple(own), weights=tuple(own.values()))
        tallied = tally(alone, answers)
        found = figures(alone, tallied, seed=seed, level=level)
        of_field = found.valid, found.tvd, found.tvd_floor, found.excess_tvd, found.p_value
        words = verdict(found, None, VALUES, level)
        judged = words, found.too_even, too_few(found, level), found.least_p
        fields.append(FieldFigures(
            name, len(own), *of_field, *judged,
            furthest=_furthest(own, tallied), other_values=is_off(words, found, VALUES), unknown=_unknown(tallied),
        ))  # fmt: skip
    fits, all_known = (sum(count for _, count in some) / n for some in (rows, known))
    scored = quality(target, rows, seed) if sdmetrics else None
    pairs, repeats, together, beyond = _pairs(target, known, seed)
    return RecordFigures(fits, all_known, copies / n, tuple(fields), pairs, repeats, together, scored, beyond, left_out)


def _furthest(weights: Mapping[str, float], found: Tally) -> FurthestValue | None:
    """The value whose share of valid values is furthest from its weight; first those that must never occur. None without valid values."""
    if not found.on_target:
        return None
    shares = [FurthestValue(value, weight, count / found.on_target)
              for (value, weight), count in zip(weights.items(), found.counts, strict=True)]  # fmt: skip
    return max(shares, key=lambda one: (not one.weight and one.share > 0, abs(one.share - one.weight)))


def _unknown(found: Tally) -> FurthestValue | None:
    """The most frequent value that no target has; None without one."""
    text, count = next(iter(by_count(found.off_target)), (_NO_VALUE, 0))
    return FurthestValue(text, 0.0, count / found.n) if text and text != _NO_VALUE else None


def _values(prompt: Prompt, text: str, place: int | None) -> tuple[str, ...] | None:
    """The fields of an answer: those of its target in any spelling, otherwise those of its text."""
    if place is not None and not prompt.in_parts:
        return target_values(prompt, prompt.targets[place])
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
        measure, associated = association(target.marginals[a], target.marginals[b])
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
            as_sampled = raked(target.rows[:, [a, b]], target.weights, answers[:, [a, b]], counts)
            by_fields = associated(target.rows[:, [a, b]], as_sampled) - wanted if as_sampled.any() else 0.0
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
