"""Parse chat completions: answers as texts, and remarks about them. Independent of clients."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffusecli.prompts.answers import is_cut
from diffusecli.system.errors import many

_WITHHELD = re.compile(
    r"content_?filter|safety|recitation|prohibited|blocklist|spii|sensitive|moderation|guardrail|refusal", re.IGNORECASE
)
"""A finish reason that means: a filter removed the answer or part of it."""

_THOUGHT_ENDS = ("</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]")
_HIDDEN_PARTS = ("thinking", "reasoning", "redacted_thinking")


class NonsenseError(Exception):
    """A server's response is not a chat completion."""


@dataclass(frozen=True)
class Answer:
    """One choice of a completion."""

    text: str
    withheld: bool = False  # by a filter; the text is then empty
    textless: bool = False  # the response had no text; the text is empty
    thought: bool = False  # the response included reasoning, which was removed
    unfinished: bool = False  # it reached the token limit


@dataclass(frozen=True)
class Completion:
    """The parsed part of a response."""

    answers: list[Answer]
    tokens: int | None  # None where the server does not say
    model: str = ""  # the server's name for the model that answered; empty where it does not say


def read_completion(answer: Any, targets: Sequence[str]) -> Completion:
    """Parse a response (a dictionary). Reasoning is kept if a target contains it too. Raises `NonsenseError`."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices or not isinstance(choices, list):
        raise NonsenseError(f"an answer without choices: {str(answer)[:200]!r}")
    keeps = any(end in target for target in targets for end in _THOUGHT_ENDS)
    model = answer.get("model")
    named = model if isinstance(model, str) else ""
    return Completion([_answer(choice, keeps) for choice in choices], _tokens(answer.get("usage")), named)


def oddities(answers: Sequence[Answer]) -> Iterator[str]:
    """Remarks that affect the figures of these answers, with counts; nothing if all is well."""
    of = many(len(answers), "answer")
    if withheld := sum(answer.withheld for answer in answers):
        yield f"{withheld} of {of} withheld by the server's content filter. They count as empty and off target"
    if textless := sum(answer.textless for answer in answers):
        yield f"{textless} of {of} without text. They count as empty. A reasoning model needs a larger --max-new-tokens"
    if thought := sum(answer.thought for answer in answers):
        yield f"{thought} of {of} with the model's reasoning. Only the text after it counts as the answer"


def _answer(choice: Any, keeps_thoughts: bool) -> Answer:
    message = choice.get("message") if isinstance(choice, dict) else None
    if _WITHHELD.search(str(choice.get("finish_reason") or "") if isinstance(choice, dict) else ""):
        return Answer("", withheld=True)
    content = message.get("content") if isinstance(message, dict) else None
    text = _text(content)
    if not text and isinstance(message, dict):
        if isinstance(message.get("refusal"), str):
            text = message["refusal"]  # the model's refusal is an answer
        elif message.get("reasoning_content") or message.get("reasoning"):
            text = None
    cut = isinstance(choice, dict) and is_cut(choice.get("finish_reason"))
    if text is None:
        return Answer("", textless=True, unfinished=cut)
    text = text.encode("utf-8", "replace").decode()
    rest = text if keeps_thoughts else _after_thinking(text)
    return Answer(rest, thought=rest != text, unfinished=cut)


def _text(content: Any) -> str | None:
    """A string, or the joined texts of its parts; None if there is no text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NonsenseError(f"an answer that is not text: {str(content)[:200]!r}")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in _HIDDEN_PARTS:
            continue
        else:
            text = next((part[key] for key in ("text", "refusal") if key in part), None) if isinstance(part, dict) else None
            if not isinstance(text, str):
                raise NonsenseError(f"an answer with a part that is not text: {str(part)[:200]!r}")
            texts.append(text)
    return "".join(texts) if texts else None


def _after_thinking(text: str) -> str:
    """The text after the model's reasoning. Some templates open it in the prompt, so the answer has only its end tag."""
    ends = [at + len(end) for end in _THOUGHT_ENDS if (at := text.find(end)) >= 0]
    return text[min(ends) :].lstrip() if ends else text


def _tokens(usage: Any) -> int | None:
    if not isinstance(usage, dict):
        return None
    found = [usage[name] for name in ("prompt_tokens", "completion_tokens") if isinstance(usage.get(name), int)]
    total = usage.get("total_tokens")
    return sum(found) if found else total if isinstance(total, int) else None
