"""An evaluation as one HTML file that needs no network and no scripts: verdicts, charts as SVG, figures as tables.

Rendering only. All text from prompts, models and files goes through `printable` and the template's escaping. A content
security policy allows only this file's own script, which sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffusecli import __version__
from diffusecli.evaluation.evaluation import Evaluated, Evaluation, ways_of_sampling
from diffusecli.evaluation.groups import worst
from diffusecli.evaluation.names import short_names
from diffusecli.evaluation.open_ended import Outcome
from diffusecli.evaluation.records import PAIRS_LEVEL
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.prompts.answers import by_count
from diffusecli.report.all_figures import lines_of
from diffusecli.report.asked import rest_of_request, shared_folder, title
from diffusecli.report.content import Content, Drawn, content
from diffusecli.report.groups import measure
from diffusecli.report.histogram import FEW
from diffusecli.report.legend import glossary
from diffusecli.report.next_steps import next_steps
from diffusecli.report.numbers import count
from diffusecli.report.palette import DARK, LIGHT, Palette
from diffusecli.report.parts import cut_in_words
from diffusecli.report.prompt_charts import folder_name
from diffusecli.report.row_charts import RowChart
from diffusecli.report.scores import of_equal, scores
from diffusecli.report.target_charts import together
from diffusecli.report.templates import engine, source
from diffusecli.report.views import OFF_TARGET, UNFINISHED, Sampler, Section, samplers, spots, strays_shown
from diffusecli.report.wording import DRIFT_SCALE, phrase_of, readable, text
from diffusecli.runs.sample_files import ASKED, read_meta
from diffusecli.system.errors import joined, many

if TYPE_CHECKING:
    from diffusecli.report.histogram import Sort

_UNFOLDED = 6  # prompts whose charts are shown; with more, charts are folded
_NAMED = 4  # samplers whose numbers of answers are named
_ROOMY = 3  # columns of figures that may be wide
_NARROW, _WIDE = 9, 19  # rem of labels
_MOST_NUMBERS = 200  # targets in a table of numbers
_LETTER = 0.43  # rem of a letter of a label


def html_report(evaluation: Evaluation, sort: Sort | None = None) -> str:
    """The whole report."""
    return engine(lambda name: f"var(--{name})").get_template("report.html.j2").render(**_page(evaluation, sort))


def _page(evaluation: Evaluation, sort: Sort | None) -> dict[str, Any]:
    found, script = content(evaluation, sort), source("report.js")
    every, named = found.every, samplers(evaluation.rows)
    untuned = {sampler.untuned for sampler in named.values()}
    modes = {mode for _, mode in named}
    baselines = " and ".join(
        words for words, there in (("the untuned model", "untuned" in modes), ("prompting", modes & {*ASKED})) if there
    )
    answered = sum(any(row.tally.n for row in section.rows) for section in every)
    return {
        "evaluation": evaluation, "version": __version__, "title": title(every), "sections": found.sections, "every": every,
        "by_folder": found.by_folder, "follow": found.follow, "folder_name": folder_name, "shared": shared_folder(every), "folder_chart": found.folder_chart,
        "samplers": named, "scores": of_equal(scores(evaluation.rows, named)), "runs": short_names([run.run for run in evaluation.runs]),
        "sources": list(dict.fromkeys(row.run for row in evaluation.rows)), "answers": _answers(evaluation, answered), "settings": _settings(evaluation),
        "rest": rest_of_request(every, [some.asked for _, some in found.sections]), "overview": found.overview if len(every) > 1 else None, "ranked_by": measure(worst(evaluation.rows)), "answered": answered, "origins": list(_origins(evaluation)), "pairs_level": PAIRS_LEVEL, "fold": len(every) > _UNFOLDED,
        "places": {section.prompt.key: place for place, (section, _) in enumerate(found.sections, 1)},
        "mixed": untuned == {True, False}, "toggle": untuned == {True, False} and _has_untuned_shares(found), "glossary": glossary(evaluation), "baselines": baselines, "off_target": (OFF_TARGET, UNFINISHED), "pairs": found.changes, "training": found.training,
        "matrices": found.matrices, "next_steps": list(next_steps(evaluation)), "drift_scale": DRIFT_SCALE,
        "facts": [(facts, {_settings_of(facts): readable(facts.settings.model_dump(exclude_unset=True)), "run.json": readable(facts.manifest.model_dump(exclude_unset=True))}) for facts in evaluation.runs],
        "cells": cells, "with_all_targets": with_all_targets, "strays": strays, "left_out": left_out, "off_target_leads": off_target_leads, "few_are_valid": few_are_valid, "together": together, "lines_of": lines_of, "cut": cut_in_words, "css": source("report.css") + source("marks.css"),
        "light": _variables(LIGHT), "dark": _variables(DARK), "script": script, "hash": _hash(script), "grid": _grid([some for _, some in found.sections], found.folder_chart),
    }  # fmt: skip


def _grid(drawings: Sequence[Drawn], folders: RowChart | None) -> str:
    """Widths of labels and figures beside all plots, so that all have the same left and right edges."""
    charts = [*(chart for each in drawings for chart in each.rows), *([folders] if folders else [])]
    columns = max([2 if len(drawings) == 1 else 3, *(len(chart.heads) for chart in charts)])
    longest = max([0, *(len(row.label) for chart in charts if not chart.above for row in chart.rows if not row.outside)])
    width = min(max(_NARROW if len(drawings) == 1 else 13, _LETTER * longest + 1), _WIDE)
    return f"--columns:{columns};--column:{6 if columns < _ROOMY else 5.5 if columns == _ROOMY else 5}rem;--label:min({width:.1f}rem, 28vw);"


def with_all_targets(section: Section) -> Section:
    """The section with all targets, as far as a table can have them."""
    return replace(section, most=_MOST_NUMBERS)


def cells(section: Section) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The numbers behind a chart: each target with the figures of every sampler."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spot in spots(section):
        found.setdefault(spot["target"], []).append(spot)
    return [(some[0], some) for some in found.values()]


def strays(row: Evaluated) -> list[Outcome]:
    """The most frequent texts off target, then the most frequent unfinished texts."""
    off, cut = (by_count(counts)[: strays_shown(row)] for counts in (row.tally.off_target, row.tally.unfinished))
    return [*(Outcome(text, count) for text, count in off), *(Outcome(text, count, count) for text, count in cut)]


def left_out(row: Evaluated) -> str:
    """How many texts `strays` leaves out; empty if none."""
    off, cut = (len(counts) - strays_shown(row) for counts in (row.tally.off_target, row.tally.unfinished))
    parts = [
        many(off, "more text off target", "more texts off target") if off > 0 else "",
        many(cut, "more unfinished text") if cut > 0 else "",
    ]
    return f"and {joined(found)}" if (found := [part for part in parts if part]) else ""


def off_target_leads(section: Section) -> bool:
    """Whether the verdict of a tuned sampler begins with the share off target, so that these texts explain it."""
    return any(phrase_of(row.verdict).startswith(("off target", "undecided, off target")) for _, row in section.main)


def few_are_valid(section: Section) -> bool:
    """Whether a chart of shares would show noise or nothing, because so many answers are off target."""
    valid = max((row.tally.on_target for _, row in section.main), default=0)
    return bool(section.prompt.targets) and (not valid or (valid < FEW and off_target_leads(section)))


def _has_untuned_shares(found: Content) -> bool:
    """Whether a chart shows shares of an untuned sampler, so that there is something to hide."""
    return any(sampler.untuned and row.tally.on_target for section, _ in found.sections for sampler, row in section.sampled)


def _answers(evaluation: Evaluation, answered: int) -> str:
    """The number of answers per prompt, of each sampler if they differ; and to how many prompts, if there are several.

    A sampler whose prompts have different numbers has the lowest and the highest.
    """
    named, sizes = samplers(evaluation.rows), dict[str, list[int]]()
    for row in evaluation.rows:
        if row.tally.n:
            sizes.setdefault(named[row.run, row.mode].label, []).append(row.tally.n)
    whole, every = {n for some in sizes.values() for n in some}, all(len(some) == answered for some in sizes.values())
    prompts = f" per prompt, {many(answered, 'prompt')}" if answered > 1 else ""
    if len(sizes) < 2 or len(sizes) > _NAMED or (every and len(whole) == 1):
        return f"{_numbers(whole)} answers{prompts}"
    to = ["" if every else f" to {'each of ' if len(some) > 1 else ''}{many(len(some), 'prompt')}" for some in sizes.values()]
    first, *others = ((_numbers({*some}), name) for name, some in sizes.items())
    parts = [f"{first[0]} answers of {first[1]}", *(f"{number} of {name}" for number, name in others)]
    found = joined([f"{part}{where}" for part, where in zip(parts, to, strict=True)])
    return f"{found}{prompts}" if every else found


def _origins(evaluation: Evaluation) -> Iterator[str]:
    """The base model if all runs share it; for each run: its own one, its adapter, for how long it was trained, and when it was sampled."""
    names, models = short_names([facts.run for facts in evaluation.runs]), [_model(facts) for facts in evaluation.runs]
    shared = models[0] if len(models) > 1 and len({*models}) == 1 else ""
    if shared:
        yield f"base model {shared}"
    for facts in evaluation.runs:
        manifest, modes = facts.manifest, dict.fromkeys(row.mode for row in evaluation.rows if row.run == facts.run and row.tally.n)
        model, trained = _model(facts), (manifest.model_extra or {}).get("time")
        files = facts.folder.sample_files()
        times = [_day(read_meta(files[mode]).get("time")) for mode in modes if mode in files]
        adapter = manifest.adapter_sha256
        parts = [
            f"base model {model}" if model and not shared else "",
            f"adapter {text(names[facts.run], 80)}{f' (SHA-256 {text(adapter[:8])})' if adapter else ''}" if manifest.iterations or adapter else "",
            f"trained for {many(manifest.iterations, 'iteration')}" + (f" until {day}" if (day := _day(trained)) else "") if manifest.iterations else "",
            f"sampled {' to '.join(dict.fromkeys((min(days), max(days))))}" if (days := [day for day in times if day]) else "",
        ]  # fmt: skip
        if found := ", ".join(filter(None, parts)):
            yield found


def _model(facts: RunFacts) -> str:
    """The base model of a run; empty if unknown."""
    recorded, wanted = ((some.model_extra or {}).get("model") for some in (facts.manifest, facts.settings))
    model = recorded or wanted
    return text(model, 80) if isinstance(model, str) else ""


def _day(time: object) -> str:
    """The day of a recorded time; empty if it is none.

    >>> _day("2026-11-30T23:03:16+00:00"), _day(None), _day("soon")
    ('2026-11-30', '', '')
    """
    return time[:10] if isinstance(time, str) and re.match(r"\d{4}-\d\d-\d\d(T|$)", time) else ""


def _settings_of(facts: RunFacts) -> str:
    """The name of a run's settings; with the iterations trained if they are not those of the settings, because training went on."""
    trained = facts.manifest.iterations
    differ = (
        trained is not None and trained != facts.settings.alg_config.n_iters and "alg_config" in facts.settings.model_fields_set
    )
    return f"config.yaml ({many(trained, 'iteration')} trained)" if differ and trained else "config.yaml"


def _numbers(sizes: Set[int]) -> str:
    if len(sizes) < 2:
        return count(next(iter(sizes))) if sizes else "no"
    return f"{count(min(sizes))} to {count(max(sizes))}"


def _settings(evaluation: Evaluation) -> list[tuple[Sampler, str]]:
    """The distinct sampling settings of each sampler."""
    names = samplers(evaluation.rows)
    return [(names[pair], words) for pair, some in ways_of_sampling(evaluation.rows).items() for words in some]


def _variables(palette: Palette) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


def _hash(script: str) -> str:
    """The hash by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
