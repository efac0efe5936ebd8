"""Many requests for the same distribution: wordings of its question times clauses on the form of the answer, drawn by a seed.

A wording is a template of `wordings/<family>.txt`; its `{placeholders}` are facts that the family gives (`facts.py`). One that needs a fact that a
call does not have is left out for it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from diffusecli.prompts.answer_forms import clauses, with_form
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.wording_bank import filled, placeholders, templates
from diffusecli.system.errors import InputError, many

Drawn = tuple[tuple[str, ...], tuple[str, ...]]
"""Requests to train on, and those that are held out."""


class Wrapped(Protocol):
    """Anything with the form of a target."""

    @property
    def wrap(self) -> str:
        """The text around an outcome, with `%s` in its place."""


def questions(distribution: Distribution) -> tuple[str, ...]:
    """All wordings of the distribution's question, its own request first, without a word on the form of the answer."""
    known = set(distribution.facts)
    usable = (template for template in templates(distribution.family) if known.issuperset(placeholders(template)))
    return tuple(dict.fromkeys([distribution.request, *(filled(template, distribution.facts) for template in usable)]))


def draw_wordings(distribution: Distribution, wording: Wrapped, count: int, held_out: int, seed: int) -> Drawn:
    """`count` requests to train on and `held_out` ones to measure on, all different, drawn by `seed`.

    Each question comes once before any comes twice; the clauses on the form take turns. Held-out requests share neither question nor clause
    with trained ones, as far as there is more than one of each. The first request is the distribution's own. Raises `InputError` when there
    are not as many.
    """
    own, *others = questions(distribution)
    random.Random(seed).shuffle(others)
    trained, apart = split([own, *others], count, held_out)
    return draw_forms(trained, apart, distribution, wording, count, held_out, seed)


def draw_forms(
    trained: Sequence[str], apart: Sequence[str], distribution: Distribution, wording: Wrapped, count: int, held_out: int, seed: int
) -> Drawn:
    """Questions to train with, and those kept apart, with clauses on the form; otherwise as `draw_wordings`."""
    usual, *forms = clauses(wording.wrap)
    random.Random(seed).shuffle(forms)
    kinds = split([usual, *forms], count, held_out)
    weights = distribution.weights or [1.0] * len(distribution.outcomes)
    outcomes = [outcome for outcome, weight in zip(distribution.outcomes, weights, strict=True) if weight]

    def requests(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        drawn = [random.Random(f"{seed} {question} {form}").choice(outcomes) for question, form in pairs]
        named = (distribution.noun, distribution.answer)
        return tuple(
            with_form(*pair, wording.wrap, named[0], example, named[1]) for pair, example in zip(pairs, drawn, strict=True)
        )

    return (
        requests(_pairs(trained, kinds[0], count, "--wordings", "there are only")),
        requests(_pairs(apart, kinds[1], held_out, "--held-out", f"beside the {count} trained ones there are only")),
    )


def split(texts: Sequence[str], count: int, held_out: int) -> tuple[Sequence[str], Sequence[str]]:
    """Texts to train with and texts to hold out: all that training has no use for, and a quarter where it has use for all.

    >>> split("abcdefgh", 3, 10), split("abcdefgh", 8, 10), split("abcdefgh", 8, 1), split("a", 1, 1)
    (('abc', 'defgh'), ('abcdef', 'gh'), ('abcdefg', 'h'), ('a', 'a'))
    """
    if not held_out or len(texts) == 1:
        return texts, texts
    spare = max(len(texts) - count, len(texts) // 4, 1)
    kept = len(texts) - min(held_out, spare, len(texts) - 1)
    return texts[:kept], texts[kept:]


def _pairs(asked: Sequence[str], forms: Sequence[str], count: int, option: str, there_are: str) -> list[tuple[str, str]]:
    """`count` different pairs: each question once before one comes twice, the clauses in turn."""
    most = len(asked) * len(forms)
    if count > most:
        raise InputError(f"{option} {count}: {there_are} {many(most, 'wording')}. Use {option} {most} or fewer")
    turns = [divmod(index, len(asked)) for index in range(count)]
    return [(asked[place], forms[(place + turn) % len(forms)]) for turn, place in turns]
