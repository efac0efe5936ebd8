"""The most likely first tokens of an answer, from chat completions with `logprobs`.

Most servers list at most 20. What follows a first token is unknown, so these are limits of an answer's probability, not the probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusecli.sampling.answer_paths import Messages
from diffusecli.sampling.connection import Connection, RefusedError, Service
from diffusecli.sampling.response_parts import OtherShapeError, part

_SHAPES = tuple(
    {limit: 1, "logprobs": True, "top_logprobs": most} for most in (20, 5) for limit in ("max_tokens", "max_completion_tokens")
)
"""Requests from the most informative to the most widely accepted."""
_SEEDS = 8  # attempts: there are no log-probabilities if the sampled token ends the answer
_TOLERANCE = 1e-3  # of a sum of probabilities


@dataclass(frozen=True)
class FirstTokens:
    """The most likely first tokens of an answer with their probabilities. Tokens without text (such as the end) are not included."""

    listed: Mapping[bytes, float]
    textless: float = 0.0  # probability of listed tokens without text

    @property
    def rest(self) -> float:
        """The probability of all other tokens together."""
        return max(0.0, 1 - self.textless - math.fsum(self.listed.values()))

    @property
    def least(self) -> float:
        """The most that another token can have."""
        return min(self.rest, min((*self.listed.values(), *([self.textless] if self.textless else [])), default=1.0))


class ChatLogprobs:
    """A server with OpenAI's `top_logprobs`."""

    how = "top_logprobs of the first token"

    def __init__(self, connection: Connection, service: Service, extra: Mapping[str, Any]) -> None:
        """`extra`: more fields of every request."""
        self._connection, self._service, self._extra = connection, service, extra
        self._shape = 0

    async def first_tokens(self, messages: Messages) -> FirstTokens | None:
        """The first tokens of answers; None if the server does not return log-probabilities."""
        while self._shape < len(_SHAPES):
            try:
                return await self._listed(messages, _SHAPES[self._shape])
            except RefusedError:
                self._shape += 1
            except OtherShapeError:
                return None
        return None

    async def _listed(self, messages: Messages, shape: Mapping[str, Any]) -> FirstTokens:
        body = {"model": self._service.model, "messages": list(messages), "temperature": 1.0, **shape, **self._extra}
        for seed in range(_SEEDS):
            choices = part(await self._connection.fetch("/chat/completions", {**body, "seed": seed}), "choices", list)
            places = part(part(choices[0] if choices else None, "logprobs", dict), "content", list)
            if places:
                return _read(part(places[0], "top_logprobs", list))
        raise OtherShapeError(f"the server returned no log-probabilities in {_SEEDS} answers. Check its model")


def _read(entries: list[Any]) -> FirstTokens:
    """Raises `OtherShapeError` if the probabilities are not those of a distribution."""
    listed: dict[bytes, float] = {}
    for entry in entries:
        text = part(entry, "token", str).encode("utf-8", "replace")
        own = bytes(entry["bytes"]) if isinstance(entry.get("bytes"), list) else text
        listed[own] = listed.get(own, 0.0) + math.exp(part(entry, "logprob", (int, float)))
    textless = listed.pop(b"", 0.0)
    if (total := textless + math.fsum(listed.values())) > 1 + _TOLERANCE or not entries:
        raise OtherShapeError(f"the probabilities of {len(entries)} first tokens add up to {total:.4g}")
    return FirstTokens(listed, textless)
