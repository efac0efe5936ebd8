r"""Parse replies to a request that states options: the one answer of a reply, or its answers with probabilities.

The rule for one answer:

1. The last line that begins with `Answer:` counts (also `**Answer:**`, `Final answer:`, `The answer is`). The rest of the line must be an option; if it is
   empty, the next line must be one.
2. Without such a line, the lines that consist of an option count. They must all name the same option.

Anything else does not parse. Of a reply that was cut at the token limit, only complete lines count. `StatedOptions.find` says what is an option.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Find = Callable[[str], int | None]
"""From a text to the index of the option that it names."""
Stated = Mapping[int | None, float]
"""The answers of a reply: option -> probability; None for answers that are not options. The probabilities sum to 1."""

_LABEL = re.compile(
    r"^[\W_]*(?:(?:the|my|your|so|final|correct)\s+)*answer(?:(?:\s+is)?[*_`\"'\s]*[:=]|\s+is\s)(?P<value>.*)$", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?P<number>[-+−]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:e[-+]?\d+)?(?:\s*/\s*\d+)?)\s*(?P<percent>%|percent\b)?[\s)\]}|.*\"'`,;]*$",
    re.IGNORECASE,
)
"""The number at the end of a line."""
_LONGEST_END = 60  # characters of a line in which its number is searched
_SIGNS = " \t:=|,;([–—>*_~≈\"'`-"
"""Between an answer and its probability."""
_WORDS = ("with", "has", "a", "the", "probability", "prob", "chance", "likelihood", "weight", "of", "is", "p")
_LIST_NUMBER = re.compile(r"^\s*\(?\d+[.)]\s+")
_TOTALS = ("total", "sum")
_TEXT_KEYS = ("text", "answer", "option", "response", "value", "outcome", "name")
_SHARE_KEYS = ("probability", "prob", "p", "chance", "share", "weight", "percentage", "likelihood")
_MOST_BRACKETS = 50  # of a reply, where JSON may begin


def one_answer(reply: str, find: Find, *, cut: bool = False) -> int | None:
    r"""The option that a reply answers; None if it does not parse.

    >>> find = {"7": 0, "8": 1}.get
    >>> one_answer("I draw.\nAnswer:7", lambda text: find(text.strip())), one_answer("7\n8", find), one_answer("7\nbecause I like it", find)
    (0, None, 0)
    """
    lines = _lines(reply, cut=cut)
    labelled = [(place, found["value"]) for place, line in enumerate(lines) if (found := _LABEL.match(line))]
    if labelled:
        place, value = labelled[-1]
        return find(value if value.strip(" *_`") else next(iter(lines[place + 1 :]), ""))
    named = {option for line in lines if (option := find(line)) is not None}
    return named.pop() if len(named) == 1 else None


def stated_answers(reply: str, find: Find, wanted: int, *, cut: bool = False) -> Stated | None:
    r"""The answers of a reply with their normalised probabilities; None if it does not parse.

    Accepts JSON, or lines of an answer and a probability (`0.2`, `20%` or `1/5`). Repeated answers are added. An answer with probability 0
    is never drawn. A negative probability makes the reply invalid. A reply with a single answer counts as that answer. Of a reply that was cut
    at the token limit, the list counts if it has at least the `wanted` number of answers.

    >>> find = {"7": 0, "8": 1}.get
    >>> stated_answers("7: 25%\n8: 25%", find, 2), stated_answers('[{"text": "7", "probability": 0.5}]', find, 2)
    ({0: 0.5, 1: 0.5}, {0: 1.0})
    >>> stated_answers("7: 10%\n8: -5%", find, 2) is None, stated_answers("7: 50%\neleven: 50%", find, 2)
    (True, {0: 0.5, None: 0.5})
    """
    for entries in (_json_entries(reply), list(_line_entries(_lines(reply, cut=cut), find))):
        if any(find(text) is not None for text, _ in entries):
            return None if cut and len(entries) < wanted else _normalised(entries, find)
    answer = one_answer(reply, find, cut=cut)
    return None if answer is None else {answer: 1.0}


def _lines(reply: str, *, cut: bool) -> list[str]:
    """The lines that are not empty; without the last one if it may be incomplete."""
    lines = reply.splitlines(keepends=True)
    if cut and lines and lines[-1].splitlines() == [lines[-1]]:
        lines.pop()
    return [line.strip() for line in lines if line.strip()]


def _normalised(entries: list[tuple[str, float]], find: Find) -> Stated | None:
    """Options with their probabilities; None for negative or infinite probabilities, or a sum of 0."""
    if not all(0 <= share < math.inf for _, share in entries):
        return None
    total = math.fsum(share for _, share in entries)
    if not 0 < total < math.inf:
        return None
    found: dict[int | None, float] = {}
    for text, share in entries:
        if share > 0:
            option = find(text)
            found[option] = found.get(option, 0.0) + share / total
    return found


def _line_entries(lines: list[str], find: Find) -> Iterator[tuple[str, float]]:
    """Answers with numbers, one per line. Other lines are skipped, and so is a sum."""
    for line in lines:
        number = None if _LABEL.match(line) else _NUMBER.search(line, max(0, len(line) - _LONGEST_END))
        head = line[: number.start()].strip("|").lstrip() if number else ""
        bare, short = head.rstrip(_SIGNS), _without_words(head)
        if number is None or not bare or (head.strip() == bare == short and not number["percent"]):
            continue  # a word and a number: more than a space is between them, or it is a percentage
        bare, short = (_LIST_NUMBER.sub("", text) if find(text) is None else text for text in (bare, short))
        text = bare if find(bare) is not None else short
        is_share = number["percent"] or not number["number"].isdigit()
        if text.strip(" *_").casefold() not in _TOTALS and (find(text) is not None or is_share):
            yield text, _value(number["number"], percent=bool(number["percent"]))


def _without_words(head: str) -> str:
    """The answer without `with probability` and similar words after it.

    >>> _without_words("7, with a probability of "), _without_words("7 (probability: "), _without_words("probability ")
    ('7', '7', 'probability')
    """
    text = head.rstrip(_SIGNS)
    while len(parts := text.rsplit(None, 1)) == 2 and parts[1].lstrip(_SIGNS).rstrip(".").casefold() in _WORDS:
        text = parts[0].rstrip(_SIGNS)
    return text


def _value(number: str, *, percent: bool) -> float:
    """The value of a number as text: with a comma, a fraction or a percent sign."""
    top, _, bottom = number.replace("−", "-").replace(",", ".").partition("/")
    whole = float(bottom) if bottom else 1.0
    return float(top) / whole / (100 if percent else 1) if whole else math.nan


def _json_entries(reply: str) -> list[tuple[str, float]]:
    """Answers with probabilities from all JSON values in the reply."""
    found: list[tuple[str, float]] = []
    starts = [place for place, sign in enumerate(reply) if sign in "[{"]
    end = 0
    for start in starts[:_MOST_BRACKETS]:
        if start < end:
            continue
        try:
            value, end = json.JSONDecoder().raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        found += _pairs(value) or []
    return found


def _pairs(value: Any) -> list[tuple[str, float]] | None:
    """Answers with probabilities: a list of objects or pairs, an object that contains one, or an object of answers; otherwise None."""
    if isinstance(value, dict):
        if lists := [own for own in value.values() if isinstance(own, list)]:
            return _pairs(lists[0])
        value = [value] if any(key in value for key in _TEXT_KEYS) else [[text, share] for text, share in value.items()]
    pairs = [_pair(item) for item in value] if isinstance(value, list) else []
    return [pair for pair in pairs if pair is not None] if pairs and all(pairs) else None


def _pair(item: Any) -> tuple[str, float] | None:
    if isinstance(item, dict):
        keys = {str(key).casefold(): own for key, own in item.items()}
        item = [next((keys[key] for key in some if key in keys), None) for some in (_TEXT_KEYS, _SHARE_KEYS)]
    if not isinstance(item, list) or len(item) != 2:
        return None
    text, share = item
    if isinstance(share, str) and (number := _NUMBER.fullmatch(share.strip())):
        share = _value(number["number"], percent=bool(number["percent"]))
    good = isinstance(text, str | int | float) and isinstance(share, int | float)
    return (str(text), float(share)) if good and not isinstance(text, bool) and not isinstance(share, bool) else None
