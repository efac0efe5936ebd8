"""Servers that return log-probabilities of given text: vLLM and llama.cpp. Each class knows one server's routes.

Both use the model's own distribution, before sampling settings are applied. Natural logarithms.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from diffusecli.models.chat import ChatSettings
from diffusecli.sampling.answer_paths import Messages, Path, Paths, Tokens
from diffusecli.sampling.connection import Connection, RefusedError, Service
from diffusecli.sampling.response_parts import OtherShapeError, part

_FEW = 500
"""Number of likely tokens to request first; all are requested if one that is needed is not among them."""
_ALL = 1_000_000
"""More tokens than any vocabulary has."""
_IMPOSSIBLE = -1e30
"""llama.cpp writes the logarithm of zero as the lowest number of single precision."""
_GRAMMAR = 'root ::= "a"'
"""Chooses the token that llama.cpp samples: if that token ended the answer, the response would contain no probabilities."""
_PROBE: Messages = ({"role": "user", "content": "Hello"},)


class TextServer(Tokens, Protocol):
    """A server that returns log-probabilities of given text."""

    how: str  # the request, for people

    async def log_probs(self, paths: Paths) -> list[float]:
        """Ln of the probability of each path after the prompt."""


class Vllm:
    """vLLM: `prompt_logprobs` of a completion, one request per answer."""

    how = "prompt_logprobs of vLLM"

    def __init__(self, connection: Connection, service: Service, chat: ChatSettings) -> None:
        self._connection, self._service = connection, service
        self._chat = {"chat_template_kwargs": dict(chat.template_kwargs)} if chat.template_kwargs else {}

    @classmethod
    async def found(cls, connection: Connection, service: Service, chat: ChatSettings) -> Self | None:
        """The server if it is one of this kind."""
        server = cls(connection, service, chat)
        try:
            prompt = await server.prompt(_PROBE)
            await server.log_probs(Paths(prompt[:-1], (prompt[-1:],)))
        except (RefusedError, OtherShapeError):
            return None
        return server

    async def prompt(self, messages: Messages) -> Path:
        """See `Tokens`."""
        return await self._tokens({"messages": list(messages), "add_generation_prompt": True, **self._chat})

    async def answered(self, messages: Messages, answer: str) -> Path:
        """See `Tokens`."""
        said = [*messages, {"role": "assistant", "content": answer}]
        return await self._tokens({"messages": said, "add_generation_prompt": False, **self._chat})

    async def text(self, text: str) -> Path:
        """See `Tokens`."""
        return await self._tokens({"prompt": text, "add_special_tokens": False})

    async def log_probs(self, paths: Paths) -> list[float]:
        """See `TextServer`."""
        return list(await asyncio.gather(*(self._log_prob(paths.prompt, path) for path in paths.answers)))

    async def _log_prob(self, prompt: Path, path: Path) -> float:
        body = {"prompt": [*prompt, *path], "max_tokens": 1, "prompt_logprobs": 1, "temperature": 1.0}
        answer = await self._connection.fetch("/completions", {"model": self._service.model, **body})
        choices = part(answer, "choices", list)
        by_place = part(choices[0] if choices else None, "prompt_logprobs", list)[-len(path) :]
        if len(by_place) != len(path):
            raise OtherShapeError("the server returned log-probabilities of fewer tokens than it was sent")
        entries = [part(place, str(token), dict) for place, token in zip(by_place, path, strict=True)]
        return math.fsum(_number(part(entry, "logprob", (int, float))) for entry in entries)

    async def _tokens(self, body: Mapping[str, Any]) -> Path:
        answer = await self._connection.fetch(f"{self._service.root}/tokenize", {"model": self._service.model, **body})
        part(answer, "count", int)  # other servers with this route do not count
        return tuple(part(answer, "tokens", list))


class LlamaCpp:
    """llama.cpp: `n_probs` of the next token, one request per distinct prefix of the answers."""

    how = "n_probs of llama.cpp"

    def __init__(self, connection: Connection, service: Service, chat: ChatSettings) -> None:
        self._connection, self._service = connection, service
        self._chat = {"chat_template_kwargs": dict(chat.template_kwargs)} if chat.template_kwargs else {}
        self._endings: dict[str, str] = {}  # by prompt: what follows an answer

    @classmethod
    async def found(cls, connection: Connection, service: Service, chat: ChatSettings) -> Self | None:
        """The server if it is one of this kind."""
        server = cls(connection, service, chat)
        try:
            await server.next_log_probs(await server.prompt(_PROBE), set())
        except (RefusedError, OtherShapeError):
            return None
        return server

    async def prompt(self, messages: Messages) -> Path:
        """See `Tokens`."""
        return await self.text(await self._rendered(messages), begins=True)

    async def answered(self, messages: Messages, answer: str) -> Path:
        """See `Tokens`. What follows an answer is seen in a conversation that goes on: an answer at the end would be continued."""
        before = await self._rendered(messages)
        if before not in self._endings:
            probe = "some4answer"
            said = [*messages, {"role": "assistant", "content": probe}, {"role": "user", "content": "x"}]
            self._endings[before] = (await self._rendered(said)).rpartition(probe)[2]
        return await self.text(before + answer + self._endings[before], begins=True)

    async def text(self, text: str, *, begins: bool = False) -> Path:
        """See `Tokens`; `begins`: with the token that begins texts."""
        body = {"content": text, "add_special": begins, "parse_special": True}
        return tuple(part(await self._post("tokenize", body), "tokens", list))

    async def log_probs(self, paths: Paths) -> list[float]:
        """See `TextServer`."""
        following: dict[Path, set[int]] = {}
        for path in paths.answers:
            for place, token in enumerate(path):
                following.setdefault(path[:place], set()).add(token)
        found = await asyncio.gather(*(self.next_log_probs(paths.prompt + prefix, some) for prefix, some in following.items()))
        known = dict(zip(following, found, strict=True))
        return [math.fsum(known[path[:place]][token] for place, token in enumerate(path)) for path in paths.answers]

    async def next_log_probs(self, ids: Path, wanted: set[int]) -> dict[int, float]:
        """Ln of the probabilities of some next tokens."""
        for count in (_FEW, _ALL):
            body = {
                "prompt": list(ids), "n_predict": 1, "n_probs": count, "post_sampling_probs": False, "grammar": _GRAMMAR,
                "cache_prompt": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
            }  # fmt: skip
            places = part(await self._post("completion", body), "completion_probabilities", list)
            entries = part(places[0] if places else None, "top_logprobs", list)
            listed = {part(entry, "id", int): _number(part(entry, "logprob", (int, float))) for entry in entries}
            if wanted <= listed.keys() or len(listed) < count:
                break
        return {token: listed.get(token, -math.inf) for token in wanted}

    async def _rendered(self, messages: Messages) -> str:
        return str(part(await self._post("apply-template", {"messages": list(messages), **self._chat}), "prompt", str))

    async def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        return await self._connection.fetch(f"{self._service.root}/{route}", {"model": self._service.model, **body})


def _number(value: float) -> float:
    return float(value) if value > _IMPOSSIBLE else -math.inf


KINDS: Sequence[type[Vllm] | type[LlamaCpp]] = (Vllm, LlamaCpp)
"""In the order in which they are tried."""
