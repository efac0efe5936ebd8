"""Targets as options of a request: how they are shown, which texts name them, and which prompts have none that can be stated."""

import pytest

from diffusecli.prompts.prompt import Draws, IndependentField, Prompt
from diffusecli.prompts.spellings import spelled
from diffusecli.prompts.stated_options import MOST_STATED, StatedOptions, require_statable, wrap_of
from diffusecli.system.errors import InputError

DIE = Prompt(request="Roll.", targets=spelled(["1", "2", "7", "10"], "{%s}"))


def test_each_option_is_a_line_with_its_percentage():
    prompt = Prompt(request="Toss.", targets=("{heads}", "{edge}", "{tails}"), weights=(2.0, 0.0, 1.0))
    assert StatedOptions(prompt).listing == "- heads: 66.7%\n- tails: 33.3%"


@pytest.mark.parametrize(
    ("targets", "wrap"),
    [
        (["{1}", "{2}"], ("{", "}")),
        (["{1}", "{12}", "{13}"], ("{", "}")),
        (["{11}", "{12}"], ("{", "}")),
        (["[[a]]", "[[b]]"], ("[[", "]]")),
        (["**a**", "**ab**"], ("**", "**")),
        (["<answer>a</answer>", "<answer>b</answer>"], ("<answer>", "</answer>")),
        (['{"answer": "a"}', '{"answer": "b"}'], ('{"answer": "', '"}')),
        (["Answer: 10", "Answer: 11"], ("Answer: ", "")),
        (["=> a", "=> b"], ("=> ", "")),
        (["{only}"], ("{", "}")),
        (["New York", "New Jersey"], ("", "")),
        (["-1", "-12"], ("", "")),
        (["$5", "$10"], ("", "")),
        (["{}", "{a}"], ("", "")),  # an empty option would remain
        (["a", "b"], ("", "")),
        ([], ("", "")),
    ],
)
def test_the_wrap_is_what_all_targets_have_around_them(targets, wrap):
    assert wrap_of(targets) == wrap


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("{7}", 2), ("7", 2), (" 7 ", 2), ("7.", 2), ("**7**", 2), ('"7"', 2), ("“7”", 2), ("[7]", 2), ("`7`", 2), ("- 7", 2), ("seven", 2),
        ("Seven", 2), ("SEVEN!", 2), ("{seven}", 2), ("7: 10%", 2), ("7 (10 %)", 2), ("- 7: 10%", 2), ("*7* – 10.5%", 2), ("10", 3), ("ten.", 3),
        ("3", None), ("7 or 1", None), ("7 8", None), ("-7", None), ("7.0", None), ("77", None), ("", None), ("...", None), ("10%", None),
        ("the 7", None), ("1/2", None),
    ],
)  # fmt: skip
def test_a_text_names_an_option_in_any_spelling_with_marks_around_it(text, option):
    assert StatedOptions(DIE).find(text) == option


def test_two_options_that_only_case_or_marks_distinguish_are_compared_exactly():
    options = StatedOptions(Prompt(request="x", targets=("may", "May", "$5", "5", "C++", "C")))
    assert [options.find(text) for text in ("may", "May", "MAY", "$5", "5", "*5*", "C++", "c++", "c")] == [
        0,
        1,
        None,
        2,
        3,
        None,
        4,
        4,
        5,
    ]


def test_an_option_may_consist_of_marks_or_end_in_a_percentage():
    options = StatedOptions(Prompt(request="x", targets=("*", "#", "5%", "a: 5%", "a")))
    assert [options.find(text) for text in ("*", "#", "5%", "a: 5%", "a", "a: 7%", "")] == [0, 1, 2, 3, 4, 4, None]


def test_the_recorded_answer_is_the_first_spelling_after_the_response():
    prompt = Prompt(request="x", response=("I say ",), targets=(("{7}", "7"), "{8}"))
    options = StatedOptions(prompt)
    assert (options.recorded(0), options.find("I say {7}"), options.names) == ("I say {7}", 0, ("7", "8"))


REFUSED = [
    (Prompt(request="Hi.", targets=()), "states the targets, but this prompt has none"),
    (Prompt(request="x", targets=("1", "2"), draws=Draws(n=3)), "one target per reply"),
    (
        Prompt(request="x", targets=("Ann, {age}",), template="{name}, {age}", independent={"age": IndependentField(values=("1", "2"))}),
        "independent fields",
    ),
    (Prompt(request="x", targets=("a\nb", "c")), "several lines"),
    (Prompt(request="x", targets=tuple(map(str, range(MOST_STATED + 1)))), "at most 200, but this prompt has 201 targets"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "words"), REFUSED)
def test_a_prompt_whose_targets_cannot_be_stated_is_refused_with_a_remedy(prompt, words):
    with pytest.raises(InputError, match=words) as refused:
        require_statable(prompt.model_copy(update={"alias": "p.json"}))
    assert str(refused.value).startswith("p.json: --ask ")
    assert ". Use " in str(refused.value)


def test_two_hundred_targets_can_be_stated_and_those_of_weight_zero_do_not_count():
    require_statable(Prompt(request="x", targets=tuple(map(str, range(MOST_STATED)))))
    weights = (*[1.0] * MOST_STATED, 0.0)
    more = Prompt(request="x", targets=tuple(map(str, range(MOST_STATED + 1))), weights=weights)
    require_statable(more)
    assert len(StatedOptions(more).stated) == len(StatedOptions(more).listing.splitlines()) == MOST_STATED
    require_statable(Prompt(request="x", targets=("Ann, 34", "Bob, 5"), template="{name}, {age}"))
