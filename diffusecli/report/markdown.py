"""An evaluation as Markdown that fits a pull request."""

from __future__ import annotations

import math
from collections.abc import Iterator

from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import Evaluated, Evaluation
from diffusecli.evaluation.names import labels, prompt_names, short_names
from diffusecli.files.markdown import markdown_cell
from diffusecli.report.parts import number, p_value, percent
from diffusecli.system.terminal import spelled


def as_markdown(found: Evaluation) -> str:
    """Summary, differences and matrices as tables."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Evaluation) -> Iterator[str]:
    names = {key: spelled(name) for key, name in prompt_names(row.prompt for row in found.rows).items()}
    samplers = {pair: spelled(name) for pair, name in labels(found.rows).items()}
    yield from _head("prompt", "sampler", ">N", ">valid", ">entropy / target", ">seen / possible", ">TVD − floor = excess",
                     ">exact KL", ">p", "verdict")  # fmt: skip
    for row in found.rows:
        yield _line(names[row.prompt.key], samplers[row.run, row.mode], *_figures(row), spelled(row.verdict))
    if found.differences:
        yield from ("", *_head("difference", "samplers", ">excess TVD [95 %]", ">entropy [95 %]", ">exact KL"))
    for d in found.differences:
        pair = f"{samplers[d.after.run, d.after.mode]} − {samplers[d.before.run, d.before.mode]}"
        kl = "-" if math.isnan(d.exact_kl) else f"{d.exact_kl:+.3f}"
        yield _line(names[d.prompt.key], pair, _estimate(d.excess_tvd), _estimate(d.entropy), kl)
    for matrix in found.matrices:
        runs = short_names(matrix.runs)
        yield from (
            "",
            f"{matrix.measure}, mean over prompts (bold: trained on)",
            "",
            *_head("", *(f">{spelled(group)}" for group in matrix.groups)),
        )
        for run, values, trained in zip(matrix.runs, matrix.values, matrix.trained, strict=True):
            yield _line(spelled(runs[run]), *(f"**{number(v)}**" if t else number(v) for v, t in zip(values, trained, strict=True)))
    drifts = [f"{markdown_cell(spelled(run))}: {drift:.4f}" for run, drift in found.drift.items()]
    yield from ("", f"Drift on held-out instructions, nats per token: {', '.join(drifts)}.") if drifts else ()
    drawn = dict.fromkeys(f"{samplers[row.run, row.mode]}: {spelled(row.settings_in_words)}" for row in found.rows if row.tally.n)
    yield from ("", f"valid: {markdown_cell(spelled(found.match_in_words))}. unfinished: cut at the limit of new tokens, never valid. Entropy and KL in nats; floor: what a perfect sampler shows at this N. "
                f"Sampled with {markdown_cell('; '.join(drawn))}. Monte Carlo seed {found.seed}.")  # fmt: skip


def _figures(row: Evaluated) -> tuple[str, ...]:
    f, kl = row.figures, number(row.exact.kl) if row.exact else "-"
    if f is None:
        return (str(row.tally.n), "-", "-", "-", "-", kl, "-")
    cut = f", unfinished {percent(row.tally.unfinished_share)}" if f.unfinished else ""
    valid = f"{percent(f.valid)} [{100 * f.valid_low:.1f}–{100 * f.valid_high:.1f}]{cut}"
    distance = f"{f.tvd:.3f} − {f.tvd_floor:.3f} = {f.excess_tvd:.3f}"
    seen = f"{f.seen} / {f.seen_expected:.1f}"
    return str(f.n), valid, f"{f.entropy:.3f} / {f.target_entropy:.3f}", seen, distance, kl, p_value(f)


def _estimate(found: Estimate) -> str:
    if math.isnan(found.value):
        return "-"
    return f"{found.value:+.3f}" + ("" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]")


def _head(*names: str) -> Iterator[str]:
    """A name that begins with > stands over numbers."""
    yield _line(*(name.removeprefix(">") for name in names))
    yield "|" + "|".join("---:" if name.startswith(">") else "---" for name in names) + "|"


def _line(*cells: str) -> str:
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"
