"""The content of a report as plain values: which samplers are compared, which targets are drawn, and in what order.

No charts or HTML here. Texts of prompts and models are made printable and short enough to draw.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from diffusecli.evaluation.evaluation import Difference, Evaluated, Evaluation, by_prompt
from diffusecli.evaluation.names import labels, marks, prompt_names
from diffusecli.evaluation.ordered import values_in
from diffusecli.prompts.matching import Tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.all_figures import once
from diffusecli.report.numbers import known
from diffusecli.report.target_names import target_names
from diffusecli.report.widths import distinguishable
from diffusecli.report.wording import short, unique
from diffusecli.runs.sample_files import ASKED, BASELINES
from diffusecli.system.errors import joined

if TYPE_CHECKING:
    from diffusecli.report.histogram import Sort

MOST = 40
"""Most targets in a chart. Of larger sets, half are the largest targets and half the worst-fitting ones."""

OFF_TARGET, UNFINISHED = "(other)", "(unfinished)"
"""Labels of the cells for answers that are not targets."""
TARGET, WEIGHT = "target", "target weight"
"""Legend entries of the grey marks; no sampler has these names."""
_COLOURS = ("blue", "green", "purple", "vermilion", "sky")
_ASKED_COLOURS = ("muted", "sky", "vermilion", "purple", "green")
"""Of prompting: with dashed lines, and in an order that tuned samplers reach last."""
_SHAPES = ("circle", "diamond", "triangle-up", "cross", "triangle-down")
_LONGEST_NAME = 60  # of a prompt
_NAMED = 3  # equal samplers whose names are all in one
LONGEST_LABEL = 44
"""Most columns of a target's label."""
WHOLE_TEXT = 200
"""Most columns of the whole text of a target."""


@dataclass(frozen=True)
class Sampler:
    """A sampler: its name, colour and shape in this report."""

    label: str
    colour: str
    shape: str
    untuned: bool = False  # the untuned model, or prompting: a baseline, drawn with dashed lines
    several: bool = False  # equal untuned models, with all their names


@dataclass(frozen=True)
class Section:
    """One prompt with the answers of all samplers, and the targets to draw."""

    name: str
    rows: tuple[Evaluated, ...]
    samplers: tuple[Sampler, ...]  # one per row
    sort: Sort | None = None  # order of targets; None: the prompt's
    most: int = MOST  # targets to draw

    @property
    def prompt(self) -> Prompt:
        """The same for all rows."""
        return self.rows[0].prompt

    @property
    def pairs(self) -> list[tuple[Sampler, Evaluated]]:
        """Samplers with their rows."""
        return list(zip(self.samplers, self.rows, strict=True))

    @property
    def sampled(self) -> list[tuple[Sampler, Evaluated]]:
        """Samplers whose answers can be compared with targets."""
        return [(sampler, row) for sampler, row in self.pairs if row.figures is not None]

    @property
    def main(self) -> list[tuple[Sampler, Evaluated]]:
        """The tuned samplers that have answers; the untuned ones if there are no others."""
        return [pair for pair in self.sampled if not pair[0].untuned] or self.sampled

    @cached_property
    def values(self) -> tuple[tuple[float, ...], str] | None:
        """The values of targets that are numbers or dates, and the unit."""
        return values_in(self.prompt.spellings)

    @property
    def uniform(self) -> bool:
        """Whether all weights are the same."""
        p = self.prompt.probabilities
        return max(p, default=0) - min(p, default=0) < 1e-12

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """Indices of the targets to draw, in this order."""
        places = range(len(self.prompt.targets))
        some = list(places) if len(places) <= self.most else [*_heaviest(self), *_worst(self, set(_heaviest(self)))]
        return tuple(sorted(some, key=lambda i: (self._rank(i), i)))

    def _rank(self, i: int) -> float:
        """Where a target is in the order of the terminal's histograms, which this follows."""
        if self.sort == "weight":
            return -self.prompt.probabilities[i]
        return -abs(self.main[0][1].cells[i].residual) if self.sort == "residual" and self.main else 0.0

    @property
    def folded(self) -> int:
        """Number of targets not drawn."""
        return len(self.prompt.targets) - len(self.shown)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all targets."""
        return target_names(self.prompt).names

    @cached_property
    def labels(self) -> list[str]:
        """Unique labels of the targets shown."""
        return distinct([self.names[i] for i in self.shown], LONGEST_LABEL, (OFF_TARGET, UNFINISHED))

    @cached_property
    def texts(self) -> list[str]:
        """The whole texts of the targets shown; only very long ones are cut."""
        return distinct([self.names[i] for i in self.shown], WHOLE_TEXT)

    @property
    def strays(self) -> tuple[str, ...]:
        """The cells for answers that are not targets, if any sampler has such answers."""
        tallies = [row.tally for _, row in self.sampled]
        return tuple(name for name in (OFF_TARGET, UNFINISHED) if any(_strays(tally, name) for tally in tallies))


def distinct(texts: Sequence[str], width: int, taken: Sequence[str] = ()) -> list[str]:
    """Texts on one line each, cut to `width` columns so that they stay distinguishable; equal texts, and texts that are `taken`, get a number.

    >>> distinct(["the quality has improved", "the quality has got worse"], 20), distinct(["a", "a"], 9, taken=("a",))
    (['…uality has improved', '…ality has got worse'], ['a #2', 'a #3'])
    """
    lines = [short(text, sys.maxsize) for text in texts]
    return unique([*taken, *distinguishable(lines, width)])[len(taken) :]


def _cut(names: Sequence[str]) -> list[str]:
    return distinguishable([short(name, sys.maxsize) for name in names], _LONGEST_NAME)


def sections(evaluation: Evaluation, sort: Sort | None = None) -> list[Section]:
    """Each prompt once, rows in the order of the evaluation; of untuned models with the same answers and figures there is one row."""
    named = samplers(evaluation.rows)
    groups = by_prompt(evaluation.rows)
    prompts = [group[0].prompt for group in groups]
    full, marked = prompt_names(prompts), marks(prompts)
    bare = _cut([full[p.key].removesuffix(marked[p.key]) for p in prompts])
    names = unique(name + marked[p.key] for name, p in zip(bare, prompts, strict=True))
    return [
        Section(
            name, tuple(row for row, *_ in alike), tuple(as_one([named[row.run, row.mode] for row in some]) for some in alike), sort
        )
        for name, alike in zip(names, map(once, groups), strict=True)
    ]


def as_one(equal: Sequence[Sampler]) -> Sampler:
    """The first of equal samplers, with the names of all; of many, with their number."""
    first, *others = names = [each.label for each in equal]
    if not others:
        return equal[0]
    return replace(equal[0], label=joined(names) if len(names) <= _NAMED else f"{first} and {len(others)} equal ones", several=True)


def strays_shown(row: Evaluated, most: int = 5) -> int:
    """How many texts off target reports show of a sampler: fewer of one that is not tuned and has no valid answer."""
    return 2 if row.mode in BASELINES and not row.tally.on_target else most


@dataclass(frozen=True)
class Pair:
    """Two samplers that are compared."""

    before: Sampler
    after: Sampler

    @property
    def name(self) -> str:
        """What is subtracted from what, as in the terminal."""
        return f"{self.after.label} minus {self.before.label}"


def pairs(
    evaluation: Evaluation, wanted: Container[tuple[str, str]] | None = None
) -> list[tuple[Pair, list[Difference], list[str]]]:
    """Differences by pair of samplers, with the names of prompts: all prompts, or those whose `Prompt.key` is in `wanted`.

    A pair whose answers are the same to all prompts has no differences, so it is left out.
    """
    named = samplers(evaluation.rows)
    names = {row.prompt.key: section.name for section in sections(evaluation) for row in section.rows}
    found: dict[Pair, list[Difference]] = {}
    for each in (d for d in evaluation.differences if wanted is None or d.prompt.key in wanted):
        before, after = (named[row.run, row.mode] for row in (each.before, each.after))
        found.setdefault(Pair(before, after), []).append(each)
    return [(pair, some, [names[each.prompt.key] for each in some]) for pair, some in found.items()
            if any(each.before.tally != each.after.tally for each in some)]  # fmt: skip


def samplers(rows: Sequence[Evaluated]) -> dict[tuple[str, str], Sampler]:
    """Run and mode -> name, colour and shape. The first untuned sampler is orange, the first method of prompting grey, the first tuned sampler blue."""
    keys = list(dict.fromkeys((row.run, row.mode) for row in rows))
    named = labels(rows)
    names = distinct([named[key] for key in keys], 36, (TARGET, WEIGHT))
    found: dict[tuple[str, str], Sampler] = {}
    others = asked = 0
    for key, name in zip(keys, names, strict=True):
        if key[1] == "untuned" and not any(mode == "untuned" for _, mode in found):
            found[key] = Sampler(name, "orange", "square", untuned=True)
        elif key[1] in ASKED:
            found[key] = Sampler(name, *_looks(asked, _ASKED_COLOURS), untuned=True)
            asked += 1
        else:
            found[key] = Sampler(name, *_looks(others, _COLOURS), key[1] == "untuned")
            others += 1
    return found


def _looks(place: int, colours: Sequence[str]) -> tuple[str, str]:
    """Colour and shape of a sampler; each pair of them is used before any comes again.

    >>> _looks(0, _COLOURS), _looks(1, _COLOURS), _looks(5, _COLOURS)
    (('blue', 'circle'), ('green', 'diamond'), ('blue', 'diamond'))
    """
    return colours[place % len(colours)], _SHAPES[(place + place // len(colours)) % len(_SHAPES)]


def spots(section: Section) -> list[dict[str, Any]]:
    """Each shown target with each sampler; all off-target answers are one cell, all unfinished answers another."""
    found = [_spot(place, label, text, *pair) for pair in section.sampled
             for place, label, text in zip(section.shown, section.labels, section.texts, strict=True)]  # fmt: skip
    return found + [_stray(name, *pair) for name in section.strays for pair in section.sampled]


def _spot(place: int, label: str, text: str, sampler: Sampler, row: Evaluated) -> dict[str, Any]:
    cell = row.cells[place]
    exact = row.exact.q[place] if row.exact is not None and row.exact.q else math.nan
    return {
        "target": label, "text": text, "sampler": sampler.label, "weight": cell.weight,
        "share": cell.count / row.tally.n, "of_valid": cell.count / row.tally.on_target if row.tally.on_target else None, "count": cell.count, "expected": known(cell.expected),
        "residual": known(cell.residual) if row.tally.on_target else None, "differs": cell.differs or not row.tally.on_target, "exact": known(exact),
    }  # fmt: skip


def _strays(tally: Tally, name: str) -> Counter[str]:
    return tally.off_target if name == OFF_TARGET else tally.unfinished


def _stray(name: str, sampler: Sampler, row: Evaluated) -> dict[str, Any]:
    count, text = _strays(row.tally, name).total(), "any other text" if name == OFF_TARGET else "cut at the limit of new tokens"
    return {
        "target": name, "text": text, "sampler": sampler.label, "weight": 0.0, "share": count / row.tally.n, "of_valid": None,
        "count": count, "expected": 0, "residual": None, "differs": count > 0, "exact": None,
    }  # fmt: skip


def _heaviest(section: Section) -> list[int]:
    """The largest targets (half of those drawn); evenly spaced over the list if all weights are equal."""
    p, half = section.prompt.probabilities, section.most // 2
    if section.uniform:
        return [i * len(p) // half for i in range(half)]
    return sorted(range(len(p)), key=lambda i: (-p[i], i))[:half]


def _worst(section: Section, taken: set[int]) -> list[int]:
    """The other half: the targets with the largest errors, from each sampler in turn."""
    p = section.prompt.probabilities
    lists = [sorted(range(len(p)), key=lambda i, row=row: -abs(row.tally.counts[i] / row.tally.n - p[i]))[: section.most]  # type: ignore[misc]
             for _, row in section.sampled]  # fmt: skip
    in_turn = (i for rank in zip_longest(*lists) for i in rank if i is not None and i not in taken)
    return list(dict.fromkeys(in_turn))[: section.most // 2]
