"""How many different answers there are and would be, against populations that are known."""

import math
from collections import Counter

import numpy as np
import pytest

from diffusecli.evaluation.open_ended import by_line, diversity


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
