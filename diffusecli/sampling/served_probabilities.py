"""Probabilities of given answers from a server, in the best way that it offers.

vLLM and llama.cpp return log-probabilities of given text, so a target's probability is exact. Other servers list the most likely first
tokens, which only limit it. The server is asked what it can do: a small request in each way, the exact ones first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import numpy as np

from diffusecli.models.chat import ChatSettings
from diffusecli.sampling.answer_paths import Asked, paths_of
from diffusecli.sampling.connection import Connection, RefusedError, Service, until_done
from diffusecli.sampling.first_tokens import ChatLogprobs, FirstTokens
from diffusecli.sampling.given_text import KINDS, TextServer
from diffusecli.system.errors import InputError, MachineError
from diffusecli.system.waits import waiting_for

_Found = TypeVar("_Found")
_Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Served:
    """What a server says of each conversation."""

    how: str  # the way, for people
    scores: tuple[np.ndarray | FirstTokens, ...]  # ln of the probability of each answer, nats; or limits

    @property
    def exact(self) -> bool:
        """Whether these are the probabilities of the answers."""
        return not any(isinstance(score, FirstTokens) for score in self.scores)


def served_probabilities(service: Service, chat: ChatSettings, asked: Sequence[Asked]) -> Served:
    """Score the answers to all conversations.

    Raises `InputError` if the server returns no log-probabilities or refuses a request, `MachineError` if it cannot be reached.
    """
    try:
        with waiting_for(f"measuring {service.model} on the server", "wording") as advance:
            return until_done(_scored(service, chat, asked, advance))
    except RefusedError as error:
        raise InputError(f"{service.base_url}: the server refuses the request: {error}") from error


async def _scored(service: Service, chat: ChatSettings, asked: Sequence[Asked], advance: _Advance) -> Served:
    async with Connection(service) as connection:
        server, failed = await _exact_server(connection, service, chat)
        lists = ChatLogprobs(connection, service, chat)
        first = None if server else await lists.first_tokens(asked[0].messages)
        if failed:  # a server that was starting may offer more now
            server, failed = await _exact_server(connection, service, chat)
        if server:
            return Served(server.how, tuple(await _all([_log_probs(server, one) for one in asked], advance)))
        if first is None and failed:
            raise failed
        if first is None:
            raise InputError(
                f"{service.base_url}: the server returns no log-probabilities, so there are no exact figures{_reason(lists.refusal)}. Serve the "
                "model with vLLM or llama.cpp, or draw samples with `diffuse sample --engine openai`"
            )
        others = await _all([lists.first_tokens(one.messages) for one in asked[1:]], advance)
        if None in others:
            raise InputError(f"{service.base_url}: the server returns log-probabilities for some prompts only. Use another server")
        return Served(lists.how, (first, *(one for one in others if one is not None)))


async def _exact_server(
    connection: Connection, service: Service, chat: ChatSettings
) -> tuple[TextServer | None, MachineError | None]:
    """The server, if it returns log-probabilities of given text; otherwise the last error if one kind could not be tried."""
    failed = None
    for kind in KINDS:
        try:
            if (server := await kind.found(connection, service, chat)) is not None:
                return server, None
        except MachineError as error:
            failed = error
    return None, failed


def _reason(refusal: str) -> str:
    return f" (it says: {refusal.rstrip('.')})" if refusal else ""


async def _log_probs(server: TextServer, asked: Asked) -> np.ndarray:
    return np.array(await server.log_probs(await paths_of(asked, server)))


async def _all(work: Sequence[Coroutine[Any, Any, _Found]], advance: _Advance) -> list[_Found]:
    """Results in order, with the progress. The first error ends the others."""
    done = count(1)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            for task in tasks:
                task.add_done_callback(lambda _: advance(next(done), len(tasks)))
    except* (InputError, MachineError, RefusedError) as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
