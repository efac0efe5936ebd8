"""Runs on disk become figures: which samples, which prompts, and when they do not belong together."""

import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.command import measured
from diffusecli.evaluation import perfect
from diffusecli.files.writing import write_json
from diffusecli.prompts.matching import Matching
from diffusecli.report.histogram import Showing, shown_cells
from diffusecli.report.html import html_report
from diffusecli.report.markdown import as_markdown
from diffusecli.report.summary import evaluation
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample
from tests.counting import calls

HALVES = {"alias": "p.json", "request": "x", "response": [""], "targets": ["a", "b"]}


def run_with(folder, samples, manifest=None, meta=None, mode="lora"):
    run = RunDir(folder)
    write_json(run.prompts, {"p.json": HALVES})
    write_json(run.manifest, manifest or {})
    write_json(run.samples(mode), {"p.json": samples})
    if meta is not None:
        write_json(folder / f"gen.{mode}.meta.json", meta)
    return run


def rendered(found, showing=None):
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(evaluation(found, showing, verbose=True))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return text


def only_row(*paths, **asked):
    (row,) = evaluate(paths, Question(**asked)).rows
    return row


def test_the_worked_check_is_what_the_table_says(tmp_path):
    run_with(tmp_path / "run", ["a"] * 6 + ["b"] * 4, {"exact_kl": {"p.json": 0.0123}})
    text = rendered(evaluate([tmp_path]))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "valid 100.0 % 95 % interval 69.2 to 100.0 %" in lines
    assert "entropy 0.723 nats; target 0.693, perfect sampler 0.690" in lines
    assert "effective outcomes 2.1 exp(entropy); target 2.0" in lines
    assert "distinct targets 2 of 2; perfect sampler 2.0" in lines
    assert any(line.startswith("TVD 0.100 perfect sampler 0.123, excess -0.023") for line in lines)
    assert "G 0.403" in lines
    assert "Pearson's X2 0.400 df 1" in lines
    assert "exact KL 0.0123 nats, KL(target || model); 0 is perfect" in lines
    assert any(line.startswith("a 50.0 % 60.0 % 6 5.0 +0.6") for line in lines)


def test_the_tuned_model_is_first_on_the_terminal_and_on_the_page(tmp_path):
    run_with(tmp_path / "run", ["junk"] * 20, mode="untuned")
    run_with(tmp_path / "run", ["a", "b"] * 500)
    found = evaluate([tmp_path / "run"])
    assert [row.mode for row in found.rows] == ["lora", "untuned"]
    text = rendered(found)
    for shown in (text, as_markdown(found), html_report(found)):
        assert shown.index("follows the target") < shown.replace("\u202f", " ").index("off target 100 %")
    assert "p: tuned minus untuned" in text
    assert "20 x 'junk'" in text


def test_older_samples_that_a_run_is_not_judged_by_are_told_and_can_be_named(tmp_path):
    run, told = run_with(tmp_path / "run", ["a", "b"]), []
    assert len(evaluate([run.path], notice=told.append).rows) == 1
    assert told == []
    write_json(run.path / "gen.json", {"p.json": ["a"]})
    os.utime(run.path / "gen.json", (1, 1))
    assert [row.tally.n for row in evaluate([run.path], notice=told.append).rows] == [2]
    (used, older) = (run.path / name for name in ("gen.lora.json", "gen.json"))
    assert told == [f"{used}: holds the newest samples. Older ones are skipped: {older}. Name a file to evaluate it too"]
    assert "samples 2 gen.lora.json; settings unknown" in [
        " ".join(line.split()) for line in rendered(evaluate([run.path])).splitlines()
    ]
    assert sorted(row.tally.n for row in evaluate([run.path, run.path / "gen.json"], notice=told.append).rows) == [1, 2]
    assert len(told) == 1


def test_a_run_of_the_original_is_evaluated_from_its_prompt_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.json").write_text(json.dumps({k: v for k, v in HALVES.items() if k != "alias"}))
    folder = tmp_path / "results-lora" / "old"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: m\n")
    write_json(
        folder / "prompts.json", {"prompts/p.json": {"alias": "prompts/p.json", "tokens": [1], "targets": [[[2]]], "weights": [1]}}
    )
    write_json(folder / "gen.json", {"prompts/p.json": ["a", "b", " a"]})
    row = only_row(tmp_path / "results-lora")
    assert only_row(folder / "gen.json").tally == row.tally
    assert (row.mode, row.tally.counts) == ("lora", (2, 1))


def test_samples_are_judged_by_the_prompt_they_were_drawn_for(tmp_path):
    changed = {**HALVES, "targets": ["c", "d"]}
    run_with(tmp_path / "run", ["c", "d"], meta={"prompts": {"p.json": changed}})
    row = only_row(tmp_path / "run")
    assert row.prompt.targets == ("c", "d")
    assert row.figures.valid == 1


@pytest.mark.parametrize(
    ("key", "message"), [("model_revision", "another base model"), ("adapter_sha256", "an adapter that was replaced")]
)
def test_samples_of_something_replaced_since_are_refused(tmp_path, key, message):
    run_with(tmp_path / "run", ["a"], manifest={key: "new"}, meta={key: "old"})
    with pytest.raises(InputError, match=message):
        evaluate([tmp_path / "run"])


def test_the_exact_kl_is_not_shown_beside_samples_of_a_bent_distribution(tmp_path):
    run = run_with(tmp_path / "run", ["a"], manifest={"exact_kl": {"p.json": 0.1}}, meta={"settings": {"temperature": 1.0}})
    assert only_row(run.path).exact.kl == 0.1
    run_with(tmp_path / "run", ["a"], manifest={"exact_kl": {"p.json": 0.1}}, meta={"settings": {"temperature": 0.5}})
    row = only_row(run.path)
    assert row.exact is None
    assert "temperature 0.5" in row.settings_in_words


def test_a_file_outside_of_its_run_has_the_exact_kl_of_the_run_with_its_adapter(tmp_path):
    run_with(tmp_path / "run", ["a"], manifest={"exact_kl": {"p.json": 0.1}, "adapter_sha256": "same"})
    run_with(tmp_path / "other", ["a"], manifest={"exact_kl": {"p.json": 0.2}, "adapter_sha256": "another"})
    write_json(tmp_path / "t.json", {"p.json": ["b"]})
    write_json(tmp_path / "t.meta.json", {"mode": "lora", "adapter_sha256": "same", "prompts": {"p.json": HALVES}})
    notices = []
    named = evaluate([tmp_path / "other", tmp_path / "run", tmp_path / "t.json"], notice=notices.append)
    assert [(Path(row.run).name, row.exact.kl) for row in named.rows] == [("other", 0.2), ("run", 0.1), ("t.json", 0.1)]
    assert notices == []
    alone = evaluate([tmp_path / "other", tmp_path / "t.json"], notice=notices.append)
    assert alone.rows[-1].exact is None
    assert notices == [f"{tmp_path / 't.json'}: no exact KL, because the run with this adapter is not named. Name its folder too"]


def test_drift_is_apart_from_the_last_target(tmp_path):
    run_with(tmp_path / "run", ["a", "b"], manifest={"retention_kl": 0.01})
    lines = rendered(evaluate([tmp_path / "run"])).splitlines()
    at = next(i for i, line in enumerate(lines) if "drift from the base model" in line)
    assert lines[at - 1].strip() == ""
    assert lines[at - 2].strip() != ""


def test_names_from_files_cannot_steer_the_terminal(tmp_path):
    hostile = "p\x1b]0;x\x07.json"
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "gen.lora.json", {hostile: ["\x1b[31ma"]})
    write_json(folder / "prompts.json", {hostile: {**HALVES, "targets": ["a\x1b[2J"]}})
    text = rendered(evaluate([folder]))
    assert "\x1b" not in text
    assert "\\x1b" in text


@pytest.mark.parametrize(
    ("samples", "message"), [({"p.json": "text"}, "must be a list of strings"), ({"gone.json": ["a"]}, "which does not exist")]
)
def test_sample_files_that_cannot_be_used_are_told(tmp_path, samples, message):
    run = run_with(tmp_path / "run", ["a"])
    write_json(run.samples("lora"), samples)
    with pytest.raises(InputError, match=message):
        evaluate([run.path])


K10 = {**HALVES, "targets": [f"{{{i}}}" for i in range(10)]}
MANY = {**HALVES, "targets": [f"{{{i}}}" for i in range(4000)]}
ONE = {**HALVES, "targets": ["{yes}"]}
TRUNCATED = {**HALVES, "targets": ["{Alexander the Great}", "{Alexander Pope}"]}


@pytest.mark.parametrize(
    ("prompt", "counts", "verdict"),
    [
        pytest.param(
            K10, {f"{{{i}}}": 100_500 if i % 2 else 99_500 for i in range(10)}, "close to the target", id="a million samples"
        ),
        pytest.param(K10, {f"{{{i}}}": 1100 if i % 2 else 900 for i in range(10)}, "wrong shares", id="TVD .05"),
        pytest.param(K10, {"{7}": 640, **{f"{{{i}}}": 40 for i in range(10) if i != 7}}, "wrong shares", id="seven"),
        pytest.param(K10, {"{7}": 590, "no": 410}, "wrong shares, 1 of 10 targets seen, off target 41 % (p", id="junk"),
        pytest.param(
            K10,
            {**{f"{{{i}}}": 80 if i % 2 else 40 for i in range(10)}, "no": 400},
            "off target 40 %, wrong shares",
            id="more junk than wrong shares",
        ),
        pytest.param(
            K10,
            {"{7}": 600, **{f"{{{i}}}": 40 for i in range(10) if i != 7}, "no": 40},
            "wrong shares, off target 4 % (p <= 0.0001, excess TVD 0.5",
            id="less junk than wrong shares",
        ),
        pytest.param(K10, {"{7}": 1000}, "wrong shares, 1 of 10 targets seen", id="one target only"),
        pytest.param(TRUNCATED, {"{Alexander": 50}, "off target 100 %", id="truncated"),
        pytest.param(ONE, {"{yes}": 400}, "follows the target", id="K = 1"),
        pytest.param(K10, {"{1}": 1}, "too few samples for a verdict", id="N = 1"),
        pytest.param(K10, {}, "no samples", id="N = 0"),
        pytest.param(MANY, {f"{{{i}}}": 10 for i in range(4000)}, "follows the target more evenly", id="4000 targets"),
    ],
)
def test_sample_sets_with_known_answers(tmp_path, prompt, counts, verdict, monkeypatch):
    monkeypatch.setattr(perfect, "_CELLS", 4_000_000)  # so that 4000 targets are more than get all repeats
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "prompts.json", {"p.json": prompt})
    write_json(folder / "gen.lora.json", {"p.json": counts})
    found = evaluate([folder])
    assert found.rows[0].verdict.startswith(verdict)
    assert verdict[:20] in rendered(found)


def test_each_sample_takes_a_few_calls_and_less_than_a_kilobyte(tmp_path):
    """The seconds and megabytes of a million, which another machine changes, are in docs/benchmarks.md."""
    targets = [f"{{{i}}}" for i in range(1000)]
    (tmp_path / "p.json").write_text(json.dumps({"request": "x", "targets": targets}))
    (tmp_path / "s.json").write_text(json.dumps(targets * 200))
    done = measured(tmp_path, "evaluate", "s.json", "--prompt", "p.json", "--json")
    assert json.loads(done.said)["rows"][0]["n"] == 200_000
    assert done.megabytes < 400
    made = []
    for count in (1, 1, 51):  # the first imports what is needed
        (tmp_path / "s.json").write_text(json.dumps(targets * count))
        with calls() as seen:
            evaluate([tmp_path / "s.json"], Question(prompt=tmp_path / "p.json"))
        made.append(seen.made)
    assert 50_000 < made[2] - made[1] < 20 * 50_000


def test_prompts_whose_paths_are_gone_are_named_anew(tmp_path, prompt_file):
    folder = tmp_path / "old"
    write_json(folder / "gen.json", {"elsewhere/prompts/numbers/p.json": ["{a}", "{b}"]})
    (tmp_path / "numbers").mkdir()
    (tmp_path / "names").mkdir()
    prompt_file("numbers/p.json")
    prompt_file("names/p.json", targets=["{c}"])
    with pytest.raises(InputError, match=r"which does not exist\. Name it with --prompts"):
        evaluate([folder / "gen.json"])
    row = only_row(folder / "gen.json", prompts=(tmp_path / "numbers", tmp_path / "names"))
    assert row.tally.counts == (1, 1)
    write_json(folder / "gen.json", {"p.json": ["{a}"]})
    with pytest.raises(InputError, match=r"p\.json may be .*numbers/p\.json or .*names/p\.json"):
        evaluate([folder / "gen.json"], Question(prompts=(tmp_path / "numbers", tmp_path / "names")))


def test_the_rule_of_matching_is_the_one_asked_for_and_is_told(tmp_path):
    run = run_with(tmp_path / "run", ["A", " a", "b", "It is b."])
    assert only_row(run.path).tally.counts == (1, 1)
    assert only_row(run.path, matching=Matching("casefold")).tally.counts == (2, 1)
    found = evaluate([run.path], Question(matching=Matching("regex:[ab]")))
    assert found.rows[0].tally.counts == (1, 2)
    assert "what [ab] finds in it" in " ".join(rendered(found).split())


def test_only_the_prompts_asked_for_are_judged(tmp_path):
    run = run_with(tmp_path / "run", ["a"])
    write_json(run.prompts, {"p.json": HALVES, "q.json": {**HALVES, "alias": "q.json"}})
    write_json(run.samples("lora"), {"p.json": ["a"], "q.json": ["b"]})
    assert only_row(run.path, only=("q",)).prompt.alias == "q.json"
    with pytest.raises(InputError, match=r"matches no prompt path\. Available"):
        evaluate([run.path], Question(only=("zzz",)))


def test_two_runs_are_compared_prompt_by_prompt(tmp_path):
    run_with(tmp_path / "r1", ["a"] * 900 + ["b"] * 100)
    run_with(tmp_path / "r2", ["a"] * 510 + ["b"] * 490)
    found = evaluate([tmp_path])
    (difference,) = found.differences
    assert (difference.before.run, difference.after.run) == (str(tmp_path / "r1"), str(tmp_path / "r2"))
    assert difference.excess_tvd.value == pytest.approx(0.01 - 0.4)
    assert difference.excess_tvd.apart
    assert "p: r2 (tuned) minus r1 (tuned)" in rendered(found)


def test_runs_that_left_groups_out_become_a_matrix(tmp_path):
    for name, trained, kl in (("without-x", "y", 0.5), ("without-y", "x", 0.25)):
        left_out = f"prompts/{'x' if trained == 'y' else 'y'}/p.json"
        folder = tmp_path / name
        write_json(folder / "run.json", {"exact_kl": {f"prompts/{trained}/p.json": 0.01}, "exact_kl_test": {left_out: kl}})
        write_json(folder / "prompts.json", {left_out: {**HALVES, "alias": left_out}})
        write_json(folder / "gen.json", {left_out: ["a", "b"] * 50})
    found = evaluate([tmp_path])
    exact, excess = found.matrices
    assert (exact.groups, exact.values) == (("x", "y"), ((0.5, 0.01), (0.01, 0.25)))
    assert exact.trained == ((False, True), (True, False))
    assert [[not math.isnan(value) for value in row] for row in excess.values] == [[True, False], [False, True]]
    assert "trained \\ measured" in rendered(found)


def test_open_ended_answers_are_counted_not_judged(tmp_path):
    people = {**HALVES, "targets": [], "request": "Invent a person."}
    trained = {**people, "targets": ["Name: {Ann}", "Name: {Bob}"], "eos": False}
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "prompts.json", {"test.json": people, "train.json": trained})
    answers = ["Name: {Ann}\nCareer: {vet}"] * 3 + ["Name: {Cyd}\nCareer: {vet}"] * 2 + ["Name: {Dee}\nCareer: {cook}"]
    write_json(folder / "gen.json", {"test.json": answers})
    found = evaluate([folder])
    (row,) = found.rows
    assert row.figures is None
    assert (row.diversity.distinct, row.diversity.once, row.diversity.beyond) == (3, 1, 0.5)
    assert [(line.heading, line.diversity.distinct) for line in row.lines] == [("Name", 3), ("Career", 2)]
    assert "open-ended: 3 different answers in 6, 50 % beyond the targets" in rendered(found)


def test_targets_of_an_early_stop_are_only_examples(tmp_path):
    run = run_with(tmp_path / "run", ["a", "b", "c", "d"])
    run.config.write_text("model: m\nalg_config: {early_stop: true}\n")
    row = only_row(run.path)
    assert (row.diversity.distinct, row.diversity.beyond) == (4, 0.5)
    assert row.verdict.startswith("open-ended")
    assert row.figures.valid == 0.5


def test_large_sets_show_the_heaviest_and_the_worst_and_tell_what_is_folded(tmp_path):
    weights = [1.0] * 90 + [5.0] * 10
    prompt = {**HALVES, "targets": [f"t{i}" for i in range(100)], "weights": weights}
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "prompts.json", {"p.json": prompt})
    counts = {f"t{i}": int(weights[i] * 10) for i in range(100)} | {"t3": 60}
    write_json(folder / "gen.lora.json", {"p.json": counts})
    found = evaluate([folder])
    shown, folded = shown_cells(found.rows[0].cells, Showing(top=10))
    assert "t3" in [cell.target for cell in shown]
    assert sum(cell.weight for cell in shown) > 0.15
    assert len(folded) == 90
    assert "90 more targets (`--top 0`): wanted" in " ".join(rendered(found, Showing(top=10)).split())
    assert shown_cells(found.rows[0].cells, Showing(2, "residual"))[0][0].target == "t3"
    assert shown_cells(found.rows[0].cells, Showing(3, "weight"))[0][0].weight == max(c.weight for c in found.rows[0].cells)
    assert [c.target for c in shown_cells(found.rows[0].cells, Showing(0, "target"))[0]] == prompt["targets"]


def test_ordered_targets_keep_their_order_and_have_moments(tmp_path):
    run = run_with(tmp_path / "run", ["{1}"] * 5 + ["{3}"] * 5)
    write_json(run.prompts, {"p.json": {**HALVES, "targets": ["{1}", "{2}", "{3}"]}})
    found = evaluate([run.path])
    assert found.rows[0].ordered.wasserstein == pytest.approx(1 / 3)
    lines = [" ".join(line.split()) for line in rendered(found).splitlines()]
    assert "mean 2.000 target 2.000" in lines
    assert "variance 1.000 target 0.667" in lines
    assert any(re.fullmatch(r"Wasserstein distance 0\.333 perfect sampler \d\.\d{3}", line) for line in lines)


def test_samples_in_several_spellings_count_for_their_outcome(tmp_path):
    """By hand: {1}, 1 and one are four of ten, two and {2} three, {3} two; `four` is off target. The weights are .4, .4 and .2."""
    samples = ["{1}", "1", "one", "one", "two", "{2}", "two", "{3}", "{3}", "four"]
    run = run_with(tmp_path / "run", samples)
    prompt = {"targets": [["one", "{1}", "1"], ["two", "{2}", "2"], "{3}"], "weights": [2, 2, 1]}
    write_json(run.prompts, {"p.json": {**HALVES, **prompt}})
    found = evaluate([run.path])
    row = found.rows[0]
    assert row.tally.counts == (4, 3, 2)
    assert row.tally.off_target == {"four": 1}
    assert [(cell.target, cell.count) for cell in row.cells] == [("one", 4), ("two", 3), ("{3}", 2)]
    assert row.figures.tvd == pytest.approx((0 + 0.1 + 0 + 0.1) / 2)
    assert row.figures.entropy_plugin == pytest.approx(-sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1)))
    assert "equal to a spelling of a target" in " ".join(rendered(found).split())
    only_row(run.path, matching=Matching("casefold"))
    with pytest.raises(InputError, match="does not match the target 'one'"):
        evaluate([run.path], Question(matching=Matching("regex:[0-9]")))


def test_numbers_in_words_have_moments_where_another_spelling_is_in_figures(tmp_path):
    run = run_with(tmp_path / "run", ["one"] * 5 + ["{3}"] * 5)
    spelled = [["one", "{1}"], ["two", "{2}", "2"], ["three", "{3}"]]
    write_json(run.prompts, {"p.json": {**HALVES, "targets": spelled}})
    assert only_row(run.path).ordered.mean == 2


def test_raw_answers_may_come_in_any_spelling(tmp_path, prompt_file):
    prompt = prompt_file(targets=[["{seven}", "7"], ["{eight}", "8"]])
    (tmp_path / "answers.txt").write_text("7\n{seven}\n8\n")
    assert only_row(tmp_path / "answers.txt", prompt=prompt).tally.counts == (2, 1)
    prompt = prompt_file(targets=[["{heads}", "heads"], ["{tails}", "tails"]])
    (tmp_path / "table.csv").write_text("heads,x\ntails,y\n")
    with pytest.raises(InputError, match="'heads' is a target"):
        only_row(tmp_path / "table.csv", prompt=prompt)


def test_what_before_training_was_recorded_stands_beside_untuned_samples(tmp_path):
    manifest = {"exact_kl_before": {"p.json": 5.0}, "exact_on_target_before": {"p.json": 0.01}}
    run = run_with(tmp_path / "run", ["x"], manifest, mode="untuned")
    assert (only_row(run.path).exact.kl, only_row(run.path).exact.on_target) == (5.0, 0.01)
    run.config.write_text("load_model: true\n")  # before training it was no untuned model
    assert only_row(run.path).exact is None


def test_recorded_figures_of_another_prompt_of_that_name_are_not_shown(tmp_path):
    run = run_with(tmp_path / "run", ["a"], {"exact_kl": {"p.json": 0.1}, "prompt_sha256": {"p.json": "other"}})
    assert only_row(run.path).exact is None


def test_exact_figures_need_no_samples_and_agree_with_what_training_recorded(trained, prompt_file):
    folder = Path(trained.output_dir)
    recorded = json.loads((folder / "run.json").read_text())
    held_out = prompt_file("q.json", targets=["{c}", "{d}"])
    found = evaluate([folder], Question(prompts=(held_out, Path(trained.train_prompts[0])), exact=True))
    rows = {(row.prompt.alias, row.mode): row for row in found.rows}
    assert set(rows) == {(str(path), mode) for path in (held_out, trained.train_prompts[0]) for mode in ("untuned", "lora")}
    alias = trained.train_prompts[0]
    assert rows[alias, "untuned"].exact.kl == pytest.approx(recorded["exact_kl_before"][alias], abs=1e-4)
    assert rows[alias, "lora"].exact.kl == pytest.approx(recorded["exact_kl"][alias], abs=1e-4)
    assert rows[alias, "lora"].exact.on_target == pytest.approx(recorded["exact_on_target"][alias], abs=1e-4)
    assert sum(rows[alias, "lora"].exact.q) == pytest.approx(rows[alias, "lora"].exact.on_target)
    assert found.drift[str(folder)] == pytest.approx(recorded["retention_kl"], abs=1e-4)
    text = rendered(found)
    assert "not sampled; exact TVD" in text


def test_exact_figures_of_a_bare_file_are_refused(tmp_path, prompt_file):
    (tmp_path / "s.json").write_text('["{a}"]')
    with pytest.raises(InputError, match=r"--exact needs the run\. Name its folder"):
        evaluate([tmp_path / "s.json"], Question(prompt=prompt_file(), exact=True))


def drawn(wanted, **settings):
    resolved = resolve(wanted, Path("results"))
    return sample(resolved, SamplingSettings(20, 3, **settings), max_rows=None, report=lambda *_: None, notice=lambda _: None)


def test_a_moved_run_is_sampled_from_where_it_is(trained, tmp_path):
    (tmp_path / "results" / "r1").rename(tmp_path / "results" / "moved")
    resolved = resolve(Wanted(), tmp_path / "results")
    assert "moved" in resolved.message
    assert resolved.path == tmp_path / "results" / "moved" / "gen.lora.json"
    assert drawn(Wanted(tmp_path / "results" / "moved")).path == resolved.path


def test_samples_name_their_adapter_and_settings(trained):
    done = drawn(Wanted(Path(trained.output_dir)), seed=3)
    meta = json.loads((done.path.parent / "gen.lora.meta.json").read_text())
    assert meta["adapter_sha256"] == json.loads((done.path.parent / "run.json").read_text())["adapter_sha256"]
    assert (meta["settings"]["seed"], meta["mode"], meta["dtype"]) == (3, "lora", "float32")


def test_an_adapter_on_other_weights_of_the_same_name_is_refused(trained, tiny_model_folder, tmp_path):
    from tests.tiny import byte_tokenizer, tiny_llama

    other = tmp_path / "other"
    tiny_llama(seed=9).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    path = RunDir(tmp_path / "results" / "r1").path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(other)}))
    with pytest.raises(InputError, match="was trained on other weights"):
        drawn(Wanted(Path(trained.output_dir), model=str(other), mode="lora"))


def test_output_that_is_no_file_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match="is not a regular file"):
        resolve(Wanted(Path(trained.output_dir), output=tmp_path), Path("results"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", '{"exact_kl": 5}', r"run\.json: exact_kl: input should be a valid dictionary. Fix the file"),
        ("config.yaml", "alg_config: [1]", r"config\.yaml: alg_config: input should be"),
        ("config.yaml", "a: [", r"config\.yaml:1:.* invalid YAML"),
        ("gen.lora.meta.json", '{"settings": {"temperature": "x"}}', r"gen\.lora\.meta\.json: settings\.temperature: "),
        ("prompts.json", '{"p.json": {"request": 3}}', "the recorded prompt p.json is not valid"),
    ],
)
def test_files_of_a_run_that_were_damaged_are_told(tmp_path, name, text, message):
    run = run_with(tmp_path / "run", ["a"])
    (run.path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate([run.path])


def test_prompts_held_out_beside_trained_ones_are_a_group_of_their_own(tmp_path):
    for name, own in (("r1", "a"), ("r2", "b")):
        write_json(tmp_path / name / "run.json", {"exact_kl": {f"g/{own}.json": 0.1}, "exact_kl_test": {"g/c.json": 5.0}})
        write_json(tmp_path / name / "prompts.json", {f"g/{own}.json": HALVES})
        write_json(tmp_path / name / "gen.json", {f"g/{own}.json": ["a", "b"]})
    exact = evaluate([tmp_path]).matrices[0]
    assert (exact.groups, exact.values) == (("g", "g, others"), ((0.1, 5.0), (0.1, 5.0)))
    assert exact.trained == ((True, False), (True, False))


def test_held_out_wordings_and_contexts_are_no_prompts_of_a_matrix(tmp_path):
    for name, own in (("r1", "a"), ("r2", "b")):
        apart = {"g/c.json": 5.0, f"g/{own}.json#held-out": 90.0, f"g/{own}.json#contexts": 90.0}
        write_json(tmp_path / name / "run.json", {"exact_kl": {f"g/{own}.json": 0.1}, "exact_kl_test": apart})
        write_json(tmp_path / name / "prompts.json", {f"g/{own}.json": HALVES})
        write_json(tmp_path / name / "gen.json", {f"g/{own}.json": ["a", "b"]})
    assert evaluate([tmp_path]).matrices[0].values == ((0.1, 5.0), (0.1, 5.0))


def test_a_distance_that_noise_hides_is_neither_called_close_nor_wrong(tmp_path):
    """A true TVD of .05 at N = 1000 shows an excess of about .02 only; the interval holds it."""
    rng = np.random.default_rng(0)
    q = [0.11 if i % 2 else 0.09 for i in range(10)]
    run = run_with(tmp_path / "run", [])
    write_json(run.prompts, {"p.json": K10})
    verdicts, excess, covered = [], [], []
    for _ in range(60):
        write_json(run.samples("lora"), {"p.json": dict(zip(K10["targets"], rng.multinomial(1000, q).tolist(), strict=True))})
        row = only_row(run.path)
        verdicts.append(row.verdict.split(" (")[0].split(":")[0])
        excess.append(row.figures.excess_tvd)
        covered.append(row.figures.tvd_low <= 0.05 <= row.figures.tvd_high)
    assert np.mean(excess) < 0.03
    assert np.mean(covered) >= 0.95
    assert verdicts.count("close to the target") == 0
    assert verdicts.count("differs, perhaps by little") > 15


def test_a_run_named_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_with(tmp_path / "results" / "r1", ["a", "b"])
    run_with(tmp_path / "results" / "r2", ["a", "b"])
    found = evaluate([Path("results/r2"), tmp_path / "results" / "r2", Path("results")])
    assert [row.run for row in found.rows] == ["results/r2", "results/r1"]
    file = Path("results/r1/gen.lora.json")
    assert len(evaluate([file, file.resolve()]).rows) == 1
    assert len(evaluate([file, Path("results/r1")]).rows) == 1


def test_a_prompt_file_does_not_stand_for_two(tmp_path, prompt_file):
    write_json(tmp_path / "gen.json", {"old/a/p.json": ["{a}"], "old/b/p.json": ["{b}"]})
    with pytest.raises(InputError, match=r"matches both old/a/p\.json and old/b/p\.json|matches both old/b"):
        evaluate([tmp_path / "gen.json"], Question(prompts=(prompt_file("p.json"),)))


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2]])
def test_prompts_that_a_run_keeps_are_checked_like_files(tmp_path, weights):
    run = run_with(tmp_path / "run", ["a"])
    write_json(run.prompts, {"p.json": {**HALVES, "weights": weights}})
    with pytest.raises(InputError, match=r"the recorded prompt p\.json is not valid"):
        evaluate([run.path])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gen.json", '{"p.json": {"a": 1000000000000000000000000000000}}'),
        ("gen.csv", "count,prompt,text\n3,p.json\n"),
        ("gen.csv", "prompt,text,count\np.json,a," + "9" * 5000 + "\n"),
        ("gen.jsonl", "[" * 100_000),
    ],
)
def test_samples_beyond_all_measure_are_told(tmp_path, name, text):
    (tmp_path / "p.json").write_text(json.dumps({"request": "x", "targets": ["a"]}))
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        evaluate([tmp_path / name])


def test_the_same_prompt_in_two_folders_is_compared_folder_by_folder(tmp_path):
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "prompts.json", {"u/x.json": HALVES, "v/x.json": HALVES})
    for mode in ("untuned", "lora"):
        write_json(folder / f"gen.{mode}.json", {"u/x.json": ["a"] * 60, "v/x.json": ["b"] * 60})
    pairs = [(d.before.prompt.alias, d.before.mode, d.after.mode) for d in evaluate([folder]).differences]
    assert sorted(pairs) == [("u/x.json", "untuned", "lora"), ("v/x.json", "untuned", "lora")]


@pytest.mark.parametrize(("refused", "shown"), [({}, True), ({"seed": "no", "n": "no"}, True), ({"top_p": "no"}, False)])
def test_exact_figures_are_not_shown_beside_samples_that_a_server_may_have_bent(tmp_path, refused, shown):
    run = run_with(tmp_path / "run", ["a", "b"])
    write_json(run.manifest, {"exact_kl": {"p.json": 0.5}, "exact_on_target": {"p.json": 0.9}})
    write_json(run.path / "gen.lora.meta.json", {"settings": {"temperature": 1.0}, "refused": refused})
    assert (only_row(run.path).exact is not None) == shown


def test_a_prompt_that_the_newer_samples_lack_keeps_its_older_ones(tmp_path):
    """Sampling another prompt takes nothing from what training sampled."""
    run, notices = run_with(tmp_path / "run", ["a", "b", "b"]), []
    write_json(run.prompts, {"p.json": HALVES, "q.json": {**HALVES, "request": "y"}})
    run.samples("lora").rename(run.path / "gen.json")
    os.utime(run.path / "gen.json", (1, 1))
    write_json(run.samples("lora"), {"q.json": ["a"]})
    found = evaluate([run.path], notice=notices.append)
    assert {row.prompt.alias: row.tally.n for row in found.rows} == {"p.json": 3, "q.json": 1}
    assert notices == []


def test_a_run_that_has_nothing_to_show_is_named(tmp_path):
    run_with(tmp_path / "full", ["a", "b"])
    write_json(tmp_path / "begun" / "run.json", {})
    told = []
    assert len(evaluate([tmp_path / "full", tmp_path / "begun"], notice=told.append).rows) == 1
    assert told == [f"warning: left out, because there are no samples and no figures: {tmp_path / 'begun'}"]


@pytest.mark.parametrize(
    ("answers", "copied"),
    [
        ({"a": 500, "b": 300, "c": 200, "d": 100}, True),  # √(1100 / (4π)³ 3e9) = 1.4e-5
        ({"a": 5, "b": 5}, False),  # √(10 / 4π 25) = .18
        ({"a": 1000}, False),
    ],
)
def test_the_same_answers_under_two_names_are_copies_unless_they_may_be_equal_by_chance(tmp_path, answers, copied):
    asked = {"p.json": {"request": "x", "targets": []}}
    write_json(tmp_path / "prompts.json", asked)
    for name in ("one.json", "two.json"):
        write_json(tmp_path / name, {"p.json": answers})
    notices = []
    evaluate([tmp_path / "one.json", tmp_path / "two.json"], notice=notices.append)
    expected = f"warning: {tmp_path / 'two.json'}: has exactly the answers of {tmp_path / 'one.json'} to p.json."
    assert any(notice.startswith(expected) for notice in notices) == copied
