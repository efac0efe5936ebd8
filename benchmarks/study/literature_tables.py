"""The tables of docs/study.md on tasks of published work, from the lines of their CSV files: published figures first, then ours.

A table is empty until something of its task is measured. Cells with a stroke are of all answers / of the valid ones alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from benchmarks.study.divergences import summed
from benchmarks.study.tasks import BERNOULLI, CHOICES, FAMILIES, LAWS, PARAMETERS, TRAINED
from diffusecli.evaluation.fit import SIGNIFICANCE

Line = Mapping[str, str]
Table = Iterator[Sequence[str]]
Lines = Callable[[str], Sequence[Line]]
"""The lines of a CSV file, by its name."""

MOST_INVALID = 0.05
"""Of the answers on a law that passes."""

FEWEST_VALID = 30
"""Valid answers of a sample, below which figures of them alone say nothing."""

_MODELS = {"eighty": "tuned on the 80 targets", "mixture": "tuned on the mixture"}


def choices(lines: Lines) -> Table:
    """Jensen-Shannon divergence × 1000 of the draws that the paper takes."""
    found = lines("choices")
    if not found:
        return
    yield "sampler", "valid, %", *(name.replace("-", " ") for name in CHOICES)
    yield from _published(lines, "choices", CHOICES, blanks=1)
    ours = {line["score"]: f"{1000 * float(line['mean']):.1f}" for line in lines("generator") if line["task"] == "choices"}
    yield "pseudo-random generator, ours", "100", *(ours[name] for name in CHOICES)
    for sampler, kind, some in _samplers(found):
        column = "js" if kind == "sampled" else "mean_js"
        by_name = {line["prompt"]: line for line in some}
        cells = [_both(by_name.get(name), column, 1000, 1) for name in CHOICES]
        yield _named(sampler, kind), _valid(some), *cells


def bernoulli(lines: Lines) -> Table:
    """The sum of total variation distances over the sweep."""
    found = lines("bernoulli")
    if not found:
        return
    yield (
        "sampler",
        "valid, %",
        "parameters",
        "Σ TVD of 100 draws each: all answers",
        "valid answers",
        "exact Σ TVD: all answers",
        "valid answers",
    )
    for sampler, value in _published(lines, "bernoulli", ["sum"], blanks=0):
        yield sampler, "-", str(len(BERNOULLI)), "-", value, "-", "-"
    (generator,) = (line for line in lines("generator") if line["task"] == "bernoulli")
    ours = f"{float(generator['mean']):.2f} ({float(generator['low']):.2f} to {float(generator['high']):.2f})"
    yield "pseudo-random generator, ours", "100", str(len(BERNOULLI)), ours, ours, "0", "0"
    for sampler, kind, some in _samplers(found):
        drawn = ("tv", "valid_tv") if kind == "sampled" else ("mean_tv", "valid_mean_tv")
        exact = ("tv", "valid_tv") if kind == "exact" else ()
        sums = [_sum(some, name) for name in drawn] + ([_sum(some, name) for name in exact] or ["-", "-"])
        yield _named(sampler, kind), _valid(some), str(len(some)), *sums


def laws(lines: Lines) -> Table:
    """How many of the fifteen laws pass the test of fit."""
    found = lines("laws")
    if not found:
        return
    yield "sampler", "answers per law", "valid, % (median)", "laws passed", "TVD, median: all answers / valid ones"
    for sampler, value in _published(lines, "laws", ["passed"], blanks=0):
        yield sampler, "1000", "-", f"{value} of 15", "-"
    (generator,) = (line for line in lines("generator") if line["task"] == "laws")
    yield "pseudo-random generator, ours", generator["draws"], "100", f"{float(generator['mean']):.1f} of {len(LAWS)}", "-"
    for sampler, kind, some in _samplers(found):
        passed = f"{sum(map(passes, some))} of {len(some)}" if kind == "sampled" else "-"
        yield (
            _named(sampler, kind),
            some[0]["n"] if kind == "sampled" else "-",
            _percent(median(float(line["valid"]) for line in some)),
            passed,
            _medians(some, "tv"),
        )


def stated(lines: Lines) -> Table:
    """Median excess TV of trained targets, unseen parameters and unseen families."""
    found = lines("stated")
    if not found:
        return
    splits = {TRAINED: "80 trained targets", PARAMETERS: "16 unseen parameters", FAMILIES: "100 targets of unseen families"}
    heads = (cell for told in splits.values() for cell in (f"{told}: excess TVD, median", "valid, % (median)"))
    yield "sampler", *heads, "MMLU", "drift, nats per token"
    for sampler, *values, mmlu in _published(lines, "stated", [*splits, "mmlu"], blanks=0):
        yield sampler, *(cell for value in values for cell in (value, "-")), mmlu, "-"
    for sampler, kind, every in _samplers(found):
        cells: list[str] = []
        for split in splits:
            some = [line for line in every if line["prompt"].startswith(f"{split}/")]
            cells += [_medians(some, "excess_tv"), _percent(median(float(line["valid"]) for line in some))] if some else ["-", "-"]
        yield _named(sampler, kind), *cells, "-", f"{float(every[0]['drift']):.3f}"


def passes(line: Line) -> bool:
    """Whether the valid answers fit the law, and nearly all answers are valid."""
    return line["p_value"] != "" and float(line["p_value"]) >= SIGNIFICANCE and float(line["valid"]) >= 1 - MOST_INVALID


def _published(lines: Lines, task: str, columns: Sequence[str] | Mapping[str, object], *, blanks: int) -> Iterator[tuple[str, ...]]:
    """The published figures of a task: sampler, then its values."""
    found = [line for line in lines("published") if line["task"] == task]
    for sampler in dict.fromkeys(line["sampler"] for line in found):
        values = {line["column"]: line["value"] for line in found if line["sampler"] == sampler}
        yield sampler, *["-"] * blanks, *(values[column] for column in columns)


def _samplers(found: Sequence[Line]) -> Iterator[tuple[str, str, list[Line]]]:
    """Model, kind of figures, lines."""
    for model, kind in dict.fromkeys((line["model"], line["kind"]) for line in found):
        yield model, kind, [line for line in found if (line["model"], line["kind"]) == (model, kind)]


def _named(sampler: str, kind: str) -> str:
    return f"{_MODELS.get(sampler, sampler)}, {kind}"


def _both(line: Line | None, column: str, factor: float, digits: int) -> str:
    if line is None:
        return "-"
    return " / ".join(
        f"{factor * float(line[name]):.{digits}f}" if _known(line, name) else "-" for name in (column, f"valid_{column}")
    )


def _medians(some: Sequence[Line], column: str) -> str:
    found = [[float(line[name]) for line in some if _known(line, name)] for name in (column, f"valid_{column}")]
    return " / ".join(f"{median(values):.3f}" if values else "-" for values in found)


def _sum(some: Sequence[Line], column: str) -> str:
    values = [float(line[column]) for line in some if _known(line, column)]
    return f"{summed(values, len(BERNOULLI)):.2f}" if values else "-"


def _known(line: Line, column: str) -> bool:
    """Whether the line has the figure; a figure of sampled valid answers alone needs some of them."""
    few = line["kind"] == "sampled" and column.startswith("valid_") and float(line["n"]) * float(line["valid"]) < FEWEST_VALID
    return bool(line[column]) and not few


def _valid(some: Sequence[Line]) -> str:
    return _percent(sum(float(line["valid"]) for line in some) / len(some))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
