"""Figures as rich tables: a summary row per prompt and mode, then a histogram per prompt.

Readable at 80 columns, without colour and in a pipe. Texts from files and models are shown as they
are, never read as markup.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffusecli.errors import printable
from diffusecli.prompt import Prompt

if TYPE_CHECKING:
    from diffusecli.budget import Plan
    from diffusecli.evaluate import Evaluated
    from diffusecli.metrics import Tally
    from diffusecli.validate import TokenView

_BAR = 14
_MOST_ROWS = 24
_LEGEND = (
    "N: samples. valid: equal to a target after trimming white space. entropy: in nats with Miller and Madow's "
    "correction, against the target's. seen: distinct targets, against how many a perfect sampler is expected to show. "
    "TVD: total variation distance, against its floor: what a perfect sampler shows at this N; excess is the difference. "
    "exact KL: KL(target || model) in nats from the model's own probabilities, no sampling noise. "
    "p: goodness of fit (G test) among valid samples, Monte Carlo."
)


def evaluation(rows: Sequence[Evaluated]) -> RenderableType:
    """Summary, verdicts, then a histogram for each prompt of each run."""
    parts: list[RenderableType] = []
    for run, group in groupby(rows, key=lambda row: row.run):
        of_run = list(group)
        parts.extend([Text(printable(f"\n{run}" if parts else run), style="bold"), _summary(of_run), _verdicts(of_run)])
        if drifts := {row.retention_kl for row in of_run if row.retention_kl is not None}:
            parts.append(Text(f"drift from the base model on held-out instructions: {max(drifts):.4f} nats per token"))
        for _, same_prompt in groupby(of_run, key=lambda row: row.prompt.alias):
            parts.extend(_histogram(list(same_prompt)))
    return Group(*parts, Text(f"\n{_LEGEND}", style="dim"))


def distribution_preview(prompt: Prompt) -> RenderableType:
    """The target distribution of one prompt as bars."""
    table = _table(Text("target"), ("weight", "right"), Text(""))
    weights = prompt.probabilities
    top = max(weights, default=1)
    shown = sorted(range(len(weights)), key=lambda i: -weights[i])[:_MOST_ROWS]
    for index in sorted(shown):
        table.add_row(_label(prompt.targets[index]), _percent(weights[index]), _bar(weights[index] / top))
    hidden = len(weights) - len(shown)
    return Group(table, Text(f"({hidden} lighter targets not shown)" if hidden else ""))


def answers(counts: Mapping[str, int], most: int = _MOST_ROWS) -> RenderableType:
    """The most frequent answers with their shares as bars."""
    table = _table(Text("answer"), ("count", "right"), ("share", "right"), Text(""))
    total = max(sum(counts.values()), 1)
    shown = heapq.nsmallest(most, counts.items(), key=lambda item: (-item[1], item[0]))
    for text, count in shown:
        table.add_row(_label(text, 40), str(count), _percent(count / total), _bar(count / max(shown[0][1], 1)))
    hidden = len(counts) - len(shown)
    return Group(table, *([Text(f"and {hidden} other answers")] if hidden else []))


def prompts_overview(prompts: Iterable[Prompt]) -> RenderableType:
    """What `validate` found: targets, entropy, effective number, expected distinct at 1000 samples."""
    table = _table(Text("prompt"), ("targets", "right"), ("H", "right"), ("exp(H)", "right"), ("of 1000", "right"))
    found = list(prompts)
    names = short_names([prompt.alias for prompt in found])
    for prompt in found:
        expected = prompt.expected_distinct(1000)
        table.add_row(
            _label(names[prompt.alias], 36), str(len(prompt.targets)), f"{prompt.entropy:.3f}",
            f"{math.exp(prompt.entropy):.1f}" if prompt.targets else "-", f"{expected:.1f}",
        )  # fmt: skip
    return Group(
        table,
        Text("H: entropy in nats. exp(H): effective number of outcomes. of 1000: expected distinct in 1000 samples.", style="dim"),
    )


def token_table(view: TokenView, top: int) -> RenderableType:
    """A prompt's tokens, then each target's with the terminator last."""
    shown = view.target_tokens[:top] if top else view.target_tokens
    table = Table.grid(padding=(0, 2))
    for text, tokens in shown:
        table.add_row(_label(text, 24), Text(" ".join(tokens)))
    hidden = len(view.target_tokens) - len(shown)
    ratio = f" ({view.fed_as_rows / view.fed_packed:.1f} times fewer)" if view.target_tokens else ""
    return Group(
        Text(printable(f"\n{view.alias}"), style="bold"),
        Text(f"{len(view.prompt_tokens)} prompt tokens: {' '.join(view.prompt_tokens)}"),
        table,
        *([Text(f"({hidden} more targets, --top 0 shows all)")] if hidden else []),
        Text(f"tokens fed a step: {view.fed_as_rows} as one row per target, {view.fed_packed} packed{ratio}\n"),
    )


def training_plan(planned: Plan) -> RenderableType:
    """What training would do: prompts, targets, tokens a step, memory, steps."""
    table = _table(Text("prompt"), ("targets", "right"), ("H", "right"), ("tokens", "right"), ("as rows", "right"))
    names = short_names(list(planned.tokens))
    for alias, (targets, entropy, packed, rows) in planned.tokens.items():
        table.add_row(_label(names[alias], 40), str(targets), f"{entropy:.3f}", str(packed), str(rows))
    return Group(table, Text(
        f"{planned.steps} optimiser steps, about {planned.tokens_in_all} tokens fed in all; learning rate {planned.learning_rate:.2g}; "
        f"{planned.parameters / 1e6:.0f} M parameters; estimated peak memory {planned.memory_gb:.1f} GB"
    ))  # fmt: skip


def _summary(rows: Sequence[Evaluated]) -> Table:
    table = _table(
        Text("prompt"), ("N", "right"), ("valid", "right"), ("entropy\n/target", "right"), ("seen\n/possible", "right"),
        ("TVD\n/floor", "right"), ("exact\nKL", "right"),
    )  # fmt: skip
    names = short_names([row.prompt.alias for row in rows])
    for alias, group in groupby(rows, key=lambda row: row.prompt.alias):
        table.add_row(_label(names[alias], 20))
        for row in group:
            f = row.figures
            if f is None:
                table.add_row(f"  {row.mode}", str(row.tally.n), "-", "-", str(len(row.tally.off_target)), "-", "-")
                continue
            table.add_row(
                f"  {row.mode}", str(f.n), _percent(f.valid), f"{f.entropy:.3f}/{f.target_entropy:.3f}",
                f"{f.seen}/{f.seen_expected:.1f}", f"{f.tvd:.3f}/{f.tvd_floor:.3f}",
                "-" if row.exact_kl is None else f"{row.exact_kl:.4f}",
            )  # fmt: skip
    return table


def _verdicts(rows: Sequence[Evaluated]) -> RenderableType:
    """In words, with the interval of the valid share. An untuned model is what was before."""
    from diffusecli.metrics import verdict  # brings numpy, which `validate` has no need of

    lines = []
    names = short_names([row.prompt.alias for row in rows])
    for alias, group in groupby(rows, key=lambda row: row.prompt.alias):
        lines.append(Text(printable(names[alias])))
        for row in group:
            if row.figures is None:
                lines.append(Text(f"  {row.mode}: no targets to compare with"))
                continue
            low, high = row.figures.valid_interval
            when = "before" if row.mode == "untuned" else "after"
            share = f"{_percent(row.figures.valid)} valid (95 % interval {100 * low:.1f} to {100 * high:.1f})"
            lines.append(
                Text(f"  {when}: {share}\n          {verdict(row.figures)}\n          {row.tally.n} samples, {row.settings}")
            )
    return Group(*lines)


def _histogram(rows: Sequence[Evaluated]) -> Iterator[RenderableType]:
    prompt = rows[0].prompt
    if prompt.targets:
        yield Text(printable(f"\n{prompt.alias}"), style="bold")
        headers = [(f"{row.mode}", "right") for row in rows]
        columns: list[Text | tuple[str, str]] = [Text("target"), ("weight", "right"), Text("")]
        for header in headers:
            columns.extend([header, Text("")])
        table = _table(*columns)
        shares = [[count / max(row.tally.n, 1) for count in row.tally.counts] for row in rows]
        top = max([*prompt.probabilities, *(value for share in shares for value in share)])
        for index in _shown(prompt, shares):
            p = prompt.probabilities[index]
            cells: list[RenderableType] = [_label(prompt.targets[index]), _percent(p), _bar(p / top)]
            for share in shares:
                cells.extend([Text(_percent(share[index])), _bar(share[index] / top, "cyan")])
            table.add_row(*cells)
        yield table
        if (hidden := len(prompt.targets) - _MOST_ROWS) > 0:
            yield Text(f"({hidden} more targets not shown: those that miss their weight most are)")
    for row in rows:
        yield from _off_target(row.mode, row.tally)


def _off_target(mode: str, counted: Tally) -> Iterator[RenderableType]:
    if counted.off_target:
        yield Text(f"{mode}, most frequent of {len(counted.off_target)} texts off target:")
        for text, count in counted.off_target.most_common(3):
            yield Text(f"  {count:>6} x {_shorten(repr(text), 66)}")


def _shown(prompt: Prompt, shares: Sequence[Sequence[float]]) -> list[int]:
    """In the prompt's order: all when few, else those that weigh most or miss most."""
    if len(prompt.targets) <= _MOST_ROWS:
        return list(range(len(prompt.targets)))
    last = shares[-1]
    by_miss = sorted(range(len(last)), key=lambda i: -abs(last[i] - prompt.probabilities[i]))
    return sorted(by_miss[:_MOST_ROWS])


def _table(*columns: Text | tuple[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        if isinstance(column, tuple):
            table.add_column(column[0], justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=True)
    return table


def _bar(share: float, style: str = "none") -> Text:
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=style)


def _percent(share: float) -> str:
    """One decimal, more where a rare target would read as nothing."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def short_names(aliases: Sequence[str]) -> dict[str, str]:
    """Aliases without the folders they share and without `.json`.

    >>> short_names(["prompts/a/x.json", "prompts/b/x.json"])
    {'prompts/a/x.json': 'a/x', 'prompts/b/x.json': 'b/x'}
    """
    parts = [alias.split("/") for alias in dict.fromkeys(aliases)]
    shared = 0
    while all(len(way) > shared + 1 for way in parts) and len({tuple(way[: shared + 1]) for way in parts}) == 1:
        shared += 1
    return {"/".join(way): "/".join(way[shared:]).removesuffix(".json") for way in parts}


def _label(text: str, width: int = 16) -> Text:
    shown = printable(text).replace("\n", "\\n")
    return Text(shown if len(shown) <= width else "…" + shown[1 - width :])


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
