"""Which distributions and which texts are kept out of training. It depends on them alone, so that all mixtures agree, whatever their seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache

from diffusecli.prompts.answer_forms import BRACES, clauses
from diffusecli.prompts.catalogue import FAMILIES
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.families import benford
from diffusecli.prompts.mixture.texts import families_with_questions, own_templates
from diffusecli.prompts.wording_bank import templates

_TEXTS = 5  # every fifth question and clause
_PARAMETERS = 4  # one in four distributions

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_DAYS = tuple(date(2024, 1, day).strftime("%A") for day in range(1, 8))
_MONTHS = tuple(date(2024, month, 1).strftime("%B") for month in range(1, 13))
_ALWAYS_TRAINED = (
    _DAYS,
    _MONTHS,
    ("hearts", "diamonds", "clubs", "spades"),
    tuple("123456789"),
    tuple("0123456789"),
    tuple("123456"),
)


def distribution_key(distribution: Distribution) -> str:
    """What counts as the same parameters, whatever the family and the wording.

    Two outcomes: the smaller of their shares. Words: the shares, whichever words have them, or the words, when equally likely. Numbers: all.

    >>> distribution_key(Distribution(("heads", "tails"), (0.7, 0.3), ""))
    'two: 0.3'
    >>> distribution_key(Distribution(("tea", "milk", "rum"), (0.2, 0.3, 0.5), ""))
    'shares: 0.2 0.3 0.5'
    """
    weights = distribution.weights or tuple(1 / len(distribution.outcomes) for _ in distribution.outcomes)
    if len(weights) == 2:
        return f"two: {min(weights):.6g}"
    words = not all(_NUMBER.fullmatch(outcome) for outcome in distribution.outcomes)
    if words and distribution.weights is not None:
        return f"shares: {' '.join(f'{weight:.6g}' for weight in sorted(weights))}"
    if words:
        return f"words: {' | '.join(sorted(outcome.casefold() for outcome in distribution.outcomes))}"
    return f"numbers: {' '.join(f'{outcome}={weight:.6g}' for outcome, weight in sorted(zip(distribution.outcomes, weights, strict=True)))}"


def is_reserved(distribution: Distribution) -> bool:
    """Whether no training prompt may have this distribution."""
    key = distribution_key(distribution)
    if key in ("two: 0", "two: 0.5") or _is_common(distribution):
        return False
    return hashlib.sha256(key.encode()).digest()[0] % _PARAMETERS == 0


def trained_texts(texts: Sequence[str]) -> list[str]:
    """The questions or clauses that training may use: none that another family, or another form of the answer, has reserved in other facts."""
    apart = _all_reserved()
    return [text for index, text in enumerate(texts) if index % _TEXTS != _TEXTS - 1 and _alike(text) not in apart]


def reserved_texts(texts: Sequence[str]) -> list[str]:
    """The questions or clauses that training never uses: every fifth."""
    return list(texts[_TEXTS - 1 :: _TEXTS])


@cache
def _all_reserved() -> frozenset[str]:
    """What every list of questions and clauses reserves."""
    return frozenset(_alike(text) for texts in _every_list() for text in reserved_texts(texts))


def _every_list() -> Iterator[Sequence[str]]:
    """All lists from which questions and clauses are taken, as they are taken."""
    yield from map(own_templates, families_with_questions())
    yield from (("", *templates(name)) for name in FAMILIES)
    for wrap in (BRACES, "[%s]", "%s"):
        yield clauses(wrap)


def _alike(text: str) -> str:
    """A text without what differs from call to call: facts, case, signs at the end, spaces."""
    return " ".join(re.sub(r"\{\w+\}", "_", text).casefold().split()).strip(" .?!")


def _is_common(distribution: Distribution) -> bool:
    """What families with a single distribution have."""
    if distribution.weights is not None:
        return distribution.weights == benford().weights
    return any(set(distribution.outcomes) == set(names) for names in _ALWAYS_TRAINED)
