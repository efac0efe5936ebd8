"""Tables at 60 columns with long names: a figure is never cut."""

import re

import pytest

from diffusecli.report.parts import Fitted, new_table
from diffusecli.report.summary import evaluation
from diffusecli.verbs.evaluate import evaluate
from tests.report.test_html import prompt, run_with
from tests.report.test_summary import printed

LONG = "a-run-with-a-name-that-leaves-no-room-for-any-figure"
CUT_NUMBER = re.compile(r"[\d.]…")


def compared(folder, prompts):
    """Two runs with long names on different folders of prompts, untuned and tuned."""
    for run, kind in (("one", "first"), ("two", "second")):
        asked = {f"prompts/{kind}-folder-of-many/{name}-with-a-long-name.json": prompt("ab") for name in prompts}
        answers = {
            mode: dict.fromkeys(asked, some) for mode, some in (("untuned", {"a": 1950, "c": 50}), ("lora", {"a": 800, "b": 1200}))
        }
        kl = dict.fromkeys(asked, 12.3456)
        manifest = {"exact_kl": kl, "exact_kl_before": kl, "exact_on_target": dict.fromkeys(asked, 0.9), "retention_kl": 0.0123}
        run_with(folder / f"{LONG}-{run}", asked, answers, manifest)
    return evaluate([folder])


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("count", [2, 30], ids=["few prompts", "many prompts"])
def test_no_number_is_cut_at_60_columns(tmp_path, count, verbose):
    found = compared(tmp_path, ["".join(chr(ord("a") + int(digit)) for digit in str(k)) for k in range(count)])
    text = printed(evaluation(found, verbose=verbose), 60)
    assert not CUT_NUMBER.findall(text)
    assert max(map(len, text.splitlines())) <= 60
    for figure in ("12.3456", "0.0123", "0 of", "90.0 %", "one (tuned)"):
        assert figure in text
    named = ["runs: means over", "by folder"] + ["furthest from"] * (count > 2) + ["differences"] * (verbose and count == 2)
    assert all(title in text for title in named)


def test_a_table_without_room_has_its_figures_below_each_row():
    table = new_table("run", ("KL", "right"), ("on\ntarget", "right"))
    for name in ("the-first-run", "the-second-run"):
        table.add_row(name, "123456789.1234", "99.9 %")
    assert [line.rstrip() for line in printed(table, 30).splitlines()] == [
        "the-first-run", "    KL 123456789.1234", "    on target 99.9 %", "the-second-run", "    KL 123456789.1234", "    on target 99.9 %",
    ]  # fmt: skip
    assert "the-f" in printed(table, 40)
    assert printed(table, 40).splitlines()[-1].split()[1:] == ["123456789.1234", "99.9", "%"]


def test_texts_are_shortened_only_if_they_stay_different():
    apart, alike = new_table("run", ("n", "right")), new_table("run", ("n", "right"))
    for table, names in ((apart, ("first-of-all-runs", "second-of-all-runs")), (alike, ("all-runs-are-one", "all-runs-are-two"))):
        for name in names:
            table.add_row(name, "1234567")
    assert isinstance(apart, Fitted)
    assert "first-of…" in printed(apart, 18)
    assert "all-runs-are-two" in printed(alike, 18)
