"""Wordings that ask for different things, and ones that only say the same differently."""

import json

import pytest

from diffusecli.prompts.prompt_files import inspect_prompt
from diffusecli.prompts.wording_checks import claims_of, contradictions, departure

DIE = tuple(f"{{{n}}}" for n in range(1, 11))
HANDS = ("{rock}", "{paper}", "{scissors}")


@pytest.mark.parametrize(
    ("first", "second", "targets", "message"),
    [
        ("Pick a number from 1 to 10.", "Pick a number between one and one hundred.", DIE, "range 1 to 100, not range 1 to 10"),
        ("Number, 1-10", "Roll a 20-sided die.", DIE, "range 1 to 20, not range 1 to 10"),
        ("Roll a d10.", "random.randint(1, 12)", DIE, "range 1 to 12, not range 1 to 10"),
        ("10 trials with p = 0.2", "Each of 10 trials succeeds with a 30% chance.", DIE, "chance 0.3, not chance 0.2"),
        ("A 1 in 5 chance, ten tries", "a 20 percent chance, 12 tries", DIE, "12 tries, not 10 tries"),
        (
            "Rock (50%), paper (30%), scissors (20%)",
            "rock 0.6, paper 0.2, scissors 0.2",
            HANDS,
            "chance 0.2, 0.2, 0.6, not chance 0.2, 0.3, 0.5",
        ),
        ("rock, paper or scissors?", "Choose rock or scissors.", HANDS, "the options rock, scissors, not paper, rock, scissors"),
    ],
)
def test_wordings_that_ask_for_different_things_are_named(first, second, targets, message):
    found = list(contradictions([first, second, first.upper() if "d10" in first else f"{first} Please."], targets))
    assert [(index, other) for index, other, _ in found] == [(1, 0)]
    assert message in found[0][2]


@pytest.mark.parametrize(
    "requests",
    [
        ("Pick a number from 1 to 10.", "Pick one from one to ten, e.g. {7}.", "Roll a ten-sided die.", "random.choice(range(1, 11))", "1-10"),
        ("Ten tries, a 20% chance each", "10 tries at 0.2", "10 tries that fail with a chance of 80 percent", "it works 1 in 5 times"),
        ("rock, paper or scissors?", "Play the game.", "Answer like {rock}."),
        ("Pick 1 to 10 in 2-3 words.", "Pick 1 to 10."),
    ],
)  # fmt: skip
def test_wordings_that_say_the_same_differently_are_let_be(requests):
    assert list(contradictions(requests, DIE if "rock" not in requests[0] else HANDS)) == []


def test_days_from_the_first_to_the_last_name_all_of_them():
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    assert list(contradictions(("Any day, Monday to Sunday, e.g. Friday", f"One of {', '.join(days)}"), days)) == []


def test_chances_that_do_not_make_one_are_no_claim():
    assert "chance" not in claims_of("weights 0.2 and 0.5")
    assert claims_of("0.2 against 0.8")["chance"] == {"0.2, 0.8"}


def test_the_warning_points_at_the_wording_held_out_ones_too(tmp_path):
    path = tmp_path / "p.json"
    fields = {
        "request": ["Pick 1 to 10 {number}", "Choose 1 to 10 {number}"],
        "held_out_requests": ["Say 1 to 6 {number}"],
        "targets": list(DIE),
    }
    path.write_text(json.dumps(fields, indent=1))
    prompt, problems = inspect_prompt(path)
    assert prompt is not None
    assert [p.severity for p in problems] == ["warning"]
    assert str(problems[0]) == (
        f"{path}:7:3: the request 'Say 1 to 6 {{number}}' has range 1 to 6, not range 1 to 10 as in 'Pick 1 to 10 {{number}}'. "
        "Make all requests ask for the same"
    )


@pytest.mark.parametrize(
    ("original", "paraphrase", "targets", "reason"),
    [
        ("Pick 1 to 10.", "One of the numbers from one to ten", DIE, ""),
        ("Pick 1 to 10.", "Pick a number.", DIE, "name other numbers"),
        ("Pick 2 to 10.", "Pick one number, 2 to 10.", DIE, ""),
        ("Ten tries at 20%", "10 tries, 1 in 5 each", DIE, ""),
        ("Ten tries at 20%", "Ten tries at 0.25", DIE, "name other numbers"),
        ("Rock, paper or scissors?", "scissors, rock, paper: which?", HANDS, ""),
        ("Rock, paper or scissors?", "Rock or scissors?", HANDS, "name other options"),
        ("Play. Answer like {rock}.", "Play, in the form {paper}.", HANDS, ""),
    ],
)
def test_a_paraphrase_names_the_same_numbers_and_options(original, paraphrase, targets, reason):
    assert departure(original, paraphrase, targets) == reason
