"""Questions by rule, and the tests of equivalence on them: each figure by hand, and the tables."""

import csv
import json
import math
import re
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pytest
from scipy import stats

from benchmarks.study import abilities, kept, page, rules, stages
from benchmarks.study.abilities import Question
from benchmarks.study.equivalence import equivalence, questions_needed
from benchmarks.study.rules import by_rule, categories, pairs
from diffusecli.prompts.number_words import number_words

QUESTIONS = by_rule()


def of_kind(kind):
    return [(q.question, q.options[q.answer], q) for q in QUESTIONS if q.kind == kind]


def test_there_are_thousands_of_different_questions_of_many_kinds():
    assert len({q.question for q in QUESTIONS}) == len(QUESTIONS) >= 4000
    kinds = Counter(q.kind for q in QUESTIONS)
    assert set(kinds) == set(rules.RULES)
    assert len(kinds) >= 30
    assert min(kinds.values()) >= 50
    assert max(kinds.values()) == rules.EACH
    assert f"{len(QUESTIONS)} questions can" in (text := page.PAGE.read_text(encoding="utf-8"))
    assert f"{len(kinds)} kinds" in text
    assert f"at most {rules.EACH} questions" in text


def test_the_right_answer_is_as_often_in_each_place_and_no_answer_begins_another():
    for kind in rules.RULES:
        places = Counter(q.answer for q in QUESTIONS if q.kind == kind)
        assert max(places.values()) - min(places.values()) <= 1, kind
    for q in QUESTIONS:
        assert not any(a != b and b.startswith(a) for a in q.options for b in q.options), q


def test_questions_follow_from_the_seed_and_a_rule_does_not_depend_on_the_others(monkeypatch):
    assert by_rule(each=3) == by_rule(0, 3) != by_rule(1, 3)
    first = next(iter(rules.RULES))
    monkeypatch.setattr(rules, "RULES", {first: rules.RULES[first]})
    assert by_rule() == [q for q in QUESTIONS if q.kind == first]


@pytest.mark.parametrize(
    "kind",
    ["addition to 100", "addition of three", "subtraction below 100", "multiplication to 12 times 12", "division"],
)
def test_equations_are_right_and_others_are_wrong(kind):
    for question, right, q in of_kind(kind):
        term = question.removeprefix("What is ").removesuffix("?")
        true = [option for option in q.options if eval(term) == int(option.split(" = ")[1])]  # noqa: S307 - our own terms
        assert true == [right]
        assert all(option.startswith(f"{term} = ") for option in q.options)


def number(text):
    return int(re.findall(r"\d+", text)[-1])


def test_questions_on_numbers_have_the_right_answer():
    for question, right, _ in of_kind("doubles"):
        assert number(right) == 2 * number(question)
    for question, right, _ in of_kind("halves"):
        assert 2 * number(right) == number(question)
    for question, right, _ in of_kind("missing number"):
        a, total = map(int, re.findall(r"\d+", question))
        assert a + number(right) == total
    for kind, sign in (("stories of more", 1), ("stories of fewer", -1)):
        for question, right, _ in of_kind(kind):
            a, b = map(int, re.findall(r"\d+", question))
            assert number(right) == a + sign * b
    for question, right, q in of_kind("rounding to tens"):
        assert abs(number(right) - number(question)) == min(abs(number(o) - number(question)) for o in q.options) < 5
    for question, right, q in of_kind("smallest of four"):
        assert int(right) == min(map(int, re.findall(r"\d+", question))) == min(map(int, q.options))
    for _, right, q in of_kind("even number of four"):
        assert [option for option in q.options if int(option) % 2 == 0] == [right]
    for kind in ("sequences upwards", "sequences downwards"):
        for question, right, _ in of_kind(kind):
            terms = [int(n) for n in re.findall(r"\d+", right)]
            assert len(set(np.diff(terms))) == 1
            assert ", ".join(map(str, terms[:-1])) in question


def test_words_and_numerals_are_those_of_the_number():
    by_words = {number_words(n): n for n in range(100)}
    assert [by_words[word] for word in ("twelve", "twenty", "ninety-nine")] == [12, 20, 99]
    for question, right, _ in of_kind("numbers from words"):
        assert by_words[question.split()[1]] == number(right)
    for question, right, _ in of_kind("numbers in words"):
        assert by_words[right] == number(question)
    values = {"I": 1, "V": 5, "X": 10, "L": 50}
    for question, right, _ in of_kind("Roman numerals"):
        signs = [values[c] for c in question.split()[-1].removesuffix("?")]
        assert sum(-a if a < b else a for a, b in zip(signs, [*signs[1:], 0], strict=True)) == number(right)


def test_units_hours_days_and_months_are_right():
    seconds = {
        "minutes": 60,
        "hours": 3600,
        "days": 86400,
        "weeks": 604800,
        "centimeters": 1,
        "meters": 100,
        "months": 1,
        "years": 12,
    }
    for question, right, _ in of_kind("units of time and length"):
        small, count, large = re.match(r"How many (\w+) are (\d+) (\w+)\?", question).groups()
        assert number(right) == int(count) * seconds[large] // seconds[small]
    for question, right, _ in of_kind("hours of the clock"):
        now, later = map(int, re.findall(r"\d+", question))
        assert number(right) % 12 == (now + later) % 12
    monday = date(2024, 1, 1)
    for question, right, _ in of_kind("days of the week"):
        count, where, day = re.match(r"Which day is (\w+) days? (after|before) (\w+)\?", question).groups()
        away = (1 if count == "one" else int(count)) * (1 if where == "after" else -1)
        assert (monday + timedelta(rules.DAYS.index(day) + away)).strftime("%A") == right
    for question, right, _ in of_kind("months of the year"):
        count, where, month = re.match(r"Which month is (\w+) months? (after|before) (\w+)\?", question).groups()
        away = (1 if count == "one" else int(count)) * (1 if where == "after" else -1)
        assert date(2024, (rules.MONTHS.index(month) + away) % 12 + 1, 1).strftime("%B") == right


def test_letters_are_right():
    for question, right, _ in of_kind("first letters"):
        assert right == question.split('"')[1][0].upper()
    for question, right, _ in of_kind("capital letters"):
        assert right == question.split('"')[1].upper()
    for question, right, _ in of_kind("letters in order"):
        assert right.split() == sorted(question.split(": ")[1].split())
    for _, right, _ in of_kind("next letters"):
        assert right.replace(", ", "") in rules.LETTERS


def test_words_are_those_of_the_lists():
    for kind, name in (("plurals", "plurals"), ("past tenses", "past_tenses"), ("comparatives", "comparatives")):
        known = dict(pairs(name))
        assert all(known[question.split('"')[1]] == right for question, right, _ in of_kind(kind))
    for kind in ("opposites", "synonyms"):
        known = {(a, b) for a, b in pairs(kind)} | {(b, a) for a, b in pairs(kind)}
        for question, _, q in of_kind(kind):
            assert sum((question.split('"')[1], option) in known for option in q.options) == 1
    for question, right, q in of_kind("words of categories"):
        category, letter = re.match(r"Name an? (.+) that begins with (\w)\.", question).groups()
        assert right[0].upper() == letter
        assert [option for option in q.options if option in categories()[category]] == [right]
    for question, right, _ in of_kind("categories of words"):
        word = question.split(": ")[1].removesuffix("?")
        assert word in categories()[right.split(" ", 1)[1]]
    assert dict(pairs("capitals"))["France"] == "Paris"


def test_the_two_tests_are_those_of_the_paired_t_test():
    # scipy: two one-sided tests of the same differences, moved by the margin
    lost, gained, n = 30, 22, 1000
    differences = np.array([-1] * lost + [1] * gained + [0] * (n - lost - gained))
    found = equivalence(n, lost, gained, 0.02)
    above = stats.ttest_1samp(differences, -0.02, alternative="greater")
    below = stats.ttest_1samp(differences, 0.02, alternative="less")
    assert found.change == pytest.approx(-0.008)
    assert found.p_value == pytest.approx(max(above.pvalue, below.pvalue))
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.shown == (found.low > -0.02 and found.high < 0.02)


def test_equivalence_by_hand():
    # N = 4000, 80 lost, 80 gained: s = sqrt(160 / 3999) = .20002, standard error .0031627, t = .01 / .0031627 = 3.1619
    found = equivalence(4000, 80, 80)
    assert found.p_value == pytest.approx(stats.t.sf(3.1619, 3999), rel=1e-3)
    assert found.shown
    # a loss of one point exactly: one of the tests has t = 0, so p = 1/2
    assert equivalence(4000, 100, 60).p_value == pytest.approx(0.5)
    assert not equivalence(240, 5, 5).shown  # too few questions


def test_without_a_changed_answer_the_number_of_questions_decides():
    assert equivalence(100, 0, 0).p_value == pytest.approx(0.99**100)
    assert not equivalence(100, 0, 0).shown
    assert equivalence(300, 0, 0).shown  # .99^299 < .05
    everything_lost = equivalence(5, 5, 0)
    assert (everything_lost.change, everything_lost.low, everything_lost.p_value) == (-1, -1, 1)


def test_the_number_of_questions_has_the_stated_power():
    assert questions_needed(0.04) == 3426
    n, changed = questions_needed(0.2, 0.02), 0.2
    dice = np.random.default_rng(0)
    shown = []
    for _ in range(400):
        lost, gained, _ = dice.multinomial(n, [changed / 2, changed / 2, 1 - changed])
        shown.append(equivalence(n, int(lost), int(gained), 0.02).shown)
    assert np.mean(shown) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 400))


def items(kinds, rights):
    return [{"kind": kind, "right": right, "log_prob": -1.0} for kind, right in zip(kinds, rights, strict=True)]


def test_answers_are_counted_over_all_questions_and_by_kind():
    before, after = items("aab", [True, True, False]), items("aab", [False, True, True])
    found = {kind: kept.line_of(*both) for kind, *both in kept.by_kind(before, after)}
    assert {kind: (line["n"], line["lost"], line["gained"]) for kind, line in found.items()} == {
        "all": (3, 1, 1), "a": (2, 1, 0), "b": (1, 0, 1),
    }  # fmt: skip
    assert found["a"]["change"] == -0.5
    assert found["b"]["right"] == 1


def measured(stage, rights):
    """What `abilities --many` prints, and a run with a drift."""
    stage.product.parent.mkdir(parents=True, exist_ok=True)
    for path in stage.reads:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"retention_kl": 0.0625}))
    passages = [{"tokens": 10, "nats": 20.0 + len(stage.reads)}, {"tokens": 10, "nats": 30.0 + len(stage.reads)}]
    result = {"asked": {"sha256": "same"}, "perplexity": 12.5, "items": {"rules": items("aaab", rights), "passages": passages}}
    stage.product.write_text(json.dumps(result))
    journal = stages.read_journal()
    journal[stage.name] = {"command": stage.told, "done": True, "seconds": 1}
    stages.write_json(stages.JOURNAL, journal)


def table(name):
    return [line.strip("| ").split(" | ") for line in page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]]


def test_the_tables_show_only_models_that_are_measured(workplace):
    assert table("kept") == table("kept-kinds") == [["Not measured yet."]]
    untuned, mixture, *_ = kept.stages()
    measured(untuned, [True, True, False, True])
    measured(mixture, [True, False, False, True])
    (workplace / "kept.csv").write_text("")
    lines = list(kept.lines(stages.read_journal()))
    with (workplace / "kept.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows(lines)
    head, _, first, second = table("kept")
    assert head[1] == "of 4 questions right, %"
    assert first == ["untuned", "75.0", "-", "-", "-", "-", "-", "0"]
    # d = (0, -1, 0, 0): m = -1/4, s^2 = (1 - 4/16) / 3 = 1/4, standard error 1/4, t(.95, 3) = 2.3534: -1/4 -+ .5883
    change, needed = "-25.00 [-83.83 to +33.83]", str(questions_needed(0.25))
    p = stats.t.sf((-0.25 + 0.01) / 0.25, 3)
    assert second[:3] == ["mixture, with `retain`", "50.0", "1, 0"]
    assert second[3:6] == [change, f"not shown ({p:.2g})", needed]
    assert second[6:] == ["1.105 [1.105 to 1.105]", "0.0625"]  # exp(.1): both passages lose a tenth of a nat per token
    with (workplace / "kept.csv").open("w", newline="") as file:  # of a run without retention, which measures no drift
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows({**line, "drift": None} if line["model"] == "mixture" else line for line in lines)
    assert table("kept")[-1][-1] == "-"
    _, _, a, b = table("kept-kinds")
    assert (a, b) == (["a", "3", "67", "-33.3"], ["b", "1", "100", "+0.0"])


def test_many_asks_the_questions_by_rule(tiny_model_folder, monkeypatch, capsys):
    asked = [Question("First?", ("a", "b", "c", "d"), 1, "x")]
    monkeypatch.setattr(rules, "by_rule", lambda: asked)
    monkeypatch.setattr(abilities, "BUILTIN", str(tiny_model_folder))
    monkeypatch.setattr(abilities, "read_passages", lambda **_: ["Some words."])
    monkeypatch.setattr("sys.argv", ["abilities", "--untuned", "--many"])
    abilities.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["rules_n"], found["passages_n"]) == (1, 1)
    assert set(found["items"]) == {"rules", "passages"}
