"""The tables of docs/study.md, from the CSV files in `benchmarks/study/results/`: each stands between two marks in the page.

Where a figure comes from several seeds it is their mean, with the least and the largest in brackets.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.study import fields_tables, kept, literature_tables, losses_results, surveys, wordings_tables
from benchmarks.study.collect import RESULTS
from benchmarks.study.groups import GROUPS
from benchmarks.study.plan import (
    BINOMIALS,
    FAMILIES,
    NUMBERS,
    OTHER_BINOMIALS,
    OTHER_FAMILIES,
    OTHER_PARAMETERS,
    SINGLES,
    prompt_file,
)
from benchmarks.study.spread import spread
from diffusecli.files.writing import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "study.md"

Line = dict[str, str]
Table = Iterator[Sequence[str]]


def filled(page: str) -> str:
    """The page with every table between its marks made anew; raises `KeyError` for a mark that names no table."""
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", lambda m: m[1] + _markdown(TABLES[m[2]]()) + m[3], page, flags=re.DOTALL
    )


def write() -> None:
    """Bring the page up to date."""
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))


def lines(name: str) -> list[Line]:
    """One of the CSV files; empty where it is not there yet."""
    path = RESULTS / f"{name}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def share(values: Iterable[str]) -> str:
    """The same in percent."""
    return spread([100 * float(value) for value in values if value != ""], 1)


def _markdown(table: Table) -> str:
    head, *rest = ["| " + " | ".join(cells) + " |" for cells in table] or [""]
    if not rest:
        return "Not measured yet.\n"
    return "\n".join([head, "|" + "---|" * (head.count(" | ") + 1), *rest]) + "\n"


def _column(chosen: Iterable[Line], name: str) -> list[str]:
    return [line[name] for line in chosen]


def _of(found: Iterable[Line], **wanted: str) -> list[Line]:
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def untuned(found: list[Line], **wanted: str) -> list[Line]:
    """The base model's lines: exact figures are in every run's, figures of samples in one run's."""
    some = _of(found, mode="untuned", **wanted)
    sampled = [line for line in some if line["n"]]
    return (sampled or _of(some, seed="0"))[:1]


def _valid(some: Sequence[Line]) -> str:
    """Share of valid samples; its 95 % interval where it is one run's."""
    told = share(_column(some, "valid"))
    one = some[0] if len(some) == 1 and some[0]["valid"] else None
    return f"{told} [{100 * float(one['valid_low']):.1f} to {100 * float(one['valid_high']):.1f}]" if one else told


_FIGURES = ("exact KL, nats", "on target, %", "exact TVD", "valid samples, %", "excess TVD")


def _figures(some: Sequence[Line]) -> tuple[str, ...]:
    return (
        spread(_column(some, "exact_kl"), 4), share(_column(some, "exact_on_target")), spread(_column(some, "exact_tvd")), _valid(some),
        spread(_column(some, "excess_tvd")),
    )  # fmt: skip


def _rng() -> Table:
    found = lines("rng")
    yield "measured on", "trained on", *_FIGURES
    for prompt, told in zip(NUMBERS, ("1 to 10", "1 to 100"), strict=True):
        yield told, "nothing", *_figures(untuned(found, prompt=prompt))
        for run in ("1-10", "1-100", "both"):
            yield told, run.replace("-", " to "), *_figures(_of(found, run=run, mode="lora", prompt=prompt))


def matrix_lines(figure: str, of: str = "") -> Iterator[tuple[str, list[float], list[bool]]]:
    """Runs against groups: what a run was trained on, the mean of a figure (as a share of another) over each group's prompts, own groups.

    The values are fewer than the groups where a run is not there yet.
    """
    found = lines("groups")
    runs = [("nothing", "in-numbers", "untuned")]
    runs += [
        (f"{kind} {group}", f"{short}-{group}", "lora") for kind, short in (("only", "in"), ("all but", "out")) for group in GROUPS
    ]
    for told, run, mode in runs:
        some = [line for line in _of(found, run=run, mode=mode) if line["n"]]
        groups = [[line for line in some if line["prompt"].startswith(path)] for path in GROUPS.values()]
        values = [mean(float(line[figure]) / float(line[of] if of else 1) for line in group) for group in groups if group]
        yield told, values, [mode == "lora" and group[0]["trained"] == "True" for group in groups if group]


def _matrix(figure: str, digits: int, *, of: str = "", percent: bool = False) -> Table:
    """Bold where the run was trained on the group."""
    yield "trained on", *GROUPS
    for told, values, own in matrix_lines(figure, of):
        if values:
            cells = [f"{(100 if percent else 1) * value:.{digits}f}" for value in values]
            yield told, *(f"**{cell}**" if bold else cell for cell, bold in zip(cells, own, strict=True))


def _names() -> Table:
    found = lines("names")
    yield ("gamma", "iterations", "exact KL, nats", "on target, %", "different answers of 1000", "different real names beyond the 200", "common ones of these",
           "share of answers that are real names beyond the 200, %", "the commonest of them")  # fmt: skip
    for told, run, mode in [
        ("untuned", "gamma-0.2", "untuned"),
        *((run.removeprefix("gamma-"), run, "lora") for run in ("gamma-0.4", "gamma-0.2", "gamma-0.1", "gamma-0.05")),
        ("to the end", "to-the-end", "lora"),
    ]:
        some = untuned(found, run=run) if mode == "untuned" else _of(found, run=run, mode=mode)
        beyond = [str(int(line["real_answers"]) / int(line["n"])) for line in some if line["n"]]
        yield (
            told, spread(_column(some, "iterations"), 0) if mode == "lora" else "0", spread(_column(some, "exact_kl")),
            share(_column(some, "exact_on_target")), spread(_column(some, "distinct"), 0), spread(_column(some, "real_names"), 0),
            spread(_column(some, "common_names"), 0), share(beyond), some[0]["examples"] if some else "",
        )  # fmt: skip


def _weighted() -> Table:
    found = lines("weighted")
    yield "target", "training", *_FIGURES
    for name, prompt in SINGLES.items():
        for told, run, mode in (("none", "together", "untuned"), ("alone", name, "lora"), ("with nine others", "together", "lora")):
            some = untuned(found, run=run, prompt=prompt) if mode == "untuned" else _of(found, run=run, mode=mode, prompt=prompt)
            *others, excess = _figures(some)
            yield name, told, *others, excess if mode == "lora" else "-"  # of fewer answers, so no figure to compare with


def _unseen() -> Table:
    found = lines("weighted")
    yield (
        "trained on",
        "measured on",
        "KL before",
        "KL after",
        "on target, %",
        "exact TVD",
        "p",
        "TVD from the nearest trained target",
        "its answers are most like those to (TVD)",
    )
    for run, trained, kinds in (
        ("binomials", BINOMIALS, {"unseen parameters": OTHER_BINOMIALS}),
        ("families", FAMILIES, {"unseen parameters": OTHER_PARAMETERS, "unseen families": OTHER_FAMILIES}),
    ):
        those = {f"the {len(trained)} trained": trained}
        those |= {f"{' '.join(one).removeprefix('--')} ({kind})": [one] for kind, others in kinds.items() for one in others}
        for told, distributions in those.items():
            prompts = [str(prompt_file(one)) for one in distributions]
            some = [line for prompt in prompts for line in _of(found, run=run, mode="lora", prompt=prompt)]
            before = [line for prompt in prompts for line in _of(found, run=run, mode="untuned", prompt=prompt, seed="0")]
            yield (
                run, told, spread(_column(before, "exact_kl")), spread(_column(some, "exact_kl")),
                share(_column(some, "exact_on_target")), spread(_column(some, "exact_tvd")),
                *(("-", "-", "-") if distributions is trained else _likeness(some)),
            )  # fmt: skip


def _likeness(some: Sequence[Line]) -> tuple[str, str, str]:
    """The p of the test of fit, and what a prompt that was not trained on resembles, in what it asks for and in how it is answered."""
    if not some:
        return "-", "-", "-"
    line = some[0]
    return (
        f"{float(line['p_value']):.2g}",
        spread([line["nearest_tvd"]]),
        f"{line['answered_like']} ({spread([line['answered_tvd']])})",
    )


def _people() -> Table:
    found = lines("lines")
    yield ("heading", "untuned: distinct of", "all six groups: distinct of", "fictitious people: distinct of", "unseen mass, untuned / people",
           "distinct per answer, people / untuned")  # fmt: skip
    for heading in dict.fromkeys(line["heading"] for line in found if line["run"] == "people"):
        told = [
            _of(found, run=run, mode=mode, heading=heading)
            for run, mode in (("all", "untuned"), ("all", "lora"), ("people", "lora"))
        ]
        cells = [f"{some[0]['distinct']} of {some[0]['n']}" if some else "-" for some in told]
        before, after = (int(some[0]["distinct"]) / int(some[0]["answers"]) if some else 0 for some in (told[0], told[2]))
        unseen = " / ".join(f"{float(some[0]['unseen_mass']):.2f}" if some else "-" for some in (told[0], told[2]))
        yield heading, *cells, unseen, f"{after / before:.1f}x" if before else "-"


def _ablations() -> Table:
    found, curves = lines("ablations"), lines("curves")
    yield "setting", "KL at iteration 10: 1 to 10", "1 to 100", "KL at the end: 1 to 10", "1 to 100", "drift, nats per token"
    for run in dict.fromkeys(line["run"] for line in found):
        tenth = [_column(_of(curves, run=run, iteration="10", prompt=p), "kl") for p in NUMBERS]
        end = [_column(_of(found, run=run, mode="lora", prompt=p), "exact_kl") for p in NUMBERS]
        drift = _column(_of(found, run=run, mode="lora")[:1], "drift")
        yield run, *(spread(some, 4) for some in (*tenth, *end)), spread(drift, 4)


def _rows() -> Table:
    yield "step", "loss, packed", "loss, rows", "difference", "seconds so far, packed", "seconds so far, rows"
    for line in lines("rows"):
        packed, rows = float(line["packed_loss"]), float(line["rows_loss"])
        yield (
            line["step"],
            f"{packed:.5f}",
            f"{rows:.5f}",
            f"{packed - rows:+.5f}",
            *(f"{float(line[way]):.1f}" for way in ("packed_seconds", "rows_seconds")),
        )


def _abilities() -> Table:
    yield ("model", "questions right, %", "lost, gained (p)", "log-prob of the right answer, change in nats", "arithmetic right, %",
           "lost, gained (p)", "log-prob, change", "perplexity", "factor on perplexity")  # fmt: skip
    for line in lines("abilities"):

        def interval(name: str, form: str, of: Line = line) -> str:
            value, low, high = (format(float(of[f"{name}{end}"]), form) for end in ("", "_low", "_high"))
            return "-" if of["model"] == "untuned" else f"{value} [{low} to {high}]"

        def right(kind: str, of: Line = line) -> tuple[str, str, str]:
            ends = " to ".join(f"{100 * float(of[f'{kind}_{end}']):.0f}" for end in ("low", "high"))
            changed = f"{of[f'{kind}_lost']}, {of[f'{kind}_gained']} ({float(of[f'{kind}_p_value']):.2g})"
            accuracy = f"{100 * float(of[f'{kind}_accuracy']):.1f} [{ends}]"
            return accuracy, "-" if of["model"] == "untuned" else changed, interval(f"{kind}_log_prob_change", "+.2f")

        yield (
            _MODELS[line["model"]], *right("choices"), *right("arithmetic"), f"{float(line['perplexity']):.2f}",
            interval("perplexity_factor", ".3f"),
        )  # fmt: skip


_MODELS = {
    "untuned": "untuned", "both": "1 to 10 and 1 to 100", "names": "200 names, to the end", "all": "all six groups",
    "both-free": "1 to 10 and 1 to 100, without `retain`", "names-free": "200 names, without", "all-free": "all six groups, without",
}  # fmt: skip


def _drift() -> Table:
    yield "trained on", "with `retain`: drift", "mean KL", "without: drift", "mean KL"
    for told, retained, free in (
        ("1 to 10 and 1 to 100", ("rng", "both"), "both-free"),
        ("200 names, to the end", ("names", "to-the-end"), "names-free"),
        ("all six groups", ("people", "all"), "all-free"),
    ):
        with_it, without = (
            _of(lines(retained[0]), run=retained[1], mode="lora", seed="0"),
            _of(lines("retention"), run=free, mode="lora"),
        )
        yield told, *(spread(_column(some[:1], name), 4) for some in (with_it, without) for name in ("drift", "trained_kl"))


def _minutes() -> Table:
    yield "piece", "seed", "minutes"
    for line in lines("minutes"):
        yield line["piece"], line["seed"], line["minutes"]
    yield "all", "", f"{sum(float(line['minutes']) for line in lines('minutes')):.0f}"


TABLES: dict[str, Callable[[], Table]] = {
    "rng": _rng,
    "matrix-kl": lambda: _matrix("exact_kl", 2),
    "matrix-on-target": lambda: _matrix("exact_on_target", 0, percent=True),
    "matrix-excess-tvd": lambda: _matrix("excess_tvd", 2),
    "matrix-coverage": lambda: _matrix("seen", 0, of="seen_expected", percent=True),
    "names": _names,
    "weighted": _weighted,
    "unseen": _unseen,
    "people": _people,
    "ablations": _ablations,
    "rows": _rows,
    "abilities": _abilities,
    "drift": _drift,
    "minutes": _minutes,
    "choices": lambda: literature_tables.choices(lines),
    "bernoulli": lambda: literature_tables.bernoulli(lines),
    "laws": lambda: literature_tables.laws(lines),
    "stated": lambda: literature_tables.stated(lines),
    "losses": lambda: losses_results.table(lines),
    "losses-sooner": lambda: losses_results.sooner(lines),
    "losses-tree": lambda: losses_results.tree_sooner(lines),
    "wordings-means": lambda: wordings_tables.over_groups(lines("wordings")),
    "wordings": lambda: wordings_tables.held_out(lines("wordings")),
    "wordings-trained": lambda: wordings_tables.trained(lines("wordings")),
    "fields": lambda: fields_tables.ratios(lines("fields")),
    "fields-copied": lambda: fields_tables.copied(lines("fields")),
    "fields-forms": lambda: fields_tables.forms(lines("fields")),
    "kept": lambda: kept.table(lines),
    "kept-kinds": lambda: kept.kinds_table(lines),
    "surveys": lambda: surveys.table(lines),
}
