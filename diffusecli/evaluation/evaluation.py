"""The result of an evaluation: judged sample sets, their differences, and matrices of runs by groups of prompts.

Values for all reports, and how rows are paired. No statistics are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from diffusecli.evaluation.bounds import BoundedFigures
from diffusecli.evaluation.comparison import Estimate, compare
from diffusecli.evaluation.metrics import AT_N, FIRST_DRAW, OTHER_FIELDS, Cell, ExactFigures, Figures
from diffusecli.evaluation.open_ended import Diversity, Line
from diffusecli.evaluation.ordered import Ordered
from diffusecli.evaluation.records import RecordFigures
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.evaluation.verdicts import ANSWERS, doubted, open_verdict, verdict
from diffusecli.prompts.matching import Matching, Tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.wording_names import split_alias
from diffusecli.runs.sample_files import BASELINES
from diffusecli.sampling.settings import changed_from_neutral
from diffusecli.system.errors import joined, many

UNSAMPLED = 1000
"""Number of answers for the expected count of targets if none were drawn."""


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
    records: RecordFigures | None = None  # where answers are records
    file: str = ""  # of the samples, if the run has several sample files of this sampler
    bounds: BoundedFigures | None = None  # limits of the exact figures, where a server does not return enough for these
    served: str = ""  # the server's name for the model, if a server drew the answers
    served_as: str = ""  # its name in the server's responses, if it is another one

    @property
    def verdict(self) -> str:
        """The verdict in one phrase."""
        if self.diversity is not None:
            return open_verdict(self.diversity, self.tally.unfinished.total())
        if self.figures is not None:
            of = ANSWERS if self.records is None else ANSWERS._replace(new=self.records.new)
            found = verdict(self.figures, self.exact, of)
            found = f"{FIRST_DRAW if self.prompt.draws is not None else OTHER_FIELDS}{found}" if self.prompt.in_parts else found
            doubt = self.records.doubt if self.records is not None else ""
            return doubted(doubt, self.figures, of) if doubt else found
        if self.exact is None and self.bounds is not None:
            return f"not sampled; TVD at least {self.bounds.shown.tvd_low:.3f}"
        known = self.exact is not None and not math.isnan(self.exact.tvd)
        return f"not sampled; exact TVD {self.exact.tvd:.3f}" if self.exact and known else "no samples"

    @property
    def settings_in_words(self) -> str:
        """Seed, length and all settings that are not neutral."""
        return in_words(self.settings)


@dataclass(frozen=True)
class Difference:
    """`after` minus `before`, the same prompt."""

    prompt: Prompt
    before: Evaluated
    after: Evaluated
    excess_tvd: Estimate
    entropy: Estimate
    exact_kl: float  # nan if one of them is unknown

    @property
    def has_entropy(self) -> bool:
        """Whether the entropy of both says something: without a valid answer it does not."""
        return all(row.figures is None or row.figures.seen > 0 for row in (self.before, self.after))


@dataclass(frozen=True)
class Matrix:
    """Runs by groups of prompts; a group is a folder. nan if nothing was measured."""

    measure: str  # which figure
    runs: tuple[str, ...]  # the rows
    groups: tuple[str, ...]  # the columns
    values: tuple[tuple[float, ...], ...]  # a tuple per run
    trained: tuple[tuple[bool, ...], ...]  # whether the run was trained on the group


@dataclass(frozen=True)
class Evaluation:
    """Everything that reports show."""

    matching: Matching
    seed: int
    rows: tuple[Evaluated, ...]
    differences: tuple[Difference, ...]
    matrices: tuple[Matrix, ...]
    runs: tuple[RunFacts, ...]
    drift: Mapping[str, float]  # run -> of its adapter on held-out instructions, nats per token
    at_n: int = AT_N  # draws of the excess TVD of exactly known models

    @property
    def match_in_words(self) -> str:
        """Description of a valid answer to these prompts."""
        return self.matching.in_words(row.prompt for row in self.rows)


def differences(rows: Sequence[Evaluated], seed: int) -> Iterator[Difference]:
    """Within a run compare all with untuned; between runs compare each with the first of its kind (untuned, a method, tuned).

    Random numbers depend on the prompt, so that a comparison does not change with the other prompts and runs.
    """
    groups = by_prompt([row for row in rows if row.tally.n])
    for before, after in (pair for same in groups for pair in _pairs(same)):
        found = compare(before.tally, after.tally, after.prompt.probabilities, (seed, int(after.prompt.digest, 16)))
        kl = after.exact.kl - before.exact.kl if before.exact and after.exact else math.nan
        yield Difference(after.prompt, before, after, found.excess_tvd, found.entropy, kl)


def _pairs(rows: Sequence[Evaluated]) -> Iterator[tuple[Evaluated, Evaluated]]:
    """The pairs to compare among the answers to one prompt."""
    for row in rows:
        if row.mode != "untuned":
            yield from ((other, row) for other in rows if (other.run, other.mode) == (row.run, "untuned"))
        first = next(other for other in rows if _kind(other) == _kind(row))
        if first.run != row.run:
            yield first, row


def _kind(row: Evaluated) -> str:
    return row.mode if row.mode in BASELINES else "tuned"


def matrices(rows: Sequence[Evaluated], runs: Sequence[RunFacts], wanted: Callable[[str], bool]) -> Iterator[Matrix]:
    """Trained on x measured on: exact KL (also from training records) and excess TVD.

    For at least two runs and two groups, if a run is measured on a group that it was not trained on.
    """
    tuned = [row for row in rows if row.mode == "lora"]
    columns = {run.run: _Columns.of(run, [row.prompt for row in tuned if row.run == run.run]) for run in runs}
    exact: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        of = columns[run.run]
        recorded = {
            (alias, run.digest_of(alias)): kl
            for alias, kl in {**run.manifest.exact_kl_test, **run.manifest.exact_kl}.items()
            if not split_alias(alias)[1]  # held-out wordings and contexts are not prompts
        }
        now = {of.key(row.prompt): row.exact.kl for row in tuned if row.run == run.run and row.exact is not None}
        for key, kl in {**recorded, **now}.items():
            if wanted(key[0]):
                exact.setdefault((run.run, of.name(key)), []).append(kl)
    excess: dict[tuple[str, str], list[float]] = {}
    for row in tuned:
        if row.figures is not None:
            name = columns[row.run].name(columns[row.run].key(row.prompt)) if row.run in columns else _group(row.prompt.alias)
            excess.setdefault((row.run, name), []).append(row.figures.excess_tvd)
    trained = {(run, group) for run, of in columns.items() for group in of.groups}
    for measure, found in (("exact KL, nats", exact), ("excess TVD", excess)):
        names, groups = tuple(dict.fromkeys(run for run, _ in found)), tuple(sorted({group for _, group in found}))
        if len(names) > 1 and len(groups) > 1 and any(key not in trained for key in found):
            values = {key: sum(some) / len(some) for key, some in found.items()}
            yield Matrix(
                measure, names, groups,
                tuple(tuple(values.get((name, group), math.nan) for group in groups) for name in names),
                tuple(tuple((name, group) in trained for group in groups) for name in names),
            )  # fmt: skip


_Key = tuple[str, str | None]
"""Alias and digest; None if the run does not record the digest of its alias."""


@dataclass(frozen=True)
class _Columns:
    """The column of a matrix for each prompt of one run."""

    unknown: frozenset[str]  # aliases of figures whose digests the run does not record
    trained: frozenset[_Key]
    groups: frozenset[str]  # of what was trained on

    @classmethod
    def of(cls, run: RunFacts, prompts: Sequence[Prompt]) -> _Columns:
        """A copy of a training prompt counts as trained on under any name; a later file at its path does not."""
        own = {(alias, run.digest_of(alias)) for alias in run.manifest.trained}
        digests = {digest for _, digest in own if digest is not None}
        unknown = frozenset(a for a in (*run.manifest.exact_kl, *run.manifest.exact_kl_test) if run.digest_of(a) is None)
        copies = {(alias, run.digest_of(alias)) for alias in run.manifest.exact_kl_test if run.digest_of(alias) in digests}
        trained = own | copies | {prompt.key for prompt in prompts if prompt.digest in digests}
        return cls(unknown, frozenset(trained), frozenset(_group(alias) for alias, _ in trained))

    def key(self, prompt: Prompt) -> _Key:
        """The key of the prompt in the run's figures."""
        return (prompt.alias, None) if prompt.alias in self.unknown else prompt.key

    def name(self, key: _Key) -> str:
        """A folder. If only some of its prompts were trained on, the others are a separate group."""
        group = _group(key[0])
        return f"{group}, others" if key not in self.trained and group in self.groups else group


def _group(alias: str) -> str:
    """The folder of a prompt, or its name if it has no folder."""
    return Path(alias).parent.name or Path(alias).stem


def by_prompt(rows: Sequence[Evaluated]) -> list[list[Evaluated]]:
    """Rows grouped by the prompt they answer, in the order of each prompt's first row; a sampler has one row in a group.

    Between runs, prompts with the same content and file name are the same, because folders may have moved. If a sampler has several
    such prompts, as much of the end of their paths as distinguishes them must match too.
    """
    alike: dict[tuple[str, str], list[Evaluated]] = {}
    for row in rows:
        alike.setdefault((row.prompt.digest, Path(row.prompt.alias).name), []).append(row)
    depths = {kind: _distinct_parts(some) for kind, some in alike.items()}
    groups: dict[tuple[Any, ...], list[Evaluated]] = {}
    for row in rows:
        kind = row.prompt.digest, Path(row.prompt.alias).name
        groups.setdefault((*kind, *row.prompt.alias.split("/")[-depths[kind] :]), []).append(row)
    return list(groups.values())


def _distinct_parts(rows: Sequence[Evaluated]) -> int:
    """How many names at the end of the paths distinguish the prompts of each sampler."""
    own: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        own.setdefault((row.run, row.mode), set()).add(row.prompt.alias)
    return next(n for n in count(1) if all(len({tuple(a.split("/")[-n:]) for a in some}) == len(some) for some in own.values()))


def ways_of_sampling(rows: Sequence[Evaluated]) -> dict[tuple[str, str], list[str]]:
    """Sampling settings by sampler (run and mode), with the range of wordings over its prompts."""
    found: dict[tuple[str, str], dict[str, set[int]]] = {}
    for row in rows:
        if row.tally.n:
            words = in_words({name: value for name, value in row.settings.items() if name != "wordings"})
            found.setdefault((row.run, row.mode), {}).setdefault(words, set()).add(row.settings.get("wordings", 1))

    def pooled(counts: set[int]) -> str:
        low, high = min(counts), max(counts)
        return f", pooled over {low if low == high else f'{low}–{high}'} wordings" if high > 1 else ""

    return {sampler: [words + pooled(counts) for words, counts in some.items()] for sampler, some in found.items()}


def in_words(settings: Mapping[str, Any]) -> str:
    """Seed, length and all settings that are not neutral.

    >>> in_words({"seed": 0, "max_new_tokens": 50, "temperature": 0.5, "top_k": 0, "stop": ["."]})
    "seed 0, at most 50 tokens, temperature 0.5, stop ['.']"
    >>> in_words({"repetition_penalty": 1.2, "max_new_tokens": 1})
    'at most 1 token, repetition-penalty 1.2'
    >>> in_words({"seed": 0, "wordings": 24})
    'seed 0, temperature 1, pooled over 24 wordings'
    >>> in_words({"seed": 0, "temperature": 1, "left_to_server": ["temperature", "top_k"]})
    'seed 0, temperature and top_k left to the server'
    """
    if not settings:
        return "settings unknown"
    left, undecided = settings.get("left_to_server", []), settings.get("left_open", [])
    bent = [f"{name.replace('_', '-')} {value:g}" for name, value in changed_from_neutral(settings).items()]
    stop = [f"stop {list(settings['stop'])}"] if settings.get("stop") else []
    seed = [f"seed {settings['seed']}"] if "seed" in settings and "seed" not in left else []
    length = [f"at most {many(settings['max_new_tokens'], 'token')}"] if "max_new_tokens" in settings else []
    plain = [] if bent or "temperature" in (*left, *undecided) else ["temperature 1"]
    servers = [f"{joined(left)} left to the server"] if left else []
    servers += [f"{joined(undecided)} not set"] if undecided else []
    asked = [f"asked by the method {settings['ask']}"] if settings.get("ask") else []
    worded = [f"pooled over {settings['wordings']} wordings"] if settings.get("wordings", 1) > 1 else []
    return ", ".join([*asked, *seed, *length, *bent, *plain, *stop, *servers, *worded])
