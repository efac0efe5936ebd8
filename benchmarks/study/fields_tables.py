"""The tables of docs/study.md on people with fields, from the lines of `results/fields.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Line = Mapping[str, str]
Table = Iterator[Sequence[str]]

PUBLISHED = {"first name": "4", "birthplace": "3", "career": "1.5"}
"""Times as many different values, in the paper."""


def ratios(found: Sequence[Line]) -> Table:
    """Different values of equally many answers, tuned against untuned."""
    if not found:
        return
    yield (
        "field", "untuned model's values that repeat the example", "answers with the field, tuned / untuned", "of as many answers",
        "different, tuned", "different, untuned", "tuned / untuned", "the paper's",
    )  # fmt: skip
    for line in found:
        yield (
            line["field"], "counted" if line["repeats"] == "with" else "left out", f"{line['tuned_n']} / {line['untuned_n']}",
            line["draws"], *(_one(line.get(name, "")) for name in ("tuned_drawn", "untuned_drawn")), _ratio(line),
            f"{PUBLISHED[line['field']]}×",
        )  # fmt: skip


def copied(found: Sequence[Line]) -> Table:
    """The tuned model's values by whether they are in its training table."""
    if not found:
        return
    yield (
        "field",
        "answers with it",
        "with a value of the table",
        "with a new value",
        "different values of the table",
        "different new values",
    )
    for line in found:
        if line["repeats"] == "with":
            n, new, distinct, new_distinct = (
                int(line[name]) for name in ("tuned_n", "tuned_new", "tuned_distinct", "tuned_new_distinct")
            )
            of = f"{distinct - new_distinct} of {line['table_distinct']}"
            yield line["field"], str(n), f"{n - new} ({_share(n - new, n)})", f"{new} ({_share(new, n)})", of, str(new_distinct)


def forms(found: Sequence[Line]) -> Table:
    """How many answers have all five fields."""
    if not found:
        return
    yield "model", "answers", "with all five fields", "that only repeat the example"
    line = found[0]
    yield "tuned", line["tuned_answers"], _of(line, "tuned", "complete"), "-"
    yield "untuned, one example", line["untuned_answers"], _of(line, "untuned", "complete"), _of(line, "untuned", "repeats")


def _of(line: Line, model: str, name: str) -> str:
    count = line[f"{model}_{name}"]
    return f"{count} ({_share(int(count), int(line[f'{model}_answers']))})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _one(value: str) -> str:
    return f"{float(value):.1f}" if value else "-"


def _ratio(line: Line) -> str:
    if not line.get("ratio"):
        return "-"
    told = f"{float(line['ratio']):.1f}×"
    return f"{told} [{float(line['ratio_low']):.1f} to {float(line['ratio_high']):.1f}]" if line.get("ratio_low") else told
