"""Cut and pad texts by the columns that they take on a terminal: a Chinese character takes two, a combining accent none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, get_character_cell_size

_CUT = "…"
_JOINER = "\u200d"  # joins emoji to one


def start_of(text: str, width: int) -> str:
    """The start of a text in at most `width` columns; an ellipsis after it if it is cut.

    >>> start_of("abcd", 4), start_of("abcde", 4), start_of("日本語", 4), cell_len(start_of("日本語", 4))
    ('abcd', 'abc…', '日…', 3)
    """
    return text if cell_len(text) <= width else _first(text, width - 1).rstrip() + _CUT


def end_of(text: str, width: int) -> str:
    """The end of a text in at most `width` columns; an ellipsis before it if it is cut.

    >>> end_of("abcde", 4), end_of("日本語", 5)
    ('…cde', '…本語')
    """
    return text if cell_len(text) <= width else _CUT + _last(text, width - 1)


def middle(texts: Sequence[str], width: int) -> list[str]:
    """Shorten texts to `width` columns: in the middle, or around the first difference if they would look the same.

    >>> middle(["very dissatisfied", "dissatisfied", "a"], 12)
    ['very d…sfied', 'dissatisfied', 'a']
    >>> middle(["an answer of one kind that is long", "an answer of two kinds that is long"], 14)
    ['…wer of one k…', '…wer of two k…']
    >>> middle(["非常に満足している", "どちらかといえば不満"], 11)
    ['非常…いる', 'どち…不満']
    """
    whole = len(set(texts))
    even = (width - 1) - (width - 1) // 2
    cut = _cut(texts, width, even)
    for start in sorted(range(1, width - 1), key=lambda start: abs(start - even)):
        if len(set(cut)) == whole:
            return cut
        cut = max(cut, _cut(texts, width, start), key=lambda some: len(set(some)))
    long = [text for text in texts if cell_len(text) > width]
    first, last = min(long, default=""), max(long, default="")  # what these two begin with, all begin with
    alike = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    before = _last(first[:alike], width // 2)
    begin = alike - len(before)
    around = [text if cell_len(text) <= width else f"{_CUT if begin else ''}{text[begin:]}" for text in texts]
    around = [text if cell_len(text) <= width else f"{_first(text, width - 1)}{_CUT}" for text in around]
    return max(cut, around, key=lambda some: len(set(some)))


def _cut(texts: Sequence[str], width: int, start: int) -> list[str]:
    """Long texts with so many columns before the ellipsis."""
    return [text if cell_len(text) <= width else f"{_first(text, start)}{_CUT}{_last(text, width - 1 - start)}" for text in texts]


def _first(text: str, width: int) -> str:
    """As many characters from the start as fit into `width` columns. An accent stays with its letter."""
    kept = used = 0
    for sign in _signs(text):
        used += cell_len(sign)
        if used > width:
            break
        kept += len(sign)
    return text[:kept]


def _last(text: str, width: int) -> str:
    """As many characters from the end as fit into `width` columns."""
    kept = used = 0
    for sign in reversed(list(_signs(text))):
        used += cell_len(sign)
        if used > width:
            break
        kept += len(sign)
    return text[len(text) - kept :]


def _signs(text: str) -> Iterator[str]:
    """What a reader sees as one sign: a character with the accents after it, or joined emoji."""
    start = 0
    for place in range(1, len(text)):
        if get_character_cell_size(text[place]) > 0 and text[place - 1] != _JOINER:
            yield text[start:place]
            start = place
    if text:
        yield text[start:]
