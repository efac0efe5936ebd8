"""A Modelfile for Ollama: the GGUF file, sampling that leaves the distribution unchanged, stop texts, and the chat template.

Ollama does not run Jinja templates. Its own are in Go's language, so the frame of a conversation is found by rendering probes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Message = Mapping[str, str]
Render = Callable[[Sequence[Message]], str | None]
"""A conversation as the text before the next answer; None if the template refuses it."""

NEUTRAL: dict[str, float | int] = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1}
"""Sampling settings that leave the distribution unchanged."""

_SYSTEM, _USER, _REPLY, _NEXT = "some4system", "some4request", "some4reply", "some4next"


def modelfile(file: str, template: str, stops: Sequence[str]) -> str:
    """The text of a Modelfile next to the GGUF `file`."""
    lines = ["# Written by diffuse. ollama create NAME -f Modelfile", f"FROM ./{file}", f'TEMPLATE """{template}"""']
    lines += [f"PARAMETER {name} {value}" for name, value in NEUTRAL.items()]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A value in quotes. Ollama takes what is between them as it is, line breaks and backslashes too."""
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def go_template(render: Render, begins: str) -> str:
    """The chat template in Go's language. `begins` is the BOS token if Ollama adds it.

    Conversations with several turns and system prompts are included if all probes can be explained. Otherwise the template is for one request.

    >>> frame = "<{role}>{content}</>"
    >>> print(go_template(lambda messages: "".join(frame.format(**m) for m in messages) + "<bot>", ""))
    {{- range .Messages }}
    {{- if eq .Role "system" }}{{ "<system>" }}{{ .Content }}{{ "</>" }}
    {{- else if eq .Role "user" }}{{ "<user>" }}{{ .Content }}{{ "</>" }}
    {{- else if eq .Role "assistant" }}{{ "<assistant>" }}{{ .Content }}{{ "</>" }}
    {{- end }}
    {{- end }}{{ "<bot>" }}
    """

    def shown(*messages: Message) -> str:
        text = render(messages)
        return "" if text is None else text.removeprefix(begins)

    lead, _, tail = shown(_said_by("user", _USER)).partition(_USER)
    frame = _frame(lead, tail, shown(*_TURNS), shown(_said_by("system", _SYSTEM), _TURNS[0]))
    tried = [_TURNS[:1], _TURNS, [*_TURNS, _said_by("assistant", "x"), _said_by("user", "y")]]
    if frame is not None and frame.system is not None:
        tried += [[_said_by("system", "z"), *some] for some in tried]
    if frame is None or any(frame.shown(some) != shown(*some) for some in tried):
        return f"{_literal(lead)}{{{{ .Prompt }}}}{_literal(tail)}"
    return frame.in_go


def _said_by(role: str, content: str) -> Message:
    return {"role": role, "content": content}


_TURNS = [_said_by("user", _USER), _said_by("assistant", _REPLY), _said_by("user", _NEXT)]


@dataclass(frozen=True)
class _Frame:
    """What a template puts around the contents of a conversation."""

    default: str  # begins a conversation without a system prompt
    system: tuple[str, str] | None  # before and after; None if the template does not take a system prompt
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str  # ends the text before an answer

    def shown(self, messages: Sequence[Message]) -> str:
        """A conversation, as Ollama renders `in_go`."""
        around = {"system": self.system or ("", ""), "user": self.user, "assistant": self.assistant}
        turns = [around[m["role"]][0] + m["content"] + around[m["role"]][1] for m in messages]
        return ("" if messages[0]["role"] == "system" else self.default) + "".join(turns) + self.prompt

    @property
    def in_go(self) -> str:
        """The frame as a template in Go's language."""
        roles = [("system", self.system)] if self.system is not None else []
        roles += [("user", self.user), ("assistant", self.assistant)]
        turns = [
            f'if eq .Role "{role}" }}}}{_literal(around[0])}{{{{ .Content }}}}{_literal(around[1])}'
            for role, around in roles
            if around
        ]
        first = f"{{{{- if not .System }}}}{_literal(self.default)}{{{{- end }}}}\n" if self.default else ""
        choice = "\n{{- else ".join(turns)
        return f"{first}{{{{- range .Messages }}}}\n{{{{- {choice}\n{{{{- end }}}}\n{{{{- end }}}}{_literal(self.prompt)}"


def _frame(lead: str, tail: str, several: str, system: str) -> _Frame | None:
    """The frame, from a request between `lead` and `tail`, a conversation of several turns, and one with a system prompt.

    A later request begins like the first one, after what every conversation begins with. None if the probes are not there once.
    """
    if not all(several.count(probe) == 1 for probe in (_USER, _REPLY, _NEXT)):
        return None
    before_reply, _, after = several.partition(_USER)[2].partition(_REPLY)
    before_next = after.partition(_NEXT)[0]
    fitting = [start for start in range(len(before_next)) if lead.endswith(before_next[start:])]
    if not fitting:
        return None
    start = max(fitting, key=lambda place: _shared(before_next[place:], lead))  # turns of all roles begin alike
    shared = len(before_next) - start
    default, opening = lead[: len(lead) - shared], lead[len(lead) - shared :]
    after_reply = before_next[: len(before_next) - shared]
    common = _shared(tail, before_reply)
    if after_reply and tail[:common].startswith(after_reply):
        common = len(after_reply)  # both turns end in the same way
    before_system, _, after_system = system.partition(_SYSTEM)
    followed = after_system.removesuffix(opening + _USER + tail)
    known = system.count(_SYSTEM) == 1 and followed != after_system
    return _Frame(
        default, (before_system, followed) if known else None, (opening, tail[:common]), (before_reply[common:], after_reply),
        tail[common:],
    )  # fmt: skip


def _shared(first: str, second: str) -> int:
    """The number of characters with which both texts begin."""
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def _literal(text: str) -> str:
    """A text as a string of Go, so that no white space is trimmed."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
