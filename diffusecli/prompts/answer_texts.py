"""Every valid answer to a prompt: each target in all spellings, after each variant of the response.

Variants are equally likely by definition. The model chooses how a target's probability is split among its spellings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffusecli.files.text import canonical
from diffusecli.prompts.prompt import Prompt


class AnswerText(NamedTuple):
    """One text, including its prefix (`response`)."""

    text: str
    target: int  # its index in the prompt
    choice: int  # texts with the same choice are spellings of each other
    weight: float  # the probability of the choice, split evenly


def answer_texts(prompt: Prompt) -> Iterator[AnswerText]:
    """Yield texts by target, then variant, then spelling.

    >>> prompt = Prompt(request="x", response=("", "So: "), targets=(("7", "seven"), "8"))
    >>> for answer in answer_texts(prompt):
    ...     print(*answer)
    7 0 0 0.125
    seven 0 0 0.125
    So: 7 0 1 0.125
    So: seven 0 1 0.125
    8 1 2 0.25
    So: 8 1 3 0.25
    """
    for target, (spellings, p) in enumerate(zip(prompt.spellings, prompt.probabilities, strict=True)):
        for place, variant in enumerate(prompt.variants):
            choice = target * len(prompt.variants) + place
            weight = p / (len(prompt.variants) * len(spellings))
            yield from (AnswerText(variant + spelling, target, choice, weight) for spelling in spellings)


def target_values(prompt: Prompt, target: str) -> tuple[str, ...] | None:
    """The fields of a target, which has no response prefix. None if it does not fit the template, or there is no template."""
    values = None if prompt.record is None else prompt.record.parse(canonical(target))
    return None if values is None else tuple(map(canonical, values))


def record_values(prompt: Prompt, text: str) -> tuple[str, ...] | None:
    """The fields of an answer without its response prefix. None if it does not fit the template, or there is no template.

    >>> people = Prompt(request="x", response=("", "I am "), targets=("Ann, 34",), template="{name}, {age}")
    >>> record_values(people, " I am Bob, 5"), record_values(people, "no one")
    (('Bob', '5'), None)
    """
    if prompt.record is None:
        return None
    text = canonical(text)
    prefixes = (canonical(variant) for variant in sorted(prompt.variants, key=len, reverse=True))
    text = canonical(next((text.removeprefix(prefix) for prefix in prefixes if prefix and text.startswith(prefix)), text))
    values = prompt.record.parse(text)
    return None if values is None else tuple(map(canonical, values))
