"""The body of a request to a server, field by field, and what is given up of it when the server refuses.

Servers have defaults that bend what they draw (top-k 40, a checkpoint's own temperature), so neutral values are sent too. A field at its neutral
value is given up after a refusal; one that the user set never is. Knows nothing of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusecli.sampling.refusals import Fault
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, did_you_mean

Spelling = tuple[str, Any]
"""A name and a value; all spellings of a field mean the same."""

Known = Mapping[str, int]
"""What a server is known to refuse: field -> the first of its spellings that is left. A new one replaces it, none is changed."""

_DEFAULT, _REPEATS, _SEVERAL = "default", "repeats", "several"
_MEANING = {
    _DEFAULT: "its own defaults apply and may bend the distribution",
    _REPEATS: "the same --seed does not repeat these answers",
    _SEVERAL: "each asks for one answer",
}
"""What it means that fields of a kind are not sent."""


@dataclass(frozen=True)
class Field:
    """A field of the body."""

    name: str
    spellings: tuple[Spelling | None, ...]  # in the order they are tried; None leaves the field out
    option: str = ""  # where the user sets it
    also: str = ""  # pattern of what servers call it besides
    kind: str = _DEFAULT

    @property
    def keys(self) -> set[str]:
        """Its names in a body."""
        return {spelling[0] for spelling in self.spellings if spelling}

    def spelling(self, known: Known) -> Spelling | None:
        """How it is sent now."""
        return self.spellings[known.get(self.name, 0)]

    def given_up(self, known: Known) -> bool:
        """Whether it was sent and is not any more."""
        return bool(known.get(self.name)) and self.spelling(known) is None

    def mentioned(self, text: str) -> bool:
        """Whether a text names it, in whatever spelling: `top_p`, `topP`, `top-p`."""
        own = r"(?<![\w\\'-])n(?![\w'-])" if self.name == "n" else rf"(?i:(?<![\w-]){self.name.replace('_', '[_ -]?')}(?![\w-]))"
        return re.search(own + (f"|(?i:{self.also})" if self.also else ""), text) is not None

    def next(self, known: Known, fault: Fault) -> int | None:
        """The spelling after one that was refused; None where there is none. Another name does not help against the value."""
        now = known.get(self.name, 0)
        for at in range(now + 1, len(self.spellings)):
            before, spelling = self.spellings[now], self.spellings[at]
            if spelling is None or before is None or (before[0] == spelling[0] and fault.about_value):
                return at
            if before[0] != spelling[0] and (not fault.about_value or spelling[0] in fault.words):
                return at
        return None


_SEARCH = (
    ("n",), ("top_k", "min_p", "repetition_penalty", "repeat_penalty"), ("seed",), ("frequency_penalty", "presence_penalty"), ("top_p",),
    ("temperature",),
)  # fmt: skip
"""What is given up, one after the other, when a refusal names nothing: first what servers know least."""

_ESSENTIAL = re.compile(r"(?<![\w-])(?:messages|model|prompt|contents)(?![\w-])")


class RequestBody:
    """All fields of the requests of one engine."""

    def __init__(
        self, server: str, settings: SamplingSettings, template_kwargs: Mapping[str, Any],
        omit: Sequence[str] = (), per_request: int | None = None,
    ) -> None:  # fmt: skip
        """Raises `InputError` for a name in `omit` that is no field, or of one that the user set."""
        self._server = server
        every = _fields(settings, template_kwargs)
        names = sorted(set().union(*({field.name} | field.keys for field in every)))
        for name in omit:
            if name not in names:
                raise InputError(f"--omit {name}: is no field of a request: {did_you_mean(name, names)}")
        if "n" in omit and (per_request or 1) > 1:
            raise InputError(f"--omit n: --n-per-request {per_request} needs it. Leave one of them out.")
        self.omitted = sorted(set(omit))
        self._fields = [_without(field, self.omitted) for field in every]

    def build(self, known: Known, *, seed: int, count: int, limit: int) -> dict[str, Any]:
        """All but the model and the messages, for `count` answers of at most `limit` tokens."""
        values = {"seed": seed, "n": count, "max_tokens": limit}
        sent = [
            (field, spelling)
            for field in self._fields
            if (spelling := field.spelling(known)) and not (field.name == "n" and count == 1)
        ]
        return {spelling[0]: values.get(field.name, spelling[1]) for field, spelling in sent}

    def sends(self, name: str, known: Known) -> bool:
        """Whether a field is sent."""
        return any(field.name == name and field.spelling(known) is not None for field in self._fields)

    def without(self, name: str, known: Known) -> Known:
        """What is known once a field is left out that may be."""
        return {**known, name: next(field.spellings.index(None) for field in self._fields if field.name == name)}

    def named(self, fault: Fault, sent: Mapping[str, Any]) -> int | None:
        """Which evidence, counted from the surest, names a field that was sent; None where none does."""
        return next((at for at, text in enumerate(fault.evidence) if self._mentioned(text, sent)), None)

    def learn(self, fault: Fault, sent: Mapping[str, Any], known: Known) -> Known | None:
        """What is known after a refusal; None where it names nothing. Raises `InputError` when it names what must stay."""
        stuck: dict[str, Field] = {}
        for sure, text in zip((True, False, False), fault.evidence, strict=True):
            mentioned = self._mentioned(text, sent)
            spellings = {field.name: spelling for field in mentioned if (spelling := field.next(known, fault)) is not None}
            if spellings:  # of a text only the last in the table, the least common one: it may name others in passing
                return {**known, **(spellings if sure else dict([*spellings.items()][-1:]))}
            stuck |= {field.name: field for field in mentioned}
        if stuck:
            raise InputError(self._stuck([field for field in self._fields if field.name in stuck], sent, fault))
        if any(_ESSENTIAL.search(text) for text in fault.evidence[:2]):
            raise self.refusal(fault)
        return None

    async def search(self, known: Known, works: Callable[[Known], Awaitable[bool]]) -> Known | None:
        """The least that must be given up so that a request works; None when nothing helps.

        Fields are given up group by group until it works; then each is put back that was given up in vain. The other name of the limit is
        tried last: a server that does not know it may ignore it.
        """
        for start in (known, self._last(("max_tokens",), known)):
            if start is not known and await works(start):
                return start
            if (found := await self._least(start, works)) is not None:
                return found
        return None

    async def _least(self, known: Known, works: Callable[[Known], Awaitable[bool]]) -> Known | None:
        now = known
        for group in _SEARCH:
            before, now = now, self._last(group, now)
            if now is not before and await works(now):
                break
        else:
            return None
        changed = [name for name in now if now[name] != known.get(name, 0)]
        for name in changed if len(changed) > 1 else ():
            back = {**now, name: known.get(name, 0)}
            if await works(back):
                now = back
        return now

    def _last(self, names: Container[str], known: Known) -> Known:
        """The last spelling of some fields; `known` itself where they are sent so already."""
        last = {
            field.name: len(field.spellings) - 1
            for field in self._fields
            if field.name in names and field.spelling(known) != field.spellings[-1]
        }
        return {**known, **last} if last else known

    def given_up(self, known: Known) -> list[str]:
        """Fields that are not sent because the server refuses them."""
        return [field.name for field in self._fields if field.given_up(known)]

    def meanings(self, names: Container[str]) -> Iterator[tuple[list[str], str]]:
        """What it means that fields are not sent: those of a kind, and the consequence."""
        for kind, meaning in _MEANING.items():
            if some := [field.name for field in self._fields if field.name in names and field.kind == kind]:
                yield some, meaning

    def refusal(self, fault: Fault) -> InputError:
        """For a refusal that nothing helps against."""
        return InputError(f"{self._server}: the server refuses the request: {fault.words}")

    def _mentioned(self, text: str, sent: Mapping[str, Any]) -> list[Field]:
        return [field for field in self._fields if not sent.keys().isdisjoint(field.keys) and field.mentioned(text)]

    def _stuck(self, fields: Sequence[Field], sent: Mapping[str, Any], fault: Fault) -> str:
        keys = [key for field in fields for key in field.keys if key in sent]
        values = listed([f"{key} = {sent[key]}" for key in keys])
        options = " or ".join(dict.fromkeys(field.option for field in fields))
        return f"{self._server}: the server refuses {values}: {fault.words.rstrip('.')}. Leave out or change {options}, or ask another server."


def _fields(settings: SamplingSettings, template_kwargs: Mapping[str, Any]) -> list[Field]:
    """Of common fields first. Values of seed, n and max_tokens are those of each request."""

    def neutral(name: str, value: Any, option: str, *spellings: Any) -> Field:
        return Field(
            name, (*((name, spelling) for spelling in spellings), None) if value in spellings else ((name, value),), option
        )

    stop, kwargs = list(settings.stop), dict(template_kwargs)
    keys = "|".join(map(re.escape, kwargs))
    return [
        Field("max_tokens", (("max_tokens", None), ("max_completion_tokens", None)), "--max-new-tokens",
              r"\bmax[_ -]?(?:completion|new|output)?[_ -]?tokens\b"),
        Field("stop", (("stop", stop),) if stop else (None,), "--stop", r"\bstop[_ -]?(?:sequence|word|string)s?\b"),
        Field("chat_template_kwargs", (("chat_template_kwargs", kwargs),) if kwargs else (None,), "chat_template_kwargs", keys),
        neutral("temperature", settings.temperature, "--temperature", 1.0),
        neutral("top_p", settings.top_p, "--top-p", 1.0),
        neutral("frequency_penalty", 0.0, "", 0.0),
        neutral("presence_penalty", 0.0, "", 0.0),
        Field("seed", (("seed", None), None), "--seed", kind=_REPEATS),
        neutral("top_k", settings.top_k or -1, "--top-k", -1, 0),  # vLLM and SGLang, then those to whom -1 is no number of tokens
        neutral("min_p", settings.min_p, "--min-p", 0.0),
        neutral("repetition_penalty", 1.0, "", 1.0),
        neutral("repeat_penalty", 1.0, "", 1.0),  # what llama.cpp, Ollama and LM Studio call it
        Field("n", (("n", None), None), "--n-per-request",
              r"\bn_cmpl\b|\bcandidate_?count\b|\bnum_return_sequences\b|\b(?:only (?:one|1|a single)|multiple|number of|more than one)"
              r" (?:completion|choice|candidate|response|generation|sequence)s?\b", _SEVERAL),
    ]  # fmt: skip


def _without(field: Field, omitted: Sequence[str]) -> Field:
    """A field without the spellings that the user does not want. Raises `InputError` when it has a value that must be sent."""
    spellings = tuple(spelling for spelling in field.spellings if spelling is None or spelling[0] not in omitted)
    if not spellings:
        names = listed([spelling[0] for spelling in field.spellings if spelling])
        raise InputError(f"--omit {names}: {field.option} needs it. Leave out one of them.")
    return Field(field.name, spellings, field.option, field.also, field.kind)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
