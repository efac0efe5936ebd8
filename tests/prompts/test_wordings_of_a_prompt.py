"""Prompts in several wordings, with held-out ones, and prompts that are conversations."""

import json

import pytest

from diffusecli.prompts.conflicts import conversation, trained_elsewhere
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import inspect_prompt, read_prompt


def problems(tmp_path, **fields):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"targets": ["{a}", "{b}"], **fields}, indent=1))
    prompt, found = inspect_prompt(path)
    return prompt, [str(problem).replace(str(path), "p") for problem in found]


def test_a_prompt_of_one_request_is_its_only_wording_and_keeps_its_digest():
    old = Prompt(request="Roll.", targets=("1", "2"))
    assert old.wordings == (old,)
    assert Prompt(request=["Roll."], targets=["1", "2"]).digest == old.digest
    assert json.loads(old.to_json()).keys() == {"request", "response", "targets"}


def test_wordings_have_one_request_each_and_know_the_whole():
    die = Prompt(request=["Roll.", "Throw."], held_out_requests=["Toss."], targets=["1", "2"], weights=[1, 3], alias="die.json")
    assert [(w.alias, w.request, w.whole, w.probabilities) for w in (*die.wordings, *die.held_out)] == [
        ("die.json#1", "Roll.", "die.json", (0.25, 0.75)),
        ("die.json#2", "Throw.", "die.json", (0.25, 0.75)),
        ("die.json#held-out-1", "Toss.", "die.json", (0.25, 0.75)),
    ]
    assert len({w.digest for w in (die, *die.wordings, *die.held_out)}) == 4


def test_a_file_of_several_requests_is_written_as_it_is_read(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"request": ["Roll.", "Throw."], "held_out_requests": ["Toss."], "targets": ["1", "2"]}')
    prompt = read_prompt(path)
    path.write_text(prompt.to_json())
    assert read_prompt(path).digest == prompt.digest
    assert json.loads(prompt.to_json())["request"] == ["Roll.", "Throw."]


def test_messages_are_a_conversation_in_place_of_the_request(tmp_path):
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Toss a coin. Answer like {this}."},
    ]
    prompt, found = problems(tmp_path, messages=said)
    assert found == []
    assert prompt.own_system == "Be brief."
    assert prompt.question == "Toss a coin. Answer like {this}."
    assert [turn.model_dump() for turn in prompt.turns] == said[1:]
    assert json.loads(prompt.to_json())["messages"] == said
    assert "request" not in json.loads(prompt.to_json())
    assert conversation(prompt) == ("Be brief.", "Hi.", "Hello.", "Toss a coin. Answer like {this}.")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"request": []}, "the list of requests is empty. Write what to ask"),
        ({"request": ["{x}", " {x} "]}, "duplicate request ' {x} '. Remove one of them"),
        ({"request": "{x}", "held_out_requests": ["{x}"]}, "the held-out request '{x}' is also trained. Remove it from one of the two lists"),
        ({"request": ["{x}", " "]}, "the request ' ' is empty. Remove it or write text"),
        ({}, "there is no request. Add request, or messages for a conversation"),
        ({"request": "{x}", "messages": [{"role": "user", "content": "{x}"}]}, "both request and messages are given. Keep one of them"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "the last message has the role assistant. End the messages with the user's question"),
        ({"messages": [{"role": "user", "content": "a {x}"}, {"role": "system", "content": "b"}, {"role": "user", "content": "{x}"}]},
         "a system message is not the first message. Move it to the front or change its role to user"),
        ({"messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "{x}"}], "system": "c"},
         "both system and a system message are given. Keep one of them"),
        ({"messages": [{"role": "robot", "content": "{x}"}]}, "messages"),
    ],
)  # fmt: skip
def test_what_no_model_could_be_asked_is_an_error_with_its_place(tmp_path, fields, expected):
    prompt, found = problems(tmp_path, **fields)
    assert prompt is None
    first, *others = found
    assert expected in first
    assert first.startswith("p:")
    assert all("curly braces" in doubt for doubt in others)


def test_a_wording_that_does_not_ask_for_the_form_is_named(tmp_path):
    _, found = problems(tmp_path, request=["Like {this}.", "No form."])
    assert ["the targets have curly braces" in line for line in found] == [True]
    path = tmp_path / "p.json"
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "No form." in text)
    assert found[0].startswith(f"p:{line}:")


def test_a_held_out_request_that_another_prompt_trains_is_an_error():
    one = Prompt(request="Roll.", held_out_requests=("Toss.",), targets=("1",), alias="one.json")
    other = Prompt(request=("Throw.", " Toss."), targets=("1",), alias="other.json")
    assert [str(problem) for problem in trained_elsewhere([one, other])] == [
        "one.json: the held-out request 'Toss.' is also trained, in other.json. Remove it from one of the two"
    ]
    assert list(trained_elsewhere([one])) == []
