"""Distributions: outcomes with weights, created by a family that the command line can name.

Knows nothing of prompts, models or files. The families are functions in `families.py`; `catalogue.py` has them by name.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diffusecli.system.errors import InputError, sentence

MOST_OUTCOMES = 100_000


@dataclass(frozen=True)
class Distribution:
    """Outcomes as text, their weights, and an English request for a draw."""

    outcomes: tuple[str, ...]
    weights: tuple[float, ...] | None  # None: uniform
    request: str
    noun: str = "number"
    notice: str = ""  # for the user: what was cut off or detected, one per line
    fields: Mapping[str, str] = field(default_factory=dict)  # fill the {placeholders} of a request, where more than the group does
    facts: Mapping[str, str] = field(default_factory=dict)  # fill the templates of `wordings/`
    template: str = ""  # of records: how fields make an outcome
    # of records whose combinations are not listed: field -> value -> weight; outcomes have `{field}` in its place
    independent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    family: str = ""  # its name; none for what comes from a file
    unused: tuple[str, ...] = ()  # columns of its table that are neither targets, groups nor weights
    answer: str = ""  # what a request calls the answer, if it has several values; the noun by default

    @property
    def independent_fields(self) -> dict[str, dict[str, list[Any]]]:
        """The independent fields as a prompt file has them: values and weights, normalised."""
        return {
            name: {"values": list(sums), "weights": list(rounded_shares(sums.values()))} for name, sums in self.independent.items()
        }


_Make = Callable[..., Distribution]


@dataclass(frozen=True)
class Family:
    """A distribution that the command line can name."""

    name: str
    make: Callable[..., Distribution]
    metavar: str
    summary: str
    example: str

    def __call__(self, *arguments: Any, **modifiers: Any) -> Distribution:
        """The distribution with these parameters. Raises `InputError` for invalid ones."""
        return replace(self.make(*arguments, **modifiers), family=self.name)

    @property
    def arguments(self) -> tuple[type, ...]:
        """Types of the option's values, in order. Empty for a flag."""
        hints = typing.get_type_hints(self.make)
        parameters = inspect.signature(self.make).parameters.values()
        return tuple(hints[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def modifiers(self) -> tuple[str, ...]:
        """Names of its modifier options."""
        return tuple(p.name for p in inspect.signature(self.make).parameters.values() if p.kind is p.KEYWORD_ONLY)


def family(metavar: str, summary: str, example: str) -> Callable[[_Make], Family]:
    """Decorator: make a function a family. Its name, with dashes, is the option's."""

    def made(make: _Make) -> Family:
        name = make.__name__.replace("_", "-")
        return Family(name, make, metavar, summary, f"--{name} {example}".rstrip())

    return made


def rounded_shares(masses: Iterable[float]) -> tuple[float, ...]:
    """Nine significant digits, summing to 1 to that precision."""
    listed = list(masses)
    total = math.fsum(listed)
    return tuple(float(f"{mass if abs(total - 1) < 1e-9 else mass / total:.9g}") for mass in listed)


def merge_equal(pairs: Iterable[tuple[str, float]]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Merge equal outcomes and add their weights. Weights are None if all are equal."""
    sums: dict[str, float] = {}
    for text, weight in pairs:
        sums[text] = sums.get(text, 0.0) + weight
    return tuple(sums), None if len(set(sums.values())) == 1 else tuple(sums.values())


def require(good: bool, where: str, remedy: str) -> None:
    """Raise `InputError` unless the parameters are valid."""
    if not good:
        raise InputError(f"{where}: {remedy}")


def require_manageable(count: int, where: str, remedy: str) -> None:
    """Raise `InputError` for more outcomes than a prompt can have."""
    require(count <= MOST_OUTCOMES, where, f"{count} outcomes, at most {MOST_OUTCOMES} are allowed. {sentence(remedy)}")
