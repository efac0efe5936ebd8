"""Servers that return log-probabilities of given text: vLLM and llama.cpp. Each class knows one server's routes.

Both use the model's own distribution, before sampling settings are applied. Natural logarithms.
"""

from __future__ import annotations

import asyncio
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from diffusecli.models.chat import ChatSettings
from diffusecli.sampling.answer_paths import PROBES, Messages, Path, Paths, Tokens
from diffusecli.sampling.connection import Connection, RefusedError, Service
from diffusecli.sampling.response_parts import OtherShapeError, part
from diffusecli.system.errors import InputError

_LIKELIEST = 500
"""Number of next tokens to request first."""
_FEW = 20
"""Up to so many others are requested one by one: that is faster than to list a whole vocabulary."""
_ALL = 1_000_000
"""More tokens than any vocabulary has."""
_SURE = 1000
"""The bias that makes llama.cpp sample a token. The probability that it reports is the one without bias."""
_IMPOSSIBLE = -1e30
"""llama.cpp writes the logarithm of zero as the lowest number of single precision."""
_GRAMMAR = 'root ::= "a"'
"""Chooses the token that llama.cpp samples: for one that has no text, the response may contain no probabilities."""
_PROBE: Messages = ({"role": "user", "content": "Hello"},)


class TextServer(Tokens, Protocol):
    """A server that returns log-probabilities of given text."""

    how: str  # the request, for people

    async def log_probs(self, paths: Paths) -> list[float]:
        """Ln of the probability of each path after the prompt."""


class _Routes(ABC):
    """The routes of one kind of server."""

    def __init__(self, connection: Connection, service: Service, chat: ChatSettings) -> None:
        self._connection, self._service = connection, service
        self._chat = {"chat_template_kwargs": dict(chat.template_kwargs)} if chat.template_kwargs else {}

    @classmethod
    async def found(cls, connection: Connection, service: Service, chat: ChatSettings) -> Self | None:
        """The server if it is one of this kind. Each request is sent once. Raises `MachineError` if it fails."""
        try:
            await cls(connection.trying_once(), service, chat).require_works()
        except (RefusedError, OtherShapeError):
            return None
        return cls(connection, service, chat)

    @abstractmethod
    async def require_works(self) -> None:
        """Make a small request. Raises `RefusedError` or `OtherShapeError` if the server is of another kind."""

    async def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        """A request to a route of the server's own."""
        return await self._connection.fetch(f"{self._service.root}/{route}", {"model": self._service.model, **body})


class Vllm(_Routes):
    """vLLM: `prompt_logprobs` of a completion, one request per answer."""

    how = "prompt_logprobs of vLLM"

    async def require_works(self) -> None:
        """See `_Routes`."""
        prompt = await self.prompt(_PROBE)
        await self.log_probs(Paths(prompt[:-1], (prompt[-1:],)))

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

    async def spelled(self, path: Path) -> str:
        """See `Tokens`."""
        return str(part(await self._post("detokenize", {"tokens": list(path)}), "prompt", str))

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
        answer = await self._post("tokenize", body)
        part(answer, "count", int)  # other servers with this route do not count
        return tuple(part(answer, "tokens", list))


class LlamaCpp(_Routes):
    """llama.cpp: `n_probs` of the next token, one request per distinct prefix of the answers."""

    how = "n_probs of llama.cpp"

    def __init__(self, connection: Connection, service: Service, chat: ChatSettings) -> None:
        super().__init__(connection, service, chat)
        self._prompts: dict[str, str] = {}  # by conversation: the rendered prompt
        self._endings: dict[str, str] = {}  # by rendered prompt: what follows an answer

    async def require_works(self) -> None:
        """See `_Routes`."""
        if not await self.listed(await self.prompt(_PROBE), {"n_probs": 1, "grammar": _GRAMMAR}):
            raise OtherShapeError("the server returned no log-probabilities")

    async def prompt(self, messages: Messages) -> Path:
        """See `Tokens`."""
        return await self.text(await self._prompt(messages), begins=True)

    async def answered(self, messages: Messages, answer: str) -> Path:
        """See `Tokens`. What follows an answer is seen in a conversation that goes on: an answer at the end would be continued."""
        before = await self._prompt(messages)
        if before not in self._endings:
            said = [*messages, {"role": "assistant", "content": PROBES[0]}, {"role": "user", "content": "x"}]
            _, found, self._endings[before] = (await self._rendered(said)).rpartition(PROBES[0])
            if not found:
                raise InputError(
                    f"{self._service.base_url}: the server's chat template changes answers, so none has an exact probability"
                )
        return await self.text(before + answer + self._endings[before], begins=True)

    async def text(self, text: str, *, begins: bool = False) -> Path:
        """See `Tokens`; `begins`: with the token that begins texts."""
        body = {"content": text, "add_special": begins, "parse_special": True}
        return tuple(part(await self._post("tokenize", body), "tokens", list))

    async def spelled(self, path: Path) -> str:
        """See `Tokens`."""
        return str(part(await self._post("detokenize", {"tokens": list(path)}), "content", str))

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
        """Ln of the probabilities of some next tokens: the likeliest from one response, each of a few others from one of its own."""
        known = await self.listed(ids, {"n_probs": _LIKELIEST, "grammar": _GRAMMAR})
        missing = sorted(wanted - known.keys())
        if len(missing) <= _FEW:
            for found in await asyncio.gather(*(self.listed(ids, {"n_probs": 1, "logit_bias": [[t, _SURE]]}) for t in missing)):
                known = found | known
        if not wanted <= known.keys():
            known |= await self.listed(ids, {"n_probs": _ALL, "grammar": _GRAMMAR})
        return {token: known.get(token, -math.inf) for token in wanted}

    async def listed(self, ids: Path, more: Mapping[str, Any]) -> dict[int, float]:
        """Ln of the probabilities of the token that is sampled and of the likeliest ones, before bias and grammar."""
        body = {
            "prompt": list(ids), "n_predict": 1, "post_sampling_probs": False, "cache_prompt": True, "temperature": 1.0, "top_k": 0,
            "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, **more,
        }  # fmt: skip
        answer = await self._post("completion", body)
        part(answer, "content", str)
        places = answer.get("completion_probabilities", [])  # missing if the token is only a part of a character
        entries = [entry for place in places[:1] for entry in (place, *part(place, "top_logprobs", list))]
        return {part(entry, "id", int): _number(part(entry, "logprob", (int, float))) for entry in entries}

    async def _prompt(self, messages: Messages) -> str:
        """The rendered prompt: the same for all answers."""
        if (key := json.dumps(list(messages))) not in self._prompts:
            self._prompts[key] = await self._rendered(messages)
        return self._prompts[key]

    async def _rendered(self, messages: Messages) -> str:
        return str(part(await self._post("apply-template", {"messages": list(messages), **self._chat}), "prompt", str))


def _number(value: float) -> float:
    return float(value) if value > _IMPOSSIBLE else -math.inf


KINDS: Sequence[type[Vllm] | type[LlamaCpp]] = (Vllm, LlamaCpp)
"""In the order in which they are tried."""
