"""An engine that asks another engine by a prompt-only method, and passes on the options that its replies name.

- A reply that does not parse is passed on as its text, which is off target.
- Each random number of ours depends on the seed, the request and the position of the reply among those to the prompt. A sampling that
  resumes continues at the first position without a reply, so no number is used twice.
- `seeded` passes replies on in the order of their positions. `rejection` passes them on after each round: within a round, those to the first
  options arrive first, and an interruption would keep too many of them.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching, target_finder
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.prompts.stated_options import StatedOptions
from diffusecli.sampling.ask_methods import ACCEPT, METHODS, Asked, Method
from diffusecli.sampling.engine import Engine, JointEngine, Wanted
from diffusecli.sampling.replies import Stated
from diffusecli.sampling.settings import SamplingSettings, Standing

MOST_ROUNDS = 50
"""Proposals per answer of `rejection`; an answer whose proposals were all rejected counts as one that does not parse."""
_TOGETHER = 256  # requests of `seeded` passed to the engine at once
_ANSWERS_TOGETHER = 1000  # of `rejection`: an interruption loses at most a round of so many


def with_limit(settings: SamplingSettings, method: str, prompts: Sequence[Prompt]) -> SamplingSettings:
    """The settings with the method's default limit of tokens, unless the user set one.

    The longest option is added in bytes, because a server does not show its tokens.
    """
    if not settings.whole_targets:
        return settings
    longest = max((len(name.encode()) for prompt in prompts for name in StatedOptions(prompt).names), default=0)
    return replace(settings, max_new_tokens=METHODS[method].tokens + longest, whole_targets=False)


class AskingEngine:
    """Asks an engine by a method. Prompts must be statable (`stated_options.require_statable`)."""

    def __init__(self, engine: Engine, method: Method, seed: int) -> None:
        """`seed`: of the random numbers that are not the engine's own."""
        self._engine, self._method, self._seed = engine, method, seed

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`; with the method and its version."""
        return {**self._engine.about, "ask": {"method": self._method.name, "version": self._method.version}}

    def limit(self, prompt: Prompt) -> int:
        """See `Engine`."""
        question = _Question(prompt, self._method, self._seed)
        return self._engine.limit(question.request(seed=question.seed_of(0), proposal=question.options.stated[0]))

    def draw(self, wanted: Wanted) -> None:
        """See `Engine`."""
        self.draw_all([wanted])

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """See `JointEngine`."""
        drawings = [_Drawing(one, _Question(one.prompt, self._method, self._seed)) for one in wanted]
        if self._method.proposes:
            for drawing in drawings:
                self._propose(drawing)
        elif self._method.seeded:
            requests = (request for drawing in drawings for request in drawing.seeded_requests())
            while some := list(islice(requests, _TOGETHER)):
                self._draw(some)
        else:
            self._draw([drawing.shared_request() for drawing in drawings])

    def _draw(self, requests: Sequence[Wanted]) -> None:
        if isinstance(self._engine, JointEngine):
            self._engine.draw_all(requests)
        else:
            for request in requests:
                self._engine.draw(request)

    def _propose(self, drawing: _Drawing) -> None:
        """Propose options until each answer is accepted, does not parse, or was rejected in all rounds."""
        while drawing.missing:
            start, left = drawing.position, min(drawing.missing, _ANSWERS_TOGETHER)
            for number in range(MOST_ROUNDS):
                of_round = _Round(drawing, start, number, left)
                self._draw(of_round.requests())
                rejected = of_round.close(last=number == MOST_ROUNDS - 1)
                if not (left := rejected):
                    break


class _Question:
    """A prompt asked by a method: its requests, and what a reply answers."""

    def __init__(self, prompt: Prompt, method: Method, seed: int) -> None:
        self.options, self._prompt, self._method, self._seed = StatedOptions(prompt), prompt, method, seed
        self._is_target = target_finder(prompt, Matching())

    def request(self, *, seed: str = "", proposal: int = -1) -> Prompt:
        """The request as a prompt without targets, under the same alias."""
        text = self._method.text(Asked(self._prompt.question, self.options, seed, proposal))
        said: dict[str, Any] = {"request": text}
        if self._prompt.messages:
            said = {"messages": (*self._prompt.messages[:-1], Message(role="user", content=text))}
        plain = {"targets": (), "weights": None, "response": ("",), "eos": True, "template": None, "held_out_requests": ()}
        return self._prompt.model_copy(update={**plain, **said})

    @property
    def alias(self) -> str:
        """The alias of the prompt, and of all its requests."""
        return self._prompt.alias

    def read(self, replies: Answers) -> Iterator[tuple[str, bool, int, Stated | None]]:
        """Each different reply, whether it was cut, how often it came, and what it answers (None if it does not parse)."""
        for reply, count in sorted(replies.items()):
            unfinished = replies.unfinished[reply] if isinstance(replies, Answers) else 0
            for cut, some in ((False, count - unfinished), (True, unfinished)):
                if some:
                    yield reply, cut, some, self._method.answers(self.options, reply, cut)

    def unparsed(self, reply: str) -> str:
        """The text that is recorded for a reply that does not parse: never a target."""
        return reply if self._is_target(reply) is None else f"(no answer) {reply}"

    def seed_of(self, position: int) -> str:
        """The random string of a reply."""
        return self._hash("seed", position).hex()[:16]

    def uniform(self, *place: Any) -> float:
        """A random number in [0, 1) that belongs to this place."""
        return (int.from_bytes(self._hash(*place)[:8], "little") >> 11) / 2**53

    def _hash(self, *place: Any) -> bytes:
        name = repr((self._seed, self._method.name, self._prompt.digest, *place)).encode()
        return hashlib.blake2b(name, digest_size=16).digest()


class _Drawing:
    """The answers to one prompt, passed on as options."""

    def __init__(self, wanted: Wanted, question: _Question) -> None:
        self.question, self._wanted, self._answers, self._fed = question, wanted, Answers(wanted.have), 0
        self._seen: Counter[str] = Counter()  # replies with several answers
        self._start = self.position

    @property
    def position(self) -> int:
        """The number of answers so far."""
        return self._answers.total()

    @property
    def missing(self) -> int:
        """The number of answers that have not arrived."""
        return self._wanted.count - self.position

    def deliver(self, answers: Answers, tokens: int) -> None:
        """Pass on answers."""
        self._answers.update(answers)
        self._fed += tokens
        self._wanted.arrived(answers, tokens)

    def watch(self, now: Standing, *, elsewhere: int = 0, waiting: int = 0, found: int = 0) -> None:
        """Show the progress of the engine with the answers as options.

        `found`: answers that are not passed on yet; `waiting`: tokens of their replies, `elsewhere` those of other requests.
        """
        drawn, fed = self.position - self._start + found, elsewhere + now.tokens_fed
        each = (self._fed + waiting) / (drawn or 1)  # an answer costs as much as those before
        left = max(0.0, each * (self.missing - found) - (fed - waiting)) if drawn else math.nan
        self._wanted.watch(Standing(self._answers, self._wanted.count, now.rows, self._fed + fed, lambda: left))

    def shared_request(self) -> Wanted:
        """One request for all replies."""

        def arrived(replies: Answers, tokens: int) -> None:
            self.deliver(self._options_of(replies), tokens)

        def watch(now: Standing) -> None:
            self._wanted.watch(replace(now, answers=self._answers))

        return Wanted(self.question.request(), self._wanted.count, self._wanted.have, arrived, watch, pool=self._wanted.pool)

    def seeded_requests(self) -> Iterator[Wanted]:
        """A request per reply. Replies wait for those at earlier positions."""
        waiting: dict[int, tuple[Answers, int]] = {}
        following = self.position

        def take(position: int, replies: Answers, tokens: int) -> None:
            nonlocal following
            before, paid = waiting.get(position, (Answers(), 0))
            before.update(self._options_of(replies))
            waiting[position] = before, paid + tokens
            ready, fed = Answers(), 0
            while following in waiting and waiting[following][0]:
                answers, paid = waiting.pop(following)
                ready.update(answers)
                fed, following = fed + paid, following + 1
            if ready:
                self.deliver(ready, fed)

        for position in range(self.position, self._wanted.count):
            yield Wanted(
                self.question.request(seed=self.question.seed_of(position)), 1, Answers(),
                lambda replies, tokens, position=position: take(position, replies, tokens), self.watch,  # type: ignore[misc]
                pool=self.question.alias,
            )  # fmt: skip

    def _options_of(self, replies: Answers) -> Answers:
        """The options that replies name; one of several by its stated probability."""
        found = Answers()
        for reply, cut, count, stated in self.question.read(replies):
            for option, times in self._drawn(reply, stated, count):
                if option is None:
                    found.add(self.question.unparsed(reply), times, unfinished=cut and stated is None)
                else:
                    found.add(self.question.options.recorded(option), times)
        return found

    def _drawn(self, reply: str, stated: Stated | None, count: int) -> Iterator[tuple[int | None, int]]:
        """Options drawn for `count` replies of the same text, with their numbers; None for no option."""
        if stated is None or len(stated) == 1:
            yield next(iter(stated)) if stated else None, count
            return
        first = self._seen[reply]
        self._seen[reply] += count
        numbers = (self.question.uniform("draw", self._start, reply, place) for place in range(first, first + count))
        yield from Counter(_chosen(stated, number) for number in numbers).items()


class _Round:
    """One round of proposals to several answers."""

    def __init__(self, drawing: _Drawing, start: int, number: int, size: int) -> None:
        self._drawing, self._question, self._stream = drawing, drawing.question, 1 + start * MOST_ROUNDS + number
        self._found, self._rejected, self._tokens = Answers(), Answers(), Counter[int]()  # tokens of each proposed option
        stated = self._question.options.stated
        self._proposals = Counter(
            stated[int(self._question.uniform("proposal", start, number, place) * len(stated))] for place in range(size)
        )

    def requests(self) -> list[Wanted]:
        """A request per proposed option, for as many replies as it was proposed."""
        return [
            Wanted(
                self._question.request(proposal=option), count, Answers(),
                lambda replies, tokens, option=option: self._take(option, replies, tokens),  # type: ignore[misc]
                lambda now, option=option: self._watch(option, now), self._stream,  # type: ignore[misc]
                self._question.alias,
            )
            for option, count in sorted(self._proposals.items())
        ]  # fmt: skip

    def _watch(self, option: int, now: Standing) -> None:
        waiting = self._tokens.total()
        self._drawing.watch(now, elsewhere=waiting - self._tokens[option], waiting=waiting, found=self._found.total())

    def close(self, *, last: bool) -> int:
        """Pass on what was accepted or does not parse; after the last round also the rejections. Returns the number left."""
        if last:
            self._found.update(self._rejected)
            self._rejected = Answers()
        self._drawing.deliver(self._found, self._tokens.total())
        return self._rejected.total()

    def _take(self, option: int, replies: Answers, tokens: int) -> None:
        self._tokens[option] += tokens
        for reply, cut, count, stated in self._question.read(replies):
            if stated is None:
                self._found.add(self._question.unparsed(reply), count, unfinished=cut)
            elif ACCEPT in stated:
                self._found.add(self._question.options.recorded(option), count)
            else:
                self._rejected.add(self._question.unparsed(reply), count)


def _chosen(stated: Stated, number: float) -> int | None:
    """The option at this share of the total probability."""
    total = 0.0
    for option, share in stated.items():
        total += share
        if number < total:
            return option
    return next(reversed(list(stated)))
