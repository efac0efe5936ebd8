"""The engine for servers: against a server that misbehaves on purpose, and against `transformers serve`."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.runs.journal import Journal
from diffusecli.sampling.connection import Service, _Pace
from diffusecli.sampling.engine import Wanted, drawn
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.pooling import shares
from diffusecli.sampling.server_engine import ServerEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, InterruptedRun, MachineError
from diffusecli.verbs.evaluate import evaluate
from tests.commands import HANG, closed_port, on_a_free_port
from tests.sampling.test_counting import assert_follows, exact_law

pytest.importorskip("openai")

PROMPT = Prompt(request="x", targets=(), alias="p.json")
FRUIT = {"apple": 0.5, "pear": 0.3, "plum": 0.2}


class Server:
    """Answers from a law; `faults` are taken one by one before it behaves. Keeps every request.

    All but the first request wait until `meet` of them are there; a `silent` server never answers.
    """

    def __init__(
        self, law=FRUIT, *, most=None, refuses=(), faults=(), delay=0.0, meet=1, silent=False, refusal=lambda body: None,
    ):  # fmt: skip
        self.law, self.most, self.refuses, self.faults, self.delay = law, most, set(refuses), list(faults), delay
        self.refusal = refusal  # of a body: a status and what is said, or None
        self.models = []  # names that it lists; without names there is no list
        self.meeting, self.may_answer = threading.Barrier(meet), threading.Event()
        if not silent:
            self.may_answer.set()
        self.bodies, self.keys, self.lock = [], [], threading.Lock()
        self.together = self.most_together = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                owner.answer(self)

            def do_GET(self):
                owner.send(self, 200 if owner.models else 404, {"data": [{"id": name} for name in owner.models]})

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # clients may be killed
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()  # seconds until it sees that it ends
        return self

    def __exit__(self, *_):
        self.may_answer.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            fault = self.faults.pop(0) if self.faults else None
            is_first = len(self.bodies) == 1
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        if not is_first:
            self.meeting.wait(HANG)
        self.may_answer.wait(HANG)
        time.sleep(self.delay)
        with self.lock:
            self.together -= 1
        if refused := self.refuses & set(body):
            self.send(handler, 400, {"error": {"message": f"unknown parameter {min(refused)}"}})
        elif said := self.refusal(body):
            self.send(handler, *said)
        elif fault == "cut":
            handler.close_connection = True
            handler.connection.close()
        elif fault == "text":
            self.send(handler, 200, b"<html>a proxy's greeting</html>", kind="text/html")
        elif fault == "torn":
            self.send(handler, 200, b'{"choices": [')
        elif fault == "empty":
            self.send(handler, 200, {"choices": []})
        elif fault is not None:
            self.send(handler, fault, {"error": {"message": f"status {fault} on purpose"}}, {"Retry-After": "0"})
        else:
            self.send(handler, 200, self.completion(body))

    def completion(self, body):
        rng = np.random.default_rng(body.get("seed", len(self.bodies)))
        n = min(body.get("n") or 1, self.most or 10**9)
        texts = rng.choice(list(self.law), size=n, p=list(self.law.values()))
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": str(t)}} for i, t in enumerate(texts)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n}
        return {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": usage}

    @staticmethod
    def send(handler, status, content, headers=(), kind="application/json"):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch):
    monkeypatch.setattr("diffusecli.sampling.connection._FIRST_PAUSE", 0.01)


def engine(server, n=200, notices=None, settings=(), **more):
    said = notices.append if notices is not None else lambda _: None
    return ServerEngine(Service(server.url, "m", **more), SamplingSettings(n, **dict(settings)), said)


def wanted(count, have=(), arrived=lambda *_: None):
    return Wanted(PROMPT, count, Answers(have), arrived, lambda _: None)


def test_the_tokens_left_are_those_of_the_missing_answers():
    """A request for 32 answers has three tokens, and each answer one."""
    left = []
    with Server() as server:
        made = engine(server, 96, concurrency=1)
        made.draw(Wanted(PROMPT, 96, Answers(), lambda *_: None, lambda now: left.append(now.tokens_left())))
    assert left == [70, 35, 0]


def test_several_answers_come_with_one_request_where_the_server_gives_them():
    with Server() as server:
        counts, tokens = drawn(engine(server, 1000), PROMPT)
    assert counts.total() == 1000
    assert len(server.bodies) == 32  # 31 of 32 answers and one of 8
    assert [body["n"] for body in server.bodies].count(32) == 31
    assert tokens == 3 * 32 + 1000
    assert len({body["seed"] for body in server.bodies}) == 32


@pytest.mark.parametrize("behaviour", [{"most": 1}, {"refuses": ["n"]}])
def test_single_requests_where_it_does_not(behaviour):
    with Server(**behaviour) as server:
        counts, _ = drawn(engine(server, 60), PROMPT)
    assert counts.total() == 60
    assert len(server.bodies) <= 62
    assert len({body["seed"] for body in server.bodies[2:]}) == len(server.bodies) - 2


def test_fewer_answers_than_promised_are_made_up_for():
    with Server(most=20) as server:
        assert drawn(engine(server, 100), PROMPT)[0].total() == 100


@pytest.mark.slow
def test_the_law_of_twenty_thousand_answers(monkeypatch):
    law = exact_law(3)
    from tests.sampling.test_counting import TOKENIZER

    texts = Counter()
    for ids, p in law.items():
        texts[TOKENIZER.decode(list(ids))] += p
    total = sum(texts.values())
    monkeypatch.setattr("diffusecli.sampling.server_engine._MOST_CHOICES", 1000)
    with Server({text: p / total for text, p in texts.items()}) as server:
        counts, _ = drawn(engine(server, 20_000, concurrency=4), PROMPT)
    assert_follows(counts, law)


def test_what_is_sent_bends_nothing():
    with Server() as server:
        drawn(engine(server, 10, settings={"max_new_tokens": 7, "stop": ("\n",)}), PROMPT)
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1, 1, -1, 0, 1)
    assert (body["max_tokens"], body["stop"]) == (7, ["\n"])
    assert body["messages"] == [{"role": "user", "content": "x"}]


def test_what_a_server_does_not_know_is_left_out_and_told():
    notices = []
    with Server(refuses=["top_k", "max_tokens"]) as server:
        assert drawn(engine(server, 40, notices), PROMPT)[0].total() == 40
    assert "max_completion_tokens" in server.bodies[-1]
    assert "top_k" not in server.bodies[-1]
    assert "its own defaults" in notices[0]
    with Server(refuses=["top_k"]) as server, pytest.raises(InputError, match="unknown parameter top_k"):
        drawn(engine(server, 40, settings={"top_k": 5}), PROMPT)


@pytest.mark.slow
def test_faults_that_pass_are_waited_for():
    faults = [429, 500, "cut", 503, "text", "torn", "empty", 429, 502]
    with Server(faults=faults, most=1) as server:
        assert drawn(engine(server, 50, concurrency=3, tries=10), PROMPT)[0].total() == 50
    assert not server.faults


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (401, InputError, "OPENAI_API_KEY"),
        (404, InputError, "--model"),
        (400, InputError, "refuses the request"),
        (429, MachineError, "status 429 on purpose"),
        ("text", MachineError, "a web page instead"),
        ("cut", MachineError, "run the same command to resume"),
    ],
)
def test_faults_that_do_not_pass_are_told_in_a_sentence(fault, error, message):
    with Server(faults=[fault] * 50) as server, pytest.raises(error, match=message):
        drawn(engine(server, tries=3), PROMPT)


def test_a_refusal_half_way_is_told_and_what_came_before_is_kept():
    kept = Counter()
    with Server(faults=[None, None, 400], most=1) as server, pytest.raises(InputError, match="refuses the request"):
        engine(server, 20, concurrency=1).draw(wanted(20, arrived=lambda counts, _: kept.update(counts)))
    assert kept.total() == 2


def test_a_server_that_is_not_there_or_too_slow():
    with closed_port() as port, pytest.raises(MachineError, match="2 tries failed"):
        drawn(ServerEngine(Service(f"http://127.0.0.1:{port}/v1", "m", tries=2), SamplingSettings(5), print), PROMPT)
    with Server(silent=True) as server, pytest.raises(MachineError, match="timed out"):
        drawn(engine(server, tries=1, timeout=0.1), PROMPT)


def test_requests_run_side_by_side_up_to_the_limit():
    with Server(most=1, meet=4) as server:  # none of the four is answered before the fourth is there
        assert drawn(engine(server, 41, concurrency=4), PROMPT)[0].total() == 41
    assert server.most_together == 4
    assert len(server.bodies) == 41


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self):
        self.now = 100.0

    async def wait(self, seconds):
        self.now += seconds


def test_requests_start_no_faster_than_the_pace():
    clock, starts = Clock(), []
    pace = _Pace(1200, clock=lambda: clock.now, wait=clock.wait)

    async def take_turns():
        for spent in (0, 0.02, 0.05, 0.5, 0, 0):
            await pace.turn()
            starts.append(clock.now - 100)
            clock.now += spent

    asyncio.run(take_turns())
    assert starts == pytest.approx([0, 0.05, 0.1, 0.15, 0.65, 0.7]), "0.05 s apart, and none made up for after a rest"


def test_every_request_waits_for_its_turn_those_of_later_prompts_and_later_tries_too():
    turns = []

    class Counted:
        async def turn(self):
            turns.append(1)

    with Server(most=1, faults=[None, 500]) as server:
        paced = engine(server, 12, requests_per_minute=1200)
        paced._connection._pace = Counted()
        drawn(paced, PROMPT)
        drawn(paced, PROMPT)
    assert (len(turns), len(server.bodies)) == (26, 25), "one turn is for the list of models"


def openai_says(message, param=None, **more):
    return 400, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None, **more}}


def gpt5(body):
    """Reasoning models of OpenAI."""
    if "max_tokens" in body:
        return openai_says(
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"
        )
    if extra := sorted(body.keys() & {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}):
        return openai_says(f"Unrecognized request arguments supplied: {', '.join(extra)}")
    if "top_p" in body:
        return openai_says("Unsupported parameter: 'top_p' is not supported with this model.", "top_p")
    if body["temperature"] != 1:
        return openai_says(
            "'temperature' does not support 0.5 with this model. Only the default (1) value is supported.", "temperature"
        )
    return None


def claude(body):
    both = {"temperature", "top_p"} <= body.keys()
    return openai_says("`temperature` and `top_p` cannot both be specified for this model. Please use only one.") if both else None


def mistral(body):
    forbidden = body.keys() & {"seed", "top_k", "min_p", "repetition_penalty", "repeat_penalty"}
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in sorted(forbidden)
    ]
    return (422, {"object": "error", "message": {"detail": detail}, "param": None}) if detail else None


def llama(body):
    return (
        (500, {"error": {"code": 500, "message": "Only one completion choice is allowed", "type": "server_error"}})
        if "n" in body
        else None
    )


def tgi(body):
    """Status 200 with an error in it, as in TGI 2.4."""
    return (
        (200, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"})
        if "top_p" in body
        else None
    )


def mute(*guilty, status=400):
    """Refuses without saying why."""
    return lambda body: (
        (status, {"error": {"message": "Invalid request. Check the documentation."}}) if body.keys() & set(guilty) else None
    )


def strict(*known):
    """Knows few fields, and says so in HTML."""
    return lambda body: (422, b"<html><h1>Unprocessable</h1></html>", {}, "text/html") if body.keys() - set(known) else None


@pytest.mark.parametrize(
    ("refusal", "gone"),
    [
        (gpt5, {"top_p", "top_k", "min_p", "repetition_penalty", "repeat_penalty"}), (claude, {"top_p"}), (llama, {"n"}), (tgi, {"top_p"}),
        (mistral, {"seed", "top_k", "min_p", "repetition_penalty", "repeat_penalty"}), (mute("min_p"), {"min_p"}), (mute("n"), {"n"}),
        (mute("top_p", "seed"), {"top_p", "seed"}), (mute("top_k", status=422), {"top_k"}), (mute("seed", status=501), {"seed"}),
        (mute("max_tokens"), set()), (lambda _: None, set()), (strict("model", "messages", "max_tokens", "temperature"), {
            "top_p", "frequency_penalty", "presence_penalty", "seed", "top_k", "min_p", "repetition_penalty", "repeat_penalty", "n",
        }),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_found_out_at_once_and_nothing_else_is_given_up(refusal, gone, monkeypatch):
    pauses = []

    async def sleep(seconds, real=asyncio.sleep):
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("diffusecli.sampling.connection.asyncio.sleep", sleep)
    every = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "top_k", "min_p", "repetition_penalty",
             "repeat_penalty", "n"}  # fmt: skip
    notices = []
    with Server(refusal=refusal) as server:
        made = engine(server, 80, notices)
        assert drawn(made, PROMPT)[0].total() == 80
        many_bodies = len(server.bodies)
        drawn(made, PROMPT)
        later = server.bodies[many_bodies:]
    assert not pauses, "a refusal is no matter of time"
    assert all(every - set(body) == gone for body in later), "learned for good"
    assert later[0].keys() & {"max_tokens", "max_completion_tokens"}
    assert set(made.about.get("refused", {})) == gone
    said = [notice for notice in notices if "the server refuses" in notice]
    assert len(said) == len({"n" if name == "n" else "seed" if name == "seed" else "default" for name in gone})
    assert all(sum(name in notice.split("Requests")[0] for notice in said) == 1 for name in gone - {"n"})


@pytest.mark.parametrize(
    ("refusal", "settings", "message"),
    [
        (gpt5, {"temperature": 0.5}, r"refuses temperature = 0.5: status 400: .*Only the default.*--temperature"),
        (gpt5, {"top_p": 0.9}, r"refuses top_p = 0.9: .*--top-p"), (claude, {"top_p": 0.9, "temperature": 0.5}, "temperature = 0.5 and top_p"),
        (mute("temperature", status=422), {"temperature": 0.5}, "refuses the request: status 422: Invalid request. Check the documentation."),
    ],
)  # fmt: skip
def test_what_was_asked_for_is_not_given_up(refusal, settings, message):
    with Server(refusal=refusal) as server, pytest.raises(InputError, match=message):
        drawn(engine(server, 40, settings=settings, tries=1), PROMPT)
    assert len(server.bodies) < 30


def test_a_server_that_refuses_everything_is_asked_a_few_times():
    with Server(refusal=lambda _: (400, "no")) as server, pytest.raises(InputError, match="refuses the request: status 400: no"):
        drawn(engine(server, 40), PROMPT)
    assert len(server.bodies) == 1 + 6 + 1 + 6  # as it is, and with less and less, under either name of the limit


@pytest.mark.parametrize(
    ("status", "body", "error", "message", "asked"),
    [
        (
            500,
            {"error": {"message": "The server had an error"}},
            MachineError,
            "3 tries failed .* status 500: The server had an error",
            3,
        ),
        (200, {"error": {"message": "upstream is down", "code": 502}}, MachineError, "status 502: upstream is down", 3),
        (200, {"error": "out of memory"}, MachineError, "Last error: out of memory", 3),
        (200, {"error": {"message": "no such model", "code": 404}}, InputError, r"no such model\. Check --base-url", 1),
        (200, {"error": {"message": "bad key", "code": "401"}}, InputError, "OPENAI_API_KEY", 1),
        (
            429,
            {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
            MachineError,
            "1 try failed",
            1,
        ),
        (404, {"error": {"message": "The model `m` does not exist"}}, InputError, "Check --base-url", 1),
        (200, {"message": "the gateway says no"}, MachineError, "the gateway says no", 3),
        (501, b"<!DOCTYPE HTML><p>no POST", InputError, r"v1: status 501: a web page, not .* Check --base-url [^<]*in /v1\)$", 1),
        (404, b"<html>Not Found</html>", InputError, r"status 404: a web page, not .* Check --base-url [^<]*in /v1\)$", 1),
        (200, b"<html>Hello</html>", MachineError, r"Last error: a web page instead of an answer \(does --base-url end", 3),
    ],
)
def test_errors_are_shown_in_the_servers_own_words(status, body, error, message, asked):
    with Server(refusal=lambda _: (status, body)) as server, pytest.raises(error, match=message):
        drawn(engine(server, 40, tries=3), PROMPT)
    assert len(server.bodies) == asked


def test_a_failure_half_way_that_names_nothing_is_tried_again_where_the_same_request_has_worked():
    with Server(faults=[None, None], most=1) as server:
        server.refusal = lambda _: (500, {"error": "this operation is not supported"}) if len(server.bodies) == 4 else None
        assert drawn(engine(server, 20, concurrency=1), PROMPT)[0].total() == 20
    assert len(server.bodies) == 21


def test_refusals_of_requests_under_way_together_are_learned_once_and_lose_nothing():
    waiting, notices, arrivals = threading.Barrier(4), [], []

    def refusal(body):
        """Four are refused together."""
        if "seed" not in body:
            return None
        waiting.wait(120)
        return 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}

    with Server(refusal=refusal) as server:
        made = engine(server, 40, notices, concurrency=4, n_per_request=2)
        made._settled = True  # as after a first request
        made.draw(wanted(40, arrived=lambda counts, _: arrivals.append(counts.total())))
    assert arrivals == [2] * 20
    assert len(server.bodies) == 4 + 20
    assert [notice for notice in notices if "seed" in notice] == notices
    assert len(notices) == 1


def test_the_same_seed_draws_the_same_whatever_is_refused_and_however_many_are_under_way():
    counts = []
    for concurrency in (1, 5):
        with Server(refusal=llama) as server:
            counts.append(drawn(engine(server, 20, concurrency=concurrency), PROMPT)[0])
    with Server(most=1) as server:
        counts.append(drawn(engine(server, 20, n_per_request=1), PROMPT)[0])
    assert counts[0] == counts[1] == counts[2]


def test_answers_of_requests_that_lack_too_much_are_thrown_away():
    """A search gives up top_k on its way to seed; without top_k this server draws something else."""

    def completion(body, whole):
        text = json.dumps(whole(body))
        return json.loads(
            text if "top_k" in body else text.replace("apple", "bent").replace("pear", "bent").replace("plum", "bent")
        )

    with Server(refusal=mute("seed")) as server:
        server.completion = lambda body, whole=server.completion: completion(body, whole)
        counts, tokens = drawn(engine(server, 60), PROMPT)
    assert counts.total() == 60
    assert "bent" not in counts
    assert tokens > 60 + 3 * 2, "what was thrown away was paid for"


def test_a_set_number_of_answers_per_request_and_omitted_fields():
    with Server() as server:
        made = engine(server, 20, n_per_request=5, omit=("top_p", "seed"))
        drawn(made, PROMPT)
    assert [body["n"] for body in server.bodies] == [5] * 4
    assert not any(body.keys() & {"top_p", "seed"} for body in server.bodies)
    assert made.about["omitted"] == ["seed", "top_p"]
    with Server() as server:
        drawn(engine(server, 20, omit=("n",)), PROMPT)
    assert len(server.bodies) == 20
    with pytest.raises(InputError, match="--n-per-request 0: must be 1 or more"):
        engine(server, 20, n_per_request=0)


def test_what_was_refused_stands_beside_the_samples_and_an_evaluation_shows_it(tmp_path):
    path = tmp_path / "gen.json"
    with Server(most=1, refusal=gpt5, faults=[None] * 20 + [500] * 1000) as server:
        with pytest.raises(MachineError):
            written(server, path, 60, tries=1, concurrency=1)
        server.faults = []
        done = written(server, path, 60, concurrency=4)
    assert done.counts["p.json"].total() == 60
    seeds = Counter(body["seed"] for body in server.bodies if not gpt5(body))
    assert max(seeds[seed] for seed in [*seeds][:20]) == 1
    meta = json.loads((tmp_path / "gen.meta.json").read_text())
    assert set(meta["refused"]) == {"top_p", "top_k", "min_p", "repetition_penalty", "repeat_penalty"}
    assert meta["refused"]["top_p"] == "status 400: Unsupported parameter: 'top_p' is not supported with this model."
    (row,) = evaluate([path]).rows
    assert row.settings_in_words.endswith("min_p, repeat_penalty, repetition_penalty, top_k and top_p left to the server")


def test_what_was_refused_outlives_an_interruption_after_the_last_answer(tmp_path, monkeypatch):
    path = tmp_path / "gen.json"
    with Server(most=1, refusal=gpt5) as server:
        with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
            during.setattr("diffusecli.sampling.generations.write_samples", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            written(server, path, 40)
        asked = len(server.bodies)
        written(server, path, 40)
        assert len(server.bodies) == asked, "all answers were there"
    assert "top_p" in json.loads((tmp_path / "gen.meta.json").read_text())["refused"]


def test_a_journal_of_requests_that_brought_no_answer_is_empty(tmp_path):
    journal = Journal(tmp_path / "gen.partial.jsonl", {})
    journal.add(PROMPT, Answers(), 9)
    assert journal.empty
    journal.add(PROMPT, Answers(["apple"]), 9, {"top_p": "no"})
    assert not journal.empty
    assert Journal(tmp_path / "gen.partial.jsonl", {}).refused == {"top_p": "no"}


def answers_with(message, finish="stop", law=FRUIT):
    """A server whose messages are made of the text drawn."""
    server = Server(law)

    def completion(body, whole=server.completion):
        said = whole(body)
        for choice in said["choices"]:
            text = choice["message"]["content"]
            choice |= {
                "message": {"role": "assistant", **message(text)},
                "finish_reason": finish(text) if callable(finish) else finish,
            }
        return said

    server.completion = completion
    return server


PLAIN = [
    lambda text: {"content": [{"type": "text", "text": text}]},
    lambda text: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": text}]},
    lambda text: {"content": [{"type": "output_text", "text": text[:2]}, text[2:]]},
    lambda text: {"content": f"<think>\napple or pear?\n</think>\n\n{text}"},
    lambda text: {"content": f"apple or pear?</think>{text}"},
    lambda text: {"content": f"[THINK]apple?[/THINK]{text}"},
    lambda text: {"content": None, "refusal": text},
    lambda text: {"content": text, "reasoning_content": "apple?"},
]


@pytest.mark.parametrize("message", PLAIN)
def test_answers_in_parts_and_behind_thinking_are_read(message):
    with answers_with(message) as server:
        assert drawn(engine(server, 40), PROMPT)[0].keys() == FRUIT.keys()


def test_thinking_that_is_cut_off_is_reported_and_left_where_a_target_has_it():
    notices = []
    with answers_with(PLAIN[3]) as server:
        drawn(engine(server, 40, notices), PROMPT)
        thoughtful = PROMPT.model_copy(update={"targets": ("<think>a</think>b",)})
        counts, _ = drawn(engine(server, 40), thoughtful)
    assert notices == ["p.json: 40 of 40 answers with the model's reasoning. Only the text after it counts as the answer"]
    assert all(text.startswith("<think>") for text in counts)


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "content_filter: PROHIBITED_CONTENT", "RECITATION"])
def test_what_a_filter_withheld_counts_as_off_target_and_is_reported(reason):
    notices = []
    with answers_with(lambda text: {"content": text}, lambda text: reason if text == "pear" else "stop") as server:
        counts, _ = drawn(engine(server, 200, notices), PROMPT)
    assert counts.total() == 200
    assert counts["pear"] == 0
    assert 30 < counts[""] < 90
    assert notices == [
        f"p.json: {counts['']} of 200 answers withheld by the server's content filter. They count as empty and off target"
    ]


def test_an_answer_that_is_no_text_is_an_error():
    with (
        answers_with(lambda _: {"content": [{"type": "image_url"}]}) as server,
        pytest.raises(MachineError, match="part that is not text"),
    ):
        drawn(engine(server, 40, tries=1), PROMPT)


def test_responses_without_an_answer_are_counted():
    notices = []
    with Server(faults=["empty", "empty"]) as server:
        drawn(engine(server, 40, notices), PROMPT)
    assert notices == ["p.json: 2 responses without an answer, requested again. If a filter removed answers, the shares are wrong"]


def test_tokens_that_a_server_does_not_count_are_unknown(tmp_path):
    notices = []
    with Server() as server:
        server.completion = lambda body, whole=server.completion: {**whole(body), "usage": None}
        drawn(engine(server, 40, notices), PROMPT)
        written(server, tmp_path / "gen.json", 40)
    assert notices == ["the server does not report token counts, so tokens are not counted"]
    assert json.loads((tmp_path / "gen.meta.json").read_text())["tokens_fed"] is None


@pytest.mark.parametrize("key", ["x", "apple"])
def test_a_key_that_texts_hold_changes_no_answer(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Server() as server:
        assert drawn(engine(server, 40), PROMPT)[0].keys() == FRUIT.keys()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://a/b",
        "http://",
        "http://me:secret@host/v1",
        "ftp://me:secret@host",
        "http://h/v1?key=secret",
        "http://[::1/v1",
        "http://h:x/v1",
        "http://h:99999/v1",
    ],
)
def test_addresses_without_meaning_are_refused(url):
    with pytest.raises(InputError, match="--base-url") as error:
        Service(url, "m")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ["sk-ü", "sk-abc\n", "sk abc"])
def test_a_key_that_no_header_can_hold_is_refused(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        Service("http://localhost/v1", "m")


def test_one_missing_answer_does_not_settle_how_the_rest_is_asked_for():
    with Server() as server:
        asked = engine(server, 100)
        asked.draw(wanted(100, Answers({"apple": 99})))
        asked.draw(wanted(100))
    assert len(server.bodies) == 5


def test_answers_without_text_are_empty_and_told():
    notices = []
    with Server({None: 1.0}) as server:
        server.completion = lambda body, whole=server.completion: json.loads(json.dumps(whole(body)).replace('"None"', "null"))
        assert drawn(engine(server, 40, notices), PROMPT)[0] == {"": 40}
    assert ["without text" in notice for notice in notices] == [True, False]
    assert "all 40 answers are the same" in notices[1]


def written(server, path, n, **more):
    return generate(
        engine(server, n, **more), [PROMPT], SamplingSettings(n), mode="untuned", adapter_sha256=None, path=path, form="json",
        report=lambda *_: None, notice=lambda _: None,
    )  # fmt: skip


@pytest.mark.parametrize(("power", "verdict"), [(1, "✓ model m: follows the target"), (2, "✗ model m: wrong shares")])
def test_a_server_that_ignores_neutral_settings_in_silence_is_found_by_the_verdict(power, verdict, prompt_file, in_process):
    """Nothing in its answers shows a temperature of 1/2; their shares do."""
    prompt = prompt_file(targets=list(FRUIT), weights=list(FRUIT.values()))
    law = {fruit: share**power for fruit, share in FRUIT.items()}
    with Server({fruit: share / sum(law.values()) for fruit, share in law.items()}) as server:
        words = ["--engine", "openai", "--base-url", server.url, "--model", "m", "--prompt", prompt, "-n", "500", "-o", "gen.json"]
        done = in_process("sample", *words, OPENAI_API_KEY="x")
    assert (done.returncode, "refuses" in done.stderr) == (0, False), done.stderr
    assert verdict in in_process("evaluate", "gen.json").stdout


def test_what_arrived_before_an_interruption_is_counted_on_the_next_start(tmp_path, monkeypatch):
    path = tmp_path / "gen.json"
    with Server(most=1, faults=[None] * 20 + [500] * 1000) as server:
        with pytest.raises(MachineError):
            written(server, path, 60, tries=2, concurrency=1)
        seeds = {body["seed"] for body in server.bodies[:20]}
        server.faults, server.bodies = [], []
        done = written(server, path, 60, concurrency=1)
    assert done.counts["p.json"].total() == 60
    assert len(server.bodies) == 40
    assert len(seeds | {body["seed"] for body in server.bodies}) == 60
    assert len(json.loads(path.read_text())["p.json"]) == 60
    assert not (tmp_path / "gen.partial.jsonl").exists()
    stopping = engine(server, 30)
    monkeypatch.setattr(stopping, "draw_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(InterruptedRun, match="interrupted before the first sample"):
        generate(
            stopping, [PROMPT], SamplingSettings(30), mode="untuned", adapter_sha256=None, path=path, form="json",
            report=lambda *_: None, notice=lambda _: None,
        )  # fmt: skip


def test_options_of_the_command_line_reach_the_requests(in_process, prompt_file):
    with Server() as server:
        done = in_process(
            "sample", "--engine", "openai", "--base-url", server.url, "--model", "m", "--prompt", prompt_file(targets=["a", "b"]), "-n", 6,
            "--omit", "seed", "--omit", "top_p", "--n-per-request", 3, "-o", "gen.json",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(body["n"], body.keys() & {"seed", "top_p"}) for body in server.bodies] == [(3, set())] * 2
    wrong = in_process("sample", "--engine", "openai", "--base-url", server.url, "--model", "m", "--request", "x", "--omit", "topp")
    assert wrong.returncode == 2
    assert "--omit topp: not a field of a request. Did you mean 'top_p'?" in wrong.stderr


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-seen")
    with Server() as server:
        written(server, tmp_path / "gen.json", 40)
    assert set(server.keys) == {"Bearer sk-not-to-be-seen"}
    with Server(faults=[401] * 9) as server, pytest.raises(InputError) as error:
        written(server, tmp_path / "more.json", 40)
    echo = "bad key Bearer sk-not-to-be-seen"
    with Server() as server, pytest.raises(InputError) as echoed:
        server.answer = lambda handler: server.send(handler, 401, {"error": {"message": echo}})
        written(server, tmp_path / "echo.json", 40)
    told = capsys.readouterr()
    everything = "".join(path.read_text() for path in tmp_path.iterdir()) + told.out + told.err + f"{error.value} {echoed.value}"
    assert "not-to-be-seen" not in everything


@pytest.mark.model
def test_against_transformers_serve(builtin_model, tmp_path):
    """The same law as the counting engine, by a two-sample test; the server ignores n."""
    from transformers import GenerationConfig

    inner = builtin_model.model
    kept, inner.generation_config = (
        inner.generation_config,
        GenerationConfig(do_sample=True, top_k=0, eos_token_id=2, pad_token_id=2),
    )
    inner.save_pretrained(tmp_path / "model")
    inner.generation_config = kept
    builtin_model.tokenizer.save_pretrained(tmp_path / "model")
    port, process = on_a_free_port(lambda port: started(port, tmp_path / "model", tmp_path / "log"))
    try:
        prompt = Prompt(request="Pick heads or tails. Answer with one word.", targets=(), alias="coin")
        settings = SamplingSettings(60, max_new_tokens=2)
        service = Service(f"http://127.0.0.1:{port}/v1", str(tmp_path / "model"), concurrency=2)
        served, _ = drawn(ServerEngine(service, settings, print), prompt)
    finally:
        process.terminate()
        process.wait(HANG)
    local, _ = drawn(LocalEngine(builtin_model, SamplingSettings(2000, max_new_tokens=2)), prompt)
    assert served.total() == 60
    common = [text for text, count in local.most_common() if count >= 100]
    table = [
        [counts[text] for text in common] + [sum(counts.values()) - sum(counts[t] for t in common)] for counts in (served, local)
    ]
    assert chi2_contingency(np.array(table)).pvalue > 1e-3


def started(port, model, log):
    """`transformers serve` once it listens, with its port; None where somebody else took the port."""
    binary = Path(sys.executable).with_name("transformers")
    words = ["serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with log.open("w") as file:
        process = subprocess.Popen([binary, *words], stdout=file, stderr=file)
    while process.poll() is None:  # the test ends when the process does or listens
        if f"running on http://127.0.0.1:{port}" in log.read_text():
            return port, process
        time.sleep(0.2)
    assert "address already in use" in log.read_text(), log.read_text()
    return None


def test_a_system_text_and_variables_of_the_template_are_sent():
    with Server() as server:
        chat = ChatSettings(template_kwargs={"enable_thinking": False}, system="Be brief.")
        made = ServerEngine(Service(server.url, "m"), SamplingSettings(5), lambda _: None, chat)
        drawn(made, PROMPT)
        drawn(made, PROMPT.model_copy(update={"system": "P."}))
    first, last = server.bodies[0], server.bodies[-1]
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT.request}]
    assert last["messages"][0]["content"] == "P."
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert first["seed"] != last["seed"]
    assert made.about["system"] == "Be brief."


def test_a_chat_template_is_refused_where_the_server_has_its_own():
    with pytest.raises(InputError, match="chat_template has no effect with --engine openai"):
        ServerEngine(Service("http://127.0.0.1:9/v1", "m"), SamplingSettings(5), print, ChatSettings("plain"))


def test_a_conversation_is_sent_as_its_messages():
    turns = [("user", "Hello."), ("assistant", "Hi!"), ("user", "Name a fruit.")]
    said = [{"role": role, "content": text} for role, text in turns]
    own, briefly = {"role": "system", "content": "Be kind."}, {"role": "system", "content": "Be brief."}
    plain, with_system = (
        Prompt(messages=tuple(Message(**turn) for turn in some), targets=("apple",), alias="talk.json")
        for some in (said, [own, *said])
    )
    with Server() as server:
        for chat in (ChatSettings(), ChatSettings(system="Be brief.")):
            for prompt in (plain, with_system):
                drawn(ServerEngine(Service(server.url, "m"), SamplingSettings(2), lambda _: None, chat), prompt)
    assert [body["messages"] for body in server.bodies] == [said, [own, *said], [briefly, *said], [own, *said]]


def test_a_server_is_asked_in_every_wording_and_goes_on_in_the_middle_of_a_prompt(tmp_path):
    """Ten answers to four wordings are 3, 3, 2 and 2; after five requests the server fails."""
    prompt = Prompt(request=("one", "two", "three", "four"), targets=("apple",), alias="p.json")

    def ask(server, path):
        return generate(
            engine(server, 10, n_per_request=1, tries=1, concurrency=1), [prompt], SamplingSettings(10), mode="lora", adapter_sha256=None,
            path=path, form="counts", report=lambda *_: None, notice=lambda _: None,
        )  # fmt: skip

    with Server() as server:
        whole = ask(server, tmp_path / "whole.json")
        server.faults, server.bodies = [None] * 5 + [500] * 9, []
        with pytest.raises(MachineError):
            ask(server, tmp_path / "gen.json")
        server.faults, server.bodies = [], server.bodies[:5]
        done = ask(server, tmp_path / "gen.json")
    asked = Counter(body["messages"][0]["content"] for body in server.bodies)
    assert asked == {"one": 3, "two": 3, "three": 2, "four": 2}
    assert done.counts["p.json"].total() == whole.counts["p.json"].total() == 10
    assert len({body["seed"] for body in server.bodies}) == 10


def test_requests_in_several_wordings_are_under_way_together_and_told_as_one_prompt():
    """Of nine requests, 3 and three times 2, the first goes alone; the others wait until four are there."""
    wordings = Prompt(request=("one", "two", "three", "four"), targets=("apple", "pear"), alias="p.json")
    notices, arrived = [], Counter()
    with Server({"apple": 1.0}, meet=4) as server:
        engine(server, 9, notices, n_per_request=1, concurrency=4).draw_all([
            Wanted(wording, count, Answers(), lambda some, _, name=wording.alias: arrived.update({name: some.total()}), lambda _: None)
            for wording, count in shares(wordings, 9)
        ])  # fmt: skip
    assert arrived == {"p.json#1": 3, "p.json#2": 2, "p.json#3": 2, "p.json#4": 2}
    assert server.most_together == 4
    assert notices == [], "nine alike are too few to say so"
    with Server({"apple": 1.0}) as server:
        engine(server, 16, notices).draw_all([
            Wanted(wording, count, Answers(), lambda *_: None, lambda _: None) for wording, count in shares(wordings, 16)
        ])  # fmt: skip
    assert [notice.partition(". ")[0] for notice in notices] == ["p.json: all 16 answers are the same"]


def test_a_server_that_cannot_be_reached_is_reported_with_its_address():
    with closed_port() as port, pytest.raises(MachineError) as error:
        drawn(ServerEngine(Service(f"http://127.0.0.1:{port}/v1", "m", tries=1), SamplingSettings(2), print), PROMPT)
    said = f"http://127.0.0.1:{port}/v1: 1 try failed for the model m. Last error: Connection error (ConnectError). "
    assert str(error.value).startswith(f"{said}Check that --base-url is right and that the server runs, then ")
