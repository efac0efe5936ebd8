"""Targets that are numbers or dates: distance of samples from the target in units of the outcome.

Takes the targets' texts, weights and counts. All targets may have the same words around the number or date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from diffusecli.evaluation.perfect import mean_absolute_deviation

_DATES = ("%Y-%m-%d", "%B %d %Y", "%d %B %Y", "%b %d %Y", "%d %b %Y", "%d.%m.%Y", "%B %d", "%d %B", "%b %d", "%d %b")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
_LEAP_YEAR = 366


@dataclass(frozen=True)
class Ordered:
    """Samples on target, as values, compared with the target. Dates are in days; their mean counts from the first target."""

    unit: str  # "" for plain numbers, "days"
    wasserstein: float  # in units of the outcome
    wasserstein_floor: float  # mean of a perfect sampler
    mean: float  # of samples on target
    target_mean: float  # of the weights
    variance: float  # of samples on target
    target_variance: float  # of the weights


def values_of(targets: Sequence[str]) -> tuple[tuple[float, ...], str] | None:
    """The values of the targets and their unit; None if they are not all different numbers or dates.

    >>> values_of(["{1}", "{2.5}"]), values_of(["{June 30}", "{July 2}"]), values_of(["{a}", "{1}"])
    (((1.0, 2.5), ''), ((0.0, 2.0), 'days'), None)
    """
    for values, unit in ((_dates(targets), "days"), (_numbers(targets), "")):
        if values is not None and len(values) > 1 and len(set(values)) == len(values):
            return tuple(values), unit
    return None


def values_in(spellings: Sequence[Sequence[str]]) -> tuple[tuple[float, ...], str] | None:
    """As `values_of`, for the first spelling in which the targets are numbers or dates.

    >>> values_in([["{one}", "{1}", "1"], ["{two}", "{2}", "2"]])
    ((1.0, 2.0), '')
    """
    return next((found for texts in zip(*spellings, strict=False) if (found := values_of(texts)) is not None), None)


def ordered(values: Sequence[float], unit: str, counts: np.ndarray, p: np.ndarray) -> Ordered:
    """Figures of counts [K] with at least one sample; W_1 is the area between both distribution functions.

    Its floor is sum |gap| E|F_N - F|, exact because F_N is binomial at each point. By hand: values 0, 1, 3 of
    weights 1/4, 1/4, 1/2 and counts 2, 0, 2: the functions are 1/2 and 1/4 up to 1, then 1/2 and 1/2: W_1 = 1/4.
    """
    at, k = np.array(values), int(counts.sum())
    order = np.argsort(at)
    gaps, below = np.diff(at[order]), np.clip(np.cumsum(p[order])[:-1], 0, 1)
    floor = float(gaps @ mean_absolute_deviation(k, below))
    share = counts / k
    between = np.abs(np.cumsum((share - p)[order])[:-1])  # difference of the distribution functions between neighbouring values
    mean, target_mean = float(share @ at), float(p @ at)
    return Ordered(
        unit, float(gaps @ between), floor, mean, target_mean,
        float(share @ (at - mean) ** 2), float(p @ (at - target_mean) ** 2),
    )  # fmt: skip


def _numbers(targets: Sequence[str]) -> list[float] | None:
    """The numbers, if each target has one and the same words around it."""
    if any(len(_NUMBER.findall(target)) != 1 for target in targets) or len({_NUMBER.sub("0", target) for target in targets}) != 1:
        return None
    return [float(found[0].replace(",", "")) for target in targets if (found := _NUMBER.search(target))]


def _dates(targets: Sequence[str]) -> list[float] | None:
    """Days since the first target, ignoring brackets and commas; in a leap year if the targets have no year."""
    bare = [re.sub(r"^\W+|\W+$|,", "", target) for target in targets]
    for form in _DATES:
        with_year = "%Y" in form
        try:
            days = [datetime.strptime(text if with_year else f"{text} 2000", form if with_year else f"{form} %Y") for text in bare]  # noqa: DTZ007 (days only)
        except ValueError:
            continue
        since = [(day - days[0]).days for day in days]
        around = [day % _LEAP_YEAR for day in since]
        over_new_year = not with_year and around == sorted(around) and around[-1] <= _LEAP_YEAR / 2
        return [float(day) for day in (around if over_new_year else since)]
    return None
