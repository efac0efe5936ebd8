"""The fields of a request to a server, and which fields are dropped when the server refuses.

Servers have defaults that change the distribution (top-k 40, a checkpoint's own temperature), so neutral values are sent explicitly. After a
refusal, fields with a neutral value are dropped; fields that the user set are not. Independent of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusecli.sampling.refusals import Fault
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, did_you_mean, sentence

Spelling = tuple[str, Any]
"""A name and a value. All spellings of a field have the same meaning."""

Known = Mapping[str, int]
"""What a server refuses: field -> index of the first spelling that is left. Never changed in place, only replaced."""

_DEFAULT, _REPEATS, _SEVERAL = "default", "repeats", "several"
_MEANING = {
    _DEFAULT: "its own defaults apply and may change the distribution",
    _REPEATS: "the same --seed does not repeat these answers",
    _SEVERAL: "each request asks for one answer",
}
"""The consequence of dropping fields, by kind."""


@dataclass(frozen=True)
class Field:
    """A field of the body."""

    name: str
    spellings: tuple[Spelling | None, ...]  # in the order they are tried; None leaves the field out
    option: str = ""  # the option that sets it
    also: str = ""  # pattern of other names in servers' messages
    kind: str = _DEFAULT

    @property
    def keys(self) -> set[str]:
        """Its names in a body."""
        return {spelling[0] for spelling in self.spellings if spelling}

    def spelling(self, known: Known) -> Spelling | None:
        """The spelling that is sent now."""
        return self.spellings[known.get(self.name, 0)]

    def given_up(self, known: Known) -> bool:
        """Whether it is no longer sent."""
        return bool(known.get(self.name)) and self.spelling(known) is None

    def mentioned(self, text: str) -> bool:
        """Whether a text names it, in any spelling: `top_p`, `topP`, `top-p`."""
        own = r"(?<![\w\\'-])n(?![\w'-])" if self.name == "n" else rf"(?i:(?<![\w-]){self.name.replace('_', '[_ -]?')}(?![\w-]))"
        return re.search(own + (f"|(?i:{self.also})" if self.also else ""), text) is not None

    def next(self, known: Known, fault: Fault) -> int | None:
        """The next spelling after a refused one, or None. Another name does not help if the value is refused."""
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
"""The order in which fields are dropped if a refusal names none: rarely supported fields first."""

_ESSENTIAL = re.compile(r"(?<![\w-])(?:messages|model|prompt|contents)(?![\w-])")


_BOUND = re.compile(
    r"""(?i)(?<![\w'-])['"`]?n['"`]?(?![\w'=-])[^.;,]{0,60}?(?:<=|at most|up to|max(?:imum)?(?: value| number)?(?: is| of|:)?|between 1 and)\s*(\d+)"""
)
"""How servers state the largest `n`: the field first, then the bound in the same clause."""


def most_answers(fault: Fault, asked: int) -> int | None:
    """The largest `n` that a server states when it refuses a larger one; None if it states none.

    >>> most_answers(Fault(400, "Field 'n': Value must be between 1 <= value <= 4, but got 32"), 32)
    4
    >>> most_answers(Fault(400, "temperature must be <= 2 when n > 1"), 32), most_answers(Fault(400, "max_tokens must be at most 16 (n=32)"), 32)
    (None, None)
    """
    return next((int(found) for found in _BOUND.findall(fault.words) if 1 < int(found) < asked), None)


class RequestBody:
    """The fields of an engine's requests."""

    def __init__(
        self, server: str, settings: SamplingSettings, template_kwargs: Mapping[str, Any],
        omit: Sequence[str] = (), per_request: int | None = None,
    ) -> None:  # fmt: skip
        """Raises `InputError` for a name in `omit` that is not a field, or that the user set."""
        self._server = server
        every = _fields(settings, template_kwargs)
        names = sorted(set().union(*({field.name} | field.keys for field in every)))
        for name in omit:
            if name not in names:
                raise InputError(f"--omit {name}: not a field of a request. {sentence(did_you_mean(name, names))}")
        if "n" in omit and (per_request or 1) > 1:
            raise InputError(f"--omit n: --n-per-request {per_request} needs it. Remove one of the two options.")
        self.omitted = sorted(set(omit))
        self._fields = [_without(field, self.omitted) for field in every]

    def build(self, known: Known, *, seed: int, count: int, limit: int) -> dict[str, Any]:
        """All fields except model and messages, for `count` answers of at most `limit` tokens."""
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
        """`known` with a field dropped that may be dropped."""
        return {**known, name: next(field.spellings.index(None) for field in self._fields if field.name == name)}

    def named(self, fault: Fault, sent: Mapping[str, Any]) -> int | None:
        """Index of the first evidence that names a field of the request, or None."""
        return next((at for at, text in enumerate(fault.evidence) if self._mentioned(text, sent)), None)

    def learn(self, fault: Fault, sent: Mapping[str, Any], known: Known) -> Known | None:
        """`known` after a refusal; None if it names no field. Raises `InputError` when it names a field that must stay."""
        stuck: dict[str, Field] = {}
        for sure, text in zip((True, False, False), fault.evidence, strict=True):
            mentioned = self._mentioned(text, sent)
            spellings = {field.name: spelling for field in mentioned if (spelling := field.next(known, fault)) is not None}
            if spellings:  # from free text only the last (rarest) field: it may mention others in passing
                return {**known, **(spellings if sure else dict([*spellings.items()][-1:]))}
            stuck |= {field.name: field for field in mentioned}
        if stuck:
            raise InputError(self._stuck([field for field in self._fields if field.name in stuck], sent, fault))
        if any(_ESSENTIAL.search(text) for text in fault.evidence[:2]):
            raise self.refusal(fault)
        return None

    async def search(self, known: Known, works: Callable[[Known], Awaitable[bool]]) -> Known | None:
        """The fewest fields to drop so that a request works; None when nothing helps.

        Fields are dropped group by group until a request works; then fields that did not matter are restored. The other name of the token
        limit is tried last, because a server that does not know it may ignore it.
        """
        for start in (known, self._last(("max_tokens",), known)):
            if start is not known and await works(start):
                return start
            if (found := await self._fewest(start, works)) is not None:
                return found
        return None

    async def _fewest(self, known: Known, works: Callable[[Known], Awaitable[bool]]) -> Known | None:
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
        """`known` with some fields at their last spelling; `known` itself if they already are."""
        last = {
            field.name: len(field.spellings) - 1
            for field in self._fields
            if field.name in names and field.spelling(known) != field.spellings[-1]
        }
        return {**known, **last} if last else known

    def given_up(self, known: Known) -> list[str]:
        """Fields that are dropped because the server refuses them."""
        return [field.name for field in self._fields if field.given_up(known)]

    def meanings(self, names: Container[str]) -> Iterator[tuple[list[str], str]]:
        """Dropped fields by kind, with the consequence."""
        for kind, meaning in _MEANING.items():
            if some := [field.name for field in self._fields if field.name in names and field.kind == kind]:
                yield some, meaning

    def refusal(self, fault: Fault) -> InputError:
        """The error for a refusal without a workaround."""
        return InputError(f"{self._server}: the server refuses the request: {fault.words}")

    def _mentioned(self, text: str, sent: Mapping[str, Any]) -> list[Field]:
        return [field for field in self._fields if not sent.keys().isdisjoint(field.keys) and field.mentioned(text)]

    def _stuck(self, fields: Sequence[Field], sent: Mapping[str, Any], fault: Fault) -> str:
        keys = [key for field in fields for key in field.keys if key in sent]
        values = listed([f"{key} = {sent[key]}" for key in keys])
        options = " or ".join(dict.fromkeys(field.option for field in fields))
        return f"{self._server}: the server refuses {values}: {fault.words.rstrip('.')}. Remove or change {options}, or use another server."


def _fields(settings: SamplingSettings, template_kwargs: Mapping[str, Any]) -> list[Field]:
    """All fields, common ones first. The values of seed, n and max_tokens are set per request."""

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
        neutral("top_k", settings.top_k or -1, "--top-k", -1, 0),  # -1 for vLLM and SGLang, 0 for servers that refuse -1
        neutral("min_p", settings.min_p, "--min-p", 0.0),
        neutral("repetition_penalty", 1.0, "", 1.0),
        neutral("repeat_penalty", 1.0, "", 1.0),  # its name in llama.cpp, Ollama and LM Studio
        Field("n", (("n", None), None), "--n-per-request",
              r"\bn_cmpl\b|\bcandidate_?count\b|\bnum_return_sequences\b|\b(?:only (?:one|1|a single)|multiple|number of|more than one)"
              r" (?:completion|choice|candidate|response|generation|sequence)s?\b", _SEVERAL),
    ]  # fmt: skip


def _without(field: Field, omitted: Sequence[str]) -> Field:
    """A field without the omitted spellings. Raises `InputError` when its value must be sent."""
    spellings = tuple(spelling for spelling in field.spellings if spelling is None or spelling[0] not in omitted)
    if not spellings:
        names = listed([spelling[0] for spelling in field.spellings if spelling])
        raise InputError(f"--omit {names}: {field.option} needs it. Remove one of the two options.")
    return Field(field.name, spellings, field.option, field.also, field.kind)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
