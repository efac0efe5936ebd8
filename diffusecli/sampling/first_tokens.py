"""The most likely first tokens of an answer, from chat completions with `logprobs`.

Most servers list at most 20. What follows a first token is unknown, so these are limits of an answer's probability, not the probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusecli.models.chat import ChatSettings
from diffusecli.sampling.answer_paths import Messages
from diffusecli.sampling.connection import Connection, RefusedError, Service
from diffusecli.sampling.request_body import Known, RequestBody
from diffusecli.sampling.response_parts import OtherShapeError, part
from diffusecli.sampling.settings import SamplingSettings

_EXTRAS = ("top_k", "min_p", "repetition_penalty", "repeat_penalty")  # neutral settings that only some servers know
_NEUTRAL = (*_EXTRAS, "frequency_penalty", "presence_penalty", "top_p", "seed")
_SHAPES = tuple(
    (most, limit, dropped) for most in (20, 5) for limit in (0, 1) for dropped in ((), _EXTRAS, _NEUTRAL)
)  # tokens to list, spelling of the token limit, fields left out
"""Requests from the most informative to the most widely accepted."""
UNCLEAR = b"\xff"
"""Ends a listed token whose further bytes are unknown, because they are a part of a character. It occurs in no UTF-8 text."""
_SEEDS = 8  # attempts: there are no log-probabilities if the sampled token ends the answer
_TOLERANCE = 1e-3  # of a sum of probabilities


@dataclass(frozen=True)
class FirstTokens:
    """The most likely first tokens of an answer with their probabilities. Tokens without text (such as the end) are not included."""

    listed: Mapping[bytes, float]
    textless: float = 0.0  # probability of listed tokens without text
    sampled: bytes | None = None  # the token that was sampled: vLLM lists it first, even if it is unlikely

    @property
    def rest(self) -> float:
        """The probability of all other tokens together."""
        return max(0.0, 1 - self.textless - math.fsum(self.listed.values()))

    @property
    def least(self) -> float:
        """The most that another token can have: as much as the least likely listed one. The sampled token does not count."""
        likely = {**self.listed, **({b"": self.textless} if self.textless else {})}
        return min(self.rest, min((p for token, p in likely.items() if token != self.sampled), default=1.0))

    @staticmethod
    def may_begin(text: bytes, token: bytes, *, ended: bool) -> bool:
        """Whether an answer may begin with a listed token. An answer that need not end may go on within the token.

        >>> FirstTokens.may_begin(b"abc", b"ab", ended=True), FirstTokens.may_begin(b"ab", b"abc", ended=True)
        (True, False)
        >>> FirstTokens.may_begin(b"ab", b"abc", ended=False), FirstTokens.may_begin("aé".encode(), b"a" + UNCLEAR, ended=True)
        (True, True)
        """
        known = token.removesuffix(UNCLEAR)
        return text.startswith(known) or (not ended and known.startswith(text))


class ChatLogprobs:
    """A server with OpenAI's `top_logprobs`."""

    how = "top_logprobs of the first token"

    def __init__(self, connection: Connection, service: Service, chat: ChatSettings) -> None:
        self._connection, self._service = connection, service
        self._body = RequestBody(service.base_url, SamplingSettings(), chat.template_kwargs)
        self._shape, self._works = 0, False
        self.refusal = ""  # the server's reason, if it refuses every shape

    async def first_tokens(self, messages: Messages) -> FirstTokens | None:
        """The first tokens of answers; None if the server does not return log-probabilities.

        The first request that works settles the shape of all later ones. Raises `RefusedError` if the server refuses one of these.
        """
        while self._shape < len(_SHAPES):
            try:
                found = await self._listed(messages)
            except RefusedError as refused:
                if self._works:
                    raise
                self._shape, self.refusal = self._shape + 1, refused.fault.words
            except OtherShapeError:
                return None
            else:
                self._works = True
                return found
        return None

    async def _listed(self, messages: Messages) -> FirstTokens:
        for seed in range(_SEEDS):
            answer = await self._connection.fetch("/chat/completions", self._request(messages, seed))
            choices = part(answer, "choices", list)
            places = part(part(choices[0] if choices else None, "logprobs", dict), "content", list)
            if places:
                return _read(places[0])
        raise OtherShapeError(f"the server returned no log-probabilities in {_SEEDS} answers. Check its model")

    def _request(self, messages: Messages, seed: int) -> dict[str, Any]:
        most, limit, dropped = _SHAPES[self._shape]
        known: Known = {"max_tokens": limit}
        for name in dropped:
            known = self._body.without(name, known)
        fields = self._body.build(known, seed=seed, count=1, limit=1)
        return {"model": self._service.model, "messages": list(messages), "logprobs": True, "top_logprobs": most, **fields}


def _read(place: dict[str, Any]) -> FirstTokens:
    """Raises `OtherShapeError` if the probabilities are not those of a distribution."""
    listed, entries = dict[bytes, float](), part(place, "top_logprobs", list)
    for entry in entries:
        own = _bytes_of(entry)
        listed[own] = listed.get(own, 0.0) + math.exp(part(entry, "logprob", (int, float)))
    textless = listed.pop(b"", 0.0)
    if (total := textless + math.fsum(listed.values())) > 1 + _TOLERANCE or not entries:
        raise OtherShapeError(f"the probabilities of {len(entries)} first tokens add up to {total:.4g}")
    return FirstTokens(listed, textless, _bytes_of(place))


def _bytes_of(entry: dict[str, Any]) -> bytes:
    r"""A token's bytes. A part of a character is written as U+FFFD; some servers return the bytes of that sign, or none.

    >>> _bytes_of({"token": "é", "bytes": [195, 169]}), _bytes_of({"token": "a\ufffd"}), _bytes_of({"token": "\ufffd", "bytes": [195]})
    (b'\xc3\xa9', b'a\xff', b'\xc3')
    """
    token = part(entry, "token", str)
    text = token.encode("utf-8", "replace")
    own = bytes(entry["bytes"]) if isinstance(entry.get("bytes"), list) else text
    known, unclear, _ = token.partition("\ufffd")
    return known.encode("utf-8", "replace") + UNCLEAR if unclear and own == text else own
