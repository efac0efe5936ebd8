"""Prompts that ask for the same conversation: one model can follow only one distribution of answers to it.

Knows prompts as text. Whether a chat template makes one conversation of two different texts, its caller says.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from diffusecli.files.text import canonical
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import Problem

_END = "\0"
"""Closes an answer that must stop; without it the answer may go on."""


@dataclass(frozen=True)
class Clash:
    """Two prompts with one conversation."""

    first: Prompt
    second: Prompt
    agree: bool  # whether a model can follow both

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Of training on both."""
        return "warning" if self.agree else "error"

    @property
    def message(self) -> str:
        """What is wrong with the second."""
        if self.agree:
            return f"has the same conversation and distribution as {self.first.alias}, so training on both counts it twice"
        return f"has the same conversation as {self.first.alias} but another distribution"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return "remove one of the two" if self.agree else "put all targets into one prompt or train on one of the two"

    def problem(self, severity: Literal["error", "warning"] | None = None) -> Problem:
        """At the second file."""
        return Problem(self.second.alias, self.message, self.remedy, severity=severity or self.severity)


def conversation(prompt: Prompt, system: str | None = None) -> tuple[str | None, ...]:
    """What the model reads before it answers: system text and request, or the turns of a longer conversation.

    `system` is the config's. White space at the ends does not count, for many chat templates trim it.
    """
    said = system if prompt.own_system is None else prompt.own_system
    return None if said is None else canonical(said), *(canonical(turn.content) for turn in prompt.turns)


def clashes(prompts: Iterable[Prompt], conversations: Iterable[Hashable]) -> Iterator[Clash]:
    """Each prompt with targets whose conversation an earlier one has, with the first that has it."""
    groups: dict[Hashable, list[Prompt]] = {}
    for prompt, said in zip(prompts, conversations, strict=True):
        if prompt.targets:
            groups.setdefault(said, []).append(prompt)
    for first, *others in groups.values():
        expected = _masses(first) if others else {}
        yield from (Clash(first, other, _agree(expected, _masses(other))) for other in others)


def trained_elsewhere(prompts: Iterable[Prompt], system: str | None = None) -> Iterator[Problem]:
    """Held-out wordings that are those of a prompt which is trained: what they measure would be no news."""
    prompts = list(prompts)
    trained = {conversation(wording, system): wording.whole for prompt in prompts for wording in prompt.wordings}
    for wording in (wording for prompt in prompts for wording in prompt.held_out):
        if (other := trained.get(conversation(wording, system))) is not None:
            yield Problem(
                wording.whole, f"the held-out request {wording.question!r} is trained in {other}", "remove it from one of the two"
            )


def _masses(prompt: Prompt) -> dict[str, float]:
    r"""The probability of each answer, its beginning (`response`) included.

    >>> _masses(Prompt(request="x", response=("", "So: "), targets=("a",)))
    {'a\x00': 0.5, 'So: a\x00': 0.5}
    """
    masses: dict[str, float] = {}
    for target, p in zip(prompt.targets, prompt.probabilities, strict=True):
        for variant in prompt.variants if p > 0 else ():
            text = variant + target
            answer = canonical(text) + _END if prompt.eos else unicodedata.normalize("NFC", text).lstrip()
            masses[answer] = masses.get(answer, 0.0) + p / len(prompt.variants)
    return masses


def _agree(one: dict[str, float], other: dict[str, float]) -> bool:
    r"""Whether one distribution of answers has both: an answer that may go on holds the mass of all that begin with it.

    >>> _agree({"Name: ": 1.0}, {"Name: Ann\0": 0.5, "Name: Bob\0": 0.5}), _agree({"a": 0.5, "b": 0.5}, {"a": 0.5, "c": 0.5})
    (True, False)
    """
    sums: list[tuple[float, float]] = []
    beginning: str | None = None
    for answer in sorted({*one, *other}):  # what begins with an answer follows it
        if beginning is None or not answer.startswith(beginning):
            beginning = answer
            sums.append((0.0, 0.0))
        sums[-1] = sums[-1][0] + one.get(answer, 0.0), sums[-1][1] + other.get(answer, 0.0)
    return all(math.isclose(*pair, rel_tol=1e-6, abs_tol=1e-12) for pair in sums)
