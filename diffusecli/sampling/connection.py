"""A server that speaks OpenAI's protocol: one request at a time goes there and a completion comes back, through the official client.

Tries again what may pass. The key is read from the environment by the client and goes nowhere else. Knows nothing of settings or prompts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from diffusecli.sampling.completions import Completion, NonsenseError, read_completion
from diffusecli.sampling.refusals import Fault, fault_within, parsed, read_fault
from diffusecli.system.errors import InputError, MachineError, many

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between tries, doubled from one to the next
_KEY = "OPENAI_API_KEY"
_SHORTEST_SECRET = 8  # characters; servers of one's own are given keys such as "x", which many texts hold

Names = Callable[[Fault], int | None]
"""Which evidence of a fault names a field that was sent."""


@dataclass(frozen=True)
class Service:
    """Where the server is and how it is asked."""

    base_url: str
    model: str  # as the server calls it
    concurrency: int = 8
    requests_per_minute: float = 0.0  # 0: no limit
    tries: int = 6  # of a request that fails for reasons that may pass
    timeout: float = 120.0  # seconds for one answer
    omit: tuple[str, ...] = ()  # fields that are never sent
    n_per_request: int | None = None  # answers; None finds out

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
            (self.n_per_request is None or self.n_per_request >= 1, f"--n-per-request {self.n_per_request}: must be 1 or more"),
        ):  # fmt: skip
            if not good:
                raise InputError(message)


class RefusedError(Exception):
    """The server does not take a request as it is, however often it is sent."""

    def __init__(self, fault: Fault) -> None:
        """`fault` is what the server said."""
        super().__init__(fault.words)
        self.fault = fault


class Connection:
    """A way to the server; enter it before anything is sent."""

    def __init__(self, service: Service) -> None:
        """Raises `InputError` when the client is not installed."""
        try:
            import openai
        except ImportError as error:
            raise InputError("--engine openai needs its client: run `pip install 'diffuse-lm[openai]'`") from error
        self._openai: Any = openai
        self._service, self._pace = service, _Pace(service.requests_per_minute)
        self.unusable = 0  # responses that held no answer and no error

    async def __aenter__(self) -> Self:
        """A server of one's own needs no key; the client insists on one."""
        key, service = os.environ.get(_KEY) or "none", self._service
        self._client = self._openai.AsyncOpenAI(base_url=service.base_url, api_key=key, max_retries=0, timeout=service.timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of what is open."""
        await self._client.close()

    async def complete(
        self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], targets: Sequence[str], *, names: Names, proven: bool
    ) -> Completion:  # fmt: skip
        """The answers to a conversation; the request is sent again after failures that may pass.

        `fields` are those of the body beside model and messages; `proven` says that a request with the same ones has worked.
        Raises `RefusedError` for what another request may be spared, `InputError` for a key or an address that is wrong, `MachineError`
        when the server cannot be reached, is busy or answers with nonsense, again and again.
        """
        pause = _FIRST_PAUSE
        for left in reversed(range(self._service.tries)):
            await self._pace.turn()
            wait: float | None = None
            try:
                return await self._send(messages, fields, targets)
            except _FaultError as error:
                verdict = error.fault.verdict(names(error.fault), proven=proven)
                if verdict == "refused":
                    raise RefusedError(error.fault) from error
                reason, wait = error.fault.words, error.wait
                if verdict == "forbidden":
                    raise InputError(f"{self._service.base_url}: {reason}{_remedy(error.fault.status)}") from error
                if error.final:
                    break
            except NonsenseError as error:
                self.unusable += 1
                reason = _discreet(str(error))
            except (self._openai.APIConnectionError, self._openai.APIResponseValidationError) as error:
                reason = f"{error} ({type(error.__cause__ or error).__name__})"
            if left:
                await asyncio.sleep(min(_LONGEST_PAUSE, pause if wait is None else max(pause, wait)))
                pause *= 2
        raise MachineError(
            f"{self._service.base_url}: {many(self._service.tries - left, 'try', 'tries')} failed for the model {self._service.model}, "
            f"the last with: {reason}; see to the server, what has arrived is kept and the same command goes on"
        )

    async def _send(self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], targets: Sequence[str]) -> Completion:
        """Raises `_FaultError` for an error that the server reports, `NonsenseError` for what is neither that nor an answer."""
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self._service.model, messages=messages, extra_body=fields
            )
        except self._openai.APIStatusError as error:
            raise _FaultError(read_fault(error.status_code, _discreet(error.response.text)), error.response.headers) from error
        text = response.http_response.text
        answer = parsed(text)
        if fault := fault_within(answer):
            shown = fault_within(parsed(_discreet(text))) or Fault(fault.status, "an error whose words hold the key")
            raise _FaultError(shown, response.http_response.headers)
        return read_completion(answer, targets)


class _FaultError(Exception):
    """The server answered with an error."""

    def __init__(self, fault: Fault, headers: Mapping[str, str]) -> None:
        super().__init__(fault.words)
        self.fault = fault
        self.final = fault.unpaid or headers.get("x-should-retry") == "false"
        try:
            self.wait: float | None = float(headers.get("retry-after", ""))
        except ValueError:
            self.wait = None


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


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0) and url.isascii()
        )
    except ValueError:
        return False


def _discreet(text: str) -> str:
    """What a server says, without the key should it be in there."""
    key = os.environ.get(_KEY, "")
    return text.replace(key, "…") if len(key) >= _SHORTEST_SECRET else text


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f", set {_KEY} in the environment"
    return ", check --base-url (it mostly ends in /v1) and --model" if status == 404 else ""
