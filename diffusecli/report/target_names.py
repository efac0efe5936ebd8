"""What tables and charts call the targets of a prompt: their text, or for records the values of their fields."""

from __future__ import annotations

from typing import NamedTuple

from diffusecli.prompts.answer_texts import record_values
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
    names = tuple(name for target in prompt.targets if (name := record_name(prompt, target)))
    return TargetNames(_BETWEEN.join(prompt.record.fields), names) if len(set(names)) == len(prompt.targets) else whole


def record_name(prompt: Prompt, text: str) -> str | None:
    """The values of the fields of a record; None for other texts."""
    values = record_values(prompt, text) if prompt.template is not None else None
    return None if values is None else _BETWEEN.join(values)
