"""Paraphrases from a server: only those that ask for the same are taken, each once, and all are shown."""

import json

import pytest

from diffusecli.sampling.connection import Service
from diffusecli.sampling.paraphrases import paraphrase
from diffusecli.system.errors import InputError
from tests.sampling.test_server_engine import Server

pytest.importorskip("openai")


class Writer(Server):
    """Gives its answers one after the other, whatever it is asked; then the last one again."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def completion(self, body):
        texts = [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0] for _ in range(body.get("n") or 1)]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}} for i, text in enumerate(texts)
        ]
        return {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": None}


def asked(server, count, refusal=lambda text: "", known=("Roll a die.",)):
    return paraphrase("Roll a die.", count, Service(server.url, "m"), refusal, known=known, seed=0, notice=lambda _: None)


def test_each_answer_is_taken_once_and_without_quotes():
    with Writer('"Throw a die."', "throw  a DIE.", "ROLL a die.", "---\nA die, please.\n---", "Dice!") as server:
        made = asked(server, 3)
    assert made.texts == ("Throw a die.", "A die, please.", "Dice!")
    assert made.refused == {"repeat another": 2}


def test_the_request_is_sent_in_several_styles_and_no_more_often_than_needed():
    with Writer("a", "b", "c", "d") as server:
        assert asked(server, 3).texts == ("a", "b", "c")
    contents = [body["messages"][0]["content"] for body in server.bodies]
    assert len(set(contents)) == len(contents) == 3
    assert all(text.endswith("---\nRoll a die.\n---") for text in contents)


def test_what_a_server_repeats_for_ever_is_given_up():
    with Writer("Throw a die.") as server:
        made = asked(server, 5)
    assert made.texts == ("Throw a die.",)
    assert len(server.bodies) == 32


def test_the_command_shows_paraphrases_and_takes_those_that_name_the_same(in_process):
    with Writer("Any number from one to six.", "Any number, 1 to 60", "1 to 6, random {x}", "From 1 to 6!") as server:
        done = in_process(
            "init-prompt", "--uniform", "1", "6", "--request", "Pick 1 to 6 {number}", "--paraphrase", "1", "--held-out", "1",
            "--engine", "openai", "--base-url", server.url, "--model", "m", "--no-preview",
        )  # fmt: skip
    made = json.loads(done.stdout)
    assert made["request"] == "Pick 1 to 6 {number}"
    assert made["held_out_requests"] == ["1 to 6, random {x}"]
    assert "paraphrase: 1 to 6, random {x}" in done.stderr
    assert "refused: 1 do not ask for the form of the answer, 1 name other numbers" in done.stderr
    with Writer("One to six, by chance") as server:
        done = in_process(
            "init-prompt", "--uniform", "1", "6", "--paraphrase", "2", "--engine", "openai", "--base-url", server.url, "--model", "m",
        )  # fmt: skip
    made = json.loads(done.stdout)["request"]
    assert made[0].startswith("Generate a random number between 1 and 6")
    assert "One to six, by chance" in made[1]
    assert all("{" in text or "curly" in text or "brace" in text for text in made)
    assert "warning: 1 of 2 paraphrases" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "openai"], "--engine has no effect without --paraphrase. Add --paraphrase N or leave --engine out"),
        (["--paraphrase", "2"], "--paraphrase needs --engine. Example: --engine openai --base-url http://localhost:8000/v1 --model NAME"),
        (["--paraphrase", "2", "--engine", "counting"], "--engine counting: this engine cannot paraphrase. Use --engine openai"),
        (["--paraphrase", "2", "--engine", "openai", "--base-url", "http://x/v1"], "--paraphrase needs --model"),
        (["--paraphrase", "2", "--engine", "openai", "--base-url", "http://x/v1", "--model", "m", "--wordings", "3"], "--paraphrase cannot be combined with --wordings"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(in_process, options, message):
    done = in_process("init-prompt", "--dice", "d6", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_server_whose_answers_all_ask_for_something_else_is_an_error(in_process):
    with Writer("From 1 to 7") as server:
        done = in_process(
            "init-prompt", "--uniform", "1", "6", "--paraphrase", "1", "--engine", "openai", "--base-url", server.url, "--model", "m",
        )  # fmt: skip
    assert done.returncode == 2
    assert "--paraphrase 1: m returned no usable paraphrase (32 name other numbers). Use another model" in done.stderr
    with pytest.raises(InputError, match="--base-url"):
        Service("nowhere", "m")
