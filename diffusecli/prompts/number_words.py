"""Whole numbers in English words, and back.

Knows nothing of distributions.
"""

from __future__ import annotations

import re

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGEST = 999_999


def number_words(number: int) -> str | None:
    """The number in words; None beyond 999 999.

    >>> number_words(42), number_words(-3), number_words(1120)
    ('forty-two', 'minus three', 'one thousand one hundred and twenty')
    """
    if abs(number) > _LARGEST:
        return None
    if number < 0:
        return f"minus {number_words(-number)}"
    thousands, rest = divmod(number, 1000)
    parts = [f"{_below_thousand(thousands)} thousand"] if thousands else []
    if thousands and 0 < rest < 100:
        parts.append(f"and {_below_thousand(rest)}")
    elif rest or not thousands:
        parts.append(_below_thousand(rest))
    return " ".join(parts)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _below_hundred(rest)
    return f"{_SMALL[hundreds]} hundred" + (f" and {_below_hundred(rest)}" if rest else "")


def _below_hundred(number: int) -> str:
    if number < 20:
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_SMALL[ones]}" if ones else "")


_VALUES = {_below_hundred(number): number for number in range(100)}
_BELOW_HUNDRED = f"(?:(?:{'|'.join(_TENS[2:])})[- ](?:{'|'.join(_SMALL[1:10])})|{'|'.join(sorted((*_SMALL, *_TENS[2:]), key=len, reverse=True))})"
_BELOW_THOUSAND = f"(?:(?:an?|{'|'.join(_SMALL[1:10])}) hundred(?:(?: and)? {_BELOW_HUNDRED})?|{_BELOW_HUNDRED})"
_ANY = f"(?:(?:a|{_BELOW_THOUSAND}) thousand(?:(?: and)? {_BELOW_THOUSAND})?|{_BELOW_THOUSAND})"
_IN_WORDS = re.compile(rf"\b(minus )?({_ANY})\b(?! (?:hundred|thousand)\b)", re.IGNORECASE)


def with_figures(text: str) -> str:
    """The text with numbers in words as figures.

    >>> with_figures("From one to twenty-five"), with_figures("between minus three and one hundred and two thousand")
    ('From 1 to 25', 'between -3 and 102000')
    """
    return _IN_WORDS.sub(lambda match: f"{'-' if match[1] else ''}{_value(match[2].lower())}", text)


def _value(words: str) -> int:
    total = part = 0
    for word in re.sub(r"\band\b|(?<=ty)-", " ", words).split():
        if word == "thousand":
            total, part = 1000 * (part or 1), 0
        elif word == "hundred":
            part = 100 * (part or 1)
        else:
            part += _VALUES.get(word, 0)  # "a hundred" is one
    return total + part
