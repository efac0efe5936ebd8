"""Whether tuned models keep other abilities: thousands of questions made by rule and paragraphs of old books, each model paired with the untuned one.

The models come from other pieces: mixture and eighty (`literature.py`), and the pair trained on 1 to 10 and 1 to 100 with and without retention.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.equivalence import ALPHA, MARGIN, equivalence
from benchmarks.study.literature import EIGHTY, MIXTURE, run_of
from benchmarks.study.stages import WHERE, Journal, Stage, is_done

PIECE = "kept"
RUNS: dict[str, Path | None] = {
    "untuned": None,
    "mixture": run_of(MIXTURE),
    "eighty": run_of(EIGHTY),
    "both": WHERE / "rng/both-0",
    "both-free": WHERE / "retention/both-free-0",
}

Line = dict[str, Any]
Read = Mapping[str, str]


def stages() -> Iterator[Stage]:
    """The figures of every model; the runs are trained by other pieces."""
    for name, run in RUNS.items():
        asked = "--untuned" if run is None else str(run)
        command = ("benchmarks.study.abilities", asked, "--many")
        reads = () if run is None else (run / "run.json",)
        yield Stage(f"{PIECE}/{name}", command, WHERE / PIECE / f"{name}.json", reads, prints=True, minutes=5.5)


def lines(journal: Journal) -> Iterator[Line]:
    """A line per model and kind of question, and one of all kinds, of all that is done."""
    from benchmarks.study.abilities import compare

    done = {stage.name.removeprefix(f"{PIECE}/"): stage for stage in stages() if is_done(stage, journal)}
    if "untuned" not in done:
        return
    told = {name: json.loads(stage.product.read_text(encoding="utf-8")) for name, stage in done.items()}
    for name, figures in told.items():
        passages = compare(told["untuned"], figures)["passages"]
        more = {key: value for key, value in passages.items() if key.startswith("perplexity")}
        for kind, before, after in by_kind(told["untuned"]["items"]["rules"], figures["items"]["rules"]):
            line = {"model": name, "kind": kind, **line_of(before, after)}
            yield {**line, "drift": _drift(RUNS[name]), "perplexity": figures["perplexity"], **more} if kind == "all" else line


def _drift(run: Path | None) -> float | None:
    return 0.0 if run is None else json.loads((run / "run.json").read_text(encoding="utf-8"))["retention_kl"]


Items = Sequence[Mapping[str, Any]]


def by_kind(before: Items, after: Items) -> Iterator[tuple[str, Items, Items]]:
    """The answers to all questions, then those of each kind."""
    yield "all", before, after
    for kind, places in groupby(range(len(before)), lambda place: before[place]["kind"]):
        own = list(places)
        yield kind, [before[place] for place in own], [after[place] for place in own]


def line_of(before: Items, after: Items) -> Line:
    """What changed between two models on the same questions."""
    lost = sum(a["right"] and not b["right"] for a, b in zip(before, after, strict=True))
    gained = sum(b["right"] and not a["right"] for a, b in zip(before, after, strict=True))
    found = equivalence(len(before), lost, gained)
    return {
        "n": found.n, "right": float(np.mean([item["right"] for item in after])), "lost": lost, "gained": gained, "change": found.change,
        "change_low": found.low, "change_high": found.high, "p_value": found.p_value, "needed": found.needed,
        "log_prob": float(np.mean([item["log_prob"] for item in after])),
    }  # fmt: skip


_NAMES = {
    "untuned": "untuned",
    "mixture": "mixture, with `retain`",
    "eighty": "80 targets, with `retain`",
    "both": "1 to 10 and 1 to 100, with `retain`",
    "both-free": "1 to 10 and 1 to 100, without",
}


def table(read: Callable[[str], Sequence[Read]]) -> Iterator[Sequence[str]]:
    """A row per model over all questions."""
    found = [line for line in read(PIECE) if line["kind"] == "all"]
    if not found:
        return
    yield (
        "model", f"of {found[0]['n']} questions right, %", "lost, gained", "change, points [90 % interval]",
        f"equal within ±{100 * MARGIN:.0f} point (p)", "questions needed", "factor on perplexity [95 % interval]", "drift, nats per token",
    )  # fmt: skip
    for line in found:
        right = f"{100 * float(line['right']):.1f}"
        if line["model"] == "untuned":
            yield _NAMES["untuned"], right, "-", "-", "-", "-", "-", "0"
            continue
        p = float(line["p_value"])
        change, low, high = (f"{100 * float(line[f'change{end}']):+.2f}" for end in ("", "_low", "_high"))
        factor, least, most = (f"{float(line[f'perplexity_factor{end}']):.3f}" for end in ("", "_low", "_high"))
        yield (
            _NAMES[line["model"]], right, f"{line['lost']}, {line['gained']}", f"{change} [{low} to {high}]",
            f"{'yes' if p < ALPHA else 'not shown'} ({p:.2g})", line["needed"], f"{factor} [{least} to {most}]", f"{float(line['drift']):.4f}" if line["drift"] else "-",
        )  # fmt: skip


def kinds_table(read: Callable[[str], Sequence[Read]]) -> Iterator[Sequence[str]]:
    """A row per kind of question: the untuned model, and the change of every other in points."""
    found = [line for line in read(PIECE) if line["kind"] != "all"]
    if not found:
        return
    models = list(dict.fromkeys(line["model"] for line in found))
    yield "kind", "questions", "untuned: right, %", *(f"{_NAMES[model]}: change" for model in models if model != "untuned")
    for kind in dict.fromkeys(line["kind"] for line in found):
        own = {line["model"]: line for line in found if line["kind"] == kind}
        changes = (f"{100 * float(own[model]['change']):+.1f}" for model in models if model != "untuned")
        yield kind, own["untuned"]["n"], f"{100 * float(own['untuned']['right']):.0f}", *changes
