"""The targets of a prompt as options that a request can state, and the option that a text names.

Options are shown bare: without the text that all targets have around them, such as braces. Knows prompts and texts only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from diffusecli.files.text import canonical
from diffusecli.prompts.facts import in_digits
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, many

MOST_STATED = 200
"""Most options that a request states."""

_CLOSING = {"{": "}", "[": "]", "(": ")", "<": ">", ">": "<", '"': '"', "“": "”", "*": "*", "`": "`"}
"""Signs that open a wrap -> those that close it; `>` and `<` are the inner ends of two tags."""
_LABEL_ENDS = (": ", "=> ")
_BULLET = re.compile(r"^[-*•]\s+")
_MARKS = " \t\"'“”‘’«»`*_#{}[]()<>.,;:!|\\$"
"""Marks around an answer that do not matter, unless only they distinguish two options."""
_ROOM = 100
_SHARE = re.compile(r"[\s:=(,|–—-]+[\d.,]+\s*%[\s)*.]*$")
"""A percentage after an option, as in the list of options: `7: 10%`."""


@dataclass(frozen=True)
class StatedOptions:
    """The targets of a prompt as options. Indices are those of the targets."""

    prompt: Prompt

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The bare name of each target.

        >>> StatedOptions(Prompt(request="Roll.", targets=(("{1}", "one"), "{12}"))).names
        ('1', '12')
        """
        return tuple(canonical(_without(target, self._wrap)) for target in self.prompt.targets)

    @cached_property
    def stated(self) -> tuple[int, ...]:
        """The targets with a weight above 0."""
        return tuple(index for index, p in enumerate(self.prompt.probabilities) if p > 0)

    def recorded(self, option: int) -> str:
        """The answer that `evaluate` counts for an option: the first spelling of the target."""
        return self.prompt.variants[0] + self.prompt.targets[option]

    @property
    def listing(self) -> str:
        """A line per option, with its percentage."""
        return "\n".join(f"- {self.names[option]}: {self.percent(option)}" for option in self.stated)

    def percent(self, option: int) -> str:
        """The probability of an option, in three digits.

        >>> StatedOptions(Prompt(request="Toss.", targets=("heads", "tails"), weights=(2.0, 1.0))).percent(0)
        '66.7%'
        """
        return as_percent(self.prompt.probabilities[option])

    def find(self, text: str) -> int | None:
        """The option that a text names: in any spelling, with or without the wrap.

        The text is compared as it is, then ignoring case, then without marks around it (quotes, brackets, asterisks, full stops), then
        without a percentage after it. Two options that become equal are not compared further.

        >>> options = StatedOptions(Prompt(request="Roll.", targets=(("{1}", "one"), "{12}")))
        >>> [options.find(text) for text in ("{1}", "1", "One", "**12**.", "- 12: 50%", "1 or 12", "")]
        [0, 0, 0, 1, 1, None, None]
        """
        if len(text) > self._longest:
            return None
        found = self._look_up(text)
        return self._look_up(_SHARE.sub("", text)) if found is None else found

    def _look_up(self, text: str) -> int | None:
        for key, table in zip(_keys(text), self._tables, strict=True):
            if key in table:
                return table[key]
        return None

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest text that can name an option, with room for marks: longer lines of a reply are not searched."""
        return max(map(len, (*self.prompt.every_spelling, *self.prompt.variants))) * 2 + _ROOM

    @cached_property
    def _wrap(self) -> tuple[str, str]:
        return wrap_of(self.prompt.targets)

    @cached_property
    def _tables(self) -> tuple[dict[str, int | None], ...]:
        """Text -> option, None if it names several, for each way to compare."""
        tables: tuple[dict[str, int | None], ...] = ({}, {}, {})
        for option, spellings in enumerate(self.prompt.spellings):
            texts = [text for spelling in spellings for text in (spelling, _without(spelling, self._wrap))]
            texts += [variant + spelling for variant in self.prompt.variants for spelling in spellings]
            for text in texts:
                for key, table in zip(_keys(text), tables, strict=True):
                    if key and table.setdefault(key, option) != option:
                        table[key] = None
        return tables


def require_statable(prompt: Prompt) -> None:
    """Raise `InputError` for a prompt whose targets cannot be stated as options in a request."""
    name = f"{prompt.alias}: --ask"
    if not prompt.targets:
        raise InputError(f"{name} states the targets, but this prompt has none. Use a prompt with targets")
    if prompt.draws is not None:
        raise InputError(f"{name} draws one target per reply, but this prompt has several draws. Use a prompt without draws")
    if prompt.independent:
        raise InputError(
            f"{name} states all targets, but this prompt has independent fields, which are not listed. Use a prompt that lists its targets"
        )
    if any("\n" in spelling for spelling in prompt.targets):
        raise InputError(f"{name} states each target on one line, but this prompt has targets of several lines. Use other targets")
    if (count := sum(p > 0 for p in prompt.probabilities)) > MOST_STATED:
        raise InputError(
            f"{name} states all targets in the request, at most {MOST_STATED}, but this prompt has {many(count, 'target')}. Use fewer targets"
        )


def as_percent(share: float) -> str:
    """A share as a percentage in three digits, or in as many as distinguish it from 100%.

    >>> as_percent(0.1), as_percent(1 / 3), as_percent(0.000000102), as_percent(0.99999)
    ('10%', '33.3%', '0.0000102%', '99.999%')
    """
    digits = in_digits(100 * share, 3)
    return f"{digits if digits != '100' or share == 1 else in_digits(100 * share, 12)}%"


def wrap_of(targets: Sequence[str]) -> tuple[str, str]:
    """The text before and after every target that is not part of the answer: brackets, quotes, tags, or a label such as `Answer: `.

    >>> wrap_of(["{1}", "{10}"]), wrap_of(["<answer>a</answer>", "<answer>ab</answer>"]), wrap_of(["Result: 10", "Result: 12"])
    (('{', '}'), ('<answer>', '</answer>'), ('Result: ', ''))
    >>> wrap_of(["New York", "New Jersey"]), wrap_of(["-1", "-2"])
    (('', ''), ('', ''))
    """
    if not targets:
        return "", ""
    before = _common_beginning(targets)
    after = _common_beginning([target[::-1] for target in targets])[::-1]
    shortest = min(map(len, targets))
    for cut in range(len(before), 0, -1):
        closes = _CLOSING.get(before[cut - 1], "")
        at = after.find(closes) if closes else -1
        if at >= 0 and cut + len(after) - at < shortest:
            return before[:cut], after[at:]
    ends = [place + len(end) for end in _LABEL_ENDS if (place := before.rfind(end)) >= 0]
    return (before[: max(ends)], "") if ends and max(ends) < shortest else ("", "")


def _common_beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[
        : next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    ]


def _without(text: str, wrap: tuple[str, str]) -> str:
    before, after = wrap
    whole = text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)
    return text[len(before) : len(text) - len(after)] if whole else text


def _keys(text: str) -> Iterable[str]:
    """What is compared of a text: all of it, without case, without marks around it. "" is never an option."""
    exact = canonical(text)
    folded = exact.casefold()
    return exact, folded, _BULLET.sub("", folded).strip(_MARKS)
