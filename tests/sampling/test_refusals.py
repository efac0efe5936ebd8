"""What servers refuse and how they say it: bodies of real ones, each learned from without a word about other fields."""

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.sampling.refusals import Fault, fault_within, read_fault
from diffusecli.sampling.request_body import RequestBody
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError

NEUTRAL = ["temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "top_k", "min_p", "repetition_penalty",
           "repeat_penalty", "n"]  # fmt: skip


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


SHAPES = {
    "OpenAI": lambda f: {"error": {"message": f"Unsupported parameter: '{f}' is not supported with this model.",
                                   "type": "invalid_request_error", "param": f, "code": "unsupported_parameter"}},
    "OpenAI, extra": lambda f: {"error": {"message": f"Unrecognized request argument supplied: {f}", "type": "invalid_request_error",
                                          "param": None, "code": None}},
    "Copilot": lambda f: {"error": {"message": f"Unsupported parameter: '{f}' is not supported.", "code": "invalid_request_body"}},
    "error text": lambda f: {"error": f"Input validation error: `{f}` must be something else", "error_type": "validation"},
    "FastAPI": lambda f: {"detail": [{"type": "extra_forbidden", "loc": ["body", f], "msg": "Extra inputs are not permitted", "input": 1}]},
    "FastAPI, echo": lambda f: {"detail": [{"loc": ["body", f], "msg": "Bad", "input": {"temperature": 1, "top_p": 1, "n": 32}}]},
    "detail text": lambda f: {"detail": f"Unsupported parameter: {f}"},
    "Mistral": lambda f: {"object": "error", "type": "invalid_request_error", "param": None, "code": None,
                          "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", f], "msg": "Extra inputs are not permitted"}]}},
    "JSON in text": lambda f: {"object": "error", "param": "None", "code": "1000",
                               "message": json.dumps({"detail": [{"loc": ["body", f], "msg": "Extra inputs are not permitted"}]})},
    "vLLM": lambda f: {"object": "error", "message": f"{f} is out of order", "type": "BadRequestError", "param": None, "code": 400},
    "message": lambda f: {"message": f"property '{f}' is unsupported, did you mean 'top_p'?", "param": "validation_error"},
    "Gemini": lambda f: [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": f'Unknown name "{f}": Cannot find field.',
                                    "details": [{"fieldViolations": [{"description": f'Unknown name "{f}": Cannot find field.'}]}]}}],
    "xAI": lambda f: {"code": "Client specified an invalid argument", "error": f"Argument not supported on this model: {camel(f)}"},
    "Bedrock": lambda f: {"message": f"Malformed input request: #: extraneous key [{f}] is not permitted"},
    "Rust": lambda f: f"Failed to deserialize the JSON body: unknown field `{f}`, expected one of `model`, `messages`, `top_p`, `n`",
    "Python": lambda f: f"TypeError: generate() got an unexpected keyword argument '{f}'",
    "OpenRouter": lambda f: {"error": {"message": "Provider returned error", "code": 400, "metadata": {
        "provider_name": "X", "raw": json.dumps({"error": {"message": f"Bad value for {f}", "param": f}})}}},
    "ASP.NET": lambda f: {"title": "One or more validation errors occurred.", "status": 400, "errors": {f: ["not allowed"]}},
    "Azure": lambda f: {"error": {"code": "Invalid input", "status": 422, "message": "invalid input error",
                                  "details": [{"type": "extra_forbidden", "loc": ["body", f], "msg": "Extra inputs", "input": 0}]}},
    "supported list": lambda f: {"error": {"message": f"{f} is not supported. Supported parameters are: temperature, top_p, n, seed."}},
    "HTML": lambda f: f"<html><head><style>n {{}}</style></head><body><h1>Bad Request</h1><p>Unknown parameter: {f}</p></body></html>",
}  # fmt: skip


def fault(body, status=400):
    return read_fault(status, body if isinstance(body, str) else json.dumps(body))


def body_of(**settings):
    return RequestBody("http://s", SamplingSettings(**settings), {})


def sent_by(body, known=None):
    return body.build(known or {}, seed=1, count=32, limit=50)


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_with_every_status_names_the_field_that_was_meant_and_no_other(shape, status):
    body = body_of()
    for field in NEUTRAL:
        refused = fault(SHAPES[shape](field), status)
        assert refused.verdict(body.named(refused, sent_by(body))) == "refused", field
        known = body.learn(refused, sent_by(body), {})
        if field == "top_k" and known == {"top_k": 1}:  # another spelling first, where the value was at fault
            assert sent_by(body, known)["top_k"] == 0
            known = body.learn(refused, sent_by(body, known), known)
        assert body.given_up(known) == [field]


@pytest.mark.parametrize(
    ("words", "given_up"),
    [
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("temperature is deprecated for this model", "temperature"),
        ("invalid top_p: only 0.95 is allowed for this model", "top_p"),
        ("Only one completion choice is allowed", "n"),
        ("n_cmpl cannot be greater than the number of slots, please increase -np", "n"),
        ("'n' : number must be at most 1", "n"),
        ("Range of n should be [1, 4]", "n"),
        ("n must be 1 when using greedy sampling", "n"),
        ("Multiple candidates is not enabled for this model: candidateCount", "n"),
        ("Model grok-4.5 does not support parameter presencePenalty.", "presence_penalty"),
        ("Frequency penalty is not available here", "frequency_penalty"),
    ],
)
def test_words_of_real_servers(words, given_up):
    body = body_of()
    for status in (400, 422, 500):
        refused = fault({"error": {"message": words}}, status)
        assert refused.verdict(body.named(refused, sent_by(body))) == "refused"
        assert body.given_up(body.learn(refused, sent_by(body), {})) == [given_up]


def test_the_limit_of_tokens_has_two_names_and_is_never_given_up():
    body = body_of()
    refused = fault({"error": {"message": "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."}})
    known = body.learn(refused, sent_by(body), {})
    assert sent_by(body, known)["max_completion_tokens"] == 50
    assert "max_tokens" not in sent_by(body, known)
    with pytest.raises(InputError, match=r"refuses max_completion_tokens = 50: .*--max-new-tokens"):
        body.learn(fault({"error": "max_completion_tokens: unknown field"}), sent_by(body, known), known)
    too_long = fault({"error": {"message": "max_tokens is too large: 50. This model supports at most 16."}})
    with pytest.raises(InputError, match="too large: 50"):  # under another name the limit may be ignored in silence
        body.learn(too_long, sent_by(body), {})


def test_top_k_that_is_off_has_two_spellings():
    body = body_of()
    known = body.learn(fault({"message": "top_k must be greater than or equal to 0"}), sent_by(body), {})
    assert sent_by(body, known)["top_k"] == 0
    known = body.learn(fault({"message": "top_k is not supported"}), sent_by(body), {})
    assert "top_k" not in sent_by(body, known)


@pytest.mark.parametrize(
    ("settings", "field", "option"),
    [
        ({"temperature": 0.7}, "temperature", "--temperature"), ({"top_p": 0.9}, "top_p", "--top-p"), ({"top_k": 5}, "top_k", "--top-k"),
        ({"min_p": 0.1}, "min_p", "--min-p"), ({"stop": ("\n",)}, "stop", "--stop"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "message"])
def test_what_the_user_set_is_never_given_up(settings, field, option, shape):
    body = body_of(**settings)
    with pytest.raises(InputError, match=f"http://s: the server refuses {field} = .*{option}"):
        body.learn(fault(SHAPES[shape](field)), sent_by(body), {})


def test_of_two_that_exclude_each_other_the_neutral_one_goes():
    words = fault({"error": {"message": "`temperature` and `top_p` cannot both be specified", "param": "temperature"}})
    for settings, goes in (({"temperature": 0.7}, ["top_p"]), ({"top_p": 0.9}, ["temperature"])):
        body = body_of(**settings)
        assert body.given_up(body.learn(words, sent_by(body), {})) == goes
    body = body_of(temperature=0.7, top_p=0.9)
    with pytest.raises(InputError, match=r"refuses temperature = 0.7 and top_p = 0.9: .*--temperature or --top-p"):
        body.learn(words, sent_by(body), {})


def test_fields_of_a_list_with_places_go_together_those_of_a_text_one_by_one():
    body = body_of()
    listed = fault({"detail": [{"loc": ["body", name], "msg": "Extra"} for name in ("top_k", "min_p", "seed")]}, 422)
    assert body.given_up(body.learn(listed, sent_by(body), {})) == ["seed", "top_k", "min_p"]
    text, known, steps = fault({"error": "Unrecognized request arguments supplied: min_p, repetition_penalty, top_k"}), {}, 0
    while set(body.given_up(known)) != {"top_k", "min_p", "repetition_penalty"}:
        known, steps = body.learn(text, sent_by(body, known), known), steps + 1
    assert steps == 3


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "The model `x` does not exist", "param": "model", "code": "model_not_found"}},
        {"error": {"message": "The response was filtered", "param": "prompt", "code": "content_filter"}},
        {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user'"}]},
    ],
)
def test_what_no_request_can_do_without_is_no_cause_to_search(body):
    made = body_of()
    with pytest.raises(InputError, match="refuses the request: status 400"):
        made.learn(fault(body), sent_by(made), {})


BUSY = [
    (429, {"error": {"message": "Rate limit reached for n = 32, reduce max_tokens"}}), (503, {"error": "Service Unavailable"}),
    (500, {"error": {"message": "The server had an error while processing your request"}}), (502, "<html>502 Bad Gateway</html>"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), (500, ""), (408, "timeout"),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    (429, {"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details", "status": "RESOURCE_EXHAUSTED"}}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), BUSY)
def test_what_may_pass_is_no_refusal(status, body):
    made = body_of()
    assert fault(body, status).verdict(made.named(fault(body, status), sent_by(made))) == "busy"
    assert not fault(body, status).unpaid


@pytest.mark.parametrize(
    ("status", "words", "verdict"),
    [
        (401, "Incorrect API key", "forbidden"), (403, "no access", "forbidden"), (404, "The model `m` does not exist", "forbidden"),
        (404, "No endpoints found that support the requested parameters", "refused"), (402, "Insufficient credits", "forbidden"),
        (501, "Not Implemented", "refused"), (500, "this option is not supported", "refused"),
    ],
)  # fmt: skip
def test_what_names_no_field(status, words, verdict):
    assert fault({"error": words}, status).verdict(None) == verdict


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ({"error": {"message": "Rate limited", "code": 429}}, 429, "Rate limited"),
        ({"error": "no such model"}, 0, "no such model"),
        ({"error": {"message": "bad top_p", "type": "invalid_request_error"}}, 400, "bad top_p"),
        ({"error": "`top_p` must be < 1", "error_type": "validation"}, 400, "top_p"),
        ({"object": "error", "message": "too long", "code": "400"}, 400, "too long"),
        ({"choices": None, "base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, 0, "invalid params"),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "upstream"}, "message": {"content": "{he"}}]}, 502,
         "upstream"),
        ({"choices": [{"finish_reason": "error", "message": {"content": "{he"}}]}, 0, "finish_reason error"),
        ({"choices": [{"message": {"content": "ok"}}], "error": {"message": "half of it is missing"}}, 0, "half of it"),
    ],
)  # fmt: skip
def test_an_error_with_status_200_is_an_error(answer, status, words):
    found = fault_within(answer)
    assert (found.status, words in found.words) == (status, True)


@pytest.mark.parametrize("error", [None, "", {}, {"code": 0, "message": ""}])
def test_a_completion_with_an_empty_error_is_a_completion(error):
    assert fault_within({"choices": [{"message": {"content": "ok"}}], "error": error}) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "a\n b", "type": "t"}}, "status 400: a b"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra"}, {"loc": ["body", "n"], "msg": "Bad"}]}, "status 400: seed: Extra; n: Bad"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "really this"}}'}}},
         "status 400: Provider returned error; really this"),
        ("<html><title>400</title><body>No &amp; no</body></html>", "status 400: 400 No & no"),
        ({"strange": 1}, 'status 400: {"strange": 1}'),
        ({"message": "same", "detail": "same"}, "status 400: same"),
    ],
)  # fmt: skip
def test_the_words_are_the_servers_own(body, words):
    assert fault(body).words == words
    assert len(fault({"error": "x" * 10_000}).words) < 400


def least(guilty, body=None, *, together=False):
    """What is given up when a server refuses, without a word, requests with any of `guilty`, or with all of them; how often it was asked."""
    body, asked = body or body_of(), []

    async def works(known):
        asked.append(known)
        sent = set(body.build(known, seed=1, count=2, limit=50))
        return not (guilty <= sent if together else guilty & sent)

    known = asyncio.run(body.search({}, works))
    return known and {*body.given_up(known), *(["max_tokens"] if known.get("max_tokens") else [])}, len(asked)


@given(st.sets(st.sampled_from([*NEUTRAL, "max_tokens"]), min_size=1))
def test_the_search_gives_up_the_guilty_and_no_other(guilty):
    found, asked = least(guilty)
    assert found == guilty
    assert asked <= 23


@given(st.sets(st.sampled_from(NEUTRAL), min_size=1))
def test_the_search_knows_servers_to_whom_the_limit_has_but_one_name(guilty):
    for unknown in ("max_tokens", "max_completion_tokens"):
        found, _ = least(guilty | {unknown})
        assert found == guilty | ({unknown} & {"max_tokens"})


def test_the_search_ends_where_nothing_helps():
    assert least({"temperature"}, body_of(temperature=0.5)) == (None, 11)
    assert least({"top_p", "temperature"}, together=True)[0] in ({"top_p"}, {"temperature"})


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["error", "message", "detail", "loc", "param", "msg", "errors", "code", "type", "metadata", "raw", "choices", "x"]),
        inner, max_size=5,
    ),
    max_leaves=20,
))  # fmt: skip
def test_no_body_breaks_the_reader(body):
    made, text = body_of(), json.dumps(body)
    for status in (200, 400, 500):
        found = read_fault(status, text)
        assert isinstance(found.words, str)
        assert found.verdict(made.named(found, sent_by(made))) in ("refused", "busy", "forbidden")
    assert fault_within(body) is None or isinstance(fault_within(body), Fault)


def test_json_within_json_has_an_end():
    text = "x"
    for _ in range(40):
        text = json.dumps({"error": text})[:100_000]
    assert isinstance(fault(text).words, str)


def test_unknown_and_needed_names_cannot_be_omitted():
    def made(*omit, per_request=None, **settings):
        return RequestBody("s", SamplingSettings(**settings), {}, omit, per_request)

    with pytest.raises(InputError, match=r"--omit top-p: not a field of a request\. Did you mean 'top_p'"):
        made("top-p")
    with pytest.raises(InputError, match="Available: chat_template_kwargs, frequency_penalty"):
        made("zzzzzz")
    with pytest.raises(InputError, match="--omit temperature: --temperature needs it"):
        made("temperature", temperature=0.5)
    with pytest.raises(InputError, match="--omit stop: --stop needs it"):
        made("stop", stop=("a",))
    with pytest.raises(InputError, match="--omit max_tokens and max_completion_tokens"):
        made("max_tokens", "max_completion_tokens")
    with pytest.raises(InputError, match="--omit n: --n-per-request 4 needs it"):
        made("n", per_request=4)
    sent = sent_by(made("max_tokens", "top_k", "seed", "n", "stop"))
    assert Counter(sent) == Counter({
        "max_completion_tokens": 50, "temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "min_p": 0,
        "repetition_penalty": 1, "repeat_penalty": 1,
    })  # fmt: skip
