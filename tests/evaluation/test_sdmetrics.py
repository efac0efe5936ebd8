"""SDMetrics' quality score of answers that are records."""

import json
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from diffusecli.evaluation.record_targets import RecordTarget
from diffusecli.evaluation.sdmetrics_score import quality
from diffusecli.prompts.prompt import Draws, Prompt

PLACES = ("Rome", "Oslo", "Lima")
PEOPLE = [(str(20 + age), PLACES[age // 10]) for age in range(30)]  # the age decides the place
PROMPT = Prompt(request="Who?", targets=[f"{{{age}, {place}}}" for age, place in PEOPLE], template="{{{age}, {place}}}")


def scored(rows, prompt=PROMPT):
    return quality(RecordTarget.of(prompt, prompt.record), list(Counter(rows).items()), 0)


def test_it_is_the_score_of_the_package_against_a_table_of_the_weights():
    from sdmetrics.reports.single_table import QualityReport

    rng = np.random.default_rng(1)
    rows = [(str(20 + int(rng.integers(30))), PLACES[int(rng.integers(3))]) for _ in range(300)]
    frames = [pd.DataFrame(some, columns=["age", "place"]).astype({"age": float}) for some in (PEOPLE, rows)]
    report = QualityReport()
    report.generate(*frames, {"columns": {"age": {"sdtype": "numerical"}, "place": {"sdtype": "categorical"}}}, verbose=False)
    assert scored(rows).score == pytest.approx(report.get_score(), abs=0.005)  # 10 000 rows are not a multiple of 30 people


def test_answers_that_follow_the_weights_score_as_a_perfect_sampler_and_independent_fields_do_not():
    faithful = scored(PEOPLE * 20)
    assert faithful.score == pytest.approx(1, abs=0.01)
    assert 0.9 < faithful.perfect <= 1
    independent = scored([(age, place) for age, _ in PEOPLE for place in PLACES] * 7)
    assert independent.score < independent.perfect - 0.1


def test_numbers_that_are_none_are_left_out_and_nothing_is_no_score():
    assert scored([*PEOPLE * 20, ("old", "Rome"), ("nan", "Oslo")]).score == scored(PEOPLE * 20).score
    assert np.isnan(scored([]).score)


def test_several_draws_have_a_score():
    dice = Prompt(request="Roll.", targets=("1", "2"), draws=Draws(n=2, wrap="{%s}"))
    even = scored([(a, b) for a in "12" for b in "12"] * 50, dice)
    assert even.score == pytest.approx(1, abs=0.02)
    assert scored([("1", "1"), ("2", "2")] * 100, dice).score < 0.8


def test_the_command_shows_it_where_it_is_asked_for(tmp_path, in_process):
    (tmp_path / "p.json").write_text(PROMPT.to_json())
    (tmp_path / "a.txt").write_text("".join(f"{target}\n" for target in PROMPT.targets) * 5)
    words = ["evaluate", str(tmp_path / "a.txt"), "--prompt", str(tmp_path / "p.json")]
    assert "SDMetrics" not in in_process(*words).stdout
    shown = " ".join(in_process(*words, "--sdmetrics").stdout.split())
    assert "SDMetrics quality score 1.000 (perfect sampler 0.9" in shown
    (row,) = json.loads(in_process(*words, "--sdmetrics", "--json").stdout)["rows"]
    assert row["records"]["sdmetrics"]["score"] == pytest.approx(1, abs=0.01)


def test_without_the_package_it_says_what_to_install(tmp_path, in_process, monkeypatch):
    monkeypatch.setitem(sys.modules, "sdmetrics.reports.single_table", None)
    done = in_process("evaluate", str(tmp_path), "--sdmetrics")
    assert done.returncode == 2
    assert "pip install 'diffuse-lm[records]'" in " ".join(done.stderr.split())
