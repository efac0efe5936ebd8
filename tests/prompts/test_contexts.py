"""Contexts: what they change, what they leave alone, and that measured ones are never trained."""

import re
from collections import Counter
from functools import partial
from random import Random

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from diffusecli.prompts.config import Vary
from diffusecli.prompts.config_files import inspect_config, read_config
from diffusecli.prompts.contexts import Context, Contexts, texts, turns
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.prompts.prompt_checks import checked
from diffusecli.prompts.text_changes import (
    blank_around,
    line_breaks,
    lower_case,
    other_mark,
    small_first,
    typed,
    upper_case,
    wide_spaces,
)
from diffusecli.system.errors import InputError

DIE = Prompt(
    request="Roll a die. Answer in this form: {Number of eyes}. No code.",
    targets=("{1}", "{2}"),
    weights=(1.0, 3.0),
    alias="die.json",
)
TALK = DIE.model_copy(
    update={
        "request": "",
        "messages": (
            Message(role="user", content="Hi"),
            Message(role="assistant", content="Hello!"),
            Message(role="user", content="Roll a die: {eyes}."),
        ),
    }
)
PAIRS = (("What is a cat?", "A cat is an animal."), ("Name a river.", "The Danube."), ("Say nothing.", " "))
ALL = Contexts(Vary(), PAIRS)


def draws(contexts, prompt, number):
    return [contexts.around(prompt, 7, visit) for visit in range(number)]


def said(prompt):
    """All that a model is asked, as one text."""
    return "\n".join([prompt.system or "", *(message.content for message in prompt.turns)])


# A context, worked out by hand


def test_a_context_puts_its_parts_around_the_request():
    context = Context(
        system="Be brief.", opening="Please", ending="Thanks!", turns=(("Hi", "Hello!"),), changes=(partial(line_breaks, "\n"),)
    )
    placed = context.around(DIE)
    assert placed.system == "Be brief."
    assert [(message.role, message.content) for message in placed.messages] == [
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Please roll a die.\nAnswer in this form: {Number of eyes}.\nNo code.\nThanks!"),
    ]
    assert (placed.request, placed.targets, placed.weights, placed.alias) == ("", DIE.targets, DIE.weights, "die.json")


def test_without_earlier_turns_the_prompt_still_has_a_request():
    placed = Context(system="", opening="Hi!").around(DIE)
    assert (placed.request, placed.system, placed.messages) == ("Hi! " + DIE.request, "", ())


@pytest.mark.parametrize(
    ("opening", "request_", "result"),
    [
        ("Hi!", "Roll a die.", "Hi! Roll a die."),
        ("Hey,", "Roll a die.", "Hey, roll a die."),
        ("Hey,", "I need a number.", "Hey, I need a number."),
        ("Dear bot,\n\n", "Roll a die.", "Dear bot,\n\nRoll a die."),
        ("Please", "Red or blue?", "Please Red or blue?"),  # a word of the targets
    ],
)
def test_an_opening_that_goes_on_with_the_request_makes_its_first_letter_small(opening, request_, result):
    prompt = Prompt(request=request_, targets=("{Red}", "{blue}"))
    assert Context(opening=opening).around(prompt).request == result


@pytest.mark.parametrize(
    ("request_", "ending", "result"),
    [
        ("Roll a die.", "Thanks!", "Roll a die. Thanks!"),
        ("Roll a die", "Thanks!", "Roll a die. Thanks!"),
        ("Roll a die", "thx", "Roll a die, thx"),
        ("Roll: {eyes}", "thx", "Roll: {eyes} thx"),
        ("Roll a die", "\nCheers,\nBen", "Roll a die\nCheers,\nBen"),
    ],
)
def test_an_ending_follows_a_stop(request_, ending, result):
    assert Context(ending=ending).around(Prompt(request=request_, targets=("{1}",))).request == result


def test_a_prompt_keeps_a_system_text_of_its_own():
    own = DIE.model_copy(update={"system": "Mine."})
    assert {placed.system for placed in draws(ALL, own, 200)} == {"Mine."}
    as_message = TALK.model_copy(update={"messages": (Message(role="system", content="Mine."), *TALK.messages)})
    assert {placed.own_system for placed in draws(ALL, as_message, 200)} == {"Mine."}


def test_of_messages_only_the_last_one_changes():
    drawn = draws(ALL, TALK, 300)
    assert {placed.messages[:-1] for placed in drawn} == {TALK.messages[:-1]}
    assert {placed.system for placed in drawn} == {None}
    assert len({placed.messages[-1].content for placed in drawn}) > 20


# Typing, worked out by hand


@pytest.mark.parametrize(
    ("change", "text", "result"),
    [
        (lower_case, "Roll a DIE: {Two Eyes}.", "roll a die: {Two Eyes}."),
        (lower_case, 'Say "Yes" or “No”. Now!', 'say "Yes" or “No”. now!'),
        (lower_case, "Say 'Yes'. Don't Wait.", "say 'Yes'. don't wait."),
        (lower_case, 'A 5" Pipe. Now', 'a 5" Pipe. Now'),  # a quote without its end
        (lower_case, "Call Math.random() or B(10, .2). Now", "call Math.random() or B(10, .2). now"),
        (lower_case, "Heads or Tails? One Word.", "heads or Tails? one word."),  # Tails is a target
        (lower_case, "Answer as <Answer>X</Answer>", "answer as <Answer>x</Answer>"),
        (lower_case, "Use [A {B] C} D] E", "use [A {B] C} D] e"),
        (lower_case, '"{" A} B', '"{" A} b'),
        (upper_case, "Roll a die: {eyes}. No tails", "ROLL A DIE: {eyes}. NO TAILS"),
        (small_first, "Roll. Then say it.", "roll. Then say it."),
        (small_first, "{Eyes} Roll", "{Eyes} Roll"),
        (partial(line_breaks, "\n"), "Ask Dr. Who, e.g. Now. Then {a. B}. Stop", "Ask Dr. Who, e.g. Now.\nThen {a. B}.\nStop"),
        (partial(blank_around, "\n", "\n\n"), "Roll.", "\nRoll.\n\n"),
    ],
)
def test_a_change_of_typing_by_hand(change, text, result):
    assert change(text, ["{Tails}", "{1}"]) == result


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("Roll a die.", {"Roll a die", "Roll a die!", "Roll a die?", "Roll a die..."}),
        ("Which number?", {"Which number", "Which number??", "Which number?!"}),
        ("Roll a die", {"Roll a die.", "Roll a die!"}),
        ("Roll a die...", {"Roll a die..."}),
        ("Answer: {eyes}.", {"Answer: {eyes}", "Answer: {eyes}!", "Answer: {eyes}?", "Answer: {eyes}..."}),
        ("Answer: {eyes.", {"Answer: {eyes."}),
        ('Say "Yes."', {'Say "Yes."'}),
    ],
)
def test_another_mark_or_none_ends_a_request(text, results):
    assert {other_mark(Random(seed), text, []) for seed in range(100)} == results


def test_single_spaces_become_two_here_and_there_but_not_in_braces():
    assert {wide_spaces(Random(seed), "a b {c d}", []) for seed in range(50)} == {"a b {c d}", "a  b {c d}"}


def test_an_option_of_several_words_is_spelled_as_it_must_be_answered():
    made = {wide_spaces(Random(seed), "to New York or Rome", ["{New York}", "{Rome}"]) for seed in range(500)}
    assert len(made) == 2**3
    assert all("New York" in text for text in made)


@pytest.mark.parametrize("change", [lower_case, upper_case, small_first])
def test_no_word_changes_its_case_where_its_letters_are_the_targets(change):
    """Of `MAPLE` an `E` may be drawn, of `maple` an `e`."""
    for word in ("MAPLE", "maple", "Maple"):
        text, targets = f"{word} or OTHER words: Give a letter of {word}.", [f"{{{letter}}}" for letter in word]
        assert change(text, targets) == text
    assert lower_case("Give a letter of MAPLE.", ["{1}", "{2}"]) == "give a letter of maple."


def test_every_visit_that_changes_typing_differs_from_the_request():
    assert all(typed(Random(seed), DIE.request, DIE.targets) != DIE.request for seed in range(500))


# Properties

REQUESTS = st.text(alphabet="abAB \n.?!,:{}[]\"'`<>“”1é", min_size=1, max_size=60) | st.text(min_size=1, max_size=40)


@given(REQUESTS, st.integers(0, 50))
@example(".", 32)
def test_text_in_braces_and_the_targets_stay_and_the_prompt_is_sound(request_, visit):
    assume(request_.strip())
    prompt = Prompt(request=request_, targets=("{1}", "{2}"), alias="r.json")
    for placed in [ALL.around(prompt, visit), *(held_out for _, held_out in ALL.held_out(prompt))]:
        assert re.findall(r"\{[^{}]*\}", placed.question) == re.findall(r"\{[^{}]*\}", request_)
        assert (placed.targets, placed.weights, placed.alias) == (prompt.targets, prompt.weights, prompt.alias)
        assert placed.turns[-1].role == "user"
        assert [turn.role for turn in placed.turns] == (["user", "assistant"] * 7)[: len(placed.turns)]
        assert checked(placed) is placed


@given(st.lists(st.text(alphabet="{[", min_size=1), max_size=3).map("".join), st.text(alphabet="Ab {}]", max_size=30))
def test_changes_are_the_same_done_twice(brackets, text):
    once = lower_case(brackets + text, [])
    assert lower_case(once, []) == once
    assert once.casefold() == (brackets + text).casefold()


# The draws


GOLDEN = [  # what keys 7, 0 to 7, 5 draw, in whatever process
    (None, "roll a die..."),
    (None, "roll a die."),
    (None, "Roll a die."),
    ("B.", "Roll a die."),
    (None, "Roll  a die.\n\n"),
    (None, "Roll a die."),
]


def test_draws_are_the_same_everywhere_and_others_for_other_keys_and_prompts():
    contexts = Contexts(Vary(system=("A.", "B."), turns=False, greetings=False, plain=0.2))
    drawn = [(placed.system, placed.request) for placed in draws(contexts, Prompt(request="Roll a die.", targets=("1",)), 6)]
    assert drawn == GOLDEN
    assert draws(ALL, DIE, 50) == draws(Contexts(Vary(), PAIRS), DIE, 50)
    other = DIE.model_copy(update={"request": "Throw a die."})
    assert [placed.system for placed in draws(ALL, DIE, 50)] != [placed.system for placed in draws(ALL, other, 50)]


def test_a_share_is_plain_and_most_others_have_one_or_two_changes():
    drawn = draws(ALL, DIE, 2000)
    plain = sum(placed is DIE for placed in drawn) / 2000
    assert plain == pytest.approx(0.3, abs=0.04)  # four standard deviations of 2000 draws
    changes = Counter((placed.system is not None) + bool(placed.messages) + (placed.question != DIE.request) for placed in drawn)
    assert changes[1] + changes[2] > 0.85 * (2000 - changes[0])


def test_plain_is_the_share_that_the_config_says():
    assert all(placed is DIE for placed in draws(Contexts(Vary(plain=1.0)), DIE, 100))
    assert DIE not in draws(Contexts(Vary(plain=0.0)), DIE, 300)


@pytest.mark.parametrize("kind", ["system", "turns", "greetings", "typing"])
def test_each_kind_can_be_the_only_one(kind):
    only = Contexts(Vary(**dict.fromkeys(("system", "turns", "greetings", "typing"), False) | {kind: True}, plain=0.0), PAIRS)
    for placed in draws(only, DIE, 100):
        same = {
            "system": placed.system is None,
            "turns": not placed.messages,
            "greetings": placed.question == DIE.request,
            "typing": placed.question == DIE.request,
        }
        other = {"greetings": "typing", "typing": "greetings"}.get(kind)
        assert [name for name, unchanged in same.items() if not unchanged and name != other] == [kind]


def test_own_system_texts_replace_the_built_in_ones():
    drawn = draws(Contexts(Vary(system=("A.", "B."))), DIE, 300)
    assert {placed.system for placed in drawn} == {None, "A.", "B."}


def test_earlier_turns_are_one_to_three_given_and_built_in_ones_without_blank_answers():
    lengths, asked = Counter(), set()
    for placed in draws(ALL, DIE, 2000):
        pairs = list(zip(placed.turns[:-1:2], placed.turns[1::2], strict=True))
        lengths[len(pairs)] += 1
        assert {(question.content, answer.content) for question, answer in pairs} <= {*PAIRS, *turns("turns")}
        assert len(pairs) == len({question.content for question, _ in pairs})
        asked |= {question.content for question, _ in pairs}
    assert set(lengths) == {0, 1, 2, 3}
    assert "Say nothing." not in asked
    assert asked == {"What is a cat?", "Name a river.", *(question for question, _ in turns("turns"))}


def test_please_is_not_put_before_a_question():
    contexts = Contexts(Vary(system=False, turns=False, typing=False, plain=0.0))
    question = Prompt(request="Which number do you get?", targets=("1",))
    assert not [placed.request for placed in draws(contexts, question, 500) if placed.request.lower().startswith("please which")]
    assert [placed.request for placed in draws(contexts, DIE, 500) if placed.request.startswith("Please roll")]


# Held-out contexts

HELD_OUT = ["system", "openings", "endings"]


def test_the_banks_are_large_and_share_no_text():
    assert len(texts("system")) >= 80
    assert len(texts("system-held-out")) == 16
    assert len(texts("openings") + texts("endings")) >= 60
    assert len(texts("openings-held-out") + texts("endings-held-out")) == 16
    for name in [*HELD_OUT, "turns"]:
        trained, measured = texts(name), texts(f"{name}-held-out")
        assert len({*trained, *measured}) == len(trained + measured)
        assert {text.casefold() for text in trained}.isdisjoint(text.casefold() for text in measured)
    assert all(asked.strip() and answer.strip() for asked, answer in turns("turns") + turns("turns-held-out"))


def test_texts_that_are_only_measured_are_never_trained():
    never = [text.strip().casefold() for name in HELD_OUT for text in texts(f"{name}-held-out")]
    never += [text.casefold() for turn in turns("turns-held-out") for text in turn]
    trained = [said(placed).casefold() for placed in draws(ALL, DIE, 2000)]
    assert not [text for text in never if any(text in each for each in trained)]


def test_held_out_contexts_are_the_same_for_every_prompt_and_every_setting():
    names = [name for name, _ in ALL.held_out(DIE)]
    assert len(set(names)) == len(names) == 13
    other = Prompt(request="Name a colour. One word.", targets=("red",))
    assert [name for name, _ in Contexts(Vary(turns=False)).held_out(other)] == names
    assert ALL.held_out(DIE) == ALL.held_out(DIE)
    by_name = dict(ALL.held_out(DIE))
    assert by_name["upper case"].request == "ROLL A DIE. ANSWER IN THIS FORM: {Number of eyes}. NO CODE."
    assert len(by_name["after two turns"].turns) == 5


def test_held_out_contexts_use_held_out_texts_alone():
    known = {None, *texts("system-held-out")}
    for _, placed in ALL.held_out(DIE):
        assert placed.system in known
        pairs = list(zip(placed.turns[:-1:2], placed.turns[1::2], strict=True))
        assert {(asked.content, answer.content) for asked, answer in pairs} <= set(turns("turns-held-out"))


def test_a_system_text_of_the_config_is_never_replaced():
    fixed = Contexts(Vary(plain=0), own_system=True)
    assert not [name for name, _ in fixed.held_out(DIE) if "system" in name]
    assert len(fixed.held_out(DIE)) == 8
    assert {fixed.around(DIE, visit).system for visit in range(50)} == {None}
    assert len({Contexts(Vary(plain=0)).around(DIE, visit).system for visit in range(50)}) > 2


def test_a_prompt_has_only_the_held_out_contexts_that_leave_its_own_alone():
    assert [name for name, _ in ALL.held_out(TALK)] == [
        "greeting",
        "ending",
        "greeting and ending",
        "lower case",
        "upper case",
        "blank lines",
    ]
    own = DIE.model_copy(update={"system": "Mine."})
    assert not [name for name, _ in ALL.held_out(own) if "system" in name]
    digits = Prompt(request="1 + 1 = ?", targets=("2",))
    assert not [name for name, _ in ALL.held_out(digits) if "case" in name]


# The config


def written(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text("model: m\noutput_dir: o\n" + text)
    return path


@pytest.mark.parametrize(
    ("text", "vary"),
    [
        ("", False),
        ("vary: off", False),
        ("vary: 'off'", False),
        ("vary: true", Vary()),
        ("vary: on", Vary()),
        ("vary: {}", Vary()),
        ("vary: {system: [Be brief.], plain: 0}", Vary(system=("Be brief.",), plain=0.0)),
        ("vary: {turns: off, typing: false}", Vary(turns=False, typing=False)),
    ],
)
def test_vary_is_off_or_on_or_in_detail_and_reads_back(tmp_path, text, vary):
    config = read_config(written(tmp_path, text))
    assert config.vary == vary
    assert read_config(written(tmp_path, config.to_yaml().partition("output_dir: o\n")[2])).vary == vary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "vary:\n  system: []",
            "c.yaml:4:3: vary.system is an empty list. Add a system prompt, or write true for the built-in ones",
        ),
        ("vary:\n  system: [a, ' ']", "c.yaml:4:15: vary.system[1] is empty. Write text or remove it"),
        (
            "vary: {system: off, turns: off, greetings: off, typing: off}",
            "c.yaml:3:1: vary has nothing to vary. Set one of its keys to true, or write vary: off",
        ),
        ("vary:\n  greeting: true", "c.yaml:4:3: unknown key 'greeting'. Did you mean 'greetings'?"),
        ("vary: 3", "c.yaml:3:1: 'vary' must be true, off or a mapping of keys to values, not 3"),
        ("vary:\n  plain: 1.5", "c.yaml:4:3: 'vary.plain' must be less than or equal to 1, not 1.5"),
        (
            "vary:\n  system: Be brief.",
            "c.yaml:4:3: 'vary.system' must be a list or true or false, not 'Be brief.'. Put brackets around it",
        ),
    ],
)
def test_a_mistake_in_vary_is_told_with_its_place(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        read_config(written(tmp_path, text))
    assert str(caught.value).removeprefix(f"{tmp_path}/") == message


def test_a_mistake_in_vary_on_the_command_line_is_told_at_its_option(tmp_path):
    with pytest.raises(InputError, match=r"^--set vary.system=\[\]: vary.system is an empty list"):
        read_config(written(tmp_path, ""), ["vary.system=[]"])


def test_a_share_of_one_is_warned_of(tmp_path):
    (problem,) = inspect_config(written(tmp_path, "vary: {plain: 1}")).problems
    assert (problem.severity, problem.message) == ("warning", "vary has no effect if plain is 1")
