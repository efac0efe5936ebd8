"""Several draws in one answer: how they are asked for, written, checked and matched."""

import json
from collections import Counter

import numpy as np
import pytest

from diffusecli.api.prompts import init_prompt
from diffusecli.evaluation.record_fit import record_figures
from diffusecli.evaluation.record_targets import RecordTarget
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching, tally, target_finder
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.prompt_files import inspect_prompt
from diffusecli.system.errors import InputError
from diffusecli.verbs.validate import validate

DIE = Prompt(request="Roll.", targets=("1", "2", "3"), draws=Draws(n=2, wrap="{%s}"), alias="p.json")
ONCE = DIE.model_copy(update={"draws": Draws(n=2, wrap="{%s}", replace=False)})


def test_init_prompt_asks_for_draws_and_shows_their_form():
    prompt = init_prompt(uniform=(1, 3), draws=2)
    assert prompt.request == (
        "Generate a random number between 1 and 3, each equally likely. Do it 2 times, and list the 2 results in one line. "
        "Output only the list between two curly braces, like this: {number, number}. Don't output code."
    )
    assert prompt.targets == ("1", "2", "3")
    assert prompt.draws == Draws(n=2, separator=", ", replace=True, wrap="{%s}")
    assert "none of them twice" in init_prompt(uniform=(1, 3), draws=2, replacement=False).request
    assert "like this: {number; number; number; …}" in init_prompt(uniform=(1, 3), draws=5, separator="; ").request


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"uniform": (1, 3), "draws": 4, "replacement": False},
            "4 draws without replacement, but only 3 targets with positive weight",
        ),
        (
            {"choices": {"a, b": 1, "c": 2}, "draws": 2},
            "the target 'a, b' contains the separator ', '. Use a separator that is in no target",
        ),
        ({"uniform": (1, 3), "draws": 2, "wordings": 3}, "the built-in wordings ask for one draw"),
        ({"uniform": (1, 3), "draws": 2, "separator": ""}, "--separator '': is empty"),
        ({"uniform": (1, 3), "draws": 201}, "must be between 2 and 200"),
        ({"uniform": (1, 3), "separator": "; "}, "--separator and --no-replacement have no effect with one draw"),
        ({"uniform": (1, 3), "draws": 2, "spellings": True}, "draws cannot be combined with spellings"),
        ({"uniform": (1, 3), "draws": 2, "response": "So: "}, "draws cannot be combined with response"),
    ],
)
def test_draws_that_cannot_be_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says):
        init_prompt(**options)


def test_a_line_break_between_draws_may_be_typed(diffuse):
    made = json.loads(diffuse("init-prompt", "--uniform", "1", "3", "--draws", "2", "--separator", r"\n").stdout)
    assert made["draws"]["separator"] == "\n"
    assert "list the 2 results one per line" in made["request"]


def test_a_file_with_draws_is_checked_at_its_places(tmp_path):
    def problems(**fields):
        path = tmp_path / "p.json"
        path.write_text(json.dumps({"request": "Roll, in braces {1, 2}.", "targets": ["1", "2"], **fields}, indent=1))
        return [(p.line, p.message) for p in inspect_prompt(path)[1]]

    assert problems(draws={"n": 2, "wrap": "{%s}"}) == []
    assert problems(draws={"n": 3, "replace": False, "wrap": "{%s}"}) == [
        (8, "3 draws without replacement, but only 2 targets with positive weight")
    ]
    assert problems(draws={"n": 2, "wrap": "{}"})[0] == (9, "wrap '{}' must contain %s once")
    assert problems(draws={"n": 2, "replace": False, "wrap": "{%s}"}, weights=[1, 0]) == [
        (8, "2 draws without replacement, but only 1 target with positive weight")
    ]
    assert [message for _, message in problems(draws={"n": 1})] == ["'draws.n' must be greater than or equal to 2, not 1"]
    assert (7, "draws cannot be combined with eos: false") in problems(draws={"n": 2, "wrap": "{%s}"}, eos=False)


@pytest.mark.parametrize(
    ("text", "first", "once"),
    [("{1, 3}", 0, 0), (" {3,  1} ", 2, 2), ("{2, 2}", 1, None), ("{1}", None, None), ("{1, 2, 3}", None, None), ("{1, 4}", None, None), ("1, 2", None, None)],
)  # fmt: skip
def test_an_answer_counts_for_its_first_draw_where_all_are_targets(text, first, once):
    assert target_finder(DIE, Matching())(text) == first
    assert target_finder(ONCE, Matching())(text) == once
    assert tally(DIE, Counter({text: 2})).on_target == (0 if first is None else 2)


def test_a_rule_of_matching_is_for_each_draw():
    names = Prompt(request="Names.", targets=("Ann", "Bob"), draws=Draws(n=2), alias="p.json")
    assert target_finder(names, Matching())("ann, BOB") is None
    assert target_finder(names, Matching("casefold"))("bob, ANN") == 1


def test_the_longest_answer_bounds_the_tokens_of_servers():
    assert DIE.most_tokens == len("{1, 3}") + 2
    assert Prompt(request="x", targets=("abc",)).most_tokens == 5
    assert Prompt(request="x", targets=()).most_tokens == 0


def answers_of(rows):
    return Answers(Counter(f"{{{', '.join(str(1 + value) for value in row)}}}" for row in rows))


def test_independent_draws_show_no_association_and_dependent_ones_do():
    rng = np.random.default_rng(0)
    ten = Prompt(request="x", targets=tuple(map(str, range(1, 11))), draws=Draws(n=4, wrap="{%s}"), alias="p.json")
    free = rng.integers(10, size=(1000, 4))
    tied = free.copy()
    tied[:, 2] = np.where(rng.random(1000) < 0.3, tied[:, 1], tied[:, 2])  # three in ten repeat the draw before
    good, bad = (record_figures(ten, answers_of(rows), 0) for rows in (free, tied))
    assert (good.fits, good.known, good.copies) == (1, 1, 1)
    assert good.pairs_p_value > 0.05
    assert all(field.p_value > 0.01 for field in good.fields)
    assert bad.pairs_p_value == pytest.approx(1 / 1000)
    assert (bad.worst_pair.first, bad.worst_pair.second) == ("draw 2", "draw 3")
    assert bad.worst_pair.target == 0


def test_five_in_a_hundred_perfect_samplers_show_an_association():
    rng = np.random.default_rng(1)
    found = [record_figures(DIE, answers_of(rng.integers(3, size=(60, 2))), seed).pairs_p_value for seed in range(120)]
    assert 0.01 < np.mean(np.array(found) <= 0.05) < 0.12


def test_draws_without_replacement_are_compared_with_draws_without_replacement():
    weighed = ONCE.model_copy(update={"weights": (6, 3, 1)})
    rng = np.random.default_rng(0)
    rows = np.array([rng.choice(3, 2, replace=False, p=[0.6, 0.3, 0.1]) for _ in range(3000)])
    found = record_figures(weighed, answers_of(rows), 0)
    second = 0.6 * 0.3 / 0.4 + 0.1 * 0.3 / 0.9  # of a 2: after a 1, after a 3
    assert np.mean(rows[:, 1] == 1) == pytest.approx(second, abs=0.03)
    assert all(abs(field.excess_tvd) < 0.02 for field in found.fields)
    assert found.pairs[0].target > 0.4  # what came before cannot come again
    assert abs(found.pairs[0].error) < 0.03
    assert record_figures(weighed, answers_of(rng.integers(3, size=(300, 2))), 0).copies < 0.8


@pytest.mark.parametrize(
    ("separator", "targets", "fine"), [(" ", ("1", "2"), True), ("\n", ("1", "2"), True), ("--", ("A-", "B-"), False)]
)
def test_a_separator_must_come_back(tmp_path, separator, targets, fine):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"request": "Two.", "targets": targets, "draws": {"n": 2, "separator": separator}}))
    assert [p.message for p in inspect_prompt(path)[1]] == ([] if fine else ["the target 'A-' contains the separator '--'"])


def test_draws_need_targets(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"request": "Two.", "targets": [], "draws": {"n": 2}}))
    assert [p.message for p in inspect_prompt(path)[1]] == ["there are no targets to draw from"]


def test_no_target_that_may_come_is_impossible_after_the_first_draw():
    rare = Prompt(
        request="x", targets=tuple(f"t{k}" for k in range(1003)), weights=(0.4, 0.3, 0.3, *[1e-6] * 1000),
        draws=Draws(n=3, replace=False), alias="p.json",
    )  # fmt: skip
    target = RecordTarget.of(rare, rare.draws.template)
    assert all(min(own.values()) > 0 for own in target.marginals)
    assert [sum(own.values()) for own in target.marginals] == pytest.approx([1, 1, 1])
    by_hand = 0.3 * (0.4 / 0.6 + 0.3 / 0.7)  # the second is t1: after t0, after t2; the others weigh a thousandth
    assert target.marginals[1]["t1"] == pytest.approx(by_hand, rel=2e-3)


def test_prompts_that_ask_the_same_for_another_number_of_draws_contradict_each_other(tmp_path):
    for name, fields in (("a.json", {}), ("b.json", {"draws": {"n": 2}})):
        (tmp_path / name).write_text(json.dumps({"request": "Roll.", "targets": ["1", "2"], **fields}))
    problems = validate([tmp_path]).problems
    assert any(problem.severity == "warning" and "another distribution" in problem.message for problem in problems), problems


def test_an_example_in_a_request_has_as_many_draws():
    asked = init_prompt(["Roll dice.", "Throw dice.", "Dice, please."], uniform=(1, 6), draws=3, form=True, seed=3)
    shown = [text for text in asked.requests if "e.g." in text or "example" in text]
    assert all("{1, 2, 3}" in text for text in shown)
