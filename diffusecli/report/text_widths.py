"""How wide a text is at most, without its font: for pictures, whose texts must not be cut or overlap.

Widths are those of DejaVu Sans, the widest of the common sans-serif fonts, in parts of the font size.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from diffusecli.report.widths import distinguishable

_WIDTHS = {
    **dict.fromkeys(" !'(),-./:;I[\\]`fijlrt|·›\u202f", 0.42), **dict.fromkeys("mwMW@%…—⏎", 1.0), **dict.fromkeys("ABCDEGHKNOPQRUVXY", 0.8),
    **dict.fromkeys("+<=>~^_#&−≠→±≈≤≥×✓✗", 0.85),
}  # fmt: skip
_LATIN, _OTHER, _WIDE, _EMOJI, _LIGATURE = 0.65, 1.0, 1.05, 1.4, 12.0
BOLD = 1.15
"""How much wider bold letters are."""


def width(text: str, size: float) -> float:
    """At most so many pixels.

    >>> width("Will", 10), width("日本", 10), width("e\u0301", 10)
    (22.6, 21.0, 6.5)
    """
    return round(size * sum(map(_width, text)), 1)


def _width(sign: str) -> float:
    if sign in _WIDTHS:
        return _WIDTHS[sign]
    if sign < "\u0180":
        return _LATIN if sign.islower() or sign < "\x7f" else 0.85
    if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0.0  # they sit on the letter before
    if unicodedata.east_asian_width(sign) in "WF":
        return _EMOJI if unicodedata.category(sign) == "So" else _WIDE
    return _LIGATURE if "\ufdf0" <= sign <= "\ufdff" or sign == "\U0001242b" else _OTHER


def fitted(texts: Sequence[str], size: float, room: float) -> list[str]:
    """The texts, cut where they are wider than `room`; different texts stay different where that is possible.

    >>> fitted(["very dissatisfied", "dissatisfied"], 10, 90)
    ['very dissatisf…', 'dissatisfied']
    """
    found: dict[int, str] = {place: text for place, text in enumerate(texts) if width(text, size) <= room}
    for characters in range(max(map(len, texts), default=0), 0, -1):
        if len(found) == len(texts):
            break
        cut = distinguishable(texts, characters)
        found |= {place: text for place, text in enumerate(cut) if place not in found and width(text, size) <= room}
    return [found.get(place, "…") for place in range(len(texts))]


def wrapped(text: str, size: float, room: float, most: int = 99) -> list[str]:
    """At most `most` lines no wider than `room`, broken at spaces and after slashes; longer words and the rest are cut.

    >>> wrapped("follows the target well", 10, 110), wrapped("results/dice", 10, 60)
    (['follows the target', 'well'], ['results/', 'dice'])
    >>> wrapped("one two three four", 10, 50, most=2)
    ['one two', 'three f…']
    """
    lines: list[str] = []
    for word in re.findall(r"[^ /]*/|[^ /]+ ?| ", text):
        if lines and width((lines[-1] + word).rstrip(), size) <= room:
            lines[-1] += word
        else:
            lines.append(word.lstrip())
    kept = [*lines[: most - 1], "".join(lines[most - 1 :])] if len(lines) > most else lines
    return [fitted([line.rstrip(" ")], size, room)[0] for line in kept if line.strip()]
