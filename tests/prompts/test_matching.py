"""When an answer is a target: the rules, and what no rule may do."""

from collections import Counter

import pytest

from diffusecli.prompts.matching import Matching, Missed, nearly_matched, tally, wider_rules
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError

MARKS = r"regex:^[^\w+-]*(\w[\w ]*)\W*$"


def test_matching_trims_white_space_and_normalises_unicode():
    accented = Prompt(request="x", targets=("{Zoe\u0308}",))
    assert tally(accented, {" {Zo\u00eb}\n": 3}).counts == (3,)


def test_without_eos_a_sample_counts_for_the_target_that_begins_it():
    begins = Prompt(request="x", targets=("{Ann}", "{Bob}"), eos=False)
    found = tally(begins, {"{Ann}\nborn in 1970": 2, "{Bob} was": 1, "Carl": 4})
    assert found.counts == (2, 1)
    assert found.off_target == Counter({"Carl": 4})


@pytest.mark.parametrize(
    ("rule", "whole", "begun"),
    [
        ("strip", "equal to a target after trimming white space", "beginning with a target after trimming white space"),
        ("exact", "equal to a target, white space too", "beginning with a target, white space too"),
        (
            "casefold",
            "equal to a target whatever its case, white space trimmed",
            "beginning with a target whatever its case, white space trimmed",
        ),
        (
            "regex:[a-z]+",
            "what [a-z]+ finds in it equals what it finds in a target",
            "what [a-z]+ finds in it begins with what it finds in a target",
        ),
    ],
)
def test_a_rule_in_words_says_whether_an_answer_has_to_end_with_its_target(rule, whole, begun):
    ends, begins = (Prompt(request="x", targets=("a",), eos=eos) for eos in (True, False))
    free = Prompt(request="x", targets=(), eos=False)
    matching = Matching(rule)
    assert [matching.in_words(some) for some in ([ends], [begins, free], [free], [])] == [whole, begun, whole, whole]
    assert matching.in_words([begins, ends]) == f"{whole}; for prompts with eos: false {begun}"


def test_a_target_after_a_response_variant_is_valid():
    varied = Prompt(request="x", targets=("{a}",), response=("", "Sure: "))
    assert tally(varied, {"Sure: {a}": 2, "{a}": 1, "Well: {a}": 1}).counts == (3,)


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        ("exact", (1, 1)),
        ("strip", (2, 1)),
        ("casefold", (3, 1)),
        ("regex:[{][A-Za-z]+[}]", (3, 1)),
        ("regex:[{]([A-Za-z]+)[}]", (3, 1)),
    ],
)
def test_each_rule_counts_what_it_says(rule, counts):
    named = Prompt(request="x", targets=("{Ann}", "{Bob}"))
    samples = {"{Ann}": 1, " {Ann}\n": 1, "{ANN}" if rule == "casefold" else "It is {Ann}.": 1, "{Bob}": 1, "Bob": 1}
    found = tally(named, samples, Matching(rule))
    assert found.counts == counts
    assert found.n == 5


def test_a_rule_that_makes_two_targets_one_is_refused():
    cased = Prompt(request="x", targets=("a", "A"), alias="p.json")
    with pytest.raises(InputError, match=r"p\.json: --match casefold does not distinguish 'A' from 'a'"):
        tally(cased, {"a": 1}, Matching("casefold"))
    with pytest.raises(InputError, match="does not match the target 'a'"):
        tally(cased, {"a": 1}, Matching("regex:[0-9]"))


@pytest.mark.parametrize(("rule", "message"), [("fuzzy", "must be one of exact, strip"), ("regex:(", "is not a valid pattern")])
def test_rules_that_do_not_exist_are_told(rule, message):
    with pytest.raises(InputError, match=message):
        Matching(rule)


@pytest.mark.parametrize(
    ("targets", "off_target", "missed"),
    [
        (("{heads}", "{tails}"), {"HEADS}": 1, "{Heads}": 5, "{TAILS}": 1}, Missed("casefold", 6)),
        (("{every day}", "{never}"), {'"every day."': 3, "never": 1, "Well, never": 4}, Missed(MARKS, 4)),
        (("{every day}", "{never}"), {"every day": 3, "Well, never": 4}, None),
        (("{1}", "{2}"), {"1.5": 9, "2,000": 9, "-1": 9, "1. Introduction": 9, "7:30": 9, "Yes, 1": 9}, None),
        (("{Anne}",), {"Anne-Marie": 9}, None),
        (("{Anne}",), {f"{'*' * n}Anne": 1 for n in range(1, 3000)}, Missed(MARKS, 2999)),
        (("{+1}", "{-1}"), {"1": 9}, None),  # the rule cannot tell these targets apart
        (("{a}",), {}, None),
    ],
)
def test_a_wider_rule_is_found_when_half_of_what_is_off_target_is_a_target_by_it(targets, off_target, missed):
    prompt = Prompt(request="x", targets=targets)
    assert nearly_matched(prompt, Counter(off_target), wider_rules([prompt])) == missed


def test_rules_that_some_prompt_cannot_take_are_not_offered():
    coin, signs, begins = Prompt(request="x", targets=("{a}",)), Prompt(request="x", targets=("{+1}", "{-1}")), Prompt(request="x", targets=("{a}",), eos=False)  # fmt: skip
    assert wider_rules([coin]) == ["casefold", MARKS]
    assert wider_rules([coin, signs]) == ["casefold"]
    assert wider_rules([coin, begins]) == []


SPELLED = Prompt(request="x", targets=(("{seven}", "{7}", "7"), ("{eight}", "8"), "{9}"), response=("", "So: "), alias="p.json")


@pytest.mark.parametrize(
    ("rule", "counts"),
    [("strip", (4, 1, 1)), ("exact", (3, 1, 1)), ("casefold", (5, 1, 1)), (r"regex:^(?:So: )?\{?(\w+)\}?$", (3, 3, 1))],
)
def test_an_answer_in_any_spelling_is_the_target(rule, counts):
    """By hand: {seven}, 7 and So: {7} are seven, ` 7` once trimmed, {SEVEN} whatever its case; the pattern takes {8} and eight, but nothing trimmed."""
    samples = ["{seven}", "7", "So: {7}", " 7", "{SEVEN}", "8", "{8}", "eight", "{9}", "9.0"]
    found = tally(SPELLED, Counter(samples), Matching(rule))
    assert found.counts == counts
    assert found.n == len(samples)


def test_a_rule_may_make_spellings_of_one_target_the_same_but_not_those_of_two():
    two = Prompt(request="x", targets=(("March", "march"), ("may", "MARCH")), alias="p.json")
    assert tally(two, {"march": 1, "MARCH": 2}, Matching()).counts == (1, 2)
    with pytest.raises(InputError, match=r"p\.json: --match casefold does not distinguish 'MARCH' from 'March'"):
        tally(two, {"march": 1}, Matching("casefold"))


def test_a_pattern_must_find_something_in_every_spelling():
    with pytest.raises(InputError, match=r"does not match the target '\{seven\}'\. Widen the pattern"):
        tally(SPELLED, {"7": 1}, Matching(r"regex:\d+"))


def test_without_eos_a_sample_counts_for_the_spelling_that_begins_it():
    begins = Prompt(request="x", targets=(("{Ann}", "Ann."), "{Bob}"), eos=False)
    assert tally(begins, {"{Ann} Lee": 1, "Ann. Lee": 2, "Ann Lee": 4}).counts == (3, 0)


def test_the_rule_in_words_names_spellings_where_there_are_any():
    assert Matching().in_words([SPELLED]) == "equal to a spelling of a target after trimming white space"
