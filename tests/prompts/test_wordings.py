"""The bank of wordings: filled with the right facts, drawn evenly, held out apart."""

import json
import re
import shlex
from collections import Counter

import pytest

from diffusecli.files.documents import Document
from diffusecli.prompts.answer_forms import clauses, form_sentence, with_form
from diffusecli.prompts.catalogue import FAMILIES
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.facts import chance_facts, option_facts
from diffusecli.prompts.families import bernoulli, binomial, choices, dates, dice, geometric, poisson, scipy, uniform, zipf
from diffusecli.prompts.number_words import number_words, with_figures
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.request_wording import Wording, prompt_from
from diffusecli.prompts.wording_bank import placeholders, templates
from diffusecli.prompts.wordings import draw_wordings, questions
from diffusecli.system.errors import InputError

WRAPS = ("{%s}", "%s", "Answer: %s.")
CALLS = [
    uniform("1", "10"), uniform("-5", "5"), uniform("0", "1", step="0.1"), uniform("3", "3"), uniform("100", "250"),
    binomial(10, 0.2), binomial(1, 0.37), binomial(6, 0.5), binomial(20, 1 / 3), binomial(4, 0.0), binomial(7, 0.123456),
    bernoulli(0.3), bernoulli(1.0), poisson(4.0), poisson(0.5), geometric(0.25), geometric(1.0), geometric(0.85),
    dice("2d6"), dice("d20"), dice("3d6+2"), dice("d4-1"), zipf(1.0, 20), zipf(-1.5, 5), zipf(1.0, 1),
    FAMILIES["benford"](), FAMILIES["weekdays"](), FAMILIES["months"](), scipy("nbinom(5, 0.3)"), scipy("norm(0, 1)", decimals=1),
    dates("2024-06-01", "2024-06-30"), dates("2024-06-01", "2024-06-30", date_format="%A"), dates("2024-06-01", "2024-06-01"),
    choices("rock=1,paper=1,scissors=2"), choices("red,green,blue,black"), choices("a=0.5,b=1.5"), choices("only=1"),
    choices("yes=0.9,no=0.1"),
]  # fmt: skip


def example_of(name):
    family = FAMILIES[name]
    words = shlex.split(family.example)[1:]
    return family(*(kind(word) for kind, word in zip(family.arguments, words, strict=True)))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_has_many_wordings_of_its_example(name):
    asked = questions(example_of(name))
    assert len(asked) >= (60 if name in ("uniform", "binomial") else 24)
    assert len({text.casefold() for text in asked}) == len(asked)
    assert asked[0] == example_of(name).request


@pytest.mark.parametrize("wrap", WRAPS)
def test_there_are_many_clauses_on_the_form_each_with_a_place_for_the_question(wrap):
    assert len(clauses(wrap)) >= 40
    assert all(clause.count("{question}") == 1 for clause in clauses(wrap)[1:])


@pytest.mark.parametrize("distribution", CALLS, ids=lambda d: d.request[:60])
def test_no_filled_wording_has_a_placeholder_left_or_speaks_of_the_form(distribution):
    for text in questions(distribution):
        assert not re.search(r"\{\w+\}|\bNone\b", text), text
        assert not re.search(r"brace|bracket|nothing else|no explanation", text, re.IGNORECASE), text


def test_every_template_is_filled_for_one_of_the_calls_at_least():
    given = {}
    for distribution in CALLS:
        given.setdefault(distribution.family, []).append(set(distribution.facts))
    for name in FAMILIES:
        for template in templates(name):
            assert any(known.issuperset(placeholders(template)) for known in given[name]), template


@pytest.mark.parametrize("distribution", CALLS, ids=lambda d: d.request[:60])
@pytest.mark.parametrize("wrap", WRAPS)
def test_wordings_of_the_bank_raise_no_doubt_whether_they_ask_for_the_same(distribution, wrap):
    most = min(2 * len(questions(distribution)), 50)
    prompt = prompt_from(distribution, Wording(wrap=wrap, wordings=most, held_out=12, seed=3))
    found = content_problems(Document("p.json", prompt.to_json(), json.loads(prompt.to_json())), prompt)
    assert [str(p) for p in found if p.severity != "notice" and "targets differ" not in p.message] == []


def test_facts_of_a_range_by_hand():
    facts = uniform("1", "10").facts
    assert (facts["low_words"], facts["high_words"], facts["count_words"]) == ("one", "ten", "ten")
    assert (facts["beyond"], facts["range"]) == ("11", "1-10")
    assert (facts["a_die"], facts["a_die_words"]) == ("a 10-sided die", "a ten-sided die")
    assert uniform("1", "8").facts["a_die"] == "an 8-sided die"
    below = uniform("-3", "3").facts
    assert below["values"] == "-3, -2, -1, 0, 1, 2, 3"
    assert "values" in uniform("1", "20").facts
    assert not any("values" in distribution.facts for distribution in (uniform("0", "20"), uniform("1", "2")))
    assert (below["low_words"], below["count"]) == ("minus three", "7")
    assert not {"range", "start", "sides", "a_die"} & set(below)
    assert set(uniform("0", "1", step="0.1").facts) == {"first", "last", "step", "count", "count_words"}


def test_facts_of_a_chance_by_hand():
    fifth = binomial(10, 0.2).facts
    assert (fifth["p"], fifth["q"], fifth["percent"], fifth["q_percent"]) == ("0.2", "0.8", "20", "80")
    assert (fifth["a_percent"], fifth["percent_words"], fifth["trials_words"]) == ("a 20", "twenty", "ten")
    assert (fifth["share"], fifth["share_words"], fifth["one_in"]) == ("1 in 5", "one in five", "5")
    assert (fifth["hits"], fifth["of"]) == ("2", "10")
    assert "coins" not in fifth
    assert binomial(6, 0.5).facts["coins"] == "6"
    assert (bernoulli(0.8).facts["a_percent"], bernoulli(0.11).facts["a_percent_words"]) == ("an 80", "an eleven")
    assert (bernoulli(0.3).facts["share"], bernoulli(0.3).facts["hits"]) == ("3 in 10", "3")
    third = binomial(3, 1 / 3).facts
    assert (third["share"], third["p"]) == ("1 in 3", "0.333333")
    assert "percent" not in third
    odd = bernoulli(0.125).facts
    assert (odd["percent"], odd["share"]) == ("12.5", "1 in 8")
    assert "percent_words" not in odd
    assert "share" not in bernoulli(1.0).facts
    assert "trials" not in binomial(1, 0.2).facts


def test_facts_of_dice_and_options_by_hand():
    assert dice("3d6+2").facts["roll_words"] == "three fair dice with six sides each, then add 2"
    assert dice("1d20").facts["notation"] == "d20"
    assert "dice" not in dice("3d6+2").facts
    facts = option_facts(["rock", "paper", "scissors"], [1, 1, 2])
    assert facts["chances"] == "rock (0.25), paper (0.25), scissors (0.5)"
    assert facts["percents_and"] == "25% for rock, 25% for paper and 50% for scissors"
    assert (facts["ratio"], facts["code_weights"], facts["code_shares"]) == ("1 to 1 to 2", "[1, 1, 2]", "[0.25, 0.25, 0.5]")
    assert option_facts(["a", "b"], None)["options_or"] == "a or b"
    assert "percents" not in option_facts(["a", "b", "c"], [1, 1, 1])
    assert option_facts(["a"], None) == {}
    assert option_facts(["Salt And Pepper", "Bo's"], None)["options_or"] == '"Salt And Pepper" or "Bo\'s"'
    counts = option_facts(["a", "b"], [1234567, 3])
    assert (counts["ratio"], counts["code_weights"]) == ("1234567 to 3", "[1234567, 3]")
    assert counts["chances"] == "a (0.999998), b (0.00000243)"
    assert "code_shares" not in option_facts(["a", "b", "c"], [1, 1, 1]), "numpy takes no shares that sum to .999"


def test_no_chance_below_one_is_written_as_one():
    assert (chance_facts(1e-7)["p"], chance_facts(1e-7)["q"]) == ("0.0000001", "0.9999999")
    assert "B(10, 0.99999999)" in binomial(10, 0.99999999).request
    assert chance_facts(1.0)["p"] == "1"


def test_numbers_in_words_and_back():
    by_hand = {0: "zero", 13: "thirteen", 21: "twenty-one", 90: "ninety", 100: "one hundred", 305: "three hundred and five",
               1000: "one thousand", 2040: "two thousand and forty", 12_345: "twelve thousand three hundred and forty-five"}  # fmt: skip
    assert {number: number_words(number) for number in by_hand} == by_hand
    assert number_words(10**6) is None
    for number in [*range(1200), *range(1200, 10**6, 997)]:
        assert with_figures(number_words(number)) == str(number)
    assert with_figures("between one and ten, someone, Twenty one, a hundred") == "between 1 and 10, someone, 21, 100"


def test_a_draw_is_seeded_and_the_own_request_comes_first():
    die = uniform("1", "6")
    first = draw_wordings(die, Wording(), 30, 10, 7)
    assert first == draw_wordings(die, Wording(), 30, 10, 7)
    assert first != draw_wordings(die, Wording(), 30, 10, 8)
    assert first[0][0] == f"{die.request} {form_sentence('{%s}', 'number')}"
    assert draw_wordings(die, Wording(), 12, 10, 7) == (first[0][:12], first[1])


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("wrap", WRAPS)
def test_held_out_requests_share_neither_question_nor_clause_with_trained_ones(name, wrap):
    distribution = example_of(name)
    made = {
        with_form(question, clause, wrap, distribution.noun, outcome): (question, clause)
        for question in questions(distribution) for clause in clauses(wrap) for outcome in distribution.outcomes[:40]
    }  # fmt: skip
    trained, held_out = draw_wordings(distribution, Wording(wrap=wrap), 60, 20, 0)
    assert (len(set(trained)), len(set(held_out))) == (60, 20)
    known = [tuple(made[text] for text in texts if text in made) for texts in (trained, held_out)]
    assert sum(map(len, known)) >= 70  # examples beyond the first forty outcomes are not looked up
    for part in (0, 1):
        assert not {pair[part] for pair in known[0]} & {pair[part] for pair in known[1]}


def test_each_question_comes_once_before_any_comes_twice():
    die, clause = Distribution(("a", "b"), None, "Pick a or b."), clauses("{%s}")
    assert len(questions(die)) == 1
    trained, _ = draw_wordings(die, Wording(), len(clause), 0, 0)
    assert len(set(trained)) == len(clause)
    two_rounds = 2 * len(questions(poisson(4.0)))
    counted = Counter(next(q for q in sorted(questions(poisson(4.0)), key=len, reverse=True) if q in text)
                      for text in draw_wordings(poisson(4.0), Wording(), two_rounds, 0, 5)[0])  # fmt: skip
    assert set(counted.values()) == {2}


def test_more_wordings_than_there_are_is_an_error_with_their_number():
    most = len(clauses("{%s}"))
    with pytest.raises(InputError, match=rf"--wordings {most + 1}: there are only {most} wordings. Use --wordings {most} or fewer"):
        draw_wordings(Distribution(("a", "b"), None, "Pick a or b."), Wording(), most + 1, 0, 0)


def test_a_question_without_an_end_gets_one_before_a_clause_on_the_same_line():
    assert (
        with_form("1-10, random", "{question} Write just {shown}.", "{%s}", "number", "3") == "1-10, random. Write just {number}."
    )
    assert with_form("1-10?", "{question}\nLike {example}", "[%s]", "number", "3") == "1-10?\nLike [3]"
    assert with_form("1-10", "Only the {noun}: {question}", "%s", "digit", "3") == "Only the digit: 1-10"
