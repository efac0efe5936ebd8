"""Every text that answers a prompt: each target in all of its spellings, after each variant of the response.

Variants are equally likely by definition. How a target's probability is shared out among its spellings is the model's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffusecli.files.text import canonical
from diffusecli.prompts.prompt import Prompt


class AnswerText(NamedTuple):
    """One text, its beginning (`response`) included."""

    text: str
    target: int  # its place in the prompt
    choice: int  # texts of the same choice are spellings of each other
    weight: float  # the probability of the choice, shared out evenly


def answer_texts(prompt: Prompt) -> Iterator[AnswerText]:
    """Target by target, of each variant by variant, of each spelling by spelling.

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


def record_values(prompt: Prompt, text: str) -> tuple[str, ...] | None:
    """The fields of an answer, without the beginning that responses give it; None where it does not fit the template, or there is none.

    >>> people = Prompt(request="x", response=("", "I am "), targets=("Ann, 34",), template="{name}, {age}")
    >>> record_values(people, " I am Bob, 5"), record_values(people, "nobody")
    (('Bob', '5'), None)
    """
    if prompt.record is None:
        return None
    text = canonical(text)
    beginnings = (canonical(variant) for variant in sorted(prompt.variants, key=len, reverse=True))
    text = canonical(next((text.removeprefix(begins) for begins in beginnings if begins and text.startswith(begins)), text))
    values = prompt.record.parse(text)
    return None if values is None else tuple(map(canonical, values))
