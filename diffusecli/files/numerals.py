"""Numbers as people write them in tables: `37%`, `1,234`, `1.234,5`, `1 234`. A column is read as a whole.

Knows text only. Refuses a column that can be read in two ways, unless the caller names the decimal sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SPACES = re.compile(r"(?<=\d)[ '’\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # between thousands
_MINUS = str.maketrans({"\u2212": "-"})
_AT_END = re.compile(
    r"(?P<text>.*?\S)(?P<sign>\s*(?::|=|->|→)\s*|(?:\s+|(?<!\d))[-–—]\s*|\s*\(\s*|\s+)(?P<number>[.,]?\d[\d.,]*(?:\s*%)?)(?:\s*\))?"
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)
_PERCENT = re.compile(r"%?([^%]*)%?", re.DOTALL)


def _pattern(decimal: str) -> re.Pattern[str]:
    between = re.escape("," if decimal == "." else ".")
    whole = rf"(?:[1-9]\d{{0,2}}(?:{between}\d{{2,3}})*{between}\d{{3}}|\d+)"
    fraction = rf"{re.escape(decimal)}\d"
    return re.compile(rf"[+-]?(?:{whole}(?:{fraction}*|{re.escape(decimal)})?|{fraction}+)(?:[eE][+-]?\d+)?", re.ASCII)


_WRITTEN = {decimal: _pattern(decimal) for decimal in ".,"}


class UnclearNumberError(ValueError):
    """A text of a column is not a number, or could be read as two numbers. `index` is its row."""

    def __init__(self, index: int, message: str, remedy: str) -> None:
        """What is wrong, and how to fix it."""
        super().__init__(message)
        self.index, self.message, self.remedy = index, message, remedy


def numbers_in(texts: Sequence[str], decimal: str | None = None, likely: str | None = None) -> list[float]:
    """The numbers of a column; percentages are divided by 100.

    `decimal` is the decimal sign. Default: the one that fits the whole column, or `likely` if both fit.

    Raises `UnclearNumberError` for the first text that is not a number and for a column that can be read in two ways.

    >>> numbers_in(["1,234", "567"], likely="."), numbers_in(["37 %", "63%"]), numbers_in(["1.234,5", "2"])
    ([1234.0, 567.0], [0.37, 0.63], [1234.5, 2.0])
    """
    plain = [_SPACES.sub("", text.strip().translate(_MINUS)) for text in texts]
    percent = ["%" in text for text in plain]
    plain = [_without_percent(text) for text in plain]
    readings = {sign: [_number(text, sign) for text in plain] for sign in (decimal or ".,")}
    whole = {sign: values for sign, values in readings.items() if None not in values}
    if not whole:
        furthest = max(readings.values(), key=lambda values: values.index(None))
        index = furthest.index(None)
        raise UnclearNumberError(index, f"{texts[index]!r} is not a number", "Write a finite number that is zero or more")
    first, *others = [whole[likely]] if likely in whole else whole.values()
    for other in others:
        if first != other:
            index = next(i for i, (a, b) in enumerate(zip(first, other, strict=True)) if a != b)
            raise UnclearNumberError(
                index, f"{texts[index]!r} can be {first[index]:g} or {other[index]:g}",
                "Name the decimal sign: --decimal . or --decimal ,",
            )  # fmt: skip
    in_percent = any(percent)
    mixed = [i for i, (value, sign) in enumerate(zip(first, percent, strict=True)) if value and sign != in_percent]
    if mixed:
        raise UnclearNumberError(mixed[0], f"{texts[mixed[0]]!r} has no %, but others do", "Write all numbers with % or none")
    return [value / 100 if in_percent else value for value in first if value is not None]


def doubtful_decimal(texts: Sequence[str]) -> str:
    """A notice if some texts, read with a decimal point, look like thousands, and all others are whole numbers. Else "".

    >>> doubtful_decimal(["1.204", "830"])
    '1.204 is read as a decimal number. If the dot separates thousands, use --decimal ,'
    >>> doubtful_decimal(["1.204", "2.5", "830"]), doubtful_decimal(["0.204", "830"]), doubtful_decimal(["1.204", "2.796"])
    ('', '', '')
    """
    plain = [text.strip() for text in texts]
    doubtful = [text for text in plain if _THOUSANDS.fullmatch(text)]
    whole = sum(1 for text in plain if re.fullmatch(r"\d+", text, re.ASCII))
    if not doubtful or not whole or len(doubtful) + whole < len(plain):
        return ""
    return f"{doubtful[0]} is read as a decimal number. If the dot separates thousands, use --decimal ,"


def is_number(text: str) -> bool:
    """Whether a text is a number in any notation."""
    try:
        numbers_in([text], ".")
    except UnclearNumberError:
        try:
            numbers_in([text], ",")
        except UnclearNumberError:
            return False
    return True


@dataclass(frozen=True)
class Ending:
    """A number at the end of a text, which may be the weight of the text before it."""

    text: str
    number: str
    is_likely: bool  # the separator is rarely part of a name


def ending_of(text: str) -> Ending | None:
    """The number at the end of a text after a space, a dash, a colon or the like; None where there is none, or nothing else.

    >>> ending_of("heads - 50 %"), ending_of("Agent 7"), ending_of("18-24"), ending_of("10 000")
    (Ending(text='heads', number='50%', is_likely=True), Ending(text='Agent', number='7', is_likely=False), None, None)
    """
    match = _AT_END.fullmatch(text.strip())
    if match is None or not re.search(r"\w", match["text"]) or not is_number(match["number"]) or is_number(text):
        return None
    number, sign = "".join(match["number"].split()), match["sign"]
    likely = sign.strip() in (":", "=", "->", "→") or ("%" in number and ("(" in sign or sign != sign.strip()))
    return Ending(match["text"], number, likely)


def _without_percent(text: str) -> str:
    match = _PERCENT.fullmatch(text)
    return match[1].strip() if match and match[0].count("%") == 1 else text


def _number(text: str, decimal: str) -> float | None:
    """The number, or None if the text is not a number with this decimal sign."""
    if not _WRITTEN[decimal].fullmatch(text):
        return None
    between = "," if decimal == "." else "."
    value = float(text.replace(between, "").replace(decimal, "."))
    return value if value == 0 or abs(value) < float("inf") else None
