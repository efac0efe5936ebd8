"""What can be said of a group that was never trained, without a model: predictions of its answers from the other groups, and their errors.

A prediction is a distribution over the answers [K]. None of them uses the group's own answers to the question. One uses its answers to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np

from benchmarks.study.survey_prompts import Counts, Group

RESAMPLES = 10_000
Interval = tuple[float, float, float]
"""Mean, and the ends of its 95 % interval."""


def predictions(counts: Counts, group: Group, question: str) -> Mapping[str, np.ndarray]:
    """Baseline -> its prediction for one group and question from the other groups."""
    trained = {other: answers for other, answers in counts.items() if other != group}
    everybody = np.sum([answers[question] for answers in trained.values()], axis=0)
    return {
        "uniform": np.full(len(everybody), 1 / len(everybody)),
        "mean": shares(everybody),
        "nearest": shares(trained[nearest(group, list(trained))][question]),
        "alike": shares(trained[most_alike(counts, group, question)][question]),
        "effects": main_effects(trained, group, question),
    }


def shares(people: np.ndarray) -> np.ndarray:
    """Counts as shares."""
    return np.asarray(people / people.sum())


def nearest(group: Group, others: Sequence[Group]) -> Group:
    """The group with most attributes in common, decided before any answer was seen: party counts most, then age, then sex."""
    return max(others, key=lambda other: (other.party == group.party, other.age == group.age, other.sex == group.sex))


def most_alike(counts: Counts, group: Group, question: str) -> Group:
    """The other group with the least mean TVD from this one over all other questions."""

    def apart(other: Group) -> float:
        return float(np.mean([tvd(shares(counts[group][q]), shares(counts[other][q])) for q in counts[group] if q != question]))

    return min((other for other in counts if other != group), key=apart)


def main_effects(trained: Counts, group: Group, question: str) -> np.ndarray:
    """Shares as a sum of effects of party, sex and age, by least squares over the trained groups, weighted by their people.

    Every answer has its own effects; the predictions of all answers sum to 1. Negative ones count as 0.
    """
    levels = [sorted({astuple(other)[place] for other in [*trained, group]}) for place in range(3)]

    def row(one: Group) -> list[float]:
        return [1.0, *(float(value == level) for value, known in zip(astuple(one), levels, strict=True) for level in known[1:])]

    people = np.array([answers[question].sum() for answers in trained.values()])
    weights = np.sqrt(people)[:, None]
    seen = np.array([shares(answers[question]) for answers in trained.values()])
    effects, *_ = np.linalg.lstsq(weights * np.array([row(other) for other in trained]), weights * seen, rcond=None)
    return shares(np.maximum(np.array(row(group)) @ effects, 0))


def tvd(p: np.ndarray, q: np.ndarray) -> float:
    """Total variation distance of a prediction q from shares p. What q lacks of a sum of 1 is on no answer.

    >>> tvd(np.array([0.5, 0.5]), np.array([0.5, 0.25]))
    0.25
    """
    return float((np.abs(p - q).sum() + max(0.0, 1 - q.sum())) / 2)


def by_groups(values: np.ndarray) -> Interval:
    """The mean of values [groups, questions], and its 95 % interval by resampling groups with all their questions."""
    of_groups = values.mean(axis=1)
    drawn = np.random.default_rng(0).integers(len(of_groups), size=(RESAMPLES, len(of_groups)))
    low, high = np.quantile(of_groups[drawn].mean(axis=1), (0.025, 0.975))
    return float(of_groups.mean()), float(low), float(high)
