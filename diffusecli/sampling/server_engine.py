"""The engine for a model behind an OpenAI-compatible server.

The first request runs alone, to find out which fields the server accepts. Later requests use what refusals taught. It loads no
weights.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, Self

from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.completions import Answer, Completion, oddities
from diffusecli.sampling.connection import Connection, RefusedError, Service, until_done
from diffusecli.sampling.counting import cut_at_stop
from diffusecli.sampling.draws import seed_of_stream, stream_seed
from diffusecli.sampling.engine import Wanted
from diffusecli.sampling.refusals import Fault
from diffusecli.sampling.request_body import Known, RequestBody, listed, most_answers
from diffusecli.sampling.served_names import warning_of
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError, MachineError, many
from diffusecli.system.notices import Notice

_MOST_CHOICES = 32  # answers per request, if the server returns so many
_ENOUGH_TO_DIFFER = 16  # answers: all the same is suspicious

_NO_SETTINGS = ChatSettings()

_Place = tuple[int, int]
"""Start and offset of `stream_seed`. They differ for all requests of a prompt, including those before an interruption."""


class ServerEngine:
    """Sends many requests at a time and passes on answers as they arrive."""

    def __init__(
        self, service: Service, settings: SamplingSettings, notice: Notice, chat: ChatSettings = _NO_SETTINGS, run: str = ""
    ) -> None:
        """Raises `InputError` if the client is missing, a field cannot be omitted, or a chat template is set (servers use their own).

        `run`: the trained run whose answers these should be, if there is one.
        """
        self._connection = Connection(service)
        if chat.template is not None:
            raise InputError(
                "chat_template has no effect with --engine openai. Remove it, and set the template when you start the server"
            )
        self._service, self.settings, self._chat, self._notice = service, settings, chat, notice
        self._body = RequestBody(service.base_url, settings, chat.template_kwargs, service.omit, service.n_per_request)
        self._known: Known = {}
        self._most: int | None = None  # answers per request, if the server states a maximum
        self._settled = False  # whether a request with the current fields has worked
        self._refused: dict[str, str] = {}  # dropped fields -> the server's message
        self._announced: set[str] = set()
        self._unpriced = False
        self._run, self._name_checked = run, False
        self._answered_as: list[str] = []  # the model's names in responses

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`. A server does not report its weights, so there is no revision. `refused` and `answered_as` grow."""
        omitted = {"omitted": self._body.omitted} if self._body.omitted else {}
        return {
            "engine": "openai", "model": self._service.model, "base_url": self._service.base_url, **self._chat.recorded, **omitted,
            **({"refused": dict(self._refused)} if self._refused else {}),
            **({"answered_as": list(self._answered_as)} if self._answered_as else {}),
        }  # fmt: skip

    def limit(self, prompt: Prompt) -> int:
        """See `Engine`."""
        return self.settings.limit(prompt.most_tokens)

    def draw(self, wanted: Wanted) -> None:
        """See `Engine`. Raises `MachineError` when the server repeatedly cannot be reached or returns invalid responses."""
        self.draw_all([wanted])

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """See `JointEngine`: one prompt after the other, all wordings of a prompt together."""
        for whole, some in groupby(wanted, key=lambda one: one.prompt.whole):
            self._draw_prompt(whole, [_Drawing(one) for one in some])

    def _draw_prompt(self, name: str, drawings: Sequence[_Drawing]) -> None:
        unusable = self._connection.unusable
        try:
            until_done(self._draw(drawings))
        finally:
            answers = [answer for drawing in drawings for answer in drawing.answers]
            for oddity in oddities(answers):
                self._notice(f"{name}: {oddity}")
            if any(drawing.unpriced for drawing in drawings) and not self._unpriced:
                self._unpriced = True
                self._notice("the server does not report token counts, so tokens are not counted")
            if unusable := self._connection.unusable - unusable:
                self._notice(
                    f"{name}: {many(unusable, 'response')} without an answer, requested again. "
                    "If a filter removed answers, the shares are wrong"
                )
        drawn = Answers()
        for drawing in drawings:
            drawn.update(drawing.drawn)
        alike = len(drawn) == 1 and drawn.total() >= _ENOUGH_TO_DIFFER and self.settings.temperature >= 1
        if alike and len(drawings[0].prompt.targets) != 1 and not any(answer.withheld for answer in answers):
            self._notice(f"{name}: all {drawn.total()} answers are the same. Check that the server samples (do_sample)")

    async def _draw(self, drawings: Sequence[_Drawing]) -> None:
        async with self._connection:

            async def work(left: Iterator[tuple[_Drawing, _Place, int]]) -> None:
                """Process places until none is left."""
                for drawing, place, count in left:
                    with drawing.under_way():
                        completion = await self._request(drawing, place, count)
                    drawing.take(completion, count)

            while places := [place for drawing in drawings for place in drawing.places(self._each)]:
                left = iter(places if self._settled else places[:1])
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(self._service.concurrency):
                            group.create_task(work(left))
                except* (InputError, MachineError) as errors:
                    raise errors.exceptions[0] from None

    @property
    def _each(self) -> int:
        """The number of answers per request."""
        wanted = self._service.n_per_request or _MOST_CHOICES
        return min(wanted, self._most or wanted) if self._body.sends("n", self._known) else 1

    async def _request(self, drawing: _Drawing, place: _Place, count: int) -> Completion:
        """Get a completion. After a refusal, change the fields and send the request again immediately."""
        while True:
            known = self._known
            sent = self._fields(known, drawing, place, min(count, self._each))
            try:
                completion = await self._complete(drawing, sent)
            except RefusedError as error:
                if self._service.n_per_request is None and (most := most_answers(error.fault, sent.get("n", 1))):
                    self._most = most
                    continue
                if known is self._known:  # otherwise another request has already updated it
                    self._keep(await self._learned(drawing, error.fault, place, count, sent), error.fault)
                continue
            self._accepted(sent, completion)
            await self._check_name(completion)
            return completion

    async def _check_name(self, completion: Completion) -> None:
        """Record the model's name in the response. Once, warn if the server has no model of the name asked for."""
        if completion.model and completion.model not in self._answered_as:
            self._answered_as.append(completion.model)
        if not self._name_checked:
            self._name_checked = True
            warning, _ = await warning_of(self._connection, self._service, "answers", self._run)
            if warning:
                self._notice(warning)

    async def _learned(
        self, drawing: _Drawing, fault: Fault, place: _Place, count: int, sent: dict[str, Any]
    ) -> Known:  # fmt: skip
        """`known` after a refusal. Raises `InputError` when nothing helps."""

        async def works(known: Known) -> bool:
            """Answers are discarded, because requests without too many fields may sample another distribution."""
            try:
                tried = await self._complete(drawing, self._fields(known, drawing, place, min(count, 2)))
            except RefusedError:
                return False
            drawing.pay(tried)
            return True

        known = self._body.learn(fault, sent, self._known)
        if known is None and not self._settled:  # this is then the only request
            known = await self._body.search(self._known, works)
        if known is None:
            raise self._body.refusal(fault)
        return known

    def _keep(self, known: Known, fault: Fault) -> None:
        """Use these fields from now on."""
        before = self._body.given_up(self._known)
        self._refused |= {name: fault.words for name in self._body.given_up(known) if name not in before}
        self._known = known

    def _accepted(self, sent: dict[str, Any], completion: Completion) -> None:
        """Show dropped fields once. Ask for one answer per request if the server returns fewer than requested."""
        if (got := len(completion.answers)) < sent.get("n", 1) and self._each > 1:
            self._known = self._body.without("n", self._known)
            if got > 1:
                self._notice(
                    f"the server returned {got} of {sent['n']} answers. From now on each request asks for one. "
                    f"Use --n-per-request {got} to ask for {got}"
                )
        self._settled = self._settled or "n" in sent or self._each == 1
        new = self._refused.keys() - self._announced
        self._announced |= new
        for names, meaning in self._body.meanings(new):
            words = next(words for name, words in self._refused.items() if name in names)
            them = "it" if len(names) == 1 else "them"
            self._notice(f"the server refuses {listed(names)}. Requests are sent without {them}: {meaning} ({words})")

    async def _complete(self, drawing: _Drawing, sent: dict[str, Any]) -> Completion:
        prompt = drawing.prompt
        found = await self._connection.complete(
            self._chat.messages(prompt),
            sent,
            prompt.every_spelling,
            names=lambda fault: self._body.named(fault, sent),
            proven=self._settled,
        )
        return replace(found, answers=[self._stopped(answer) for answer in found.answers])

    def _stopped(self, answer: Answer) -> Answer:
        """An answer cut at the stop text. Some servers miss it (llama.cpp after half a character at the limit) or keep it."""
        text, stopped = cut_at_stop(answer.text, self.settings.stop)
        return replace(answer, text=text, unfinished=False) if stopped else answer

    def _fields(self, known: Known, drawing: _Drawing, place: _Place, count: int) -> dict[str, Any]:
        said = "".join(message["content"] for message in self._chat.messages(drawing.prompt)).encode()
        seed = stream_seed(seed_of_stream(self.settings.seed, drawing.stream), tuple(said), *place)
        return self._body.build(known, seed=seed, count=count, limit=self.limit(drawing.prompt))


class _Drawing:
    """Progress of the answers to one prompt in one wording."""

    def __init__(self, asked: Wanted) -> None:
        self.prompt, self.wanted, self.drawn, self.stream = asked.prompt, asked.count, Answers(asked.have), asked.stream
        self.answers: list[Answer] = []  # in this run
        self.unpriced = False  # whether the server does not report tokens
        self._arrived, self._watch = asked.arrived, asked.watch
        self._fed = self._alive = 0

    @property
    def missing(self) -> int:
        return self.wanted - self.drawn.total()

    def places(self, each: int) -> Iterator[tuple[Self, _Place, int]]:
        """The missing requests, with `each` answers per request."""
        start = self.drawn.total()
        return ((self, (start, at), min(each, self.missing - at)) for at in range(0, self.missing, each))

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a request in progress."""
        self._alive += 1
        try:
            yield
        finally:
            self._alive -= 1

    def take(self, completion: Completion, count: int) -> None:
        """Pass on at most `count` answers."""
        answers = completion.answers[:count]
        self.answers += answers
        some = Answers()
        for answer in answers:
            some.add(answer.text, unfinished=answer.unfinished)
        self.drawn.update(some)
        self.pay(completion, some)
        self._watch(Standing(self.drawn, self.wanted, self._alive, self._fed, self._tokens_left))

    def _tokens_left(self) -> float:
        """Missing answers are as long as those that arrived."""
        return self._fed * self.missing / len(self.answers) if self.answers and not self.unpriced else math.nan

    def pay(self, completion: Completion, some: Answers | None = None) -> None:
        """Count the tokens, including those of discarded answers."""
        self._fed += completion.tokens or 0
        self.unpriced |= completion.tokens is None
        self._arrived(some or Answers(), completion.tokens or 0)
