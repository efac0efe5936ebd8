"""Interpret a server's error: its message, the fields it names, and whether to retry.

Servers use various statuses and formats: JSON objects and lists, JSON within text, plain text, HTML. Independent of clients.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Verdict = Literal["refused", "busy", "forbidden"]

_MOST_WORDS = 300  # characters
_DEEPEST = 12  # nesting of JSON; deeper values are not messages

_BUSY_STATUSES = (408, 409, 425, 429, 529)
_ACCESS_STATUSES = (401, 402, 403, 404, 405, 407, 410)
_NO_SUCH_ADDRESS = (404, 405, 501)

_ECHOES = ("input", "ctx", "body", "request", "received", "url")
"""Keys whose values repeat the request."""
_SENTENCES = ("msg", "message", "error", "errors", "detail", "details", "description", "fieldViolations", "title", "reason",
              "status_msg", "raw", "metadata", "innererror", "base_resp")  # fmt: skip
_PLACES = ("param", "parameter", "field", "fields", "loc", "property", "argument")
_KINDS = ("type", "error_type", "code", "status")

_ADVICE = re.compile(
    r"(?:did you mean|expected one of|(?<!not )(?<!\w)(?:supported|valid|allowed|accepted|permitted|known|available)"
    r" (?:\w+ )?(?:param(?:eter)?s|arguments|fields|properties|keys|names|options)"
    r"|following (?:param(?:eter)?s|arguments|fields|properties|keys|options) are (?!not|un))[^.;\n]*",
    re.IGNORECASE,
)  # names valid fields, not the refused one
_QUOTED = re.compile(r"(['\"`\[])([\w.\-]+)(?:\1|\])")
_UNKNOWN = re.compile(
    r"un(?:known|recogni[sz]ed|supported|expected)|not (?:\w+ )?(?:support|permit|allow|recogni|implement)|n't support|extra(?:neous)?\b"
    r"|deprecated|cannot find|no such|invalid (?:param|arg|field|key|propert)|removed",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"must|should|too (?:large|small|high|low|big|long|many)|at (?:most|least)|greater|less|between|range|maxim|minim|exceed|\bonly\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(f"{_UNKNOWN.pattern}|only one|validation error|invalid (?:request|value)", re.IGNORECASE)
_OVERLOAD = re.compile(
    r"overload|temporar|try(?:ing)? again|retry|unavailable|capacity|time[ds]? ?out|rate limit|too many requests|loading|busy|starting",
    re.IGNORECASE,
)
_ABOUT_PARAMETERS = re.compile(r"param(?:eter)?s?\b|argument|field", re.IGNORECASE)
_BAD_REQUEST = re.compile(
    r"invalid[_ ]?(?:request|arg|param|input)|bad[_ ]?request|validation|unsupported|unprocessable", re.IGNORECASE
)
_UNPAID = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|insufficient (?:credit|balance|funds)", re.IGNORECASE
)


@dataclass(frozen=True)
class Fault:
    """A response without a completion."""

    status: int  # the HTTP status, or the one in the body; 0 if unknown
    body: Any  # parsed JSON, or text
    is_page: bool = False  # in HTML

    @cached_property
    def sentences(self) -> list[str]:
        """All messages, without duplicates."""
        return list(dict.fromkeys(filter(None, (" ".join(text.split()) for text in _sentences(self.body)))))

    @cached_property
    def words(self) -> str:
        """The server's message with the status, on one line."""
        if self.is_no_model_server:
            return f"status {self.status}: a web page, not the answer of a model server. Check --base-url (it usually ends in /v1)"
        said = "; ".join(self.sentences) or " ".join(json.dumps(self.body, ensure_ascii=False).split())
        said = said if len(said) <= _MOST_WORDS else f"{said[:_MOST_WORDS]}…"
        return f"status {self.status}: {said}" if self.status else said

    @cached_property
    def evidence(self) -> tuple[str, str, str]:
        """Texts that may name fields, most reliable first: fields in the structure, quoted words, the messages."""
        texts = [_ADVICE.sub(" ", text) for text in self.sentences]
        quoted = [found.group(2) for text in texts for found in _QUOTED.finditer(text)]
        return "\n".join(_places(self.body)), "\n".join(quoted), "\n".join(texts)

    @cached_property
    def about_value(self) -> bool:
        """Whether the value of a field is refused, not the field itself."""
        said = " ".join(self.sentences)
        return bool(_VALUE.search(said)) and not _UNKNOWN.search(said)

    @property
    def is_no_model_server(self) -> bool:
        """Whether an ordinary web server says that it does not have this address."""
        return self.is_page and self.status in _NO_SUCH_ADDRESS

    @property
    def unpaid(self) -> bool:
        """Whether the account has no credit, so that waiting does not help despite the status."""
        return bool(_UNPAID.search(f"{' '.join(self.sentences)} {' '.join(_values(self.body, _KINDS))}"))

    def verdict(self, named: int | None, *, proven: bool = False) -> Verdict:
        """What to do: "refused": change the request; "busy": retry later; "forbidden": stop.

        `named`: index of the evidence that names a field, or None; `proven`: whether requests of this form have worked before.
        """
        said = " ".join(self.sentences)
        if self.status in _BUSY_STATUSES:
            return "busy"
        if self.is_no_model_server and named is None:
            return "forbidden"
        if self.status in _ACCESS_STATUSES:
            of_fields = self.status != 401 and (named is not None or _ABOUT_PARAMETERS.search(said))
            return "refused" if of_fields else "forbidden"
        if 400 <= self.status < 500 or self.status == 501 or named == 0:
            return "refused"
        if named is None and proven:
            return "busy"
        refusal, overload = bool(_REFUSAL.search(said)), bool(_OVERLOAD.search(said))
        return "refused" if (refusal or not overload if named is not None else refusal and not overload) else "busy"


def read_fault(status: int, text: str) -> Fault:
    """Parse an HTTP response. If its status is 200, the status is in the body."""
    body = parsed(text)
    return Fault(status if status >= 400 else _stated_status(body), body, is_page(text))


def fault_within(answer: Any) -> Fault | None:
    """The error in a response with status 200, beside or instead of choices; None if there is none."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    choices = answer.get("choices")
    parts = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    if not parts and any(answer.get(name) for name in _SENTENCES):
        return Fault(_stated_status(answer), answer)
    errors = [answer.get("error"), *(choice.get("error") for choice in parts)]
    errors += [f"finish_reason {choice['finish_reason']}" for choice in parts if choice.get("finish_reason") == "error"]
    faults = [Fault(_stated_status(error), error) for error in errors if error]
    return next((fault for fault in faults if fault.sentences), None)


def is_page(text: str) -> bool:
    """Whether a response is HTML."""
    return text.lstrip().startswith("<")


def parsed(text: str) -> Any:
    """JSON as a value, HTML without tags, other text unchanged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if not is_page(text):
            return text
        return html.unescape(re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE))


def _stated_status(body: Any) -> int:
    """The HTTP status in the body; 400 if its error type is that of a bad request."""
    kinds = [*_values(body, _KINDS)]
    numbers = [int(kind) for kind in kinds if kind.isdecimal() and len(kind) == 3 and 400 <= int(kind) < 600]
    return numbers[0] if numbers else 400 if any(_BAD_REQUEST.search(kind) for kind in kinds) else 0


def _sentences(value: Any, depth: int = 0) -> Iterator[str]:
    """Messages in a body, including JSON within text."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        inner = parsed(value) if value.lstrip()[:1] in ("{", "[") else value
        if isinstance(inner, dict | list):
            yield from _sentences(inner, depth + 1)
        elif value.strip():
            yield value
    elif isinstance(value, list):
        for one in value:
            yield from _sentences(one, depth + 1)
    elif isinstance(value, dict):
        known = [name for name in _SENTENCES if value.get(name)]
        place = f"{'.'.join(_path(value['loc']))}: " if isinstance(value.get("loc"), list) else ""
        for name in known or [name for name in value if name not in _ECHOES and not _is_kind(name)]:
            for text in _sentences(value[name], depth + 1):
                yield text if known and not place else f"{place or f'{name}: '}{text}"


def _is_kind(name: str) -> bool:
    return name in _KINDS or name in _PLACES or name.endswith("id") or name == "object"


def _places(value: Any, depth: int = 0) -> Iterator[str]:
    """Names of fields from the structure of a body."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        inner = parsed(value)
        if isinstance(inner, dict | list):
            yield from _places(inner, depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _places(one, depth + 1)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in _PLACES and isinstance(inner, str | list):
                yield ".".join(_path(inner if isinstance(inner, list) else [inner]))
            elif name not in _ECHOES:
                if name == "errors" and isinstance(inner, dict):  # field -> error
                    yield from inner
                yield from _places(inner, depth + 1)


def _path(loc: list[Any]) -> list[str]:
    return [str(part) for part in loc if part != "body" and isinstance(part, str | int)]


def _values(value: Any, names: tuple[str, ...], depth: int = 0) -> Iterator[str]:
    """The values of some keys, as text."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for one in value:
            yield from _values(one, names, depth + 1)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in names and isinstance(inner, str | int):
                yield str(inner)
            elif isinstance(inner, dict | list) and name not in _ECHOES:
                yield from _values(inner, names, depth + 1)
