"""The templates in `wordings/`: lines of text with `{placeholders}` for facts.

Knows nothing of distributions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("wordings")
_PLACE = re.compile(r"\{([A-Za-z_]+)\}")


@lru_cache
def templates(name: str) -> tuple[str, ...]:
    r"""The templates of one file of the bank, with line ends for `\n`; none where there is no such file."""
    path = _FOLDER / f"{name}.txt"
    return tuple(line.replace("\\n", "\n") for line in lines_of(path)) if name and path.is_file() else ()


def lines_of(path: Path) -> list[str]:
    """The lines of a file of texts, without comments and empty lines."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def placeholders(template: str) -> tuple[str, ...]:
    """The names of the facts that a template needs."""
    return tuple(name.lower() for name in _PLACE.findall(template))


def filled(template: str, facts: Mapping[str, str]) -> str:
    """The template with its facts, all of which must be known. `{Low_words}` takes the fact `low_words` with a capital.

    >>> filled("{A_die_words} is rolled: {low} to {high}", {"a_die_words": "a six-sided die", "low": "1", "high": "6"})
    'A six-sided die is rolled: 1 to 6'
    """

    def fact(match: re.Match[str]) -> str:
        value = facts[match[1].lower()]
        return value[:1].upper() + value[1:] if match[1][0].isupper() else value

    return _PLACE.sub(fact, template)
