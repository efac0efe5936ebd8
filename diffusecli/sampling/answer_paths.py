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

    async def spelled(self, path: Path) -> str:
        """The text of tokens."""


@dataclass(frozen=True)
class Paths:
    """A prompt and its answers in tokens."""

    prompt: Path
    answers: tuple[Path, ...]  # an answer that ends includes the token that ends it


async def paths_of(asked: Asked, tokens: Tokens) -> Paths:
    """Tokenise a prompt and its answers. Raises `InputError` if the template does not end turns, or if it changes an answer.

    An answer's tokens are those that a conversation has between prompt and end of turn. If they do not follow the prompt's tokens (the
    template writes something else before answers, or a token spans both), they are those of the answer alone.
    """
    prompt = await tokens.prompt(asked.messages)
    first, second = [await tokens.answered(asked.messages, probe) for probe in PROBES]
    ending = _common_end(first, second)
    if asked.ended and not ending:
        raise InputError(f"{asked.name}: the server's chat template does not end turns, so no answer has an exact probability")
    end = await _up_to_the_end(first, ending, tokens) if asked.ended else ()
    owners: dict[Path, str] = {}
    found = []
    for answer in asked.answers:
        path = (*await _own_tokens(asked, answer, prompt, ending, tokens), *end)
        if not path:
            raise InputError(f"{asked.name}: the target {answer!r} has no tokens at this server. Remove it, or set eos: true")
        if (other := owners.setdefault(path, answer)) != answer:
            raise InputError(
                f"{asked.name}: the targets {other!r} and {answer!r} have the same tokens at this server, so their probability would "
                "count twice. Remove one of them"
            )
        found.append(path)
    return Paths(prompt, tuple(found))


async def _own_tokens(asked: Asked, answer: str, prompt: Path, ending: Path, tokens: Tokens) -> Path:
    """The tokens of an answer without its end. Raises `InputError` if the template changes the answer or removes space around it."""
    own = _between(prompt, whole := await tokens.answered(asked.messages, answer), ending)
    if own is None:
        return await tokens.text(answer)
    bare = answer.strip()
    trimmed = bare != answer and whole == await tokens.answered(asked.messages, bare)
    if trimmed or _signs(await tokens.spelled(own)) != _signs(answer):
        raise InputError(
            f"{asked.name}: the server's chat template or tokenizer changes the target {answer!r}, so it has no exact probability. "
            "Remove the target, or write it as the server does"
        )
    return own


def _signs(text: str) -> str:
    """A text without white space: templates and tokenizers may add it before an answer, or remove it when tokens become text."""
    return "".join(text.split())


async def _up_to_the_end(whole: Path, ending: Path, tokens: Tokens) -> Path:
    """What follows an answer, up to the first token that is not white space: Llama 2 writes a space before the token that ends.

    `whole` is a conversation with this ending. Tokens are spelled after the one before them: some tokenizers drop a space at the start of a text.
    """
    before = whole[: len(whole) - len(ending)][-1:]
    spelled = await tokens.spelled(before)
    for place, token in enumerate(ending, 1):
        added = (await tokens.spelled((*before, token))).removeprefix(spelled)
        if not added.isspace():
            return ending[:place]
    return ending


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
