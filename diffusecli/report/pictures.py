"""`--plots`: the charts of the HTML report as files, each as SVG and as PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.evaluation.names import short_names
from diffusecli.files.writing import atomic_write, require_writable, write_text
from diffusecli.report.asked import first_sentence
from diffusecli.report.content import Drawn, content
from diffusecli.report.svg import of_cells, of_lines, of_rows
from diffusecli.report.templates import require_extra
from diffusecli.report.views import Section
from diffusecli.report.wording import short
from diffusecli.system.errors import printable

if TYPE_CHECKING:
    from diffusecli.report.histogram import Sort

_SCALE = 2.0  # pixels of a PNG per pixel of a chart


def write_plots(evaluation: Evaluation, folder: Path, sort: Sort | None = None) -> list[Path]:
    """Write every chart in light colours. File names consist of prompt, run and kind of chart.

    Raises `InputError` without the optional packages and `MachineError` when the folder cannot be written.
    """
    require_extra()
    require_writable(folder)
    taken: set[str] = set()
    return [path for name, svg in _named(evaluation, sort) for path in _write(svg, folder / _free(name, taken))]


def _named(evaluation: Evaluation, sort: Sort | None) -> Iterator[tuple[str, str]]:
    found, valid = content(evaluation, sort), f"valid: {printable(evaluation.match_in_words)}"
    if found.overview is not None:
        yield "overview", of_rows(found.overview.chart, "", valid)
    if found.folder_chart is not None:
        yield "folders", of_rows(found.folder_chart, "", valid)
    for section, drawn in found.sections:
        yield from _of_prompt(section, drawn, valid)
    for each in found.changes:
        if each.chart is not None:
            yield f"difference.{each.pair.before.label}.{each.pair.after.label}", of_rows(each.chart, "", valid)
    for matrix in found.matrices:
        yield f"matrix.{matrix.title}", of_cells(matrix, "")
    runs = short_names([facts.run for facts in evaluation.runs])
    for facts, charts in found.training:
        for chart in charts:
            yield f"{Path(facts.run).name}.training.{chart.kind}", of_lines(chart, short(runs[facts.run], 80), "")


def _of_prompt(section: Section, drawn: Drawn, valid: str) -> Iterator[tuple[str, str]]:
    about = f"{section.name} · {first_sentence(drawn.asked.request, 96)}"
    for rows in drawn.rows:
        yield f"{section.name}.{rows.kind}", of_rows(rows, about, valid if rows.kind == "distribution" else "")
    for lines in drawn.lines:
        yield f"{section.name}.{lines.kind}", of_lines(lines, about, valid)


def _free(name: str, taken: set[str]) -> str:
    """A file name that is valid on every system and not used yet.

    >>> taken = set()
    >>> _free("a/b c", taken), _free("a b/c", taken), _free("../🙂", taken)
    ('a-b-c', 'a-b-c-2', 'plot')
    """
    bare = re.sub(r"[^A-Za-z0-9._]+", "-", name)[:100].strip("-.") or "plot"
    number = 1
    while (free := bare if number == 1 else f"{bare}-{number}").lower() in taken:
        number += 1
    taken.add(free.lower())
    return free


def _write(svg: str, path: Path) -> Iterator[Path]:
    import vl_convert

    paths = path.with_name(f"{path.name}.svg"), path.with_name(f"{path.name}.png")
    write_text(paths[0], svg)
    with atomic_write(paths[1], "wb") as file:
        file.write(vl_convert.svg_to_png(svg, scale=_SCALE))
    yield from paths
