"""An evaluation as one HTML file that needs no network: figures as tables, charts drawn in the browser.

Rendering only. All text from prompts, models and files goes through `printable` and the template's escaping. A content
security policy allows only this file's own scripts.
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
from diffusecli.report.bundle import vega_bundle
from diffusecli.report.charts import of_section, require_extra
from diffusecli.report.curves import training
from diffusecli.report.dots import compared, overview
from diffusecli.report.drawing import Frame, unchecked
from diffusecli.report.lines import of_training
from diffusecli.report.palette import DARK, LIGHT, SCREEN, Palette, look
from diffusecli.report.parts import cut_in_words
from diffusecli.report.views import OFF_TARGET, UNFINISHED, Sampler, Section, pairs, samplers, sections, spots
from diffusecli.report.wording import FILTERS, count, known, mark_of, readable

_HERE = Path(__file__).parent
_PATHS = {
    "circle": "M5 1a4 4 0 1 0 .01 0z", "square": "M1.5 1.5h7v7h-7z", "diamond": "M5 .3 9.7 5 5 9.7.3 5z", "triangle-up": "M5 1 9.4 9H.6z",
    "cross": "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z", "triangle-down": "M5 9 .6 1h8.8z",
}  # fmt: skip


def html_report(evaluation: Evaluation) -> str:
    """The whole report, including about 1 MB of chart code. Raises `InputError` without the optional packages."""
    require_extra()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= FILTERS
    engine.globals |= {"mark_of": mark_of, "shape_of": _PATHS.get, "known": known}
    engine.tests["finite"] = lambda value: known(value) is not None
    with unchecked():
        content = _content(evaluation)
    return engine.get_template("report.html.j2").render(**content)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    frame, every = Frame(SCREEN, "container"), sections(evaluation)
    found = _furthest(every, evaluation) if are_many(evaluation.rows) else every
    drawn = {section.prompt.key for section in found}
    script, bundle = (_HERE / "report.js").read_text(encoding="utf-8"), vega_bundle()
    recorded = [(facts, training(facts.folder)) for facts in evaluation.runs]
    return {
        "evaluation": evaluation, "version": __version__, "sections": [(s, list(of_section(s, frame, evaluation.seed))) for s in found], "every": every,
        "by_folder": groups(evaluation.rows) if has_groups(evaluation.rows) else [],
        "samplers": samplers(evaluation.rows), "scores": scores(evaluation), "runs": short_names([run.run for run in evaluation.runs]),
        "sources": list(dict.fromkeys(row.run for row in evaluation.rows)), "answers": _answers(evaluation), "settings": _settings(evaluation),
        "overview": overview(found, frame) if any(s.sampled for s in found) else None, "off_target": (OFF_TARGET, UNFINISHED),
        "pairs": [(pair, list(zip(names, some, strict=True)), compared(pair, some, names, frame)) for pair, some, names in pairs(evaluation, drawn)],
        "training": [(facts, list(of_training(curves, frame))) for facts, curves in recorded if curves is not None],
        "facts": [(facts, {"config.yaml": readable(facts.settings.model_dump(exclude_unset=True)), "run.json": readable(facts.manifest.model_dump(exclude_unset=True))}) for facts in evaluation.runs],
        "cells": cells, "strays": strays, "cut": cut_in_words, "heat": _heat, "look": look(SCREEN), "css": (_HERE / "report.css").read_text(encoding="utf-8"),
        "light": _variables(LIGHT), "dark": _variables(DARK), "bundle": bundle, "script": script, "hashes": [_hash(bundle), _hash(script)],
    }  # fmt: skip


@dataclass(frozen=True)
class Score:
    """How many prompts a sampler matches."""

    sampler: Sampler
    untuned: bool
    follows: int
    close: int
    judged: int
    open_ended: int
    exact: int  # prompts with a known exact TVD
    exact_tvd: float  # its median over them


def scores(evaluation: Evaluation) -> list[Score]:
    """One score per sampler, in the order of the evaluation."""
    names = samplers(evaluation.rows)
    found: dict[Sampler, Counter[str]] = {name: Counter() for name in names.values()}
    exact: dict[Sampler, list[float]] = {name: [] for name in names.values()}
    for row in evaluation.rows:
        of_row = found[names[row.run, row.mode]]
        of_row["open"] += row.diversity is not None
        if row.exact is not None and known(row.exact.tvd) is not None:
            exact[names[row.run, row.mode]].append(row.exact.tvd)
        if row.diversity is None and row.figures is not None:
            of_row["judged"] += 1
            of_row[mark_of(row.verdict)[1] + " verdict"] += 1
    untuned = {name for (_, mode), name in names.items() if mode == "untuned"}
    return [
        Score(
            name,
            name in untuned,
            some["good verdict"],
            some["near verdict"],
            some["judged"],
            some["open"],
            len(exact[name]),
            median(exact[name]) if exact[name] else math.nan,
        )
        for name, some in found.items()
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
