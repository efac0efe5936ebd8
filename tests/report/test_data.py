"""Outputs for machines and pull requests: their shape is documented, and they say what the tables say."""

import csv
import io
import json
import math
import re
from dataclasses import fields, replace
from html import unescape

import numpy as np
import pytest
from rich.console import Console

from diffusecli.evaluation.metrics import Figures
from diffusecli.files.writing import write_json
from diffusecli.prompts.matching import Matching
from diffusecli.report.all_figures import lines_of
from diffusecli.report.data import as_csv, as_json, json_schema
from diffusecli.report.markdown import as_markdown
from diffusecli.report.summary import evaluation
from diffusecli.report.wording import signs
from diffusecli.verbs.evaluate import evaluate
from tests.verbs.test_evaluate import HALVES, run_with


@pytest.fixture
def found(tmp_path):
    """Two runs: both modes, a hostile target, an open-ended prompt, N = 0."""
    hostile = {**HALVES, "targets": ["a|b", "<script>alert(1)</script>"]}
    run = run_with(tmp_path / "r1", [])
    prompts = {"x/p.json": hostile, "y/open.json": {**HALVES, "targets": []}, "z/none.json": {**HALVES, "targets": ["1", "2"]}}
    answers = {"x/p.json": ["a|b"] * 6 + ["<script>alert(1)</script>"] * 4, "y/open.json": ["u\nv", "w"], "z/none.json": []}
    for folder, mode in ((run.path, "untuned"), (run.path, "lora"), (tmp_path / "r2", "lora")):
        write_json(folder / "prompts.json", prompts)
        write_json(folder / "run.json", {"exact_kl": {"x/p.json": 0.1}, "retention_kl": 0.01})
        write_json(folder / f"gen.{mode}.json", answers)
    return evaluate([tmp_path])


def test_the_json_satisfies_its_schema_and_holds_the_figures(found):
    jsonschema = pytest.importorskip("jsonschema", reason="checks with an independent implementation of JSON Schema")
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    document = json.loads(as_json(found))
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    assert list(validator.iter_errors({**document, "more": 1})) != []
    row = next(row for row in document["rows"] if row["prompt"] == "x/p.json" and row["mode"] == "lora")
    assert row["figures"]["tvd"] == pytest.approx(0.1)
    assert row["figures"]["entropy"] == pytest.approx(0.723, abs=1e-3)
    assert [cell["count"] for cell in row["targets"]] == [6, 4]
    assert row["exact"]["kl"] == 0.1
    assert document["matching"] == "strip"
    assert next(row for row in document["rows"] if row["n"] == 0)["figures"] is None


def test_the_csv_has_a_line_for_each_row(found):
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == len(found.rows) == 9
    first = rows[0]
    assert (first["prompt"], first["mode"], first["n"], float(first["tvd"])) == ("x/p.json", "lora", "10", pytest.approx(0.1))
    assert "nan" not in as_csv(found)


def test_every_figure_is_in_json_and_csv_and_those_of_the_terminal_in_the_html(found):
    from diffusecli.report.html import html_report

    row = next(row for row in found.rows if row.figures)
    names = {field.name for field in fields(Figures)}
    assert names == set(next(r for r in json.loads(as_json(found))["rows"] if r["figures"])["figures"])
    assert names <= set(next(csv.reader(io.StringIO(as_csv(found)))))
    page = unescape(html_report(found))
    lines = list(lines_of(row))
    assert {"Cohen's w", "weight covered", "test of fit"} <= {line.name for line in lines}
    cells = re.findall(
        r"<th scope=\"row\"(?: class=\"below\")?><bdi>([^<]*)</bdi></th><td class=\"num\">([^<]*)</td><td class=\"weak\">([^<]*)</td>",
        page,
    )
    for line in lines:
        assert (signs(line.name.strip()), signs(line.value), signs(line.note)) in cells


def test_distinct_of_10_is_in_every_output_with_its_error(tmp_path):
    from diffusecli.report.html import html_report

    run = run_with(tmp_path / "r1", [])
    write_json(
        run.path / "prompts.json",
        {"open.json": {**HALVES, "targets": []}, "few.json": {**HALVES, "request": "Say.", "targets": []}},
    )
    write_json(run.path / "gen.json", {"open.json": ["red"] * 9 + ["Blue!", "{blue}", "green"], "few.json": ["red"] * 9})
    found = evaluate([run.path])
    value = 3 - 1 / 66 - 11 / 66  # all but two of 12 answers: red is always there
    without = np.array([3 - 1 / 11] * 9 + [3 - 2 / 11] * 2 + [2])  # a red, a blue, or the green left out: all but one of 11
    error = math.sqrt(11 * without.var())  # .826
    rows = {row["prompt"]: row["diversity"] for row in json.loads(as_json(found))["rows"]}
    assert rows["open.json"]["distinct_of_10"] == pytest.approx(value)
    assert rows["open.json"]["distinct_of_10_error"] == pytest.approx(error)
    assert rows["few.json"]["distinct_of_10"] is None
    table = {row["prompt"]: row for row in csv.DictReader(io.StringIO(as_csv(found)))}
    assert float(table["open.json"]["open_distinct_of_10"]) == pytest.approx(value)
    assert table["few.json"]["open_distinct_of_10"] == ""
    words = "2.8 ± 1.6"
    lines = as_markdown(found)
    assert f"distinct of 10: {words}" in lines
    assert "distinct of 10: –" in lines
    assert words in unescape(html_report(found))
    assert f"distinct of 10: {words}" in shown(found)
    every = shown(found, verbose=True)
    assert re.search(r"distinct of 10 +2\.8  ± 1\.6 \(95 % interval\); different texts expected in 10", every)
    assert re.search(r"distinct of 10 +–  needs 10 answers", every)


@pytest.mark.parametrize(
    ("answers", "cut", "brief", "note"),
    [
        ([str(i) for i in range(200)], 0, "10.0", "error unknown: all answers differ; different texts expected in 10 answers"),
        (["a", "b"] * 6, 0, "2.0", "error unknown: all texts are equally frequent; different texts"),
        ([*"aaaabcdefg"], 0, "7", "different texts expected in 10 answers (NoveltyBench"),
        ([*"aaaabcdefg"], 2, "7", "different texts expected in 10 answers; 2 unfinished (NoveltyBench"),
    ],
)
def test_distinct_of_10_claims_no_precision_that_is_unknown(tmp_path, answers, cut, brief, note):
    run = run_with(tmp_path / "r1", [])
    write_json(run.path / "prompts.json", {"open.json": {**HALVES, "targets": []}})
    write_json(run.path / "gen.json", {"open.json": answers})
    write_json(run.path / "gen.meta.json", {"unfinished": {"open.json": {answers[0]: cut}} if cut else {}})
    found = evaluate([run.path])
    assert re.search(rf"distinct of 10: {re.escape(brief)}( |$)", shown(found), re.MULTILINE)
    every = " ".join(shown(found, verbose=True).split())
    assert f"distinct of 10 {brief} {note}" in every
    assert ("cut at the limit of new tokens; counted as they are" in every) == bool(cut)


def shown(found, **options):
    out = io.StringIO()
    Console(file=out, width=120).print(evaluation(found, **options))
    return out.getvalue()


def test_markdown_tables_are_whole_whatever_texts_hold(found):
    text = as_markdown(found)
    for block in text.split("\n\n"):
        if lines := [line for line in block.splitlines() if line.startswith("|")]:
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "<script" not in text
    assert "r2 (tuned) − r1 (tuned)" in text
    assert "valid: equal to a target after trimming white space" in text


@pytest.fixture
def begun(tmp_path):
    """Answers to a prompt with `eos: false` beside answers to one without."""
    write_json(tmp_path / "begins" / "prompts.json", {"begins.json": {**HALVES, "targets": ["Ann", "Bob"], "eos": False}})
    write_json(tmp_path / "begins" / "gen.lora.json", {"begins.json": ["Ann, born in 1970", "Bob", "Carl"]})
    run_with(tmp_path / "ends", ["a", "b"])
    return tmp_path


def test_every_report_says_that_an_answer_only_has_to_begin_with_its_target(begun):
    from diffusecli.report.html import html_report
    from diffusecli.report.pictures import write_plots

    console = Console(file=io.StringIO(), width=10_000)
    only, mixed = evaluate([begun / "begins"]), evaluate([begun])
    both = "equal to a target after trimming white space; for prompts with eos: false beginning with a target after trimming white space"
    for found, words in ((only, "beginning with a target after trimming white space"), (mixed, both)):
        assert found.match_in_words == words
        console.print(evaluation(found, verbose=True))
        assert re.search(rf"valid +{re.escape(words)} *\n", console.file.getvalue())
        assert f"valid: {words}. unfinished" in as_markdown(found)
        assert f"<dt>A match is</dt><dd>{words}</dd>" in html_report(found)
        assert f"valid: {words}<" in next(p for p in write_plots(found, begun / "plots") if p.suffix == ".svg").read_text()
    assert html_report(mixed).count("An answer is valid if it begins with a target.") == 1
    assert [row["eos"] for row in json.loads(as_json(mixed))["rows"]] == [False, True]
    assert [row["eos"] for row in csv.DictReader(io.StringIO(as_csv(mixed)))] == ["False", "True"]


def test_without_a_valid_answer_the_table_says_what_none_of_them_does(begun):
    write_json(begun / "begins" / "gen.lora.json", {"begins.json": ["Carl"]})
    write_json(begun / "ends" / "gen.lora.json", {"p.json": ["c", "d"]})
    console = Console(file=io.StringIO(), width=10_000)
    console.print(evaluation(evaluate([begun]), verbose=True))
    assert "none of 1 sample begins with a target" in console.file.getvalue()
    assert "none of 2 samples is a target" in console.file.getvalue()


@pytest.mark.parametrize("option", ["--json", "--csv", "--markdown"])
def test_the_command_prints_nothing_else_on_stdout(tmp_path, in_process, option, found):
    done = in_process("evaluate", str(tmp_path), option)
    assert done.returncode == 0
    expected = {"--json": as_json(found) + "\n", "--csv": as_csv(found), "--markdown": as_markdown(found)}[option]
    assert done.stdout == expected


def test_only_one_kind_of_output_goes_to_stdout(tmp_path, in_process, found):
    done = in_process("evaluate", str(tmp_path), "--json", "--csv")
    assert done.returncode == 2
    assert "Choose one" in done.stderr


def test_no_cell_of_the_csv_is_a_formula(found):
    prompt = found.rows[0].prompt.model_copy(update={"alias": "=HYPERLINK(1).json"})
    rows = tuple(replace(row, run="=run", mode="@mode", prompt=prompt) for row in found.rows[:1])
    (row,) = csv.DictReader(io.StringIO(as_csv(replace(found, rows=rows, matching=Matching("regex:.")))))
    assert (row["run"], row["mode"], row["prompt"]) == ("'=run", "'@mode", "'=HYPERLINK(1).json")
    assert not [cell for cell in row.values() if cell and cell[0] in "=+@"]
    assert float(row["excess_tvd"]) < 0
