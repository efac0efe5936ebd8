"""The tables of docs/study.md on groups in many wordings, from the lines of `results/wordings.csv`. Of several seeds: the mean, with the range in brackets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.study.groups import GROUPS
from benchmarks.study.literature import MIXTURE
from benchmarks.study.spread import spread
from benchmarks.study.wordings import BEFORE, MANY, ONE, UNTUNED

Line = Mapping[str, str]
Table = Iterator[Sequence[str]]

_FIGURES = (
    ("kl", "exact KL, nats", 1, 2),
    ("on_target", "on target, %", 100, 0),
    ("tvd_among", "TVD of the answers on target", 1, 2),
    ("excess_among", "their excess TVD", 1, 2),
    ("excess_tvd", "excess TVD of 200 answers", 1, 2),
    ("coverage", "coverage, %", 100, 0),
)
"""Column of the CSV file, its heading, a factor, digits."""

_REQUESTS = {"own": "own", "other": "other words"}
_MODELS = {UNTUNED: "untuned", BEFORE: BEFORE, ONE: ONE, MANY: MANY, MIXTURE: "the mixture"}


def held_out(found: Sequence[Line]) -> Table:
    """Each group by the models that were not trained on it."""
    if not any(line["model"] == MANY for line in found):
        return
    yield "untrained group", "trained with", "requests", *(told for _, told, _, _ in _FIGURES)
    for group in GROUPS:
        yield from _rows(group, [line for line in found if line["group"] == group and not _was_trained(line)])


def trained(found: Sequence[Line]) -> Table:
    """Each group by the five models that were trained on it."""
    if not any(line["model"] == MANY for line in found):
        return
    yield "trained group", "trained with", "requests", *(told for _, told, _, _ in _FIGURES)
    for group in GROUPS:
        yield from _rows(group, [line for line in found if line["group"] == group and _was_trained(line)])


def over_groups(found: Sequence[Line]) -> Table:
    """Means over the six groups, trained and not. Only of models with exact figures in all columns."""
    some = [line for line in found if line["model"] != BEFORE]
    if not any(line["model"] == MANY for line in some):
        return
    yield "groups", "trained with", "requests", *(told for _, told, _, _ in _FIGURES)
    yield from _rows("untrained", [line for line in some if not _was_trained(line)])
    yield from _rows("trained", [line for line in some if _was_trained(line)])


def _was_trained(line: Line) -> bool:
    """Whether the model was trained on the group. Models that hold out no group (untuned, mixture) were trained on none."""
    return line["held_out"] not in ("", line["group"])


def _rows(group: str, found: Sequence[Line]) -> Table:
    for model, told in _MODELS.items():
        for requests, words in _REQUESTS.items():
            some = [line for line in found if line["model"] == model and line["requests"] == requests]
            if some:
                seeds = sorted({line["seed"] for line in some})
                of_seeds = [[line for line in some if line["seed"] == seed] for seed in seeds]
                cells = (_cell(of_seeds, *figure) for figure in _FIGURES)
                yield group, told, words, *cells


def _cell(of_seeds: Iterable[Sequence[Line]], name: str, _: str, factor: float, digits: int) -> str:
    """The figure of each seed is the mean over its models."""
    known = [[float(line[name]) for line in some if line[name]] for some in of_seeds]
    return spread([factor * mean(values) for values in known if values], digits)
