"""What an evaluation holds: judged sample sets, what sets them apart, and runs against groups of prompts.

Values that every report shows in its own way, and how rows are paired. Computes no statistics of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.comparison import Estimate, compare
from diffusecli.errors import many
from diffusecli.matching import Matching, Tally
from diffusecli.metrics import Cell, ExactFigures, Figures, open_verdict, verdict
from diffusecli.open_ended import Diversity, Line
from diffusecli.ordered import Ordered
from diffusecli.prompt import Prompt
from diffusecli.sources import RunFacts

UNSAMPLED = 1000
"""Answers to expect targets among where none were drawn."""


@dataclass(frozen=True)
class Evaluated:
    """One prompt, one sampler. Without samples (exact figures only) there are no `figures`."""

    run: str
    mode: str
    prompt: Prompt
    tally: Tally
    settings: Mapping[str, Any]  # as sampled; {} when unknown
    examples: bool  # the targets are only examples of what is wanted
    figures: Figures | None
    cells: tuple[Cell, ...]
    ordered: Ordered | None
    diversity: Diversity | None  # where targets are none, or examples
    lines: tuple[Line, ...]
    exact: ExactFigures | None

    @property
    def verdict(self) -> str:
        """One phrase for a person."""
        if self.diversity is not None:
            return open_verdict(self.diversity)
        if self.figures is not None:
            return verdict(self.figures, self.exact)
        known = self.exact is not None and not math.isnan(self.exact.tvd)
        return f"not sampled; exact TVD {self.exact.tvd:.3f}" if self.exact and known else "no samples"

    @property
    def settings_in_words(self) -> str:
        """Seed, length and whatever was not left neutral."""
        return in_words(self.settings)


@dataclass(frozen=True)
class Difference:
    """`after` minus `before`, the same prompt."""

    prompt: Prompt
    before: Evaluated
    after: Evaluated
    excess_tvd: Estimate
    entropy: Estimate
    exact_kl: float  # nan where one of them is not known


@dataclass(frozen=True)
class Matrix:
    """Runs against groups of prompts; a group is a folder. nan where nothing was measured."""

    measure: str  # which figure
    runs: tuple[str, ...]  # the rows
    groups: tuple[str, ...]  # the columns
    values: tuple[tuple[float, ...], ...]  # a tuple per run
    trained: tuple[tuple[bool, ...], ...]  # whether the run was trained on the group


@dataclass(frozen=True)
class Evaluation:
    """Everything a report tells."""

    matching: Matching
    seed: int
    rows: tuple[Evaluated, ...]
    differences: tuple[Difference, ...]
    matrices: tuple[Matrix, ...]
    runs: tuple[RunFacts, ...]
    drift: Mapping[str, float]  # run -> of its adapter on held-out instructions, nats per token

    @property
    def match_in_words(self) -> str:
        """What a valid answer to these prompts is."""
        return self.matching.in_words(row.prompt for row in self.rows)


def differences(rows: Sequence[Evaluated], seed: int) -> Iterator[Difference]:
    """Within a run lora against untuned; between runs each against the first of its kind."""
    alike: dict[tuple[str, str], list[Evaluated]] = {}
    for row in rows:
        if row.tally.n:
            alike.setdefault(same_prompt(row.prompt), []).append(row)
    for number, (before, after) in enumerate(pair for same in alike.values() for pair in _pairs(same)):
        found = compare(before.tally, after.tally, after.prompt.probabilities, seed + number)
        kl = after.exact.kl - before.exact.kl if before.exact and after.exact else math.nan
        yield Difference(after.prompt, before, after, found.excess_tvd, found.entropy, kl)


def _pairs(rows: Sequence[Evaluated]) -> Iterator[tuple[Evaluated, Evaluated]]:
    """What is compared among the answers to one prompt."""
    for row in rows:
        if row.mode != "untuned":
            yield from ((o, row) for o in rows if (o.run, o.mode, o.prompt.alias) == (row.run, "untuned", row.prompt.alias))
        first = next(other for other in rows if (other.mode == "untuned") == (row.mode == "untuned"))
        if first.run != row.run:
            yield first, row


def matrices(rows: Sequence[Evaluated], runs: Sequence[RunFacts], wanted: Callable[[str], bool]) -> Iterator[Matrix]:
    """Trained on x measured on, for two runs and two groups at least: exact KL (what training recorded too) and excess TVD."""
    tuned = [row for row in rows if row.mode == "lora"]
    trained_on = {run.run: set(run.manifest.exact_kl) for run in runs}

    def group(run: str, alias: str) -> str:
        """A folder; prompts that were not trained on beside others of the folder that were are a group of their own."""
        own = trained_on.get(run, set())
        return f"{_group(alias)}, others" if alias not in own and _group(alias) in map(_group, own) else _group(alias)

    exact: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        recorded = {**run.manifest.exact_kl_test, **run.manifest.exact_kl}
        now = {row.prompt.alias: row.exact.kl for row in tuned if row.run == run.run and row.exact is not None}
        for alias, kl in {alias: kl for alias, kl in {**recorded, **now}.items() if wanted(alias)}.items():
            exact.setdefault((run.run, group(run.run, alias)), []).append(kl)
    excess: dict[tuple[str, str], list[float]] = {}
    for row in tuned:
        if row.figures is not None:
            excess.setdefault((row.run, group(row.run, row.prompt.alias)), []).append(row.figures.excess_tvd)
    trained = {(run.run, _group(alias)) for run in runs for alias in run.manifest.exact_kl}
    for measure, found in (("exact KL, nats", exact), ("excess TVD", excess)):
        names, groups = tuple(dict.fromkeys(run for run, _ in found)), tuple(sorted({group for _, group in found}))
        if len(names) > 1 and len(groups) > 1:
            values = {key: sum(some) / len(some) for key, some in found.items()}
            yield Matrix(
                measure, names, groups,
                tuple(tuple(values.get((name, group), math.nan) for group in groups) for name in names),
                tuple(tuple((name, group) in trained for group in groups) for name in names),
            )  # fmt: skip


def _group(alias: str) -> str:
    """The folder of a prompt, or its name where it has none."""
    return Path(alias).parent.name or Path(alias).stem


def same_prompt(prompt: Prompt) -> tuple[str, str]:
    """What tells prompts apart when several runs are compared: content and file name; folders may have moved."""
    return prompt.digest, Path(prompt.alias).name


def in_words(settings: Mapping[str, Any]) -> str:
    """Seed, length and whatever was not left neutral.

    >>> in_words({"seed": 0, "max_new_tokens": 50, "temperature": 0.5, "top_k": 0, "stop": ["."]})
    "seed 0, at most 50 tokens, temperature 0.5, stop ['.']"
    """
    if not settings:
        return "settings unknown"
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    bent = [f"{name.replace('_', '-')} {settings[name]:g}" for name, value in neutral.items() if settings.get(name, value) != value]
    stop = [f"stop {list(settings['stop'])}"] if settings.get("stop") else []
    seed = [f"seed {settings['seed']}"] if "seed" in settings else []
    length = [f"at most {many(settings['max_new_tokens'], 'token')}"] if "max_new_tokens" in settings else []
    return ", ".join([*seed, *length, *(bent or ["temperature 1"]), *stop])
