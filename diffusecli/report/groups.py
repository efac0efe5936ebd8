"""Summary of many prompts: a table by folder and sampler, and the prompts that are furthest from their targets.

Columns are plain texts, so the terminal and Markdown show the same. A column without values is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from shlex import quote

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated, Evaluation
from diffusecli.evaluation.groups import Group, groups, has_groups, tuned, worst
from diffusecli.evaluation.names import labels, prompt_names, short_names
from diffusecli.prompts.groups import Folder
from diffusecli.report import views
from diffusecli.report.parts import Sentence, label, nats, new_table, percent, thousandths
from diffusecli.report.scores import Score, in_folders
from diffusecli.report.widths import distinguishable
from diffusecli.report.wording import STYLES, mark_of
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

_ROOM = 80
_LONGEST_SAMPLER, _SHORTEST_RUN = 24, 8
_FOLDERS = 16  # with more folders a separate table shows the splits first


@dataclass(frozen=True)
class Column:
    """A figure of groups."""

    head: tuple[str, str]  # two lines
    text: Callable[[Group], str]
    meaning: str


def columns(found: Evaluation) -> list[Column]:
    """The figures that at least one group has."""
    parts = groups(found.rows)
    some = [group for _, of_folder in parts for group in of_folder]
    exact, drawn = any(group.exact for group in some), any(group.sampled for group in some)
    tvd = "TVD: total variation distance of the model's own probabilities, including off-target mass; median and 90 % quantile over prompts."
    excess = f"excess at {found.at_n}: expected excess TVD of {found.at_n} draws from the model over a perfect sampler; median."
    sampled = "sampled: TVD of the samples and its excess over a perfect sampler at the same N; medians."
    judged = any(row.figures is not None and row.tally.n for row in found.rows)
    follow = _follow(found, [folder for folder, _ in parts])
    shown = [
        (judged, Column(("follow", "target"), follow, "follow target: prompts that follow their target, of those with samples.")),
        (exact, Column(("TVD", "median"), lambda group: thousandths(group.tvd_median), tvd)),
        (exact, Column(("TVD", "90 %"), lambda group: thousandths(group.tvd_90), tvd)),
        (exact, Column(("excess", f"at {found.at_n}"), lambda group: thousandths(group.excess_tvd_median), excess)),
        (
            _any(some, "kl_median"),
            Column(("KL", "median"), lambda group: nats(group.kl_median), "KL: exact KL(target || model) in nats; median."),
        ),
        (
            _any(some, "on_target_mean"),
            Column(
                ("on", "target"), lambda group: percent(group.on_target_mean), "on target: probability of a valid answer; mean."
            ),
        ),
        (drawn, Column(("sampled", "TVD"), lambda group: thousandths(group.sampled_tvd_median), sampled)),
        (drawn and not exact, Column(("sampled", "excess"), lambda group: thousandths(group.sampled_excess_tvd_median), sampled)),
    ]
    return [column for known, column in shown if known]


def _follow(found: Evaluation, folders: Iterable[Folder]) -> Callable[[Group], str]:
    """How many prompts of a group follow their target."""
    named = views.samplers(found.rows)

    @cache  # the legend needs no scores
    def known() -> dict[tuple[str, bool, views.Sampler], Score]:
        found_scores = in_folders(found.rows, folders, named)
        return {(folder.name, folder.whole, sampler): score for (folder, sampler), score in found_scores.items()}

    def of_group(group: Group) -> str:
        score = known()[group.folder, group.whole, named[group.run, group.mode]]
        return f"{score.follows} of {score.judged}" if score.judged else "-"

    return of_group


def group_table(found: Evaluation) -> Iterator[RenderableType]:
    """Figures by folder and sampler; with many folders the splits first. Nothing if the table would only repeat the rows."""
    if not has_groups(found.rows):
        return
    parts = groups(found.rows)
    cells, samplers = columns(found), labels(found.rows)
    splits = [part for part in parts if part[0].whole and part[0].top]
    if len(parts) > _FOLDERS and splits:
        yield from _folder_table("by split", splits, cells, samplers)
    yield from _folder_table("by folder", parts, cells, samplers)


def _folder_table(
    title: str, parts: Sequence[tuple[Folder, Sequence[Group]]], cells: Sequence[Column], samplers: Mapping[tuple[str, str], str]
) -> Iterator[RenderableType]:
    named = _short_samplers(samplers)
    several, width = len(samplers) > 1, _sampler_width(named.values())
    room = _ROOM - 8 - (width + 1) * several - sum(max(7, *map(len, column.head)) + 1 for column in cells)
    counted = all(group.sampled == group.prompts for _, some in parts for group in some)  # "4 of 10" has their number
    table = new_table(
        Text("folder"),
        *([Text("sampler")] if several else []),
        *([] if counted else [("prompts", "right")]),
        *(("\n".join(c.head), "right") for c in cells),
    )
    for folder, some in parts:
        for place, group in enumerate(some):
            sampler = named[group.run, group.mode]
            table.add_row(
                label(folder.label, room) if place == 0 else "", *([sampler] if several else []), *([] if counted else [str(group.prompts)]),
                *(column.text(group) for column in cells), style="bold" if folder.whole else "",
            )  # fmt: skip
    yield Text(f"\n{title}", style="bold")
    yield table


def group_legend(found: Evaluation, separator: str = "\n") -> str:
    """Legend of the columns of groups."""
    return separator.join(dict.fromkeys(column.meaning for column in columns(found)))


def worst_table(found: Evaluation) -> Iterator[RenderableType]:
    """The prompts that are furthest from their targets, and the option that shows one in detail."""
    rows = worst(found.rows)
    if not rows:
        return
    prompts, every = (len({row.prompt.key for row in some}) for some in (rows, found.rows))
    yield Text(f"\nfurthest from the target, by {measure(rows)}: {prompts} of {many(every, 'prompt')}", style="bold")
    yield _row_table(rows, found)
    shown = short_names([row.prompt.alias for row in found.rows])[rows[0].prompt.alias]
    others = f"; of these {prompts}: --html report.html" if prompts < every else ""
    yield Sentence(f"details of one prompt: --only {quote(spelled(shown))}{others}")


def row_table(found: Evaluation) -> Iterator[RenderableType]:
    """Every prompt with targets and its sampler, tuned ones only if there are any."""
    rows = [row for row in tuned(found.rows) if row.prompt.targets]
    if rows:
        yield _row_table(rows, found)


def _row_table(rows: Sequence[Evaluated], found: Evaluation) -> RenderableType:
    names, samplers = prompt_names(row.prompt for row in found.rows), labels(found.rows)
    several, named = len({(row.run, row.mode) for row in rows}) > 1, _short_samplers(samplers)
    heads, *figures = worst_figures(rows)
    signed = any(row.tally.n for row in rows)  # without samples all rows have the same sign
    table = new_table(
        Text("  prompt" if signed else "prompt"), *([Text("sampler")] if several else []), *((head, "right") for head in heads)
    )
    for row, cells in zip(rows, figures, strict=True):
        sign, kind = mark_of(row.verdict)
        before = Text(f"{sign} " if signed else "", style=STYLES[kind])
        name = Text.assemble(before, label(names[row.prompt.key], 34))
        table.add_row(name, *([named[row.run, row.mode]] if several else []), *cells)
    return table


def worst_figures(rows: Sequence[Evaluated]) -> list[list[str]]:
    """Heads of columns, then the exact figures of each row, or those of its samples if there are none. Empty columns are left out."""
    exact = any(row.exact is not None for row in rows)
    heads = ["N", "TVD", "perfect sampler", "excess", "KL", "on target" if exact else "valid"]
    lines = [_worst_line(row) for row in rows]
    known = [place for place in range(len(heads)) if any(line[place] != "-" for line in lines)]
    return [[line[place] for place in known] for line in (heads, *lines)]


def _worst_line(row: Evaluated) -> tuple[str, ...]:
    f, exact = row.figures, row.exact
    kl = nats(exact.kl) if exact is not None else "-"
    if f is not None and (exact is None or math.isnan(exact.tvd)):
        return (
            str(f.n),
            thousandths(f.tvd),
            thousandths(f.tvd_floor),
            thousandths(f.excess_tvd),
            kl,
            percent(f.valid if exact is None else exact.on_target),
        )
    return (
        (str(row.tally.n or "-"), thousandths(exact.tvd), "-", "-", kl, percent(exact.on_target))
        if exact is not None
        else ("-",) * 6
    )


def measure(rows: Sequence[Evaluated]) -> str:
    """What `worst` ranks by."""
    known = [row.exact is not None and not math.isnan(row.exact.tvd) for row in rows]
    sampled = "the excess TVD of samples"
    return "exact TVD" if all(known) else f"exact TVD, otherwise {sampled}" if any(known) else sampled


def _short_samplers(samplers: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Names of samplers. Of long ones the run is shortened, not the mode after it, and they stay different."""
    parts = {pair: spelled(name).rpartition(" (") for pair, name in samplers.items()}
    longest_mode = max((cell_len(mode) + 2 for run, _, mode in parts.values() if run), default=0)
    runs = list(dict.fromkeys(run or mode for run, _, mode in parts.values()))
    shown = dict(zip(runs, distinguishable(runs, max(_SHORTEST_RUN, _LONGEST_SAMPLER - longest_mode)), strict=True))
    return {pair: f"{shown[run]} ({mode}" if run else shown[mode] for pair, (run, _, mode) in parts.items()}


def _sampler_width(samplers: Iterable[str]) -> int:
    return max([len("sampler"), *map(cell_len, samplers)])


def _any(found: Sequence[Group], name: str) -> bool:
    return any(not math.isnan(getattr(group, name)) for group in found)
