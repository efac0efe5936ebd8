"""How many different answers there are and would be, against populations that are known."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from diffusecli.evaluation.open_ended import by_line, diversity
from diffusecli.report.wording import distinct_of_10


def test_an_example_by_hand():
    found = diversity({"a": 5, "b": 2, "c": 1, "d": 1})
    assert (found.n, found.distinct, found.once, found.twice) == (9, 4, 2, 1)
    assert found.unseen_mass == pytest.approx(2 / 9)
    assert found.chao1 == pytest.approx(4 + 2 * 1 / (2 * 2))
    assert [(outcome.text, outcome.count) for outcome in found.top] == [("a", 5), ("b", 2), ("c", 1), ("d", 1)]


def test_the_unseen_mass_is_what_good_and_turing_say_on_average():
    p = np.arange(1, 101) / 5050
    rng = np.random.default_rng(0)
    told, true = [], []
    for _ in range(300):
        counts = rng.multinomial(200, p)
        told.append(diversity(Counter({str(i): int(c) for i, c in enumerate(counts) if c})).unseen_mass)
        true.append(p[counts == 0].sum())
    assert np.mean(told) == pytest.approx(np.mean(true), abs=0.005)


def test_chao1_is_a_lower_bound_that_comes_near():
    rng = np.random.default_rng(0)
    told = [
        diversity(Counter({str(i): int(c) for i, c in enumerate(rng.multinomial(150, [0.01] * 100)) if c})).chao1
        for _ in range(200)
    ]
    assert 85 <= np.mean(told) <= 103


def test_nothing_is_known_of_no_answers():
    found = diversity({})
    assert (found.n, found.distinct, found.chao1) == (0, 0, 0)
    assert math.isnan(found.unseen_mass)


def test_lines_go_to_their_headings_and_odd_ones_are_left_out():
    answers = {f"Name: {name}\nPlace: Rome": 30 for name in ("Ann", "Bob", "Cyd")} | {"Name: Dan\nPlace: Oslo\nOdd: x": 1}
    lines = {line.heading: line.diversity for line in by_line(answers, ["Name: Ann\nPlace: Rome"])}
    assert {heading: found.distinct for heading, found in lines.items()} == {"Name": 4, "Place": 2}
    assert lines["Name"].beyond == pytest.approx(61 / 91)
    assert lines["Place"].beyond == pytest.approx(1 / 91)


def test_known_lines_are_compared_by_the_same_rule(tmp_path):
    from diffusecli.files.writing import write_json
    from diffusecli.prompts.matching import Matching
    from diffusecli.verbs.evaluate import Question, evaluate

    asked = {"request": "x", "targets": []}
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "prompts.json", {"t.json": asked, "k.json": {**asked, "targets": ["Name: Ann\nFrom: Rome"]}})
    write_json(tmp_path / "gen.json", {"t.json": ["name: ann\nfrom: ROME"] * 3})
    (row,) = evaluate([tmp_path], Question(matching=Matching("casefold"))).rows
    assert [(line.heading, line.diversity.beyond) for line in row.lines] == [("name", 0), ("from", 0)]


def test_answers_of_one_line_have_no_lines():
    assert by_line({"a": 2, "b": 1}) == ()


def test_all_figures_count_normalised_texts_and_show_the_most_frequent_spelling():
    answers = {"*Elephant*": 1, "elephant.": 2, "Elephant": 1, "**Fox**": 1, **{f"animal {i}": 1 for i in range(7)}}
    found = diversity(answers, unfinished={"*Elephant*": 1})
    assert (found.n, found.distinct, found.once) == (12, 9, 8)
    assert (found.top[0].text, found.top[0].count, found.top[0].unfinished) == ("elephant.", 4, 1)
    # 12 answers, Elephant 4 times: C(8, 10) = 0 of the C(12, 10) = 66 choices miss it, and 11 of 66 miss one of the 8 others
    assert found.distinct_of_10 == pytest.approx(1 + 8 * (1 - 11 / 66))


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [(9.84, 0.35 / 1.96, "9.84 (9.49 to 10)"), (1.1, 0.2 / 1.96, "1.10 (1 to 1.30)"), (5.5, 0.5 / 1.96, "5.50 ± 0.50")],
)
def test_the_interval_of_distinct_of_10_ends_at_1_and_10(value, error, shown):
    found = replace(diversity({"a": 20, "b": 4}), distinct_of_10=value, distinct_of_10_error=error)
    assert distinct_of_10(found) == shown
