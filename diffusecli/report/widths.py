"""Cut and pad texts by the columns that they take on a terminal: a Chinese character takes two, a combining accent none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

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


def distinguishable(texts: Sequence[str], width: int) -> list[str]:
    """Cut long texts to `width` columns. Words that differ between them stay whole if they fit; different texts stay different if possible.

    >>> distinguishable(["{very satisfied with it}", "{not satisfied with it}"], 18)
    ['{very satisfied w…', '{not satisfied wi…']
    >>> distinguishable(["an answer of one kind that is long", "an answer of two kinds that is long"], 14)
    ['…of one kind…', '…of two kinds…']
    >>> distinguishable(["results/of-dice/1", "results/of-dice/2"], 8)
    ['…-dice/1', '…-dice/2']
    >>> distinguishable(["very dissatisfied", "dissatisfied", "a"], 12)
    ['very dissat…', 'dissatisfied', 'a']
    >>> distinguishable(["非常に満足している", "どちらかといえば不満"], 11)
    ['非常…いる', 'どち…不満']
    >>> distinguishable(["a question on the north of the land", "a question on the south of the land", "another question"], 15)
    ['a que…north of…', 'a que…south of…', 'another questi…']
    """
    cut = _cut_apart(list(dict.fromkeys(texts)), width, frozenset())
    return [cut[text] for text in texts]


def _cut_apart(texts: Sequence[str], width: int, others: AbstractSet[str]) -> dict[str, str]:
    """Each of the different texts with its cut: all in the same way, those that are still alike in another. `others`: cuts of other texts."""
    best: dict[str, str] = {}
    for way in _cuts_of_alike(texts, width) if others else _cuts(texts, width):
        cut = dict(zip(texts, way, strict=True))
        if not best or _distinct(cut, others) > _distinct(best, others):
            best = cut
        if _distinct(best, others) == len(texts):
            return best
    for shown in dict.fromkeys(best.values()):
        alike = [text for text in texts if best[text] == shown]
        if 1 < len(alike) < len(texts):
            rest = others | {cut for text, cut in best.items() if text not in alike}
            again = _cut_apart(alike, width, rest)
            best |= again if _distinct(again, rest) > 1 else {}
    return best


def _distinct(cut: Mapping[str, str], others: AbstractSet[str]) -> int:
    return len(set(cut.values()) - others)


def _cuts(texts: Sequence[str], width: int) -> Iterator[list[str]]:
    """Ways to cut, best first: one end or both ends if all differing words remain, sentences at the end, names in the middle."""
    long = [text for text in texts if cell_len(text) > width]
    before, after = _alike(long)
    within = {text: text[before : len(text) - after] for text in long}
    if len(long) > 1:
        if all(cell_len(text[:before] + within[text]) < width for text in long):
            yield [start_of(text, width) for text in texts]
        if all(cell_len(text[before:]) < width for text in long):
            yield [end_of(text, width) for text in texts]
        room = width - 2 - max(map(cell_len, within.values()))
        if room >= 0:
            lead = _whole_words(long[0][:before], room)
            yield [f"{_CUT}{start_of(lead + text[before:], width - 1)}" if text in within else text for text in texts]
    if all(" " in text for text in long):
        yield [start_of(text, width) for text in texts]
    even = (width - 1) - (width - 1) // 2
    for start in sorted(range(width), key=lambda start: abs(start - even)):
        yield [f"{_first(text, start)}{_CUT}{_last(text, width - 1 - start)}" if cell_len(text) > width else text for text in texts]
    begin = _common_start(long)
    lead = _last(long[0][:begin] if long else "", width // 2)
    around = [f"{_CUT}{lead}{text[begin:]}" if text in within else text for text in texts]
    yield [text if cell_len(text) <= width else f"{_first(text, width - 1)}{_CUT}" for text in around]


def _cuts_of_alike(texts: Sequence[str], width: int) -> Iterator[list[str]]:
    """Ways to cut texts that are alike when cut as others are: the start, which distinguishes them from others, and where they begin to differ."""
    for place in (_alike(texts)[0], _common_start(texts)):
        for start in range(min(width // 3, place - 1), 0, -1):
            cut = {text: start_of(f"{_first(text, start)}{_CUT}{text[place:]}", width) for text in texts}
            yield [text if cell_len(text) <= width else cut[text] for text in texts]
    yield from _cuts(texts, width)


def _alike(texts: Sequence[str]) -> tuple[int, int]:
    """How many characters all texts have in common at their start and at their end, in whole words."""
    shortest = min(texts, key=len, default="")
    before = _common_start(texts)
    while before and shortest[before - 1].isalnum():
        before -= 1
    after = min(_common_start([text[::-1] for text in texts]), len(shortest) - before)
    while after and shortest[len(shortest) - after].isalnum():
        after -= 1
    return before, after


def _common_start(texts: Sequence[str]) -> int:
    """How many characters all texts begin with."""
    first, last = min(texts, default=""), max(texts, default="")  # what these two begin with, all begin with
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _whole_words(text: str, width: int) -> str:
    """The end of a text in at most `width` columns; it starts with a whole word if there is one.

    >>> _whole_words("an answer of ", 6), _whole_words("an answer of ", 3), _whole_words("answers", 3)
    ('of ', 'of ', 'ers')
    """
    kept = _last(text, width)
    cut = len(text) > len(kept) and text[len(text) - len(kept) - 1] != " "
    return kept.partition(" ")[2] if cut and " " in kept.rstrip() else kept


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
