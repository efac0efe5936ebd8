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
from pathlib import Path
from statistics import median
from typing import Any

from diffusecli import __version__
from diffusecli.evaluation.evaluation import Evaluated, Evaluation, ways_of_sampling
from diffusecli.evaluation.groups import are_many, groups, has_groups, worst
from diffusecli.evaluation.names import short_names
from diffusecli.evaluation.open_ended import Outcome
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.asked import Asked, asked, general_system, title
from diffusecli.report.charts import require_extra
from diffusecli.report.curves import cumulative, training
from diffusecli.report.key_figures import Figure, three_figures
from diffusecli.report.line_charts import LineChart, of_cumulative, of_training
from diffusecli.report.palette import DARK, LIGHT, Palette
from diffusecli.report.parts import cut_in_words
from diffusecli.report.prompt_charts import of_differences, of_folders, of_prompts
from diffusecli.report.row_charts import RowChart
from diffusecli.report.target_charts import of_outcomes, of_targets
from diffusecli.report.views import OFF_TARGET, UNFINISHED, Sampler, Section, pairs, samplers, sections, spots
from diffusecli.report.wording import FILTERS, count, known, mark_of, readable

_HERE = Path(__file__).parent
_UNFOLDED = 6  # prompts whose charts are shown; with more, charts are folded
_ROOMY = 3  # columns of figures that may be wide
_LONG, _LONGEST = 14, 22  # characters of labels, beyond which they get a wider column


def html_report(evaluation: Evaluation) -> str:
    """The whole report. Raises `InputError` without the optional packages."""
    require_extra("jinja2")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= FILTERS
    engine.globals |= {"mark_of": mark_of, "known": known}
    engine.tests["finite"] = lambda value: known(value) is not None
    return engine.get_template("report.html.j2").render(**_content(evaluation))


@dataclass(frozen=True)
class Drawn:
    """What a section shows of its prompt."""

    asked: Asked
    figures: dict[str, list[Figure]]  # below each sampler's verdict
    rows: tuple[RowChart, ...]
    lines: tuple[LineChart, ...]


def drawn(section: Section, others: Sequence[Prompt], evaluation: Evaluation) -> Drawn:
    """The charts of one prompt."""
    rows = [of_targets(section)] if section.sampled else []
    rows += [
        chart
        for sampler, row in sorted(section.pairs, key=lambda pair: pair[0].untuned)
        if (chart := of_outcomes(row, sampler)) is not None
    ]
    summed = section.sampled and (section.values is not None or section.folded)
    lines = [of_cumulative(cumulative(section, evaluation.seed), [sampler for sampler, _ in section.sampled])] if summed else []
    figures = {sampler.label: three_figures(row) for sampler, row in section.pairs}
    general = general_system(evaluation.runs, section.rows)
    return Drawn(asked(section.prompt, others, general), figures, tuple(rows), tuple(lines))


def _content(evaluation: Evaluation) -> dict[str, Any]:
    every = sections(evaluation)
    found = _furthest(every, evaluation) if are_many(evaluation.rows) else every
    prompts, shown = [section.prompt for section in every], {section.prompt.key for section in found}
    drawings = [(section, drawn(section, prompts, evaluation)) for section in found]
    changes = [
        (pair, list(zip(names, some, strict=True)), of_differences(pair, some, names))
        for pair, some, names in pairs(evaluation, shown)
    ]
    recorded = [(facts, training(facts.folder)) for facts in evaluation.runs]
    named, folders = samplers(evaluation.rows), groups(evaluation.rows) if has_groups(evaluation.rows) else []
    untuned = {sampler.untuned for sampler in named.values()}
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    return {
        "evaluation": evaluation, "version": __version__, "title": title(every), "sections": drawings, "every": every,
        "by_folder": folders, "folder_chart": of_folders(folders, named),
        "samplers": named, "scores": scores(evaluation), "runs": short_names([run.run for run in evaluation.runs]),
        "sources": list(dict.fromkeys(row.run for row in evaluation.rows)), "answers": _answers(evaluation), "settings": _settings(evaluation),
        "overview": of_prompts([(section, some.asked) for section, some in drawings]) if len(found) > 1 else None,
        "answered": sum(any(row.tally.n for row in section.rows) for section in every), "fold": len(every) > _UNFOLDED,
        "places": {section.prompt.key: place for place, section in enumerate(found, 1)},
        "toggle": untuned == {True, False}, "off_target": (OFF_TARGET, UNFINISHED), "pairs": changes,
        "training": [(facts, list(of_training(curves))) for facts, curves in recorded if curves is not None],
        "facts": [(facts, {"config.yaml": readable(facts.settings.model_dump(exclude_unset=True)), "run.json": readable(facts.manifest.model_dump(exclude_unset=True))}) for facts in evaluation.runs],
        "cells": cells, "strays": strays, "cut": cut_in_words, "heat": _heat, "css": (_HERE / "report.css").read_text(encoding="utf-8"),
        "light": _variables(LIGHT), "dark": _variables(DARK), "script": script, "hash": _hash(script), "grid": _grid([some for _, some in drawings]),
    }  # fmt: skip


def _grid(drawings: Sequence[Drawn]) -> str:
    """Widths of labels and figures beside all plots, so that all have the same left and right edges."""
    charts = [chart for each in drawings for chart in each.rows]
    columns = max([3, *(len(chart.heads) for chart in charts)])
    longest = max([0, *(len(row.label) for chart in charts for row in chart.rows if not row.outside)])
    width = 15.5 if longest > _LONGEST else 13 if longest > _LONG or len(drawings) > 1 else 9
    return f"--columns:{columns};--column:{5.5 if columns <= _ROOMY else 5}rem;--label:{width}rem;"


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


def scores(evaluation: Evaluation) -> list[Score]:
    """One score per sampler, the tuned ones first."""
    names = samplers(evaluation.rows)
    found: dict[Sampler, Counter[str]] = {name: Counter() for name in names.values()}
    exact: dict[Sampler, list[float]] = {name: [] for name in names.values()}
    for row in evaluation.rows:
        of_row = found[names[row.run, row.mode]]
        if row.exact is not None and known(row.exact.tvd) is not None:
            exact[names[row.run, row.mode]].append(row.exact.tvd)
        if row.diversity is None and row.figures is not None:
            of_row["judged"] += 1
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
        )
        for name, some in sorted(found.items(), key=lambda item: item[0].untuned)
    ]


def _furthest(every: Sequence[Section], evaluation: Evaluation) -> list[Section]:
    """The prompts shown in detail if there are many: those furthest from their targets."""
    of_prompt = {section.prompt.key: section for section in every}
    return [of_prompt[key] for key in dict.fromkeys(row.prompt.key for row in worst(evaluation.rows))]


def cells(section: Section) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The numbers behind a chart: each target with the figures of every sampler."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spot in spots(section):
        found.setdefault(spot["target"], []).append(spot)
    return [(some[0], some) for some in found.values()]


def strays(row: Evaluated, most: int = 5) -> list[Outcome]:
    """The most frequent texts off target, then the most frequent unfinished texts."""
    off, cut = (
        sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        for counts in (row.tally.off_target, row.tally.unfinished)
    )
    return [*(Outcome(text, count) for text, count in off), *(Outcome(text, count, count) for text, count in cut)]


def _answers(evaluation: Evaluation) -> str:
    """The number of answers per prompt: a number or a range."""
    sizes = sorted({row.tally.n for row in evaluation.rows if row.tally.n})
    return "no" if not sizes else count(sizes[0]) if len(sizes) == 1 else f"{count(sizes[0])}–{count(sizes[-1])}"


def _settings(evaluation: Evaluation) -> list[tuple[Sampler, str]]:
    """The distinct sampling settings of each sampler."""
    names = samplers(evaluation.rows)
    return [(names[pair], words) for pair, some in ways_of_sampling(evaluation.rows).items() for words in some]


def _heat(values: Sequence[Sequence[float]], value: float) -> str:
    """The shade of a cell, 0 to 60 %."""
    top = max((some for row in values for some in row if known(some) is not None), default=0.0)
    return f"{60 * max(0.0, value) / top:.0f}" if known(value) is not None and top > 0 else "0"


def _variables(palette: Palette) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


def _hash(script: str) -> str:
    """The hash by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
