"""Case, punctuation and layout of a request, changed as people type; what says the form of the answer stays.

Knows texts only. A change takes a request and the targets it asks for. Text in brackets, quotes and tags is never changed: it shows
the form of the answer. Nor are words of the targets, so that a request that lists options still spells them as they must be answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
_NEXT_SENTENCE = re.compile(r"(?<=[.!?])(?<!\b\w\.)(?<!\b[A-Z]\w\.)(?<!\bMrs\.) (?=[A-Z])")
"""The space between two sentences, not that after `e.g.` or `Mr.`."""
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
    if first is None or not ordinary or _is_target_word(first[0], targets):
        return text
    return text[0].lower() + text[1:]


def no_full_stop(text: str, _targets: Sequence[str]) -> str:
    """Without the full stop at the end."""
    return text[:-1] if re.search(r"(?<!\.)\.$", text) and not _ends_kept(text) else text


def other_mark(rng: Random, text: str, _targets: Sequence[str]) -> str:
    """Another mark at the end, or one where there is none."""
    marks = {".": ("!", "?", "..."), "?": ("??", "?!", "."), "!": (".", "!!")}.get(text[-1:])
    if _ends_kept(text) or (marks is None and not text[-1:].isalnum()):
        return text
    return text + drawn(rng, (".", "!")) if marks is None else text[:-1] + drawn(rng, marks)


def wide_spaces(rng: Random, text: str, _targets: Sequence[str]) -> str:
    """Two spaces for one, here and there."""
    return _outside(text, lambda part: re.sub(r"(?<=\S) (?=\S)", lambda _: " " * (1 + (rng.random() < 0.25)), part))


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
    changes: list[Change] = [
        lower_case,
        lower_case,  # the most usual: twice as often
        small_first,
        no_full_stop,
        partial(other_mark, rng),
        partial(wide_spaces, rng),
        partial(line_breaks, drawn(rng, ("\n", "\n\n"))),
        partial(blank_around, *drawn(rng, _BLANKS)),
    ]
    left = 1 + (rng.random() < 0.4)
    for change in sorted(changes, key=lambda _: rng.random()):
        changed = change(text, targets)
        left, text = left - (changed != text), changed
        if not left:
            break
    return text


def _by_word(text: str, targets: Sequence[str], change: Callable[[str], str]) -> str:
    def word(match: re.Match[str]) -> str:
        changed = change(match[0])
        return match[0] if changed == match[0] or _is_target_word(match[0], targets) else changed

    return _outside(text, lambda part: _WORD.sub(word, part))


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
        end = _closed(text, found.start()) if found[0] in _CLOSING else found.end()
        yield text[at : found.start()], False
        yield text[found.start() : end], True
        at = end
    yield text[at:], False


def _closed(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed, those within it too; the end of the text where it never is."""
    open_ones: list[str] = []
    for at in range(start, len(text)):
        if text[at] in _CLOSING:
            open_ones.append(_CLOSING[text[at]])
        elif text[at] == open_ones[-1]:
            open_ones.pop()
        if not open_ones:
            return at + 1
    return len(text)
