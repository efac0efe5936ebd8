"""Figures by folder: medians over prompts, splits before their families, the worst prompts by name, limits of a pipeline."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.evaluation import metrics
from diffusecli.evaluation.binomials import exactly, mean_deviation
from diffusecli.evaluation.distance import expected_excess, total_variation
from diffusecli.evaluation.gates import failures
from diffusecli.evaluation.groups import are_many, groups, has_groups, worst
from diffusecli.evaluation.metrics import ExactFigures, exact_figures
from diffusecli.evaluation.perfect import mean_absolute_deviation, mean_tvd
from diffusecli.files.writing import write_json
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from tests.counting import calls
from tests.mixtures import measured_as, prompts_in, run_in

PQ = st.floats(0, 1)


def number(prompt):
    return int(prompt.request.split()[1])


def shift(prompt, mode):
    """The exact TVD: .09 untuned; tuned .01, .02, .03, … by number, twice as much of urns."""
    return 0.09 if mode == "untuned" else 0.01 * (1 + number(prompt)) * (2 if "urns" in prompt.request else 1)


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    """A function that measures prompts of some families in a run."""
    monkeypatch.chdir(tmp_path)
    run_in(tmp_path / "run")

    def measure(families=("wordings/dice", "wordings/urns", "families/odds"), each=3, shift=shift, **question):
        monkeypatch.setattr("diffusecli.evaluation.exact.measure", measured_as(shift))
        folder = prompts_in(tmp_path / "mix", families, each)
        return evaluate([tmp_path / "run"], Question(prompts=(folder,), exact=True, **question))

    return measure


def by_name(found):
    return {(folder.label, group.mode): group for folder, some in groups(found.rows) for group in some}


def test_each_split_stands_before_its_families_with_tuned_beside_untuned(mixture):
    found = groups(mixture(("wordings/dice", "wordings/urns", "families/odds", "families/zipf")).rows)
    assert [folder.label for folder, _ in found] == ["families", "  odds", "  zipf", "wordings", "  dice", "  urns"]
    assert {tuple(group.mode for group in some) for _, some in found} == {("lora", "untuned")}
    assert [group.folder for _, some in found for group in some if group.top and group.mode == "lora"] == ["families", "wordings"]


def test_medians_and_quantiles_are_those_of_the_prompts(mixture):
    """Dice have .01, .02, .03, urns .02, .04, .06; both together .01, .02, .02, .03, .04, .06 with the quantile 90 % of the way."""
    found = by_name(mixture())
    dice, words = found["  dice", "lora"], found["wordings", "lora"]
    assert (dice.prompts, dice.exact, dice.sampled) == (3, 3, 0)
    assert (dice.tvd_median, dice.tvd_90) == (pytest.approx(0.02), pytest.approx(0.02 + 0.8 * 0.01))
    assert dice.kl_median == pytest.approx(-0.1 * math.log(1.2) - 0.1 * math.log(0.8))
    assert dice.on_target_mean == pytest.approx(1)
    assert words.prompts == 6
    assert (words.tvd_median, words.tvd_90) == (pytest.approx(0.025), pytest.approx(0.05))
    assert found["wordings", "untuned"].tvd_median == pytest.approx(0.09)
    assert math.isnan(words.sampled_tvd_median)


def test_folders_without_a_level_above_stand_below_the_whole(mixture):
    found = mixture(("dice", "urns"))
    assert [(folder.label, folder.top) for folder, _ in groups(found.rows)] == [("all", False), ("dice", True), ("urns", True)]
    assert by_name(found)["all", "lora"].prompts == 6


def test_groups_are_shown_where_they_say_more_than_the_rows(mixture):
    assert not has_groups(mixture(("dice", "urns"), each=1).rows)
    assert has_groups(mixture(("dice", "urns"), each=2).rows)


def test_one_folder_alone_is_summed_up_from_25_prompts_on(mixture):
    few = mixture(("dice",), each=24, shift=lambda *_: 0.01)
    many = mixture(("dice",), each=25, shift=lambda *_: 0.01)
    assert (are_many(few.rows), has_groups(few.rows), are_many(many.rows), has_groups(many.rows)) == (False, False, True, True)
    assert [folder.label for folder, _ in groups(many.rows)] == ["."]


def test_the_worst_prompts_are_those_of_the_tuned_model(mixture):
    assert [(row.prompt.request, row.mode) for row in worst(mixture().rows, 3)] == [
        ("wordings/urns 2", "lora"), ("wordings/urns 1", "lora"), ("families/odds 2", "lora"),
    ]  # fmt: skip


def test_sampled_prompts_have_sampled_medians(tmp_path):
    aliases = [f"{folder}/{i}.json" for folder in ("u", "v") for i in range(3)]
    prompt = {"request": "x", "response": [""], "targets": ["a", "b"]}
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "prompts.json", {alias: {**prompt, "request": alias} for alias in aliases})
    write_json(tmp_path / "gen.lora.json", {alias: {"a": 50 + 10 * i, "b": 50 - 10 * i} for i, alias in enumerate(aliases)})
    group = by_name(evaluate([tmp_path]))["v", "lora"]
    assert (group.sampled, group.exact, group.sampled_tvd_median) == (3, 0, pytest.approx(0.4))
    assert group.sampled_excess_tvd_median == pytest.approx(0.4 - mean_tvd(100, np.array([0.5, 0.5])))
    assert math.isnan(group.tvd_median)


def test_the_excess_at_n_counts_off_target_draws_as_samples_do():
    """N = 1, q = .4, .4, .2 off target: a draw shows a TVD of 1/2 on target and of 1 off it, .6 on average; a perfect one 1/2.

    N = 2, q = .7, .3: a draw of each kind (.42) shows 0, two of a kind 1/2, so .29 on average; a perfect sampler shows 1/4.
    """
    halves = np.array([0.5, 0.5])
    assert expected_excess(1, np.array([0.4, 0.4]), halves) == pytest.approx(0.1)
    assert expected_excess(2, np.array([0.7, 0.3]), halves) == pytest.approx(0.04)
    assert expected_excess(500, np.zeros(2), halves) == pytest.approx(1 - mean_tvd(500, halves))


@given(st.integers(1, 60), PQ, PQ)
def test_the_mean_deviation_is_the_sum_over_all_counts(n, q, p):
    counts = np.arange(n + 1)
    assert mean_deviation(n, q, p) == pytest.approx(float((exactly(counts, n, q) * np.abs(counts / n - p)).sum()), abs=1e-10)


@given(st.integers(1, 10**6), PQ)
def test_around_its_own_mean_it_is_de_moivres_formula(n, p):
    assert mean_deviation(n, p, p) == pytest.approx(float(mean_absolute_deviation(n, np.array(p))), abs=1e-9)


@pytest.mark.parametrize("n", [7, 500])
def test_the_excess_at_n_is_the_mean_over_simulated_samples(n):
    rng = np.random.default_rng(n)
    p, q = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(13))[:12]
    draws = rng.multinomial(n, [*q, 1 - q.sum()], size=20_000)[:, :12]
    shown = np.array([total_variation(counts, n, p) for counts in draws]) - mean_tvd(n, p)
    assert expected_excess(n, q, p) == pytest.approx(shown.mean(), abs=4 * shown.std() / math.sqrt(len(shown)))


def test_the_number_of_draws_is_the_one_asked_for(mixture):
    few, usual = (by_name(mixture(**asked))["  dice", "lora"] for asked in ({"at_n": 10}, {}))
    tenth, q = np.full(10, 0.1), np.array([0.12, 0.08, *[0.1] * 8])
    assert few.excess_tvd_median == pytest.approx(expected_excess(10, q, tenth))
    assert usual.excess_tvd_median == pytest.approx(expected_excess(500, q, tenth))
    assert few.excess_tvd_median < usual.excess_tvd_median < few.tvd_median


def test_exact_figures_hold_the_excess():
    prompt = Prompt(request="r", targets=("a", "b"))
    assert exact_figures(prompt, np.log([0.7, 0.3]), 1000, 2).excess_tvd == pytest.approx(0.04)


@pytest.mark.parametrize(("option", "figure"), [("--max-median-tvd", "exact TVD"), ("--max-median-excess-tvd", "excess TVD")])
def test_a_median_is_judged_of_each_split_of_the_tuned_model(mixture, option, figure):
    """The untuned model is far off in every folder; the families of a split are not judged one by one."""
    found = mixture(("wordings/dice", "wordings/urns", "families/odds", "families/zipf"))
    values = {g.folder: g for _, some in groups(found.rows) for g in some if g.mode == "lora"}
    of = {"--max-median-tvd": "tvd_median", "--max-median-excess-tvd": "excess_tvd_median"}[option]
    words, families, urns = (getattr(values[name], of) for name in ("wordings", "families", "wordings/urns"))
    assert families < words < urns
    assert failures(found, {option: words + 1e-9}) == []
    between = (families + words) / 2
    assert failures(found, {option: between}) == [f"wordings (tuned): median {figure} {words:.4g} > {between:g}"]
    assert len(failures(found, {option: families / 2})) == 2


def test_folders_without_a_split_are_judged_one_by_one(mixture):
    assert failures(mixture(("dice", "urns")), {"--max-median-tvd": 0.03}) == ["urns (tuned): median exact TVD 0.04 > 0.03"]


def test_a_median_of_which_a_prompt_is_not_known_misses_its_limit(mixture):
    found = mixture(("dice", "urns"))
    first = next(row for row in found.rows if row.mode == "lora")
    rows = tuple(replace(row, exact=None) if row is first else row for row in found.rows)
    assert failures(replace(found, rows=rows), {"--max-median-tvd": 0.5}) == [
        "dice (tuned): median exact TVD is not known, 2 of 3 prompts measured (add --exact)"
    ]
    with pytest.raises(InputError, match="--max-median-tvd 2: must be between 0 and 1"):
        failures(found, {"--max-median-tvd": 2})


def test_the_median_excess_is_judged_with_the_rounding_of_each_prompt(mixture):
    """The rounding does not raise the median TVD (.03). It raises the median excess by .03: 0, .01 and .04 become .1, .01 and .04."""
    found = mixture(("dice",))
    chosen = [row for row in found.rows if row.mode == "lora"][:3]
    given = zip(chosen, ((0.05, 0.0, 0.1), (0.03, 0.01, 0.0), (0.01, 0.04, 0.0)), strict=True)
    rows = [replace(row, exact=ExactFigures(0.1, 0.9, tvd=t, excess_tvd=e, tvd_rounding=r)) for row, (t, e, r) in given]
    found = replace(found, rows=tuple(rows))
    assert failures(found, {"--max-median-excess-tvd": 0.039}) == [
        "all prompts (tuned): median excess TVD 0.04 > 0.039, with 0.03 of 16-bit rounding"
    ]
    assert failures(found, {"--max-median-tvd": 0.025}) == ["all prompts (tuned): median exact TVD 0.03 > 0.025"]


def test_the_command_fails_with_1_on_a_folder(mixture, in_process):
    mixture()
    asked = ("evaluate", "run", "--exact", "--prompts", "mix", "--max-median-tvd")
    passed, failed = in_process(*asked, ".09"), in_process(*asked, ".015")
    assert (passed.returncode, failed.returncode) == (0, 1)
    assert failed.stderr.splitlines()[-1].startswith("diffuse: failed: ")
    assert "wordings (tuned): median exact TVD 0.025 > 0.015" in failed.stderr


def test_prompts_that_were_only_measured_draw_nothing_and_take_a_few_thousand_calls_each(mixture, monkeypatch):
    def never(*_):
        raise AssertionError("Monte Carlo of a prompt without samples")

    for name in ("perfect_sampler", "goodness_of_fit", "detectable_tvd"):
        monkeypatch.setattr(metrics, name, never)
    families = tuple(f"{split}/{family}" for split in ("wordings", "parameters") for family in ("dice", "urns"))
    made = []
    for each in (1, 26, 126):
        with calls() as seen:
            found = mixture(families, each=each, shift=lambda *_: 0.02)
        made.append(seen.made)
    assert len(found.rows) == 2 * 4 * 126
    few, many = (made[1] - made[0]) / 100, (made[2] - made[1]) / 400
    assert many < 1.2 * few
    assert many < 5000


def test_json_names_every_group(mixture):
    pytest.importorskip("jsonschema", reason="checks with an independent implementation of JSON Schema")
    from jsonschema import Draft7Validator

    from diffusecli.report.data import as_json, json_schema

    document = json.loads(as_json(mixture(at_n=100)))
    assert list(Draft7Validator(json_schema()).iter_errors(document)) == []
    assert document["at_n"] == 100
    (dice,) = [group for group in document["groups"] if group["folder"] == "wordings/dice" and group["mode"] == "lora"]
    assert (dice["prompts"], dice["tvd_median"], dice["sampled_tvd_median"]) == (3, pytest.approx(0.02), None)


def test_of_many_limits_that_are_missed_one_of_each_is_told_first(mixture):
    found = mixture(("dice", "urns"))
    told = failures(found, {"--max-kl": 1e-9, "--max-median-tvd": 0.03, "--max-drift": 0.001})
    assert [limit for phrase in told[:3] for limit in ("exact KL", "median exact TVD", "drift") if limit in phrase] == [
        "exact KL", "median exact TVD", "drift",
    ]  # fmt: skip
    assert len(told) > 6


def test_the_folder_of_all_prompts_has_a_name_in_what_is_missed(mixture):
    assert failures(mixture(("dice",)), {"--max-median-tvd": 0.01}) == ["all prompts (tuned): median exact TVD 0.02 > 0.01"]
