"""How many prompts each sampler follows, of a whole report or of one folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.prompts.groups import Folder
from diffusecli.report.numbers import known
from diffusecli.report.views import Sampler, as_one
from diffusecli.report.wording import mark_of


@dataclass(frozen=True)
class Score:
    """How many prompts a sampler matches."""

    sampler: Sampler
    follows: int
    close: int
    open: int  # no verdict is possible
    judged: int
    exact: int  # prompts with a known exact TVD
    exact_tvd: float  # its median over them
    verdict: str  # of the last prompt

    @property
    def missed(self) -> int:
        """Prompts that it does not follow."""
        return self.judged - self.follows - self.close - self.open


def of_equal(found: Iterable[Score]) -> list[Score]:
    """The scores, those of untuned samplers that are the same under the names of all."""
    equal: list[list[Score]] = []
    for score in found:
        alike = (
            some for some in equal if some[0].sampler.untuned and repr(replace(score, sampler=some[0].sampler)) == repr(some[0])
        )
        same = next(alike, None) if score.sampler.untuned else None
        if same is None:
            equal.append([score])
        else:
            same.append(score)
    return [replace(some[0], sampler=as_one([score.sampler for score in some])) for some in equal]


def scores(rows: Iterable[Evaluated], names: Mapping[tuple[str, str], Sampler]) -> list[Score]:
    """One score per sampler."""
    found: dict[Sampler, Counter[str]] = {name: Counter() for name in names.values()}
    exact: dict[Sampler, list[float]] = {name: [] for name in names.values()}
    verdicts: dict[Sampler, str] = {}
    for row in rows:
        of_row = found[names[row.run, row.mode]]
        if row.exact is not None and known(row.exact.tvd) is not None:
            exact[names[row.run, row.mode]].append(row.exact.tvd)
        if row.diversity is None and row.figures is not None:
            of_row["judged"] += 1
            verdicts[names[row.run, row.mode]] = row.verdict
            of_row[mark_of(row.verdict)[1] + " verdict"] += 1
    return [
        Score(
            name,
            some["good verdict"],
            some["near verdict"],
            some["open verdict"],
            some["judged"],
            len(exact[name]),
            median(exact[name]) if exact[name] else math.nan,
            verdicts.get(name, ""),
        )
        for name, some in found.items()
    ]


def in_folders(
    rows: Sequence[Evaluated], folders: Iterable[Folder], names: Mapping[tuple[str, str], Sampler]
) -> dict[tuple[Folder, Sampler], Score]:
    """The scores of each folder."""
    return {(folder, score.sampler): score for folder in folders
            for score in scores((row for row in rows if row.prompt.alias in folder.aliases), names)}  # fmt: skip
