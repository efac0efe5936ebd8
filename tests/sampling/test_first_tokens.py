"""First tokens from servers that differ in what they list and refuse, with limits worked out by hand."""

import math

import pytest

from diffusecli.evaluation.bounds import bounded_figures
from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.answer_paths import Asked
from diffusecli.sampling.connection import Service
from diffusecli.sampling.served_probabilities import served_probabilities
from diffusecli.system.errors import InputError, MachineError
from tests.sampling.served_models import ModelServer

pytest.importorskip("openai")


class Listing(ModelServer):
    """Chat completions with fixed first tokens; the first one is the sampled one."""

    def __init__(self, tokens, refusal=lambda body: None):
        super().__init__(None, None)
        self.entries = [{"token": token, "logprob": math.log(p)} for token, p in tokens]
        self.refuses = refusal

    @property
    def routes(self):
        return {"/v1/chat/completions": self.chat}

    def chat(self, body):
        if (why := self.refuses(body)) is not None:
            return 400, {"error": {"message": why}}
        top = self.entries[: body["top_logprobs"]]
        return 200, {"choices": [{"index": 0, "logprobs": {"content": [{**self.entries[0], "top_logprobs": top}]}}]}

    @property
    def chats(self):
        return [body for path, body in self.asked if path == "/v1/chat/completions"]


def first_tokens(server, *requests):
    asked = [Asked(one, ({"role": "user", "content": one},), ("a",)) for one in requests or ("x",)]
    with server:
        return served_probabilities(Service(server.url, "m", tries=1), ChatSettings(), asked).scores


def test_an_unlikely_token_that_was_sampled_limits_no_other():
    """24 tokens have .04 each. 19 of them are listed after the sampled one, so another may have .04, too."""
    (first,) = first_tokens(Listing([("rare", 1e-6), *((f"n{i}", 0.04) for i in range(24))]))
    assert first.least == pytest.approx(0.04)
    own = bounded_figures(Prompt(request="x", targets=("n20", "n21")), [first])
    assert all(high >= 0.04 for high in own.q_high)
    assert own.on_target_high >= 0.08


def test_if_only_the_sampled_token_is_listed_another_may_have_all_the_rest():
    (first,) = first_tokens(Listing([("rare", 0.1)]))
    assert first.least == pytest.approx(0.9)


def test_a_part_of_a_character_may_begin_any_target_that_starts_with_what_is_before_it():
    (first,) = first_tokens(Listing([("\ufffd", 0.8), ("a", 0.1), ("b\ufffd", 0.05)]))
    found = bounded_figures(Prompt(request="x", targets=("😀", "a", "bé")), [first])
    assert found.q_high[0] >= 0.8
    assert found.q_high[2] >= 0.85
    assert found.q_high[0] < 0.86, "b and a part of a character does not begin it"
    assert found.on_target_high == pytest.approx(1)


def test_a_refusal_of_one_prompt_keeps_the_shape_and_its_reason():
    def refusal(body):
        return "maximum context length is 10 tokens" if body["messages"][0]["content"] == "long" else None

    server = Listing([("a", 0.9)], refusal)
    with pytest.raises(InputError, match="maximum context length is 10 tokens"):
        first_tokens(server, "x", "long", "y")
    assert {body["top_logprobs"] for body in server.chats} == {20}


def test_a_server_that_refuses_every_shape_gives_its_reason():
    with pytest.raises(InputError, match=r"no log-probabilities.*logprobs are off here"):
        first_tokens(Listing([("a", 0.9)], lambda body: "logprobs are off here."))


def test_neutral_sampling_settings_are_sent_and_those_that_are_refused_are_left_out():
    server = Listing([("a", 0.9)])
    first_tokens(server)
    sent = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 1,
        "top_logprobs": 20,
    }
    assert server.chats[-1].items() >= sent.items()
    server = Listing([("a", 0.9)], lambda body: "Unrecognized argument: top_k" if "top_k" in body else None)
    first_tokens(server)
    assert "top_k" not in server.chats[-1]
    assert server.chats[-1].items() >= {"temperature": 1.0, "top_p": 1.0, "top_logprobs": 20}.items()


def test_an_error_of_a_route_that_other_servers_have_does_not_end_the_measurement():
    server = Listing([("a", 0.9)])
    server.missing = 500, {"error": {"message": "internal server error"}}
    assert first_tokens(server)[0].listed == {b"a": pytest.approx(0.9)}
    assert len(server.asked) - len(server.chats) == 4, "each of the two routes once, and once more when the server works"


def test_a_server_that_fails_is_not_said_to_have_kept_answers():
    server = Listing([("a", 0.9)])
    server.chat = lambda body: (500, {"error": {"message": "out of memory"}})
    with pytest.raises(MachineError, match=r"Check the server, then run the same command again$"):
        first_tokens(server)
