"""What was asked: the title of a report, and the system text, earlier turns and request of each prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.groups import MOST_LISTED
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.prompts.groups import shared_folders
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.report.views import Section
from diffusecli.report.wording import short
from diffusecli.system.errors import many

_TITLE, _PART = 96, 56  # characters of a title with one request, and of each of several
_SENTENCE = re.compile(r"^.{12,}?[.!?…。？！](?=\s|$)", re.DOTALL)
_NAMED = 2  # requests that a title names


@dataclass(frozen=True)
class Asked:
    """What a model is given before its answer."""

    system: str | None
    turns: tuple[Message, ...]  # before the request
    request: str
    note: str  # what differs from the other prompts of the report


def asked(prompt: Prompt, others: Sequence[Prompt], general: str | None = None) -> Asked:
    """The conversation of one prompt of a report with `others`; `general` is the system text of prompts without one."""
    same = len(others) > 1 and sum(other.question == prompt.question for other in others) > 1
    note = prompt.own_system if same and prompt.own_system else prompt.question
    return Asked(
        general if prompt.own_system is None else prompt.own_system, tuple(_earlier(prompt)), prompt.question, cut(note, _TITLE)
    )


def general_system(runs: Sequence[RunFacts], rows: Sequence[Evaluated]) -> str | None:
    """The system text that the configs of these rows' runs give to prompts without one; None if they have none or several."""
    answered = {row.run for row in rows}
    recorded = [(facts.manifest.chat or {}).get("system") for facts in runs if facts.run in answered]
    texts = {text for text in recorded if isinstance(text, str)}
    return texts.pop() if len(texts) == 1 and all(isinstance(text, str) for text in recorded) else None


def _earlier(prompt: Prompt) -> Sequence[Message]:
    return prompt.turns[:-1] if prompt.messages else ()


def title(every: Sequence[Section]) -> str:
    """The question, if all prompts have the same; the folder of many prompts; otherwise the first questions and the number of others."""
    questions = list(dict.fromkeys(section.prompt.question for section in every))
    if not questions:
        return "No prompts"
    if len(every) > MOST_LISTED and (folder := shared_folder(every)):
        return short(f"{many(len(every), 'prompt')} in {folder}", _TITLE)
    if len(questions) == 1:
        return first_sentence(questions[0], _TITLE) + (f" ({many(len(every), 'prompt')})" if len(every) > 1 else "")
    named = [first_sentence(question, _PART) for question in questions[:_NAMED]]
    if any(name.endswith("…") for name in named):  # too long for two
        named = [first_sentence(questions[0], _TITLE)]
    rest = len(questions) - len(named)
    return " · ".join([*named, *([many(rest, "more request")] if rest else [])])


def shared_folder(every: Sequence[Section]) -> str:
    """The folder that holds all prompts; empty if there is none."""
    aliases = [section.prompt.alias for section in every]
    return "/".join(aliases[0].split("/")[: shared_folders(aliases)]) if aliases else ""


def first_sentence(text: str, width: int) -> str:
    """The first sentence, on one line.

    >>> first_sentence("Roll 2 dice and report the total. Output only the number.", 96), first_sentence("Say one of these", 10)
    ('Roll 2 dice and report the total.', 'Say one…')
    """
    line = " ".join(text.split())
    found = _SENTENCE.match(line)
    return cut(found.group() if found else line, width)


def cut(text: str, width: int) -> str:
    """One line, cut after a word unless the word is long.

    >>> cut("Say one of these", 10), cut("Donaudampfschiff", 8)
    ('Say one…', 'Donauda…')
    """
    line = short(text, width)
    words = line.removesuffix("…").rpartition(" ")[0].rstrip(" ,;:")
    return f"{words}…" if line.endswith("…") and line != short(text, len(text) + 1) and len(words) > width // 2 else line


def rest_of_request(every: Sequence[Section], found: Sequence[Asked]) -> str | None:
    """What follows the title in the only request of a report; None with several, or where something comes before the request."""
    if len(every) != 1 or found[0].system is not None or found[0].turns:
        return None
    first = title(every).split()
    words = found[0].request.split(None, len(first))
    return " ".join(words[len(first) :]) if words[: len(first)] == first else found[0].request
