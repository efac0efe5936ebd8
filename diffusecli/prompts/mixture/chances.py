"""Chances as people write them: one probability in many notations, and shares that sum to 1. Everything is exact (fractions)."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

from diffusecli.prompts.number_words import number_words

_RARE = (
    Fraction(1, 3),
    Fraction(2, 3),
    Fraction(1, 6),
    Fraction(5, 6),
    Fraction(1, 7),
    Fraction(3, 8),
    Fraction(1, 8),
    Fraction(1, 200),
)


def chance(rng: Random) -> Fraction:
    """A probability: mostly of two decimals, 0 and 1 among them."""
    if rng.random() < 0.85:
        return Fraction(rng.randrange(101), 100)
    return rng.choice(_RARE) if rng.random() < 0.3 else Fraction(rng.randrange(1, 1000), 1000)


def inner_chance(rng: Random) -> Fraction:
    """A probability that is neither 0 nor 1."""
    while not 0 < (found := chance(rng)) < 1:
        pass
    return found


def in_words(number: int) -> str:
    """A number in words, where it has a name of reasonable length."""
    return number_words(number) or str(number)


def decimal(share: Fraction) -> str | None:
    """A fraction as a decimal number of at most four places; None where that is not exact.

    >>> decimal(Fraction(37, 100)), decimal(Fraction(1, 3))
    ('0.37', None)
    """
    scaled = share * 10_000
    return f"{float(share):.10g}" if scaled.denominator == 1 else None


def percent(share: Fraction) -> str | None:
    """The number of percent, of at most two places; None where that is not exact.

    >>> percent(Fraction(3, 8)), percent(Fraction(7, 100)), percent(Fraction(1, 3))
    ('37.5', '7', None)
    """
    return decimal(share * 100) if (share * 10_000).denominator == 1 else None


NOTATIONS = ("decimal", "percent", "percent sign apart", "percent in words", "in a hundred", "fraction", "bare point", "out of")


def written(share: Fraction, notation: str) -> str | None:
    """A probability in one notation; None where the notation cannot say it exactly.

    >>> [written(Fraction(1, 4), notation) for notation in NOTATIONS]
    ['0.25', '25%', '25 %', 'twenty-five percent', '25 in 100', '1/4', '.25', '1 out of 4']
    """
    hundred, of = share * 100, share.denominator
    if notation in ("fraction", "out of"):
        return f"{share.numerator}{'/' if notation == 'fraction' else ' out of '}{of}" if 1 < of <= 100 else None
    if notation in ("in a hundred", "percent in words"):
        text = f"{hundred} in 100" if notation == "in a hundred" else f"{in_words(int(hundred))} percent"
        return text if hundred.denominator == 1 else None
    if notation in ("decimal", "bare point"):
        number = decimal(share)
        return number.removeprefix("0") if number and notation == "bare point" and share > 0 else number
    number = percent(share)
    return None if number is None else f"{number}{'%' if notation == 'percent' else ' %'}"


def in_one_notation(shares: list[Fraction], rng: Random) -> list[str]:
    """All shares in the same notation, which is drawn from those that can say them."""
    found = []
    for notation in NOTATIONS:
        texts = [written(share, notation) for share in shares]
        if None not in texts:
            found += [[text for text in texts if text is not None]] * (
                4 if notation == "percent" else 2 if notation == "decimal" else 1
            )
    return rng.choice(found)


def shares(count: int, rng: Random) -> list[Fraction]:
    """So many positive shares with the sum 1: round and not round percentages, fractions, tenths of a percent."""
    parts = rng.choices((10, 20, 100, 1000, rng.choice((3, 4, 6, 8, 12, 15, 24, 50))), (2, 4, 9, 1.5, 2))[0]
    while parts < count:
        parts *= 10
    return [Fraction(part, parts) for part in split(parts, count, rng)]


def split(total: int, count: int, rng: Random) -> list[int]:
    """A total as so many positive whole numbers, every way equally likely; every fourth time the largest first.

    >>> sum(split(20, 4, Random(1)))
    20
    """
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    parts = [after - before for before, after in pairwise(cuts)]
    return sorted(parts, reverse=True) if rng.random() < 0.25 else parts
