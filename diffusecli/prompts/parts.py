"""Answers in parts: several draws, or records with independent fields. Their combinations are too many to list.

A part is drawn given the parts before it. Texts, indices and weights only: no tokens, no models.

Axis names: K targets, F parts of an answer, V values of a part, N answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.templates import Template

_AT_ONCE = 5_000_000  # random numbers


class Parts(Protocol):
    """How answers are composed."""

    @property
    def template(self) -> Template:
        """Splits an answer into parts."""

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        """The values of each part [F][V]."""

    def weights(self, drawn: Sequence[int]) -> np.ndarray:
        """The distribution of the next part given the indices of the drawn values [V]."""

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the value indices of N answers [N, F]."""


def parts_of(prompt: Prompt) -> Parts | None:
    """The parts of a prompt's answers; None if its targets are whole answers."""
    if prompt.draws is not None:
        return SeveralDraws(prompt.draws, prompt.targets, np.array(prompt.probabilities))
    if prompt.independent:
        return IndependentFields.of(prompt)
    return None


@dataclass(frozen=True, eq=False)
class SeveralDraws:
    """Draws from the same targets, with or without replacement."""

    draws: Draws
    targets: tuple[str, ...]  # K
    probabilities: np.ndarray  # [K]

    @property
    def template(self) -> Template:
        """Splits an answer into draws."""
        return self.draws.template

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        """The targets, for each draw."""
        return (self.targets,) * self.draws.n

    def weights(self, drawn: Sequence[int]) -> np.ndarray:
        """The weights of the targets that remain [K]."""
        if self.draws.replace or not drawn:
            return self.probabilities
        left = self.probabilities.copy()
        left[list(drawn)] = 0.0
        return np.asarray(left / left.sum())

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the target indices of N answers [N, F]."""
        p, count = self.probabilities, self.draws.n
        if self.draws.replace:
            return rng.choice(len(p), size=(n, count), p=p).astype(np.int32)
        size = max(1, _AT_ONCE // len(p))
        return np.concatenate([_without_replacement(p, count, min(size, n - start), rng) for start in range(0, n, size)])


@dataclass(frozen=True, eq=False)
class IndependentFields:
    """Records whose independent fields do not depend on any other. The other fields are those of the targets."""

    template: Template
    values: tuple[tuple[str, ...], ...]
    rows: np.ndarray  # [K, F] value indices of the targets; -1 for independent fields
    probabilities: np.ndarray  # [K]
    own: Mapping[int, np.ndarray]  # place of an independent field -> weights [V]

    @classmethod
    def of(cls, prompt: Prompt) -> IndependentFields:
        """The fields of a prompt that was checked."""
        template = Template.of(prompt.template or "")
        records = [template.parse(target) or () for target in prompt.targets]
        values: list[tuple[str, ...]] = []
        rows, own = np.full((len(records), len(template.fields)), -1), {}
        for place, name in enumerate(template.fields):
            if (field := prompt.independent.get(name)) is not None:
                values.append(field.values)
                own[place] = np.array(field.probabilities)
                continue
            index = {value: number for number, value in enumerate(dict.fromkeys(record[place] for record in records))}
            values.append(tuple(index))
            rows[:, place] = [index[record[place]] for record in records]
        return cls(template, tuple(values), rows, np.array(prompt.probabilities), own)

    def weights(self, drawn: Sequence[int]) -> np.ndarray:
        """The distribution of the next field [V]. An independent field has its own; another depends on those of its target before it."""
        place = len(drawn)
        if place in self.own:
            return self.own[place]
        before = [other for other in range(place) if other not in self.own]
        fits = np.all(self.rows[:, before] == np.array(drawn, dtype=int)[before], axis=1) if before else slice(None)
        sums = np.bincount(self.rows[fits, place], weights=self.probabilities[fits], minlength=len(self.values[place]))
        return np.asarray(sums / sums.sum())

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the value indices of N answers [N, F]."""
        drawn = self.rows[rng.choice(len(self.rows), size=n, p=self.probabilities / self.probabilities.sum())]
        for place, p in self.own.items():
            drawn[:, place] = rng.choice(len(p), size=n, p=p / p.sum())
        return drawn.astype(np.int32)

    @cached_property
    def marginals(self) -> list[np.ndarray]:
        """The distribution of each field alone [F][V]."""
        return [
            self.own[place]
            if place in self.own
            else np.bincount(self.rows[:, place], weights=self.probabilities, minlength=len(values))
            for place, values in enumerate(self.values)
        ]


def example(prompt: Prompt, target: str) -> str:
    """A target with the first value of each independent field in its place.

    >>> from diffusecli.prompts.prompt import IndependentField
    >>> people = Prompt(request="r", targets=("Ann, {age}",), template="{name}, {age}", independent={"age": IndependentField(values=("34",))})
    >>> example(people, "Ann, {age}")
    'Ann, 34'
    """
    return with_values(target, {name: next(iter(field.values), "") for name, field in prompt.independent.items()})


def with_values(target: str, values: Mapping[str, str]) -> str:
    """A target with values in the place of independent fields."""
    for name, value in values.items():
        target = target.replace(f"{{{name}}}", value)
    return target


def _without_replacement(p: np.ndarray, draws: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n sequences [n, draws]: the first targets to arrive, in order, where target i arrives at rate p_i."""
    with np.errstate(divide="ignore"):
        arrivals = rng.exponential(size=(n, len(p))) / p
    first = np.argpartition(arrivals, draws - 1, axis=1)[:, :draws]
    order = np.argsort(np.take_along_axis(arrivals, first, axis=1), axis=1)
    return np.take_along_axis(first, order, axis=1).astype(np.int32)
