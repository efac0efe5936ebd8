"""Requests to an OpenAI-compatible server through the official client, with retries of temporary failures.

The client reads the key from the environment, and nothing else uses it. Independent of settings and prompts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from diffusecli.sampling.completions import Completion, NonsenseError, read_completion
from diffusecli.sampling.refusals import Fault, fault_within, is_page, parsed, read_fault
from diffusecli.system.errors import InputError, MachineError, many

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts, doubled each time
_KEY = "OPENAI_API_KEY"
_RAW = "X-Stainless-Raw-Response"  # the client's switch for the response itself
_PASSING = (500, 502, 503, 504)  # the server is starting, or a proxy does not reach it
_SHORTEST_SECRET = 8  # characters; keys of local servers, such as "x", occur in many texts

Names = Callable[[Fault], int | None]
"""The index of the evidence in a fault that names a field of the request."""

_Reply = TypeVar("_Reply")


@dataclass(frozen=True)
class Service:
    """A server and how to send requests to it."""

    base_url: str
    model: str  # the server's name for it
    concurrency: int = 8
    requests_per_minute: float = 0.0  # 0: no limit
    tries: int = 6  # attempts per request, for temporary failures
    timeout: float = 120.0  # seconds per response
    omit: tuple[str, ...] = ()  # fields that are never sent
    n_per_request: int | None = None  # answers per request; None: found by trying

    @property
    def root(self) -> str:
        """The address without the version of OpenAI's protocol: servers have routes of their own there.

        >>> Service("http://localhost:8000/v1/", "m").root, Service("http://localhost:8000", "m").root
        ('http://localhost:8000', 'http://localhost:8000')
        """
        return self.base_url.rstrip("/").removesuffix("/v1")

    def __post_init__(self) -> None:
        """Raises `InputError` for invalid values."""
        key = os.environ.get(_KEY, "")
        for good, message in (
            ("@" not in self.base_url and "?" not in self.base_url,
             f"--base-url: must not contain a password or parameters. Set {_KEY} in the environment"),
            (_is_address(self.base_url), f"--base-url {self.base_url}: must be a URL such as http://localhost:8000/v1"),
            (key.isascii() and not any(sign.isspace() for sign in key), f"{_KEY}: must be ASCII without spaces or line breaks"),
            (self.concurrency >= 1, f"--concurrency {self.concurrency}: must be 1 or more"),
            (self.requests_per_minute >= 0, f"--requests-per-minute {self.requests_per_minute:g}: must be 0 (no limit) or more"),
            (self.tries >= 1, f"--tries {self.tries}: must be 1 or more"),
            (self.timeout > 0, f"--timeout {self.timeout:g}: must be above 0"),
            (self.n_per_request is None or self.n_per_request >= 1, f"--n-per-request {self.n_per_request}: must be 1 or more"),
        ):  # fmt: skip
            if not good:
                raise InputError(message)


def until_done(work: Coroutine[Any, Any, _Reply]) -> _Reply:
    """Run the requests of a coroutine. Ctrl-C in one of several tasks is raised alone."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:  # SIGTERM may arrive in a task
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


class RefusedError(Exception):
    """The server rejects the request; sending it again does not help."""

    def __init__(self, fault: Fault) -> None:
        """`fault` is the server's response."""
        super().__init__(fault.words)
        self.fault = fault


class Connection:
    """A connection to the server, used as a context manager."""

    def __init__(self, service: Service) -> None:
        """Raises `InputError` when the client is not installed."""
        try:
            import openai
        except ImportError as error:
            raise InputError("--engine openai needs the openai package. Run `pip install 'diffuse-lm[openai]'`") from error
        self._openai: Any = openai
        self._service, self._pace = service, _Pace(service.requests_per_minute)
        self.unusable = 0  # responses with neither an answer nor an error

    async def __aenter__(self) -> Self:
        """Create the client. It needs a key, even if the server does not."""
        key, service = os.environ.get(_KEY) or "none", self._service
        self._slots = asyncio.Semaphore(service.concurrency)  # of `fetch`
        self._client = self._openai.AsyncOpenAI(base_url=service.base_url, api_key=key, max_retries=0, timeout=service.timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self._client.close()

    async def complete(
        self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], targets: Sequence[str], *, names: Names, proven: bool
    ) -> Completion:  # fmt: skip
        """The answers to a conversation. The request is retried after temporary failures.

        `fields` are the fields of the body besides model and messages; `proven`: a request with the same fields has worked before.
        Raises `RefusedError` for a request that must be changed, `InputError` for a wrong key or address, `MachineError` when all
        attempts fail because the server cannot be reached, is busy or returns invalid responses.
        """
        remedy = "run the same command to resume (answers so far are kept)"
        return await self._retried(lambda: self._send(messages, fields, targets), names, remedy, proven=proven)

    async def fetch(self, address: str, body: Mapping[str, Any] | None = None) -> Any:
        """What a route of the server returns: parsed JSON, or text. A GET request if there is no body.

        A relative address is below `base_url`. At most `concurrency` requests run at a time. Raises as `complete`; `RefusedError` also if
        there is no such route.
        """
        async with self._slots:
            return await self._retried(
                lambda: self._fetch(address, body), _refused_unless_busy, "run the same command again", proven=False
            )

    def trying_once(self) -> Self:
        """The same connection with one attempt per request."""
        other = copy(self)
        other._service = replace(self._service, tries=1)
        return other

    async def _retried(self, send: Callable[[], Awaitable[_Reply]], names: Names, remedy: str, *, proven: bool) -> _Reply:
        pause = _FIRST_PAUSE
        for left in reversed(range(self._service.tries)):
            check = "Check the server"
            await self._pace.turn()
            wait: float | None = None
            try:
                return await send()
            except _FaultError as error:
                verdict = error.fault.verdict(names(error.fault), proven=proven)
                if verdict == "refused":
                    raise RefusedError(error.fault) from error
                reason, wait = error.fault.words, error.wait
                if verdict == "forbidden":
                    raise InputError(f"{self._service.base_url}: {reason.rstrip('.')}{_remedy(error.fault)}") from error
                if error.final:
                    break
            except NonsenseError as error:
                self.unusable += 1
                reason = _discreet(str(error))
            except (self._openai.APIConnectionError, self._openai.APIResponseValidationError) as error:
                reason = f"{str(error).rstrip('.')} ({type(error.__cause__ or error).__name__})"
                if isinstance(error, self._openai.APIConnectionError):
                    check = "Check that --base-url is right and that the server runs"
            if left:
                await asyncio.sleep(min(_LONGEST_PAUSE, pause if wait is None else max(pause, wait)))
                pause *= 2
        raise MachineError(
            f"{self._service.base_url}: {many(self._service.tries - left, 'try', 'tries')} failed for the model {self._service.model}. "
            f"Last error: {reason.rstrip('.')}. {check}, then {remedy}"
        )

    async def _send(self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], targets: Sequence[str]) -> Completion:
        """Raises `_FaultError` for an error that the server reports, `NonsenseError` for a response that is neither an error nor an answer."""
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self._service.model, messages=messages, extra_body=fields
            )
        except self._openai.APIStatusError as error:
            raise _fault_of(error) from error
        if is_page(response.http_response.text):
            raise NonsenseError("a web page instead of an answer (does --base-url end in /v1?)")
        return read_completion(_without_fault(response.http_response), targets)

    async def _fetch(self, address: str, body: Mapping[str, Any] | None) -> Any:
        """Raises `_FaultError` for an error that the server reports."""
        raw = {"headers": {_RAW: "true"}}
        try:
            if body is None:
                response = await self._client.get(address, cast_to=object, options=raw)
            else:
                response = await self._client.post(address, cast_to=object, body=dict(body), options=raw)
        except self._openai.APIStatusError as error:
            raise _fault_of(error) from error
        return _without_fault(response.http_response)


class _FaultError(Exception):
    """The server returned an error."""

    def __init__(self, fault: Fault, headers: Mapping[str, str]) -> None:
        super().__init__(fault.words)
        self.fault = fault
        self.final = fault.unpaid or headers.get("x-should-retry") == "false"
        try:
            self.wait: float | None = float(headers.get("retry-after", ""))
        except ValueError:
            self.wait = None


def _fault_of(error: Any) -> _FaultError:
    """The error in a response with an error status."""
    return _FaultError(read_fault(error.status_code, _discreet(error.response.text)), error.response.headers)


def _without_fault(response: Any) -> Any:
    """The parsed body of a response. Raises `_FaultError` if it contains an error."""
    answer = parsed(response.text)
    if fault := fault_within(answer):
        shown = fault_within(parsed(_discreet(response.text))) or Fault(fault.status, "an error message that contains the key")
        raise _FaultError(shown, response.headers)
    return answer


def _refused_unless_busy(fault: Fault) -> int | None:
    """Treats every error as a refusal, except those that pass."""
    return None if fault.status in _PASSING else 0


class _Pace:
    """Limit the rate of requests per minute, evenly spaced."""

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
        """Wait until the next request may start."""
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
    """A server's text with the key removed."""
    key = os.environ.get(_KEY, "")
    return text.replace(key, "…") if len(key) >= _SHORTEST_SECRET else text


def _remedy(fault: Fault) -> str:
    if fault.is_no_model_server:
        return ""
    if fault.status in (401, 403):
        return f". Set {_KEY} in the environment"
    return ". Check --base-url (it usually ends in /v1) and --model" if fault.status == 404 else ""
