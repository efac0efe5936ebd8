"""The engine for a model behind an OpenAI-compatible server.

What a server takes is found out by the first request, which goes alone; what a refusal teaches holds for all that follow. Knows nothing of
weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Self

from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.completions import Answer, Completion, oddities
from diffusecli.sampling.connection import Connection, RefusedError, Service
from diffusecli.sampling.draws import stream_seed
from diffusecli.sampling.engine import Wanted
from diffusecli.sampling.refusals import Fault
from diffusecli.sampling.request_body import Known, RequestBody, listed
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError, MachineError, many
from diffusecli.system.notices import Notice

_MOST_CHOICES = 32  # asked for in one request, where the server gives so many
_SURELY_NOT_ALL_ALIKE = 16  # answers

_UNTOLD = ChatSettings()

_Place = tuple[int, int]
"""Start and offset of `stream_seed`: no two requests of a prompt may have the same, those before an interruption included."""


class ServerEngine:
    """Many requests at a time; what has arrived is handed over at once."""

    def __init__(self, service: Service, settings: SamplingSettings, notice: Notice, chat: ChatSettings = _UNTOLD) -> None:
        """Raises `InputError` without the client, for fields that cannot be omitted, and for a chat template: a server has its own."""
        self._connection = Connection(service)
        if chat.template is not None:
            raise InputError("chat_template has no effect with --engine openai, a server takes it when it is started; leave it out")
        self._service, self.settings, self._chat, self._notice = service, settings, chat, notice
        self._body = RequestBody(service.base_url, settings, chat.template_kwargs, service.omit, service.n_per_request)
        self._known: Known = {}
        self._settled = False  # whether a request worked as those that follow are sent
        self._refused: dict[str, str] = {}  # fields that are not sent any more -> the server's words
        self._announced: set[str] = set()
        self._unpriced = False

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`. A server does not tell its weights, so there is no revision; `refused` grows while requests are refused."""
        omitted = {"omitted": self._body.omitted} if self._body.omitted else {}
        return {
            "engine": "openai", "model": self._service.model, "base_url": self._service.base_url, **self._chat.recorded, **omitted,
            **({"refused": dict(self._refused)} if self._refused else {}),
        }  # fmt: skip

    def limit(self, prompt: Prompt) -> int:
        """See `Engine`."""
        return self.settings.limit(prompt.most_tokens)

    def draw(self, wanted: Wanted) -> None:
        """See `Engine`. Raises `MachineError` when the server cannot be reached or answers with nonsense, again and again."""
        self.draw_all([wanted])

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """See `JointEngine`: one prompt after the other, the requests in all wordings of a prompt together."""
        for whole, some in groupby(wanted, key=lambda one: one.prompt.whole):
            self._draw_prompt(whole, [_Drawing(one) for one in some])

    def _draw_prompt(self, name: str, drawings: Sequence[_Drawing]) -> None:
        unusable = self._connection.unusable
        try:
            asyncio.run(self._draw(drawings))
        except BaseExceptionGroup as group:  # SIGTERM may strike within a task
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise KeyboardInterrupt from None
        finally:
            answers = [answer for drawing in drawings for answer in drawing.answers]
            for oddity in oddities(answers):
                self._notice(f"{name}: {oddity}")
            if any(drawing.unpriced for drawing in drawings) and not self._unpriced:
                self._unpriced = True
                self._notice("the server does not say how many tokens its answers took, so none are counted")
            if unusable := self._connection.unusable - unusable:
                self._notice(
                    f"{name}: {many(unusable, 'response')} without an answer, asked for again; "
                    "if a filter took the answers, the shares are off"
                )
        drawn = Answers()
        for drawing in drawings:
            drawn.update(drawing.drawn)
        alike = len(drawn) == 1 and drawn.total() >= _SURELY_NOT_ALL_ALIKE and self.settings.temperature >= 1
        if alike and len(drawings[0].prompt.targets) != 1 and not any(answer.withheld for answer in answers):
            self._notice(f"{name}: all {drawn.total()} answers are the same; does the server sample at all (do_sample)?")

    async def _draw(self, drawings: Sequence[_Drawing]) -> None:
        async with self._connection:

            async def work(left: Iterator[tuple[_Drawing, _Place, int]]) -> None:
                """Take places, one after the other, until none is left."""
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
        """How many answers a request asks for."""
        return (self._service.n_per_request or _MOST_CHOICES) if self._body.sends("n", self._known) else 1

    async def _request(self, drawing: _Drawing, place: _Place, count: int) -> Completion:
        """A completion. What the server refuses is changed, and the request sent again at once."""
        while True:
            known = self._known
            sent = self._fields(known, drawing.prompt, place, count)
            try:
                completion = await self._complete(drawing, sent)
            except RefusedError as error:
                if known is self._known:  # else another request was refused meanwhile, and this one is behind
                    self._keep(await self._learned(drawing, error.fault, place, count, sent), error.fault)
                continue
            self._accepted(sent, completion)
            return completion

    async def _learned(
        self, drawing: _Drawing, fault: Fault, place: _Place, count: int, sent: dict[str, Any]
    ) -> Known:  # fmt: skip
        """What is known after a refusal. Raises `InputError` when nothing helps."""

        async def works(known: Known) -> bool:
            """Answers are thrown away: those of requests that lack more than they must may be of another distribution."""
            try:
                tried = await self._complete(drawing, self._fields(known, drawing.prompt, place, min(count, 2)))
            except RefusedError:
                return False
            drawing.pay(tried)
            return True

        known = self._body.learn(fault, sent, self._known)
        if known is None and not self._settled:  # and so the only request under way
            known = await self._body.search(self._known, works)
        if known is None:
            raise self._body.refusal(fault)
        return known

    def _keep(self, known: Known, fault: Fault) -> None:
        """Requests are sent so from now on."""
        before = self._body.given_up(self._known)
        self._refused |= {name: fault.words for name in self._body.given_up(known) if name not in before}
        self._known = known

    def _accepted(self, sent: dict[str, Any], completion: Completion) -> None:
        """Say once what is not sent any more. A server that gives fewer answers than it was asked for is asked for one."""
        if (got := len(completion.answers)) < sent.get("n", 1) and self._each > 1:
            self._known = self._body.without("n", self._known)
            if got > 1:
                self._notice(
                    f"the server returned {got} of {sent['n']} answers. Each request asks for one from now on: "
                    f"use --n-per-request {got} to ask for as many"
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
        return await self._connection.complete(
            self._chat.messages(prompt),
            sent,
            prompt.every_spelling,
            names=lambda fault: self._body.named(fault, sent),
            proven=self._settled,
        )

    def _fields(self, known: Known, prompt: Prompt, place: _Place, count: int) -> dict[str, Any]:
        said = "".join(message["content"] for message in self._chat.messages(prompt)).encode()
        seed = stream_seed(self.settings.seed, tuple(said), *place)
        return self._body.build(known, seed=seed, count=count, limit=self.limit(prompt))


class _Drawing:
    """How far the answers to one prompt, in one wording, are."""

    def __init__(self, asked: Wanted) -> None:
        self.prompt, self.wanted, self.drawn = asked.prompt, asked.count, Answers(asked.have)
        self.answers: list[Answer] = []  # of this start
        self.unpriced = False  # whether the server is silent about tokens
        self._arrived, self._watch = asked.arrived, asked.watch
        self._fed = self._alive = 0

    @property
    def missing(self) -> int:
        return self.wanted - self.drawn.total()

    def places(self, each: int) -> Iterator[tuple[Self, _Place, int]]:
        """The requests that are missing, of so many answers each."""
        start = self.drawn.total()
        return ((self, (start, at), min(each, self.missing - at)) for at in range(0, self.missing, each))

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """A request."""
        self._alive += 1
        try:
            yield
        finally:
            self._alive -= 1

    def take(self, completion: Completion, count: int) -> None:
        """Hand over at most `count` answers."""
        answers = completion.answers[:count]
        self.answers += answers
        some = Answers()
        for answer in answers:
            some.add(answer.text, unfinished=answer.unfinished)
        self.drawn.update(some)
        self.pay(completion, some)
        self._watch(Standing(self.drawn, self.wanted, self._alive, self._fed))

    def pay(self, completion: Completion, some: Answers | None = None) -> None:
        """Count the tokens, also of answers that are thrown away."""
        self._fed += completion.tokens or 0
        self.unpriced |= completion.tokens is None
        self._arrived(some or Answers(), completion.tokens or 0)
