"""Summary of thousands of prompts: figures by folder and sampler, and the prompts that are furthest from their targets.

Medians of the figures that `metrics.py` computes for each prompt. Nothing is shown here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.prompts.groups import Folder, folders
from diffusecli.runs.sample_files import BASELINES

MOST_LISTED = 24
"""Most prompts to list separately; more are summarised by folder."""

WORST = 10
"""Prompts to name if the others are only summarised."""


@dataclass(frozen=True)
class Group:
    """The prompts with targets of one folder, answered by one sampler. A figure is nan if no prompt has it."""

    run: str  # folder or file
    mode: str  # untuned, lora, served, or the name of a file
    folder: str  # relative to the common folder of all prompts; "." for that folder itself
    whole: bool  # with all folders below it
    top: bool  # in no other group except that of all prompts; gates judge these
    prompts: int  # with targets
    exact: int  # prompts with a known exact TVD
    tvd_median: float  # median exact TVD
    tvd_90: float  # 90 % quantile of the exact TVD
    excess_tvd_median: float  # median expected excess TVD of `at_n` draws from the model
    kl_median: float  # median exact KL, nats
    on_target_mean: float  # mean exact mass on target
    sampled: int  # prompts with samples
    sampled_tvd_median: float  # median TVD of the samples
    sampled_excess_tvd_median: float  # median excess TVD of the samples
    rounding: float = 0.0  # how far the rounding of a 16-bit model may raise the median exact TVD
    excess_rounding: float = 0.0  # the same for the median excess TVD of exact figures


def groups(rows: Sequence[Evaluated]) -> list[tuple[Folder, list[Group]]]:
    """Every folder with its samplers, in the order of the rows; each split comes before its families."""
    judged = [row for row in rows if row.prompt.targets]
    by_alias: dict[str, list[Evaluated]] = {}
    for row in judged:
        by_alias.setdefault(row.prompt.alias, []).append(row)
    return [
        (folder, list(_samplers(folder, [row for alias, some in by_alias.items() if alias in folder.aliases for row in some])))
        for folder in folders(list(by_alias))
    ]


def _samplers(folder: Folder, rows: Iterable[Evaluated]) -> Iterator[Group]:
    """The group of each sampler."""
    found: dict[tuple[str, str], list[Evaluated]] = {}
    for row in rows:
        found.setdefault((row.run, row.mode), []).append(row)
    for (run, mode), some in found.items():
        exact = [row.exact for row in some if row.exact is not None]
        sampled = [row.figures for row in some if row.figures is not None]
        tvd = _known(each.tvd for each in exact)
        yield Group(
            run, mode, folder.name, folder.whole, folder.top, len(some), len(tvd),
            tvd_median=_median(tvd),
            tvd_90=float(np.quantile(tvd, 0.9)) if tvd else math.nan,
            excess_tvd_median=_median(_known(each.excess_tvd for each in exact)),
            kl_median=_median(_known(each.kl for each in exact)),
            on_target_mean=_mean(_known(each.on_target for each in exact)),
            sampled=len(sampled),
            sampled_tvd_median=_median(_known(each.tvd for each in sampled)),
            sampled_excess_tvd_median=_median(_known(each.excess_tvd for each in sampled)),
            rounding=_rise((each.tvd, each.tvd_rounding) for each in exact),
            excess_rounding=_rise((each.excess_tvd, each.tvd_rounding) for each in exact),
        )  # fmt: skip


def are_many(rows: Iterable[Evaluated]) -> bool:
    """Whether there are more prompts with targets than a report lists one by one."""
    return len({row.prompt.key for row in rows if row.prompt.targets}) > MOST_LISTED


def has_groups(rows: Sequence[Evaluated]) -> bool:
    """Whether groups add information to the rows: there are many prompts, or several folders and one has several prompts."""
    aliases = {row.prompt.alias for row in rows if row.prompt.targets}
    leaves = [folder for folder in folders(list(aliases)) if not folder.whole]
    return bool(aliases) and (are_many(rows) or len(aliases) > len(leaves) > 1)


def distance(row: Evaluated) -> float:
    """The exact TVD, otherwise the excess TVD of the samples, so that few answers do not look far; nan if neither is known."""
    if row.exact is not None and not math.isnan(row.exact.tvd):
        return row.exact.tvd
    return row.figures.excess_tvd if row.figures is not None else math.nan


def in_wordings(rows: Sequence[Evaluated]) -> list[Evaluated]:
    """Rows with figures of several wordings or contexts; if there are many prompts, the rows of tuned models furthest from their targets."""
    found = [row for row in rows if row.exact is not None and row.exact.wordings]
    if not are_many(rows):
        return found
    return sorted(tuned(found), key=lambda row: max(one.tvd for one in row.exact.wordings) if row.exact else 0.0, reverse=True)[
        :WORST
    ]


def worst(rows: Sequence[Evaluated], most: int = WORST) -> list[Evaluated]:
    """Rows of tuned models that are furthest from the target; untuned models and prompting only if there is nothing else."""
    known = [row for row in rows if not math.isnan(distance(row))]
    return sorted(tuned(known), key=lambda row: -distance(row))[:most]


def tuned(rows: Sequence[Evaluated]) -> Sequence[Evaluated]:
    """Rows of tuned models, or all rows if there are none."""
    return [row for row in rows if row.mode not in BASELINES] or rows


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _rise(figures: Iterable[tuple[float, float]]) -> float:
    """How far the median rises if each known figure rises by its rounding.

    >>> round(_rise([(0.0, 0.1), (0.01, 0.0), (0.03, 0.0)]), 4)
    0.02
    """
    pairs = [pair for pair in figures if not math.isnan(pair[0])]
    return _median([sum(pair) for pair in pairs]) - _median([figure for figure, _ in pairs]) if pairs else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
