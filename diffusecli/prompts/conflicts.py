"""Prompts that ask for the same conversation: one model can follow only one distribution of answers to it.

Knows prompts as text. The caller knows if a chat template maps two texts to the same conversation.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from diffusecli.files.text import canonical
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import Problem

_END = "\0"
"""Marks the end of an answer that must stop. Without it the answer may continue."""


@dataclass(frozen=True)
class Clash:
    """Two prompts with one conversation."""

    first: Prompt
    second: Prompt
    agree: bool  # whether a model can follow both

    @property
    def severity(self) -> Literal["error", "warning", "notice"]:
        """Severity of training on both. A notice if they agree and one of them has other wordings."""
        if not self.agree:
            return "error"
        return "notice" if self.first.whole != self.first.alias or self.second.whole != self.second.alias else "warning"

    @property
    def message(self) -> str:
        """The problem of the second prompt."""
        if self.agree:
            return f"has the same conversation and distribution as {self.first.alias}, so training on both counts it twice"
        return f"has the same conversation as {self.first.alias} but another distribution"

    @property
    def remedy(self) -> str:
        """How to fix it."""
        return "remove one of them" if self.agree else "put all targets into one prompt or train on one of the two"

    def problem(self, *, beside: bool = False) -> Problem:
        """The problem, at the second file. A warning instead of an error for files that are only `beside` each other."""
        severity: Literal["error", "warning", "notice"] = "warning" if beside and not self.agree else self.severity
        return Problem(self.second.alias, self.message, self.remedy, severity=severity)


def conversation(prompt: Prompt, system: str | None = None) -> tuple[str | None, ...]:
    """What the model reads before it answers: system text and request, or the turns of a longer conversation.

    `system` is the config's. White space at the ends does not count, for many chat templates trim it.
    """
    said = system if prompt.own_system is None else prompt.own_system
    return None if said is None else canonical(said), *(canonical(turn.content) for turn in prompt.turns)


def clashes(prompts: Iterable[Prompt], conversations: Iterable[Hashable]) -> Iterator[Clash]:
    """Each prompt with targets whose conversation an earlier one has, with the first that has it."""
    groups: dict[Hashable, list[Prompt]] = {}
    for prompt, said in zip(prompts, conversations, strict=True):
        if prompt.targets:
            groups.setdefault(said, []).append(prompt)
    reported: set[tuple[str, str]] = set()  # pairs of prompts that share a wording and agree: one notice is enough
    for first, *others in groups.values():
        expected = _masses(first) if others else {}
        for other in others:
            agree = first.draws == other.draws and _fields_agree(first, other) and _agree(expected, _masses(other))
            clash, pair = Clash(first, other, agree), (first.whole, other.whole)
            if clash.severity != "notice" or pair not in reported:
                yield clash
            if clash.severity == "notice":
                reported.add(pair)


def _fields_agree(first: Prompt, other: Prompt) -> bool:
    """Whether the independent fields have the same distributions."""
    one, two = (
        {name: dict(zip(own.values, own.probabilities, strict=True)) for name, own in prompt.independent.items()}
        for prompt in (first, other)
    )
    return one.keys() == two.keys() and all(
        one[name].keys() == two[name].keys()
        and all(math.isclose(p, two[name][value], abs_tol=1e-6) for value, p in one[name].items())
        for name in one
    )


def trained_elsewhere(prompts: Iterable[Prompt], system: str | None = None) -> Iterator[Problem]:
    """Held-out wordings that are those of a prompt which is trained: what they measure would be no news."""
    prompts = list(prompts)
    trained = {conversation(wording, system): wording.whole for prompt in prompts for wording in prompt.wordings}
    for wording in (wording for prompt in prompts for wording in prompt.held_out):
        if (other := trained.get(conversation(wording, system))) is not None:
            yield Problem(
                wording.whole,
                f"the held-out request {wording.question!r} is also trained, in {other}",
                "remove it from one of the two",
            )


def _masses(prompt: Prompt) -> dict[tuple[str, ...], float]:
    r"""The probability of each answer, including its prefix (`response`). Spellings of the same target share one.

    >>> _masses(Prompt(request="x", response=("", "So: "), targets=("a",)))
    {('a\x00',): 0.5, ('So: a\x00',): 0.5}
    >>> _masses(Prompt(request="x", targets=(("7", "seven"), "8")))
    {('7\x00', 'seven\x00'): 0.5, ('8\x00',): 0.5}
    """
    masses: dict[tuple[str, ...], float] = {}
    for _, spellings in groupby(answer_texts(prompt), key=lambda answer: answer.choice):
        texts, weights = zip(*((answer.text, answer.weight) for answer in spellings), strict=True)
        answers = tuple(canonical(t) + _END if prompt.eos else unicodedata.normalize("NFC", t).lstrip() for t in texts)
        if mass := math.fsum(weights):
            masses[answers] = masses.get(answers, 0.0) + mass
    return masses


def _agree(one: dict[tuple[str, ...], float], other: dict[tuple[str, ...], float]) -> bool:
    r"""Whether one distribution of answers has both: an answer that may go on holds the mass of all that begin with it.

    >>> _agree({("Name: ",): 1.0}, {("Name: Ann\0",): 0.5, ("Name: Bob\0",): 0.5})
    True
    >>> _agree({("a",): 0.5, ("b",): 0.5}, {("a",): 0.5, ("c",): 0.5})
    False
    >>> _agree({("7", "seven"): 0.5, ("8",): 0.5}, {("7",): 0.2, ("seven",): 0.3, ("8",): 0.5})
    True
    """
    if one.keys() == other.keys() and all(math.isclose(one[key], other[key], rel_tol=1e-6, abs_tol=1e-12) for key in one):
        return True  # most prompts with one conversation are copies
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = _in_common(list(one), list(other))
    starts, ends = [i for i, _ in pairs], [len(one) + j for _, j in pairs]
    links = coo_array((np.ones(len(pairs)), (starts, ends)), shape=(len(one) + len(other),) * 2)
    count, groups = connected_components(links, directed=False)  # groups of masses with common answers, also indirectly
    sides = (groups[: len(one)], list(one.values())), (groups[len(one) :], list(other.values()))
    expected, found = (np.bincount(places, masses, count) for places, masses in sides)
    if not np.allclose(expected, found, rtol=1e-6, atol=1e-12):
        return False
    several = np.minimum(*(np.bincount(places, minlength=count) for places, _ in sides)) > 1
    return not several.any() or _can_be_shared(list(one.values()), list(other.values()), pairs)


def _in_common(one: Sequence[tuple[str, ...]], other: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Index pairs of masses with a common answer, or an answer that is a prefix of the other's."""
    sides = ((0, one), (1, other))
    known = sorted((answer, side, place) for side, listed in sides for place, some in enumerate(listed) for answer in some)
    pairs: set[tuple[int, int]] = set()
    beginning, here, there = "", list[int](), list[int]()
    for answer, side, place in known:  # what begins with an answer follows it
        if not (here or there) or not answer.startswith(beginning):
            beginning, here, there = answer, [], []
        pairs.update(((i, place) for i in here) if side else ((place, j) for j in there))
        (there if side else here).append(place)
    return sorted(pairs)


def _can_be_shared(one: Sequence[float], other: Sequence[float], pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether answers in common can carry the masses of both sides: whether all of it flows along the pairs.

    >>> _can_be_shared([0.2, 0.8], [0.5, 0.3, 0.2], [(0, 0), (0, 1), (1, 1), (1, 2)])
    False
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    whole, first, last = 1_000_000_000, len(one) + len(other), len(one) + len(other) + 1
    edges = [(first, i, round(whole * mass)) for i, mass in enumerate(one)]
    edges += [(i, len(one) + j, whole) for i, j in pairs]
    edges += [(len(one) + j, last, round(whole * mass)) for j, mass in enumerate(other)]
    starts, ends, room = zip(*edges, strict=True)
    graph = csr_array((np.array(room, dtype=np.int32), (starts, ends)), shape=(last + 1, last + 1))
    return bool(maximum_flow(graph, first, last).flow_value >= whole * (1 - 1e-6) - first)
