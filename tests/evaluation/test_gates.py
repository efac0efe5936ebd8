"""Limits that stop a pipeline: what they judge, what they say, how the command ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from diffusecli.evaluation.gates import GATES, failures, worst_wording
from diffusecli.evaluation.metrics import ExactFigures, Worded
from diffusecli.files.writing import write_json
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from tests.verbs.test_evaluate import run_with

HALF_JUNK = ["a"] * 30 + ["b"] * 20 + ["x"] * 50


@pytest.mark.parametrize(
    ("option", "passes", "fails"),
    [
        ("--min-valid", 0.5, 0.51), ("--max-tvd", 0.5, 0.49), ("--max-excess-tvd", 0.5, 0.4), ("--min-p", 0.1, 0.5), ("--min-n", 100, 101),
        ("--min-coverage", 0.9, None), ("--max-kl", 0.2, 0.05),
    ],
)  # fmt: skip
def test_each_gate_passes_on_one_side_of_its_limit_only(tmp_path, option, passes, fails):
    run = run_with(tmp_path / "run", HALF_JUNK, {"exact_kl": {"p.json": 0.1}})
    found = evaluate([run.path])
    assert failures(found, {option: passes}) == []
    if fails is not None:
        (missed,) = failures(found, {option: fails})
        assert missed.startswith(f"p.json (tuned): {GATES[option].figure} ")
        assert f" {fails:g}" in missed


def test_targets_that_were_never_seen_miss_the_coverage(tmp_path):
    found = evaluate([run_with(tmp_path / "run", ["a"] * 50).path])
    assert failures(found, {"--min-coverage": 0.5}) == []
    assert failures(found, {"--min-coverage": 0.51}) == ["p.json (tuned): seen / possible 0.5 < 0.51"]


def test_what_was_only_measured_exactly_is_judged_by_that_alone(trained, prompt_file):
    held_out = prompt_file("q.json", targets=["{c}", "{d}"])
    found = evaluate([Path(trained.output_dir)], Question(prompts=(held_out,), exact=True))
    assert failures(found, {"--min-valid": 0.9}) == ["valid share: there are no samples of a prompt with targets"]
    assert len(failures(found, {"--max-kl": 1e-6})) == 1


@pytest.mark.parametrize(
    ("limit", "missed"), [(0.3, []), (0.29, ["p.json (tuned): worst exact TVD of a wording 0.3 > 0.29, held-out context 'at sea'"])]
)
def test_the_worst_of_a_prompts_wordings_and_contexts_is_judged(tmp_path, limit, missed):
    found = evaluate([run_with(tmp_path / "run", ["a"]).path])
    kinds = [("trained", 0.1), ("held-out", 0.2), ("context", 0.3)]
    worded = tuple(Worded(kind, "at sea", 0.0, 1.0, tvd) for kind, tvd in kinds)
    (row,) = found.rows
    found = replace(found, rows=(replace(row, exact=ExactFigures(0.0, 1.0, tvd=0.1, wordings=worded)),))
    assert failures(found, {"--max-wording-tvd": limit}) == missed


def test_a_prompt_of_one_wording_is_judged_by_its_own_distance(tmp_path):
    (row,) = evaluate([run_with(tmp_path / "run", ["a"]).path]).rows
    assert [worst_wording(replace(row, exact=ExactFigures(0.0, 1.0, tvd=0.2))), worst_wording(row)] == [
        0.2,
        pytest.approx(float("nan"), nan_ok=True),
    ]


@pytest.mark.parametrize(("rounding", "why"), [(0.0, ""), (float("nan"), " because of 16-bit rounding")])
def test_an_unknown_figure_is_blamed_on_rounding_only_if_that_is_unknown(tmp_path, rounding, why):
    found = evaluate([run_with(tmp_path / "run", ["a"]).path])
    (row,) = found.rows
    found = replace(found, rows=(replace(row, exact=ExactFigures(0.1, 0.9, rounding=rounding, tvd_rounding=rounding)),))
    missed = f"p.json (tuned): worst exact TVD of a wording is not known{why} (add --exact)"
    assert failures(found, {"--max-wording-tvd": 0.5}) == [missed]


def test_runs_are_told_apart(tmp_path):
    for name in ("r1", "r2"):
        run_with(tmp_path / name, ["x"])
    assert failures(evaluate([tmp_path]), {"--min-valid": 0.5})[1].startswith("p.json, r2 (tuned): ")


def test_untuned_models_are_judged_only_alone(tmp_path):
    run = run_with(tmp_path / "run", ["x"], mode="untuned")
    assert len(failures(evaluate([run.path]), {"--min-valid": 0.5})) == 1
    run_with(tmp_path / "run", ["a", "b"])
    assert failures(evaluate([run.path]), {"--min-valid": 0.5}) == []


def test_what_is_not_known_does_not_pass(tmp_path):
    run = run_with(tmp_path / "run", ["a", "b"])
    found = evaluate([run.path])
    assert failures(found, {"--max-kl": 9}) == ["p.json (tuned): exact KL is not known (add --exact)"]
    assert failures(found, {"--max-drift": 9}) == [f"{run.path}: drift is not known (add --exact)"]
    write_json(run.manifest, {"retention_kl": 0.02})
    assert failures(evaluate([run.path]), {"--max-drift": 0.02}) == []
    assert failures(evaluate([run.path]), {"--max-drift": 0.01}) == [f"{run.path}: drift 0.02 > 0.01"]


@pytest.mark.parametrize(
    ("option", "limit"), [("--min-valid", 95), ("--max-kl", -1), ("--min-p", float("nan")), ("--min-p", 0.00005)]
)
def test_limits_without_a_meaning_are_refused(tmp_path, option, limit):
    found = evaluate([run_with(tmp_path / "run", ["a"]).path])
    with pytest.raises(InputError, match=f"{option} .*must be"):
        failures(found, {option: limit})


def test_the_command_says_in_one_line_what_failed_and_exits_with_1(tmp_path, in_process):
    run_with(tmp_path / "run", HALF_JUNK)
    done = in_process("evaluate", "run", "--min-valid", "0.9", "--max-excess-tvd", "0.1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == "diffuse: failed: p.json (tuned): valid share 0.5 < 0.9; p.json (tuned): excess TVD 0.4602 > 0.1"
    assert "off target 50 %" in done.stdout
    assert in_process("evaluate", "run", "--min-valid", "0.4").returncode == 0
