"""All charts of an evaluation as files, in Vega-Lite through Altair."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.files.writing import atomic_write, require_writable, write_text
from diffusecli.report.bars import outcomes, paired, residuals
from diffusecli.report.curves import cumulative, training
from diffusecli.report.dots import compared, matrix, overview
from diffusecli.report.drawing import Chart, Frame, unchecked
from diffusecli.report.lines import of_training, summed
from diffusecli.report.palette import LIGHT, look
from diffusecli.report.views import MOST, Section, pairs, sections
from diffusecli.system.errors import InputError

_WIDTH = 640
_SCALE = 2.0  # pixels of a PNG per pixel of a chart


def require_extra(*packages: str) -> None:
    """Raises `InputError` if one of these optional packages is not installed."""
    try:
        for package in packages:
            import_module(package)
    except ImportError as error:
        needed = "The HTML report needs jinja2, and --plots needs altair and vl-convert-python"
        raise InputError(f"{needed}. Run `pip install 'diffuse-lm[report]'`") from error


def vega_lite_version() -> str:
    """The Vega-Lite version (major and minor) that Altair writes and vl-convert draws."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def of_section(section: Section, frame: Frame, seed: int) -> Iterator[Chart]:
    """The charts of one prompt."""
    if section.sampled:
        yield paired(section, frame)
        if len(section.prompt.targets) <= MOST:
            yield residuals(section, frame)
        if section.values is not None or section.folded:
            yield summed(cumulative(section, seed), frame.to(sampler for sampler, _ in section.sampled))
    for sampler, row in section.pairs:
        if (chart := outcomes(row, sampler, frame)) is not None:
            yield chart


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write every chart as SVG and PNG, in light colours. File names consist of prompt, run and kind of chart.

    Raises `InputError` without the optional packages and `MachineError` when the folder cannot be written.
    """
    require_extra("altair", "vl_convert")
    require_writable(folder)
    taken: set[str] = set()
    with unchecked():
        subtitle = f"valid: {evaluation.match_in_words}"
        return [path for name, chart in _named(evaluation) for path in _write(chart, subtitle, folder / _free(name, taken))]


def _named(evaluation: Evaluation) -> Iterator[tuple[str, Chart]]:
    frame, found = Frame(LIGHT, _WIDTH), sections(evaluation)
    if any(section.sampled for section in found):
        yield "overview", overview(found, frame)
    for section in found:
        for chart in of_section(section, frame, evaluation.seed):
            yield f"{section.name}.{chart.kind}", chart
    for pair, some, names in pairs(evaluation):
        if (drawn := compared(pair, some, names, frame)) is not None:
            yield f"difference.{pair.before.label}.{pair.after.label}", drawn
    for each in evaluation.matrices:
        yield f"matrix.{each.measure}", matrix(each, frame)
    for facts in evaluation.runs:
        if (recorded := training(facts.folder)) is not None:
            for chart in of_training(recorded, frame):
                yield f"{Path(facts.run).name}.training.{chart.kind}", chart


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


def as_svg(chart: Chart, subtitle: str) -> str:
    """One chart as a separate picture, with its title and a `subtitle` below it."""
    import vl_convert

    config = look(LIGHT, background="#ffffff")
    config["legend"]["columns"] = chart.columns(_WIDTH)
    title = {"text": chart.title, "subtitle": subtitle, "anchor": "start", "fontSize": 13, "offset": 10}
    spec = {**chart.spec, "title": title, "config": config, "padding": 14}
    return vl_convert.vegalite_to_svg(spec, vl_version=vega_lite_version())


def _write(chart: Chart, subtitle: str, path: Path) -> Iterator[Path]:
    """Write a chart as SVG and PNG, with its title and the matching rule."""
    import vl_convert

    svg = as_svg(chart, subtitle)
    paths = path.with_name(f"{path.name}.svg"), path.with_name(f"{path.name}.png")
    write_text(paths[0], svg)
    with atomic_write(paths[1], "wb") as file:
        file.write(vl_convert.svg_to_png(svg, scale=_SCALE))
    yield from paths
