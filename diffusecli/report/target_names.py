"""What tables and charts call the targets of a prompt: their text, or for records the values of their fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from diffusecli.prompts.answer_texts import record_values, target_values
from diffusecli.prompts.prompt import Prompt

_BETWEEN = ", "


class TargetNames(NamedTuple):
    """A heading, and a name per target."""

    heading: str
    names: tuple[str, ...]


def target_names(prompt: Prompt) -> TargetNames:
    """The names of all targets. The text of a template, which all records share, is left out if the values alone distinguish them.

    >>> record = Prompt(request="x", targets=("Ann is 34", "Bob is 5"), template="{name} is {age}")
    >>> target_names(record), target_names(Prompt(request="x", targets=("a", "b")))
    (TargetNames(heading='name, age', names=('Ann, 34', 'Bob, 5')), TargetNames(heading='target', names=('a', 'b')))
    """
    whole = TargetNames("target", prompt.targets)
    if prompt.template is None or prompt.record is None or not prompt.targets:
        return whole
    values = [target_values(prompt, target) for target in prompt.targets]
    names = tuple(_BETWEEN.join(some) for some in values if some is not None)
    return TargetNames(_BETWEEN.join(prompt.record.fields), names) if len(set(names)) == len(prompt.targets) else whole


def record_names(prompt: Prompt, texts: Sequence[str]) -> list[str | None]:
    """The values of answers that are records off target; None for other texts, and if the name would be that of a target or of another text."""
    heading, of_targets = target_names(prompt)
    if heading == "target":
        return [None] * len(texts)
    values = [record_values(prompt, text) for text in texts]
    names = [None if some is None else _BETWEEN.join(some) for some in values]
    known = Counter([*of_targets, *names])
    return [name if known[name] == 1 else None for name in names]
