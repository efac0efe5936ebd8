"""Answers in a server's tokens: the tokens after the prompt, up to the one that ends the answer.

The server's chat template and tokenizer are used, not local ones. What is not known is asked: no tokenizer is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusecli.system.errors import InputError

PROBES = ("some4answer", "another-one7")
"""Two answers that share no last token: what follows both is the end of a turn."""

Messages = Sequence[Mapping[str, str]]
Path = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """A conversation and the answers whose probabilities are wanted."""

    name: str  # for messages
    messages: Messages
    answers: tuple[str, ...]
    ended: bool = True  # the probability includes the end of the answer


class Tokens(Protocol):
    """A server's chat template and tokenizer."""

    async def prompt(self, messages: Messages) -> Path:
        """The prompt of a chat request."""

    async def answered(self, messages: Messages, answer: str) -> Path:
        """The conversation with an answer and the end of its turn."""

    async def text(self, text: str) -> Path:
        """A text alone."""


@dataclass(frozen=True)
class Paths:
    """A prompt and its answers in tokens."""

    prompt: Path
    answers: tuple[Path, ...]  # an answer that ends includes the token that ends it


async def paths_of(asked: Asked, tokens: Tokens) -> Paths:
    """Tokenise a prompt and its answers. Raises `InputError` if the template does not end turns.

    An answer's tokens are those that a conversation has between prompt and end of turn. If they do not follow the prompt's tokens (the
    template writes something else before answers, or a token spans both), they are those of the answer alone.
    """
    prompt = await tokens.prompt(asked.messages)
    first, second = [await tokens.answered(asked.messages, probe) for probe in PROBES]
    ending = _common_end(first, second)
    if asked.ended and not ending:
        raise InputError(f"{asked.name}: the server's chat template does not end turns, so no answer has an exact probability")
    found = []
    for answer in asked.answers:
        whole = await tokens.answered(asked.messages, answer)
        between = _between(prompt, whole, ending)
        own = await tokens.text(answer) if between is None else between
        if not own and not asked.ended:
            raise InputError(f"{asked.name}: the target {answer!r} has no tokens at this server. Remove it, or set eos: true")
        found.append((*own, *ending[:1]) if asked.ended else own)
    return Paths(prompt, tuple(found))


def _between(before: Path, whole: Path, after: Path) -> Path | None:
    """What stands between two ends of a sequence; None if it does not have these ends.

    >>> _between((1, 2), (1, 2, 7, 8, 3), (3,)), _between((1, 2), (1, 5, 3), (3,)), _between((1,), (1, 4), ())
    ((7, 8), None, (4,))
    """
    last = len(whole) - len(after)
    fits = len(before) <= last and whole[: len(before)] == before and whole[last:] == after
    return whole[len(before) : last] if fits else None


def _common_end(one: Path, other: Path) -> Path:
    """The longest common end of two sequences.

    >>> _common_end((1, 2, 8, 9), (5, 8, 9)), _common_end((1,), (2,))
    ((8, 9), ())
    """
    length = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        length += 1
    return one[len(one) - length :]
