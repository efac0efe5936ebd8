"""Paraphrases of a request from an OpenAI-compatible server.

The caller decides whether a paraphrase keeps the meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from diffusecli.files.text import canonical
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.connection import Service
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.server_engine import ServerEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.notices import Notice

_STYLES = (
    "in plain words", "formally", "as you would say it to a friend", "in as few words as possible", "as a short story", "as a question",
    "politely, in two sentences", "as a task for a computer program",
)  # fmt: skip
_ROUNDS = 4  # rounds over all styles before it stops
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}


@dataclass(frozen=True)
class Paraphrases:
    """Paraphrases from a server."""

    texts: tuple[str, ...]
    refused: Mapping[str, int]  # reason for refusal -> number of answers


def paraphrase(
    request: str, count: int, service: Service, refusal: Callable[[str], str], *, known: Sequence[str], seed: int, notice: Notice
) -> Paraphrases:  # fmt: skip
    """Up to `count` different paraphrases, none of them in `known`.

    `refusal` returns why a paraphrase is refused, "" if it is accepted. Raises `InputError` and `MachineError` as `ServerEngine.draw`.
    """
    taken = {_key(text): text for text in known}
    new: list[str] = []
    refused: Counter[str] = Counter()
    for text in _answers(request, service, seed, notice, lambda: count - len(new)):
        reason = "repeat another" if _key(text) in taken else refusal(text)
        if reason:
            refused[reason] += 1
        elif len(new) < count:
            taken[_key(text)] = text
            new.append(text)
    return Paraphrases(tuple(new), refused)


def _answers(request: str, service: Service, seed: int, notice: Notice, missing: Callable[[], int]) -> Iterator[str]:
    """Answers in one style after the other, while some are missing."""
    for turn, style in enumerate(islice(cycle(_STYLES), _ROUNDS * len(_STYLES))):
        if missing() <= 0:
            return
        wanted = -(-missing() // len(_STYLES))
        settings = SamplingSettings(wanted, max_new_tokens=max(200, len(request)), seed=seed + turn)
        asked = Prompt(request=_instruction(request, style), targets=(), alias="--paraphrase")
        counts, _ = drawn(ServerEngine(service, settings, notice), asked)
        yield from filter(None, map(_plain, sorted(counts.finished)))


def _instruction(request: str, style: str) -> str:
    return (
        f"Say the request between the two lines in other words, {style}. Keep its meaning, every number, every option and what it says about "
        f"the form of the answer. Do not answer it. Write the new request and nothing else.\n---\n{request}\n---"
    )


def _plain(answer: str) -> str:
    """The answer without surrounding dashes and quotes."""
    text = answer.strip().strip("-").strip()
    return text[1:-1].strip() if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] else text


def _key(text: str) -> str:
    """A key that ignores case and white space."""
    return " ".join(canonical(text).casefold().split())
