"""Options to choose from: words of one kind, made-up words, codes, numbers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from diffusecli.prompts.mixture.texts import pools

_STARTS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "br",
    "cl",
    "dr",
    "fl",
    "gr",
    "pl",
    "st",
    "tr",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_ENDS = ["l", "m", "n", "r", "s", "t", "x", "k", "nd", "rt", "sh"]


def options(count: int, rng: Random) -> tuple[list[str], str]:
    """So many different options in random order, and what one of them is called."""
    kind = rng.random()
    if kind < 0.68:
        fitting = [noun for noun, words in pools().items() if len(words) >= count]
        noun = rng.choice(fitting)
        return _cased(rng.sample(pools()[noun], count), rng), noun
    if kind < 0.75:  # of several kinds
        everything = sorted({word for words in pools().values() for word in words})
        return rng.sample(everything, count), rng.choice(("option", "word", "item"))
    if kind < 0.85:
        return _different(count, lambda: made_up(rng)), rng.choice(("word", "name", "option"))
    if kind < 0.92:
        return _different(count, lambda: _code(rng)), rng.choice(("code", "label", "option"))
    if kind < 0.96:
        return rng.sample(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), count), rng.choice(("letter", "option"))
    return [str(number) for number in rng.sample(range(1, rng.choice((20, 100, 1000))), count)], "number"


def option_count(rng: Random) -> int:
    """2 to 12, few more often than many."""
    return rng.choices(range(2, 13), (6, 8, 8, 6, 5, 3, 3, 2, 2, 1, 1))[0]


_UNWANTED = ("fuk", "fuc", "cok", "coc", "dik", "dic", "tit", "nig", "sex", "kak", "cac", "kun", "cun", "pis", "fag", "rap")
"""No made-up word holds one of these."""


def made_up(rng: Random) -> str:
    """A word of one to three syllables that no dictionary has, such as `Frotex`."""
    word = _UNWANTED[0]
    while any(part in word for part in _UNWANTED):
        syllables = (rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2, 3))))
        word = "".join(syllables) + rng.choice(_ENDS)
    return word.capitalize() if rng.random() < 0.5 else word


def _code(rng: Random) -> str:
    letters, digits = "ABCDEFGHJKLMNPQRSTUVWXYZ", "0123456789"
    letter, digit = rng.choice(letters), rng.choice(digits)
    return rng.choice((letter + digit, f"{letter}{digit}{rng.choice(digits)}", f"{letter}-{digit}", letter + rng.choice(letters)))


def _different(count: int, make: Callable[[], str]) -> list[str]:
    found: dict[str, str] = {}
    while len(found) < count:
        word = make()
        found.setdefault(word.casefold().replace("-", ""), word)
    return list(found.values())


def _cased(words: list[str], rng: Random) -> list[str]:
    case = rng.random()
    if case < 0.75:
        return words
    return [word.upper() for word in words] if case < 0.82 else [word[:1].upper() + word[1:] for word in words]
