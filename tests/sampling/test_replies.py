"""Replies of models to a request that states options: what parses, and to which option."""

import math

import pytest

from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.spellings import spelled
from diffusecli.prompts.stated_options import StatedOptions
from diffusecli.sampling.replies import one_answer, stated_answers

NUMBERS = StatedOptions(Prompt(request="Roll.", targets=spelled([str(number) for number in range(1, 11)], "{%s}")))
NAMES = StatedOptions(Prompt(request="A state.", targets=("New York", "Ohio", "A (b)")))

ONE = [
    ("7", 7),
    ("{7}", 7),
    ("Answer: 7", 7),
    ("answer: 7.", 7),
    ("**Answer:** 7", 7),
    ("**Answer**: 7", 7),
    ("**Answer: 7**", 7),
    ("### Final answer: {7}", 7),
    ("My answer is: seven", 7),
    ("The answer is 7.", 7),
    ("Answer: Seven", 7),
    ('Answer: "7"', 7),
    ("Answer = 7", 7),
    ("Answer:\n7", 7),
    ("**Answer:**\n\n**7**", 7),
    ("Answer: 7: 10%", 7),
    ("Answer: 7 (10%)", 7),
    ("String: a8Kq\nSum: 97 + 8 = 105, 105 mod 10 = 5.\nAnswer: 6", 6),
    ("Answer: 3\nWait, that is wrong.\nAnswer: 4", 4),
    ("Answer: 4\n\nI drew it at random.", 4),
    ("Sure! Here is a random number:\n\n7", 7),
    ("7\n\nI chose 7 because it feels random.", 7),
    ("- 7\n- 7", 7),
    ("```\n7\n```", 7),
    ("10", 10),
    ("Answer: 11", None),
    ("Answer: 7 or 8", None),
    ("Answer: [the answer drawn]", None),
    ("Answer: 3\nAnswer: none of them", None),  # the last one counts
    ("Answer:", None),
    ("The answer is 8, and its probability is 1/10.", None),
    ("1\n2\n3", None),
    ("I draw 7 at random", None),
    ("7 8 9", None),
    ("", None),
    ("\n\n", None),
    ("Answers: 7", None),
    ("No answer: 7", None),
]


@pytest.mark.parametrize(("reply", "number"), ONE)
def test_a_reply_has_one_answer_or_does_not_parse(reply, number):
    assert one_answer(reply, NUMBERS.find) == (None if number is None else number - 1)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Answer: 1", None),  # perhaps 10
        ("7", None),
        ("Answer: 1\n", 1),
        ("Answer: 1\nThis is because", 1),
        ("7\n\nI chose it", 7),
        ("Answer: 3\nAnswer: 4", 3),
        ("Let me think about", None),
    ],
)
def test_of_a_reply_cut_at_the_limit_only_complete_lines_count(reply, number):
    assert one_answer(reply, NUMBERS.find, cut=True) == (None if number is None else number - 1)


SEVERAL = [
    ("7: 10%\n8: 30%", {7: 0.25, 8: 0.75}),
    ("1. 7: 10%\n2. 8: 30%", {7: 0.25, 8: 0.75}),
    ("- 7: 0.1\n- 8: 0.1", {7: 0.5, 8: 0.5}),
    ("* **7**: 50%\n* **8**: 50%", {7: 0.5, 8: 0.5}),
    ("{7}: 20 %\n{8}: 20 %", {7: 0.5, 8: 0.5}),
    ("7 (50%)\n8 (50%)", {7: 0.5, 8: 0.5}),
    ("7 50%\n8 50%", {7: 0.5, 8: 0.5}),
    ("7 - 50%\n8 – 50%", {7: 0.5, 8: 0.5}),
    ("7 | 0.2\n8 | 0.6", {7: 0.25, 8: 0.75}),
    ("| 7 | 20% |\n|---|---|\n| 8 | 60% |", {7: 0.25, 8: 0.75}),
    ("7 with probability 0.2\n8 with a probability of 0.6", {7: 0.25, 8: 0.75}),
    ("7, probability: 20%\n8, probability: 60%", {7: 0.25, 8: 0.75}),
    ("seven: 1/5\neight: 3/5", {7: 0.25, 8: 0.75}),
    ("7: 0,2\n8: 0,6", {7: 0.25, 8: 0.75}),
    ("7: .2\n8: .6", {7: 0.25, 8: 0.75}),
    ("7: 2e-1\n8: 6e-1", {7: 0.25, 8: 0.75}),
    ("7: 1\n8: 3", {7: 0.25, 8: 0.75}),
    ("Here are the answers:\n\n7: 10%\n8: 30%\n\nI hope this helps!", {7: 0.25, 8: 0.75}),
    ("7: 10%\n8: 30%\nTotal: 40%", {7: 0.25, 8: 0.75}),
    ("7: 80%\n8: 80%", {7: 0.5, 8: 0.5}),  # do not sum to 1
    ("7: 10%\n8: 10%\n7: 20%", {7: 0.75, 8: 0.25}),  # repeated
    ("7: 0%\n8: 10%", {8: 1.0}),
    ("7: 0%\n8: 0%", None),
    ("7: 10%\n8: -5%", None),
    ("7: 10%\n8: −5%", None),
    ("7: 1/0\n8: 5%", None),
    ("7: 1e999\n8: 5%", None),
    ("7: 50%\n11: 50%", {7: 0.5, None: 0.5}),  # no option
    ("11: 50%\n12: 50%", None),
    ('[{"text": "7", "probability": 0.1}, {"text": "8", "probability": 0.3}]', {7: 0.25, 8: 0.75}),
    ('```json\n[{"answer": 7, "prob": "10%"}, {"answer": 8, "prob": "30%"}]\n```', {7: 0.25, 8: 0.75}),
    ('{"responses": [{"text": "{7}", "probability": 0.1}, {"text": "{8}", "probability": 0.3}]}', {7: 0.25, 8: 0.75}),
    ('Sure: {"7": 0.1, "8": 0.3}', {7: 0.25, 8: 0.75}),
    ('[{"text": "7", "probability": 0.1}, {"text": "8", "probability": 0.3},]', {7: 0.25, 8: 0.75}),  # not quite JSON
    ('{"text": "7", "probability": 0.1}\n{"text": "8", "probability": 0.3}', {7: 0.25, 8: 0.75}),
    ('[["7", 0.1], ["8", 0.3]]', {7: 0.25, 8: 0.75}),
    ('[{"text": "7", "probability": -0.1}, {"text": "8", "probability": 0.3}]', None),
    ('[{"text": "7", "probability": NaN}, {"text": "8", "probability": 0.3}]', None),
    ('[{"text": "7", "probability": true}]', None),
    ("[7, 8, 9]", None),
    ("7", {7: 1.0}),
    ("Answer: 7", {7: 1.0}),
    ("Answer: 7\n", {7: 1.0}),
    ("7, 8 and 9", None),
    ("", None),
    ("[" * 5000, None),
    ("%", None),
]


@pytest.mark.parametrize(("reply", "numbers"), SEVERAL)
def test_a_reply_states_answers_with_probabilities_or_does_not_parse(reply, numbers):
    found = stated_answers(reply, NUMBERS.find, 5)
    expected = None if numbers is None else {None if number is None else number - 1: share for number, share in numbers.items()}
    assert found == (None if expected is None else pytest.approx(expected))
    assert found is None or math.fsum(found.values()) == pytest.approx(1)


def test_options_of_several_words_and_with_brackets_are_found():
    assert stated_answers("New York: 30%\nOhio: 10%\nA (b): 60%", NAMES.find, 3) == pytest.approx({0: 0.3, 1: 0.1, 2: 0.6})
    assert stated_answers("1. New York (30%)\n2. A (b) (70%)", NAMES.find, 3) == pytest.approx({0: 0.3, 2: 0.7})


@pytest.mark.parametrize(
    "sign", ["-", " ", "*", "1", "1 ", "[", "{", "a", "7: ", "%", "answer", "answer is ", "\n", ": ", "(with "]
)
def test_a_long_reply_of_one_sign_takes_no_long_time(sign):
    calls = 0

    def find(text):
        nonlocal calls
        calls += 1
        return NUMBERS.find(text)

    one_answer(sign * 50_000, find)
    stated_answers(sign * 50_000, find, 5)  # hangs where a pattern takes quadratic time
    assert calls < 100


@pytest.mark.parametrize(
    ("reply", "parses"),
    [
        ("7: 10%\n8: 3", False),
        ("7: 10%\n8: 30%\n9: 1", True),  # two complete ones were wanted
        ('[{"text": "7", "probability": 0.1}, {"te', False),
        ('[{"text": "7", "probability": 0.1}, {"text": "8", "probability": 0.1}]\nThis li', True),
    ],
)
def test_a_list_that_was_cut_counts_if_it_is_as_long_as_wanted(reply, parses):
    assert (stated_answers(reply, NUMBERS.find, 2, cut=True) is not None) == parses
