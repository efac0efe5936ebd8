"""Templates of records: `{name}, {age}, from {city}` puts fields together to one text, and takes it apart again.

Knows texts only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffusecli.system.errors import InputError

_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<field>[^{}]*)\}|(?P<single>[{}])")


@dataclass(frozen=True)
class Template:
    """Fields, and the texts before, between and after them.

    >>> people = Template.of("{{{name}, {age}}}")
    >>> people.fill(["Ann", "34"]), people.parse("{Ann, 34}"), people.parse("Ann, 34")
    ('{Ann, 34}', ('Ann', '34'), None)
    """

    fields: tuple[str, ...]  # F
    texts: tuple[str, ...]  # F + 1

    @classmethod
    def of(cls, written: str) -> Template:
        """Read `{field}` as a placeholder, and `{{` and `}}` as braces; raises `InputError` for a template that could not be parsed back."""
        fields, texts, last = [], [""], 0
        for match in _PIECE.finditer(written):
            texts[-1] += written[last : match.start()]
            last = match.end()
            if match["single"]:
                raise InputError(f"the template {written!r} has a brace outside placeholders. Write a brace of the text twice")
            if match["brace"]:
                texts[-1] += match["brace"][0]
            else:
                fields.append(match["field"].strip())
                texts.append("")
        texts[-1] += written[last:]
        if not fields or "" in fields:
            raise InputError(
                f"the template {written!r} has {'an empty placeholder' if fields else 'no placeholder'}. Name columns in braces, like {{age}}"
            )
        if twice := [name for index, name in enumerate(fields) if name in fields[:index]]:
            raise InputError(f"the template {written!r} has '{twice[0]}' twice. Name each field once")
        for (first, second), text in zip(pairwise(fields), texts[1:], strict=False):
            if not text:
                raise InputError(
                    f"the template {written!r}: the fields '{first}' and '{second}' have no text between them. Add one"
                )
        return cls(tuple(fields), tuple(texts))

    def fill(self, values: Sequence[str]) -> str:
        """The record with these values, in the order of the fields."""
        return self.texts[0] + "".join(value + text for value, text in zip(values, self.texts[1:], strict=True))

    def parse(self, text: str) -> tuple[str, ...] | None:
        """The values of the fields; each ends where the text that follows it comes first. None where the text does not fit."""
        if not text.startswith(self.texts[0]) or not text.endswith(self.texts[-1]):
            return None
        values, start, end = [], len(self.texts[0]), len(text) - len(self.texts[-1])
        for between in self.texts[1:-1]:
            if (found := text.find(between, start, end)) < 0:
                return None
            values.append(text[start:found])
            start = found + len(between)
        if start > end:
            return None
        return (*values, text[start:end])

    def misread(self, values: Sequence[str]) -> str | None:
        """The first field that would come back from a record as something else; None where all come back."""
        found = self.parse(self.fill(values))
        pairs = zip(self.fields, values, found or [None] * len(values), strict=True)
        return next((name for name, value, other in pairs if value != other), None)

    @property
    def shown(self) -> str:
        """How a request shows it: the names of the fields in their places."""
        return self.fill(self.fields)


def within(template: str, wrap: str) -> str:
    """A template with what is around every target, whose braces are no placeholders.

    >>> within("{name}, {age}", "{%s}")
    '{{{name}, {age}}}'
    """
    return wrap.replace("{", "{{").replace("}", "}}").replace("%s", template)


def marginals(template: Template, weights: Mapping[str, float]) -> list[dict[str, float]]:
    """Of each field: value -> summed weight, from the weights of records; what does not fit the template is left out."""
    found: list[dict[str, float]] = [{} for _ in template.fields]
    for text, weight in weights.items():
        for sums, value in zip(found, template.parse(text) or (), strict=False):
            sums[value] = sums.get(value, 0.0) + weight
    return found
