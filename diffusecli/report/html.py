"""An evaluation as one HTML file that needs no network and no scripts: verdicts, charts as SVG, figures as tables.

Rendering only. All text from prompts, models and files goes through `printable` and the template's escaping. A content
security policy allows only this file's own script, which sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from diffusecli import __version__
from diffusecli.evaluation.evaluation import Evaluated, Evaluation, ways_of_sampling
from diffusecli.evaluation.names import short_names
from diffusecli.evaluation.open_ended import Outcome
from diffusecli.prompts.answers import by_count
from diffusecli.report.all_figures import lines_of
from diffusecli.report.asked import rest_of_request, title
from diffusecli.report.content import Drawn, content
from diffusecli.report.palette import DARK, LIGHT, Palette
from diffusecli.report.parts import cut_in_words
from diffusecli.report.templates import engine, require_extra, source
from diffusecli.report.views import OFF_TARGET, UNFINISHED, Sampler, Section, samplers, spots
from diffusecli.report.wording import count, known, mark_of, readable
from diffusecli.runs.sample_files import ASKED

_UNFOLDED = 6  # prompts whose charts are shown; with more, charts are folded
_ROOMY = 3  # columns of figures that may be wide
_NARROW, _WIDE = 9, 19  # rem of labels
_LETTER = 0.43  # rem of a letter of a label


def html_report(evaluation: Evaluation) -> str:
    """The whole report. Raises `InputError` without the optional packages."""
    require_extra("jinja2")
    return engine(lambda name: f"var(--{name})").get_template("report.html.j2").render(**_page(evaluation))


def _page(evaluation: Evaluation) -> dict[str, Any]:
    found, script = content(evaluation), source("report.js")
    every, named = found.every, samplers(evaluation.rows)
    untuned = {sampler.untuned for sampler in named.values()}
    modes = {mode for _, mode in named}
    baselines = " and ".join(
        words for words, there in (("the untuned model", "untuned" in modes), ("prompting", modes & {*ASKED})) if there
    )
    answered = sum(any(row.tally.n for row in section.rows) for section in every)
    return {
        "evaluation": evaluation, "version": __version__, "title": title(every), "sections": found.sections, "every": every,
        "by_folder": found.by_folder, "folder_chart": found.folder_chart,
        "samplers": named, "scores": scores(evaluation), "runs": short_names([run.run for run in evaluation.runs]),
        "sources": list(dict.fromkeys(row.run for row in evaluation.rows)), "answers": _answers(evaluation), "settings": _settings(evaluation),
        "rest": rest_of_request(every, [some.asked for _, some in found.sections]), "overview": found.overview, "answered": answered, "fold": len(every) > _UNFOLDED,
        "places": {section.prompt.key: place for place, (section, _) in enumerate(found.sections, 1)},
        "toggle": untuned == {True, False}, "baselines": baselines, "off_target": (OFF_TARGET, UNFINISHED), "pairs": found.changes, "training": found.training,
        "matrices": found.matrices,
        "facts": [(facts, {"config.yaml": readable(facts.settings.model_dump(exclude_unset=True)), "run.json": readable(facts.manifest.model_dump(exclude_unset=True))}) for facts in evaluation.runs],
        "cells": cells, "strays": strays, "lines_of": lines_of, "cut": cut_in_words, "css": source("report.css") + source("marks.css"),
        "light": _variables(LIGHT), "dark": _variables(DARK), "script": script, "hash": _hash(script), "grid": _grid([some for _, some in found.sections]),
    }  # fmt: skip


def _grid(drawings: Sequence[Drawn]) -> str:
    """Widths of labels and figures beside all plots, so that all have the same left and right edges."""
    charts = [chart for each in drawings for chart in each.rows]
    columns = max([3, *(len(chart.heads) for chart in charts)])
    longest = max([0, *(len(row.label) for chart in charts for row in chart.rows if not row.outside)])
    width = min(max(_NARROW if len(drawings) == 1 else 13, _LETTER * longest + 1), _WIDE)
    return f"--columns:{columns};--column:{5.5 if columns <= _ROOMY else 5}rem;--label:min({width:.1f}rem, 28vw);"


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


def scores(evaluation: Evaluation) -> list[Score]:
    """One score per sampler, the tuned ones first."""
    names = samplers(evaluation.rows)
    found: dict[Sampler, Counter[str]] = {name: Counter() for name in names.values()}
    exact: dict[Sampler, list[float]] = {name: [] for name in names.values()}
    verdicts: dict[Sampler, str] = {}
    for row in evaluation.rows:
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
        for name, some in sorted(found.items(), key=lambda item: item[0].untuned)
    ]


def cells(section: Section) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The numbers behind a chart: each target with the figures of every sampler."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spot in spots(section):
        found.setdefault(spot["target"], []).append(spot)
    return [(some[0], some) for some in found.values()]


def strays(row: Evaluated, most: int = 5) -> list[Outcome]:
    """The most frequent texts off target, then the most frequent unfinished texts."""
    off, cut = (by_count(counts)[:most] for counts in (row.tally.off_target, row.tally.unfinished))
    return [*(Outcome(text, count) for text, count in off), *(Outcome(text, count, count) for text, count in cut)]


def _answers(evaluation: Evaluation) -> str:
    """The number of answers per prompt: a number or a range."""
    sizes = sorted({row.tally.n for row in evaluation.rows if row.tally.n})
    return "no" if not sizes else count(sizes[0]) if len(sizes) == 1 else f"{count(sizes[0])}–{count(sizes[-1])}"


def _settings(evaluation: Evaluation) -> list[tuple[Sampler, str]]:
    """The distinct sampling settings of each sampler."""
    names = samplers(evaluation.rows)
    return [(names[pair], words) for pair, some in ways_of_sampling(evaluation.rows).items() for words in some]


def _variables(palette: Palette) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


def _hash(script: str) -> str:
    """The hash by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
