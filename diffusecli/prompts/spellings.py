"""Ready spellings of outcomes that people write in several ways: whole numbers below a hundred, months, weekdays, yes and no.

Only what cannot mean another outcome: `7` and `seven`, `March` and `Mar`, but not `3` for March, nor `N` for no. A spelling that two outcomes
of a distribution would share is left to neither. Knows texts only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from diffusecli.files.text import canonical
from diffusecli.prompts.number_words import number_words

_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_SHORT = {name: (name[:3],) for name in (*_MONTHS, *_DAYS)} | {
    "September": ("Sep", "Sept"),
    "Tuesday": ("Tue", "Tues"),
    "Thursday": ("Thu", "Thur", "Thurs"),
}
_NAMES = {form.lower(): (name, *forms) for name, forms in _SHORT.items() for form in (name, *forms)}


def spelled(outcomes: Sequence[str], wrap: str) -> tuple[tuple[str, ...], ...]:
    """The spellings of each outcome, in the wrap and bare; the outcome itself in the wrap comes first.

    >>> spelled(["7", "eight", "150"], "{%s}")
    (('{7}', '7', '{seven}', 'seven', '{Seven}', 'Seven'), ('{eight}', 'eight', '{8}', '8', '{Eight}', 'Eight'), ('{150}', '150'))
    >>> spelled(["May", "June"], "%s")
    (('May', 'may'), ('June', 'june', 'Jun', 'jun'))
    """
    written = [[text for form in (outcome, *_forms(outcome)) for text in (wrap.replace("%s", form), form)] for outcome in outcomes]
    owner: dict[str, int] = {}  # a name comes before a bare outcome, and both before what is another's in other words
    for place in (0, 1):
        for index, texts in enumerate(written):
            owner.setdefault(canonical(texts[place]), index)
    others = Counter(key for texts in written for key in set(map(canonical, texts)) - owner.keys())
    found = []
    for index, texts in enumerate(written):
        own: dict[str, str] = {}
        for text in texts:
            key = canonical(text)
            if owner.get(key, index) == index and others[key] < 2:
                own.setdefault(key, text)
        found.append(tuple(own.values()))
    return tuple(found)


def _forms(outcome: str) -> tuple[str, ...]:
    """Other ways to write an outcome without its wrap; () where none is known."""
    text = outcome.lower()
    if text in ("yes", "no"):
        return text, text.capitalize()
    if text in _NAMES:
        return tuple(form for name in _NAMES[text] for form in (name, name.lower()))
    if (number := _number(text)) is not None:
        words = str(number_words(number))
        return str(number), words, words.capitalize()
    return ()


def _number(text: str) -> int | None:
    """A whole number from 0 to 99 in figures or words."""
    return int(text) if re.fullmatch("[0-9]{1,2}", text) else _IN_WORDS.get(text)


_IN_WORDS = {str(number_words(number)): number for number in range(100)}
