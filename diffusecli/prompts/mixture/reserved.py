"""Which distributions and which texts are kept out of training. It depends on them alone, so that all mixtures agree, whatever their seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.families import benford

_TEXTS = 5  # every fifth question and clause
_PARAMETERS = 4  # one in four distributions

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
    words = any(sign.isalpha() for outcome in distribution.outcomes for sign in outcome)
    if words and distribution.weights is not None:
        return f"shares: {' '.join(f'{weight:.6g}' for weight in sorted(weights))}"
    if words:
        return f"words: {' | '.join(sorted(distribution.outcomes))}"
    return f"numbers: {' '.join(f'{outcome}={weight:.6g}' for outcome, weight in sorted(zip(distribution.outcomes, weights, strict=True)))}"


def is_reserved(distribution: Distribution) -> bool:
    """Whether no training prompt may have this distribution."""
    key = distribution_key(distribution)
    if key in ("two: 0", "two: 0.5") or _is_common(distribution):
        return False
    return hashlib.sha256(key.encode()).digest()[0] % _PARAMETERS == 0


def trained_texts(texts: Sequence[str]) -> list[str]:
    """The questions or clauses that training may use."""
    return [text for index, text in enumerate(texts) if index % _TEXTS != _TEXTS - 1]


def reserved_texts(texts: Sequence[str]) -> list[str]:
    """The questions or clauses that training never uses: every fifth."""
    return list(texts[_TEXTS - 1 :: _TEXTS])


def _is_common(distribution: Distribution) -> bool:
    """What families with a single distribution have."""
    if distribution.weights is not None:
        return distribution.weights == benford().weights
    return any(set(distribution.outcomes) == set(names) for names in _ALWAYS_TRAINED)
