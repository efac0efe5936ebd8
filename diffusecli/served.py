"""The engine for a model behind an OpenAI-compatible server, through the official client.

What a server does with `n` and with settings beyond OpenAI's own is found out by the first request, not
assumed. The key is read from the environment by the client and goes nowhere else. Knows nothing of weights.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from diffusecli.builtin import Notice
from diffusecli.chat import ChatSettings
from diffusecli.engines import Arrived
from diffusecli.errors import InputError, MachineError, many
from diffusecli.prompt import Prompt
from diffusecli.sampling import SamplingSettings, Standing, Watch, stream_seed

_MOST_CHOICES = 32  # asked for in one request, where the server gives so many
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between tries, doubled from one to the next
_SURELY_NOT_ALL_ALIKE = 16  # answers
_KEY = "OPENAI_API_KEY"

_UNTOLD = ChatSettings()

_Place = tuple[int, int]
"""Start and offset of `stream_seed`: no two requests of a prompt may have the same, those before an interruption included."""


@dataclass(frozen=True)
class Service:
    """Where the server is and how it is asked."""

    base_url: str
    model: str  # as the server calls it
    concurrency: int = 8
    requests_per_minute: float = 0.0  # 0: no limit
    tries: int = 6  # of a request that fails for reasons that may pass
    timeout: float = 120.0  # seconds for one answer

    def __post_init__(self) -> None:
        """Raises `InputError` for what has no meaning."""
        key = os.environ.get(_KEY, "")
        for good, message in (
            ("@" not in self.base_url and "?" not in self.base_url,
             f"--base-url: must hold neither a password nor parameters, set {_KEY} in the environment"),
            (_is_address(self.base_url), f"--base-url {self.base_url}: must be a URL such as http://localhost:8000/v1"),
            (key.isascii() and not any(sign.isspace() for sign in key), f"{_KEY}: must be ASCII without spaces or line ends"),
            (self.concurrency >= 1, f"--concurrency {self.concurrency}: must be 1 or more"),
            (self.requests_per_minute >= 0, f"--requests-per-minute {self.requests_per_minute:g}: must be 0 (no limit) or more"),
            (self.tries >= 1, f"--tries {self.tries}: must be 1 or more"),
            (self.timeout > 0, f"--timeout {self.timeout:g}: must be above 0"),
        ):  # fmt: skip
            if not good:
                raise InputError(message)


class ServerEngine:
    """Many requests at a time; what has arrived is handed over at once."""

    def __init__(self, service: Service, settings: SamplingSettings, notice: Notice, chat: ChatSettings = _UNTOLD) -> None:
        """Raises `InputError` when the client is not installed, or for a chat template: a server has its own."""
        try:
            import openai
        except ImportError as error:
            raise InputError("--engine openai needs its client: run `pip install 'diffuse-lm[openai]'`") from error
        if chat.template is not None:
            raise InputError("chat_template has no effect with --engine openai, a server takes it when it is started; leave it out")
        self._openai: Any = openai
        self._service, self._settings, self._chat, self._notice = service, settings, chat, notice
        self._how: _How | None = None
        self._pace = _Pace(service.requests_per_minute)
        self._textless = False

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`. A server does not tell its weights, so there is no revision."""
        return {"engine": "openai", "model": self._service.model, "base_url": self._service.base_url, **self._chat.told}

    def draw(self, prompt: Prompt, have: Counter[str], arrived: Arrived, watch: Watch) -> None:
        """See `Engine`. Raises `MachineError` when the server cannot be reached or answers with nonsense, again and again."""
        try:
            asyncio.run(self._draw(prompt, have, arrived, watch))
        except BaseExceptionGroup as group:  # SIGTERM may strike within a task
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise KeyboardInterrupt from None

    async def _draw(self, prompt: Prompt, have: Counter[str], arrived: Arrived, watch: Watch) -> None:
        finished, fed, alive = have.copy(), 0, 0
        wanted = self._settings.n_generations

        def take(answers: list[str], tokens: int) -> None:
            nonlocal fed
            finished.update(answers)
            fed += tokens
            arrived(Counter(answers), tokens)

        async with self._client() as client:

            async def work(how: _How, left: Iterator[tuple[_Place, int]]) -> None:
                """Take places, one after the other, until none is left."""
                nonlocal alive
                for place, count in left:
                    alive += 1
                    try:
                        answers, tokens = await self._request(client, how, prompt, place, count)
                    finally:
                        alive -= 1
                    take(answers[:count], tokens)
                    watch(Standing(finished, wanted, alive, fed))

            if self._how is None:
                count = min(_MOST_CHOICES, wanted - finished.total())
                take(*await self._find_out(client, prompt, (finished.total(), 0), count))
            while (how := self._how) and (missing := wanted - finished.total()):
                each = _MOST_CHOICES if how.several else 1
                start = finished.total()
                try:
                    async with asyncio.TaskGroup() as group:
                        left = iter([((start, at), min(each, missing - at)) for at in range(0, missing, each)])
                        for _ in range(self._service.concurrency):
                            group.create_task(work(how, left))
                except* (InputError, MachineError, _RefusedError) as errors:
                    first = errors.exceptions[0]
                    raise self._refusal(first) if isinstance(first, _RefusedError) else first from None
        alike = len(finished) == 1 and wanted >= _SURELY_NOT_ALL_ALIKE and self._settings.temperature >= 1
        if alike and len(prompt.targets) != 1:
            self._notice(f"{prompt.alias}: all {wanted} answers are the same; does the server sample at all (do_sample)?")

    @property
    def _for_template(self) -> dict[str, Any]:
        """Variables for the server's chat template, in the field that vLLM, SGLang and llama.cpp have for them."""
        return {"chat_template_kwargs": dict(self._chat.template_kwargs)} if self._chat.template_kwargs else {}

    def _client(self) -> Any:
        """A server of one's own needs no key; the client insists on one."""
        key = os.environ.get(_KEY) or "none"
        return self._openai.AsyncOpenAI(base_url=self._service.base_url, api_key=key, max_retries=0, timeout=self._service.timeout)

    async def _find_out(self, client: Any, prompt: Prompt, place: _Place, count: int) -> tuple[list[str], int]:
        """The first request: drop, one after the other, what the server refuses, and see how many answers it gives."""
        refused: Exception | None = None
        for how in _ways(self._settings, several=count > 1):
            try:
                answers, tokens = await self._request(client, how, prompt, place, count if how.several else 1)
            except _RefusedError as error:
                refused = refused or error
                continue
            if count > 1:  # else whether several come is not known yet
                self._how = replace(how, several=how.several and len(answers) >= count)
            if not how.extras:
                self._notice(
                    "the server takes no top_k, min_p or repetition_penalty: its own defaults for them may bend what it draws"
                )
            return answers[:count], tokens
        raise self._refusal(refused)

    def _refusal(self, reason: object) -> InputError:
        return InputError(f"{self._service.base_url}: the server refuses the request: {reason}")

    async def _request(self, client: Any, how: _How, prompt: Prompt, place: _Place, count: int) -> tuple[list[str], int]:
        """Answers and the tokens they cost; tries again after errors that may pass."""
        pause = _FIRST_PAUSE
        for left in reversed(range(self._service.tries)):
            await self._pace.turn()
            try:
                return self._read(await self._send(client, how, prompt, place, count))
            except _NonsenseError as error:
                reason, wait = str(error), None
            except self._openai.APIStatusError as error:
                reason, wait = self._told(error), _retry_after(error)
                if error.status_code in (400, 422):
                    raise _RefusedError(reason) from error
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise InputError(f"{self._service.base_url}: {reason}{_remedy(error.status_code)}") from error
            except (self._openai.APIConnectionError, self._openai.APIResponseValidationError, json.JSONDecodeError) as error:
                reason, wait = f"{error} ({type(error.__cause__ or error).__name__})", None
            if left:
                await asyncio.sleep(min(_LONGEST_PAUSE, pause if wait is None else max(pause, wait)))
                pause *= 2
        raise MachineError(
            f"{self._service.base_url}: {many(self._service.tries, 'try', 'tries')} failed for the model {self._service.model}, "
            f"the last with: {reason}; "
            "see to the server, what has arrived is kept and the same command goes on"
        )

    def _read(self, completion: Any) -> tuple[list[str], int]:
        """The texts of a completion and the tokens it cost; raises `_NonsenseError`."""
        choices = getattr(completion, "choices", None)
        if not choices or not isinstance(choices, list):
            raise _NonsenseError(f"an answer without choices: {str(completion)[:80]!r}")
        contents = [getattr(getattr(choice, "message", None), "content", None) for choice in choices]
        texts = [content if content is not None else "" for content in contents]
        if not all(isinstance(text, str) for text in texts):
            raise _NonsenseError("an answer that is no text")
        if None in contents and not self._textless:
            self._textless = True
            self._notice(
                "the server sends answers without text (a model that thinks first needs more --max-new-tokens); they count as empty"
            )
        usage = getattr(completion, "usage", None)
        tokens = sum(getattr(usage, name, None) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return [text.encode("utf-8", "replace").decode() for text in texts], tokens

    def _told(self, error: Any) -> str:
        """The server's own words, on one line, the key left out should it be among them."""
        body = error.body
        inner = body.get("error", body) if isinstance(body, dict) else body
        words = str((inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner or error)
        if key := os.environ.get(_KEY):
            words = words.replace(key, "…")
        return f"status {error.status_code}: {' '.join(words.split())[:300]}"

    async def _send(self, client: Any, how: _How, prompt: Prompt, place: _Place, count: int) -> Any:
        settings, messages = self._settings, self._chat.messages(prompt)
        more: dict[str, Any] = {"n": count} if how.several else {}
        if settings.stop:
            more["stop"] = list(settings.stop)
        return await client.chat.completions.create(
            model=self._service.model, messages=messages, temperature=settings.temperature, top_p=settings.top_p,
            seed=stream_seed(settings.seed, tuple("".join(m["content"] for m in messages).encode()), *place),
            extra_body={how.limit: settings.max_new_tokens, **how.extras, **self._for_template}, **more,
        )  # fmt: skip


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0) and url.isascii()
        )
    except ValueError:
        return False


@dataclass(frozen=True)
class _How:
    """What this server takes."""

    limit: str  # its name for the most new tokens
    extras: dict[str, Any]  # settings beyond OpenAI's
    several: bool  # whether one request may ask for several answers


def _ways(settings: SamplingSettings, *, several: bool) -> list[_How]:
    """From what bends least to what every server takes; what the user asked for is never left out."""
    asked = settings.top_k != 0 or settings.min_p != 0
    every = {"top_k": settings.top_k or -1, "min_p": settings.min_p, "repetition_penalty": 1.0}
    return [
        _How(limit, extras, n)
        for extras in ([every] if asked else [every, {}])
        for limit in ("max_tokens", "max_completion_tokens")
        for n in ((True, False) if several else (False,))
    ]


class _RefusedError(Exception):
    """The server does not take the request as it is."""


class _NonsenseError(Exception):
    """The server's answer is no chat completion."""


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f", set {_KEY} in the environment"
    return ", check --base-url (it mostly ends in /v1) and --model" if status == 404 else ""


def _retry_after(error: Any) -> float | None:
    try:
        return float(error.response.headers.get("retry-after"))
    except (TypeError, ValueError):
        return None


class _Pace:
    """Lets no more requests start than so many a minute, evenly."""

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._clock, self._wait = clock, wait

    async def turn(self) -> None:
        """Wait for it."""
        if not self._gap:
            return
        now = self._clock()
        start = max(now, self._next)
        self._next = start + self._gap
        await self._wait(start - now)
