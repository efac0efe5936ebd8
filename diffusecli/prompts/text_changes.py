"""Case, punctuation and layout of a request, changed as people type; what says the form of the answer stays.

Knows texts only. A change takes a request and the targets it asks for. Text in brackets, quotes and tags is never changed: it shows
the form of the answer. Nor are words of the targets, so that a request that lists options still spells them as they must be answered;
where targets are single letters, no word changes its case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from random import Random
from typing import TypeVar

Change = Callable[[str, Sequence[str]], str]
T = TypeVar("T")

_KEPT = re.compile(
    r"""[{\[] | "[^"]*(?:"|$) | “[^”]*(?:”|$) | «[^»]*(?:»|$) | `[^`]*(?:`|$) | ‘.*?(?:’(?!\w)|$) | (?<!\w)'.*?(?:'(?!\w)|$) | <[^<>\n]*>""",
    re.DOTALL | re.VERBOSE,
)
"""Where a part begins that stays; quotes without their end go on to the end of the text."""
_WORD = re.compile(r"(?<![\w.])[^\W\d_]+(?![\w(]|\.\w)")
"""A word of letters alone, that is no part of code: in `Math.random()` there is none."""
_ANY_WORD = re.compile(r"\w+")
_NEXT_SENTENCE = re.compile(r"(?<=[.!?])(?<!\b\w\.)(?<!\b[A-Z]\w\.)(?<!\bMrs\.) (?=[A-Z])")
"""The space between two sentences, not that after `e.g.` or `Mr.`."""
_OPENING = re.compile(r"[{\[]")
_CLOSING = {"{": "}", "[": "]"}


def drawn(rng: Random, items: Sequence[T]) -> T:
    """One of the items, by `Random.random` alone: its numbers are the same in every version of Python."""
    return items[int(rng.random() * len(items))]


def lower_case(text: str, targets: Sequence[str]) -> str:
    """All in small letters.

    >>> lower_case('Roll a Die, like this: {Answer}. Say Head or "Tail".', ["{Head}"])
    'roll a die, like this: {Answer}. say Head or "Tail".'
    """
    return _by_word(text, targets, str.lower)


def upper_case(text: str, targets: Sequence[str]) -> str:
    """All in capitals."""
    return _by_word(text, targets, str.upper)


def small_first(text: str, targets: Sequence[str]) -> str:
    """The first letter small, where it begins an ordinary word.

    >>> small_first("Roll a die.", ["1"]), small_first("I want a number.", ["1"]), small_first("DNA or RNA?", ["1"])
    ('roll a die.', 'I want a number.', 'DNA or RNA?')
    """
    first = _WORD.match(text)
    ordinary = first is not None and first[0] not in ("I", "O") and first[0] == first[0].capitalize()
    if first is None or not ordinary or _are_letters(targets) or _is_target_word(first[0], targets):
        return text
    return text[0].lower() + text[1:]


def other_mark(rng: Random, text: str, _targets: Sequence[str]) -> str:
    """Another mark at the end or none, most often without the full stop; one where there is none."""
    last = text[-1:]
    if _ends_kept(text) or text.endswith(".."):
        return text
    return (text if last.isalnum() else text[:-1]) + drawn(rng, _MARKS.get(last, (".", "!") if last.isalnum() else (last,)))


_MARKS = {".": ("", "", "", "!", "?", "..."), "?": ("", "??", "?!"), "!": ("", ".", "!!")}


def wide_spaces(rng: Random, text: str, targets: Sequence[str]) -> str:
    """Two spaces for one, here and there, but not between words that stand side by side in a target, such as `New York`."""
    together = {pair for target in targets for pair in pairwise(_ANY_WORD.findall(target))}

    def space(match: re.Match[str]) -> str:
        wide, before, after = rng.random() < 0.25, match.string[: match.start()], match.string[match.end() :]
        pair = _ANY_WORD.findall(before)[-1:] + _ANY_WORD.findall(after)[:1]
        return "  " if wide and tuple(pair) not in together else " "

    return _outside(text, lambda part: re.sub(r"(?<=\S) (?=\S)", space, part))


def line_breaks(separator: str, text: str, _targets: Sequence[str]) -> str:
    r"""Each sentence on a line of its own.

    >>> line_breaks("\n", "Roll a die. Answer like this: {1. Yes}. No code.", [])
    'Roll a die.\nAnswer like this: {1. Yes}.\nNo code.'
    """
    return _outside(text, lambda part: _NEXT_SENTENCE.sub(separator, part))


def blank_around(before: str, after: str, text: str, _targets: Sequence[str]) -> str:
    """Blank lines or spaces before and after it."""
    return before + text + after


_BLANKS = (("", "\n"), ("", "\n\n"), ("", "\n\n\n"), ("", " "), ("\n", ""), ("\n\n", ""), (" ", ""), ("\n", "\n"), ("\n\n", "\n\n"))


def typed(rng: Random, text: str, targets: Sequence[str]) -> str:
    """One or two of the changes, drawn at random among those that change the text."""
    weighted: list[tuple[Change, int]] = [
        (lower_case, 2),
        (small_first, 1),
        (partial(other_mark, rng), 2),
        (partial(wide_spaces, rng), 1),
        (partial(line_breaks, drawn(rng, ("\n", "\n\n"))), 1),
        (partial(blank_around, *drawn(rng, _BLANKS)), 1),
    ]
    left = 1 + (rng.random() < 0.4)
    for change, _ in sorted(weighted, key=lambda each: rng.random() / each[1]):
        changed = change(text, targets)
        left, text = left - (changed != text), changed
        if not left:
            break
    return text


def _by_word(text: str, targets: Sequence[str], change: Callable[[str], str]) -> str:
    if _are_letters(targets):
        return text

    def word(match: re.Match[str]) -> str:
        changed = change(match[0])
        return match[0] if changed == match[0] or _is_target_word(match[0], targets) else changed

    return _outside(text, lambda part: _WORD.sub(word, part))


def _are_letters(targets: Sequence[str]) -> bool:
    """Whether a target is a single letter, perhaps one of a word that the request names: `e` of `maple`, `E` of `MAPLE`."""
    return any(len(word) == 1 and word.isalpha() for target in targets for word in _ANY_WORD.findall(target))


def _is_target_word(word: str, targets: Sequence[str]) -> bool:
    whole = re.compile(rf"\b{word}\b")
    return any(whole.search(target) for target in targets)


def _outside(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if kept else change(part) for part, kept in _parts(text))


def _ends_kept(text: str) -> bool:
    return [kept for part, kept in _parts(text) if part][-1:] != [False]


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in parts, and which of them stay as they are."""
    at = 0
    while found := _KEPT.search(text, at):
        end = _kept_end(text, *found.span())
        yield text[at : found.start()], False
        yield text[found.start() : end], True
        at = end
    yield text[at:], False


def _kept_end(text: str, start: int, end: int) -> int:
    """The end of a part that stays, with the whole of each bracket that opens in it."""
    while opening := _OPENING.search(text, start, end):
        start = _closed(text, opening.start())
        end = max(end, start)
    return end


def _closed(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed, those within it too; the end of the text where it never is."""
    expected: list[str] = []
    for at in range(start, len(text)):
        if text[at] in _CLOSING:
            expected.append(_CLOSING[text[at]])
        elif text[at] == expected[-1]:
            expected.pop()
        if not expected:
            return at + 1
    return len(text)
