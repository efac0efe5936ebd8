"""What surrounds a request in life: system texts, earlier turns, greetings, and how people type.

A prompt in a context is a prompt with the same targets. `Contexts.around` draws one for training, another at each visit;
`Contexts.held_out` are fixed ones of texts that are never trained, to measure. The texts are in `context_texts/`, one a line.
Knows prompts as text; when a prompt is visited is the loop's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from random import Random
from typing import Any

from diffusecli.prompts.config import Vary
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.prompts.text_changes import Change, blank_around, drawn, line_breaks, lower_case, small_first, typed, upper_case
from diffusecli.prompts.wording_bank import lines_of
from diffusecli.system.errors import shortened

Turn = tuple[str, str]
"""What the user says, and what the assistant answers."""

_SHARES = {"system": 0.4, "turns": 0.3, "greetings": 0.4, "typing": 0.4}
"""How often each kind of change is part of a context that is not plain: one or two of them in four of five."""
_BUILT_IN = 0.3  # share of built-in turns where there are others
_NAME_LENGTH = 36


@dataclass(frozen=True)
class Context:
    """What surrounds one request. Nothing: the request as it is."""

    system: str | None = None
    opening: str = ""
    ending: str = ""
    turns: tuple[Turn, ...] = ()
    changes: tuple[Change, ...] = ()  # of the user's text, one after the other

    def around(self, prompt: Prompt) -> Prompt:
        """The prompt in this context; a system text and earlier turns of its own are kept."""
        text = _closed(_opened(prompt.question, self.opening, prompt.targets), self.ending)
        for change in self.changes:
            changed = change(text, prompt.targets)
            text = changed if changed.strip() else text  # a request of a full stop alone is nothing without it
        fields: dict[str, Any] = {} if self.system is None or prompt.own_system is not None else {"system": self.system}
        if before := prompt.messages[:-1] or _messages(self.turns if not prompt.messages else ()):
            fields |= {"messages": (*before, Message(role="user", content=text)), "request": ""}
        elif prompt.messages:
            fields["messages"] = (Message(role="user", content=text),)
        else:
            fields["request"] = text
        return prompt.model_copy(update=fields)


@dataclass(frozen=True)
class Contexts:
    """Contexts for prompts with one request or with messages; see `Prompt.wordings` for those with several."""

    vary: Vary
    turns: Sequence[Turn] = field(default=(), repr=False)  # instructions with the base model's own answers
    own_system: bool = False  # whether the config has a system text, which no other takes the place of

    def around(self, prompt: Prompt, *key: object) -> Prompt:
        """The prompt in a context drawn at random; the same for the same prompt and key, on every machine.

        At a share `vary.plain` of the keys it is the prompt itself. A prompt with a system text of its own keeps it, as the config's is kept;
        one with messages of its own gets no other system text and no earlier turns.
        """
        rng = Random(repr((prompt.digest, *key)))
        kinds = self._kinds(prompt)
        if rng.random() < self.vary.plain or not kinds:
            return prompt
        chosen = [kind for kind in kinds if rng.random() < _SHARES[kind]] or [drawn(rng, kinds)]
        opening, ending = _greeting(rng, prompt.question) if "greetings" in chosen else ("", "")
        return Context(
            system=drawn(rng, self._systems) if "system" in chosen else None,
            opening=opening,
            ending=ending,
            turns=self._earlier(rng) if "turns" in chosen else (),
            changes=(partial(typed, rng),) if "typing" in chosen else (),
        ).around(prompt)

    def held_out(self, prompt: Prompt) -> tuple[tuple[str, Prompt], ...]:
        """The prompt in each context that is only measured, with its name: the same ones for every prompt, whatever `vary` trains.

        Left out are those that a prompt cannot have: other system texts and turns before messages of its own, or case where a
        request has none.
        """
        placed = [(name, context.around(prompt)) for name, context in _held_out_contexts() if self._fits(context, prompt)]
        return tuple((name, other) for name, other in placed if (other.turns, other.system) != (prompt.turns, prompt.system))

    def _kinds(self, prompt: Prompt) -> list[str]:
        fixed = {"turns"} if prompt.messages else set()
        fixed |= {"system"} if self._has_system(prompt) or prompt.messages else set()
        return [kind for kind in _SHARES if getattr(self.vary, kind) and kind not in fixed]

    def _has_system(self, prompt: Prompt) -> bool:
        return self.own_system or prompt.own_system is not None

    def _fits(self, context: Context, prompt: Prompt) -> bool:
        """Whether a prompt can have all of a context."""
        system = context.system is None or not (self._has_system(prompt) or prompt.messages)
        return system and not (context.turns and prompt.messages)

    @property
    def _systems(self) -> Sequence[str]:
        return texts("system") if isinstance(self.vary.system, bool) else self.vary.system

    @cached_property
    def _given(self) -> list[Turn]:
        return [(asked, answer) for asked, answer in self.turns if asked.strip() and answer.strip()]

    def _earlier(self, rng: Random) -> tuple[Turn, ...]:
        """One to three different turns."""
        found: list[Turn] = []
        for _ in range(drawn(rng, (1, 1, 1, 2, 2, 3))):
            turn = drawn(rng, self._given if self._given and rng.random() >= _BUILT_IN else turns("turns"))
            found += [turn] if turn not in found else []
        return tuple(found)


@cache
def texts(name: str) -> tuple[str, ...]:
    """The texts of a bank, `context_texts/<name>.txt`."""
    return tuple(_text(line) for line in lines_of(Path(__file__).with_name("context_texts") / f"{name}.txt"))


@cache
def turns(name: str) -> tuple[Turn, ...]:
    """The turns of a bank."""
    return tuple((asked, answer) for asked, _, answer in (line.partition(" | ") for line in texts(name)))


def _text(line: str) -> str:
    return "" if line == "(empty)" else line.replace("\\n", "\n").replace("\\#", "#")


def _greeting(rng: Random, request: str) -> tuple[str, str]:
    """An opening, an ending, or both. Before a question stands none that only an order can follow ("Please")."""
    openings = [text for text in texts("openings") if not (text[-1].isalpha() and "?" in request)]
    which = drawn(rng, ("opening", "opening", "ending", "both"))
    opening, ending = drawn(rng, openings), drawn(rng, texts("endings"))
    return opening if which != "ending" else "", ending if which != "opening" else ""


def _opened(request: str, opening: str, targets: Sequence[str]) -> str:
    """The request after an opening, as its first word demands."""
    if not opening or opening[-1].isspace():
        return opening + request
    goes_on = opening[-1].isalpha() or opening[-1] == ","
    return f"{opening} {small_first(request, targets) if goes_on else request}"


def _closed(request: str, ending: str) -> str:
    """The request before an ending, with a stop in between where it has none."""
    if not ending or ending[0].isspace():
        return request + ending
    stop = "" if not request[-1:].isalnum() else "," if ending[0].islower() else "."
    return f"{request}{stop} {ending}"


def _messages(earlier: Sequence[Turn]) -> tuple[Message, ...]:
    return tuple(
        message
        for asked, answer in earlier
        for message in (Message(role="user", content=asked), Message(role="assistant", content=answer))
    )


@cache
def _held_out_contexts() -> tuple[tuple[str, Context], ...]:
    systems, earlier = texts("system-held-out"), turns("turns-held-out")
    openings, endings = texts("openings-held-out"), texts("endings-held-out")
    lines = partial(line_breaks, "\n\n\n"), partial(blank_around, "\n\n\n\n", "\n\n\n\n")
    return (
        *((f"system: {shortened(systems[n], _NAME_LENGTH)}", Context(system=systems[n])) for n in (0, 1, 6, 15)),
        ("greeting", Context(opening=openings[0])),
        ("ending", Context(ending=endings[2])),
        ("greeting and ending", Context(opening=openings[5], ending=endings[0])),
        ("lower case", Context(changes=(lower_case,))),
        ("upper case", Context(changes=(upper_case,))),
        ("blank lines", Context(changes=lines)),
        ("after one turn", Context(turns=earlier[1:2])),
        ("after two turns", Context(turns=earlier[3:5])),
        ("system, two turns, greeting", Context(system=systems[2], opening=openings[7], turns=(earlier[0], earlier[2]))),
    )
