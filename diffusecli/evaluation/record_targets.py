"""Target distribution of records, and samples from it: records listed with weights, records with independent fields, or several draws per answer.

Takes prompts, not answers. Symbols: F fields, R rows, N answers, B samples of a perfect sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffusecli.files.text import canonical
from diffusecli.prompts.parts import IndependentFields, SeveralDraws, parts_of
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.templates import Template, marginals

_AT_ONCE = 5_000_000  # random numbers
_MOST_CATEGORIES = 10  # with more distinct values a field of numbers is numeric
_SIMULATED = 100_000  # sequences to simulate draws without replacement after the first


@dataclass(frozen=True)
class RecordTarget:
    """The distribution of records."""

    template: Template
    marginals: Sequence[dict[str, float]]  # F: value -> weight
    rows: np.ndarray  # [R, F] records, as indices of their values; empty if draws are independent
    weights: np.ndarray  # [R]
    draw: Callable[[int, np.random.Generator], np.ndarray]  # draws N records of a perfect sampler [N, F]
    partial: bool = False  # rows leave out independent fields: they are 0

    @classmethod
    def of(cls, prompt: Prompt, template: Template) -> RecordTarget:
        """The distribution of the targets, or of the answers they are parts of."""
        parts = parts_of(prompt)
        if isinstance(parts, SeveralDraws):
            return _of_draws(prompt, parts)
        return _of_fields(parts) if isinstance(parts, IndependentFields) else _listed(prompt, template)

    def knows(self, values: Sequence[str]) -> bool:
        """Whether all values occur in target records."""
        return all(value in own for value, own in zip(values, self.marginals, strict=True))

    def samples(self, n: int, count: int, seed: int) -> Iterator[np.ndarray]:
        """B times N records of a perfect sampler [N, F]."""
        rng = np.random.default_rng(seed)
        return (self.draw(n, rng) for _ in range(count))


def coded(marginals: Sequence[dict[str, float]], rows: Sequence[Sequence[str]]) -> np.ndarray:
    """Values as their indices in the marginals [len(rows), F].

    >>> coded([{"a": 0.5, "b": 0.5}, {"x": 1.0}], [("b", "x"), ("a", "x")]).tolist()
    [[1, 0], [0, 0]]
    """
    places = [{value: place for place, value in enumerate(own)} for own in marginals]
    return np.array([[place[value] for place, value in zip(places, row, strict=True)] for row in rows])


def numbers_of(own: dict[str, float]) -> np.ndarray | None:
    """The values of a field as numbers, if they are numbers and there are many."""
    if len(own) <= _MOST_CATEGORIES:
        return None
    try:
        return np.array([float(value) for value in own])
    except ValueError:
        return None


def _listed(prompt: Prompt, template: Template) -> RecordTarget:
    weights = dict(zip(map(canonical, prompt.targets), prompt.probabilities, strict=True))
    values = [tuple(map(canonical, template.parse(text) or ())) for text in weights]
    p = np.array(list(weights.values()))
    own = marginals(template, weights)
    rows = coded(own, values)
    return RecordTarget(template, own, rows, p, lambda n, rng: rows[rng.choice(len(p), size=n, p=p / p.sum())])


def _of_draws(prompt: Prompt, parts: SeveralDraws) -> RecordTarget:
    p, draws = parts.probabilities, parts.draws
    names = list(map(canonical, prompt.targets))
    rows, shares = np.zeros((0, draws.n), dtype=np.int32), [p] * draws.n
    if not draws.replace:
        rows = parts.draw(min(_SIMULATED, 50 * _AT_ONCE // len(p)), np.random.default_rng(0))
        odds = p / (1 - p)
        shares = [p, p * (odds.sum() - odds)]  # second draw: sum of p_j p_i / (1 - p_j) over all j other than i
        # later draws: simulated counts plus one draw by the weights, so that no possible target gets share zero
        shares += [(np.bincount(rows[:, place], minlength=len(p)) + p) / (len(rows) + 1) for place in range(2, draws.n)]
    of_places = [dict(zip(names, share.tolist(), strict=True)) for share in shares]
    return RecordTarget(draws.template, of_places, rows, np.full(len(rows), 1 / max(1, len(rows))), parts.draw)


def _of_fields(parts: IndependentFields) -> RecordTarget:
    own = [
        dict(zip(map(canonical, values), shares.tolist(), strict=True))
        for values, shares in zip(parts.values, parts.marginals, strict=True)
    ]
    rows = np.maximum(parts.rows, 0)  # an independent field counts as constant: associated with no other
    return RecordTarget(parts.template, own, rows, parts.probabilities, parts.draw, partial=True)
