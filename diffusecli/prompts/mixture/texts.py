"""Texts of the mixture: questions and lists of words, from files.

A template is one of the bank of wordings (`wording_bank.py`), with places where a phrase is drawn besides: `<Pick|Choose>`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from random import Random

from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.wording_bank import lines_of, templates

_FOLDER = Path(__file__).parent
_EITHER = re.compile(r"<([^<>]*\|[^<>]*)>")


@cache
def pools() -> dict[str, tuple[str, ...]]:
    """Lists of words by what they name: `animal`, `drink` and so on."""
    parts = (line.split(": ", maxsplit=1) for line in lines_of(_FOLDER / "words.txt"))
    return {noun: tuple(words.split(", ")) for noun, words in parts}


def question_templates(family: str, distribution: Distribution) -> tuple[str, ...]:
    """The questions that ask for a distribution: of its own family of `init-prompt`, else of the family of the mixture."""
    if distribution.family:
        return (distribution.request, *templates(distribution.family))
    return own_templates(family)


@cache
def own_templates(family: str) -> tuple[str, ...]:
    """The questions of a family that only the mixture has."""
    return tuple(line.replace("\\n", "\n") for line in lines_of(_FOLDER / f"questions/{family}.txt"))


def families_with_questions() -> list[str]:
    """The families that only the mixture has, by name."""
    return sorted(path.stem for path in (_FOLDER / "questions").glob("*.txt"))


def with_phrases(template: str, rng: Random) -> str:
    """A template with its phrases drawn.

    >>> with_phrases("<Pick|Pick> {a_kind}.", Random(0))
    'Pick {a_kind}.'
    """
    return _EITHER.sub(lambda match: rng.choice(match[1].split("|")), template)
