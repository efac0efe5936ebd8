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

from diffusecli.chat import ChatSettings
from diffusecli.engines import drawn
from diffusecli.errors import InputError, InterruptedRun, MachineError
from diffusecli.generations import generate
from diffusecli.local import LocalEngine
from diffusecli.prompt import Prompt
from diffusecli.sampling import SamplingSettings
from diffusecli.served import ServerEngine, Service, _Pace
from tests.conftest import HANG, closed_port, on_a_free_port
from tests.test_sampling import assert_follows, exact_law

pytest.importorskip("openai")

PROMPT = Prompt(request="x", targets=(), alias="p.json")
FRUIT = {"apple": 0.5, "pear": 0.3, "plum": 0.2}


class Server:
    """Answers from a law; `faults` are taken one by one before it behaves. Keeps every request.

    All but the first request wait until `meet` of them are there; a `silent` server never answers.
    """

    def __init__(self, law=FRUIT, *, most=None, refuses=(), faults=(), delay=0.0, meet=1, silent=False):
        self.law, self.most, self.refuses, self.faults, self.delay = law, most, set(refuses), list(faults), delay
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
        rng = np.random.default_rng(body["seed"])
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
    monkeypatch.setattr("diffusecli.served._FIRST_PAUSE", 0.01)


def engine(server, n=200, notices=None, settings=(), **more):
    said = notices.append if notices is not None else lambda _: None
    return ServerEngine(Service(server.url, "m", **more), SamplingSettings(n, **dict(settings)), said)


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
def test_the_law_of_a_hundred_thousand_answers(monkeypatch):
    law = exact_law(3)
    from tests.test_sampling import TOKENIZER

    texts = Counter()
    for ids, p in law.items():
        texts[TOKENIZER.decode(list(ids))] += p
    total = sum(texts.values())
    monkeypatch.setattr("diffusecli.served._MOST_CHOICES", 1000)
    with Server({text: p / total for text, p in texts.items()}) as server:
        counts, _ = drawn(engine(server, 100_000, concurrency=4), PROMPT)
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
        ("text", MachineError, "greeting"),
        ("cut", MachineError, "the same command goes on"),
    ],
)
def test_faults_that_do_not_pass_are_told_in_a_sentence(fault, error, message):
    with Server(faults=[fault] * 50) as server, pytest.raises(error, match=message):
        drawn(engine(server, tries=3), PROMPT)


def test_a_refusal_half_way_is_told_and_what_came_before_is_kept():
    kept = Counter()
    with Server(faults=[None, None, 400], most=1) as server, pytest.raises(InputError, match="refuses the request"):
        engine(server, 20, concurrency=1).draw(PROMPT, Counter(), lambda counts, _: kept.update(counts), lambda _: None)
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
        paced._pace = Counted()
        drawn(paced, PROMPT)
        drawn(paced, PROMPT)
    assert len(turns) == len(server.bodies) == 25


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
        asked.draw(PROMPT, Counter({"apple": 99}), lambda *_: None, lambda _: None)
        asked.draw(PROMPT, Counter(), lambda *_: None, lambda _: None)
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
    monkeypatch.setattr(stopping, "draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(InterruptedRun, match="0 of 30 samples are kept"):
        generate(
            stopping, [PROMPT], SamplingSettings(30), mode="untuned", adapter_sha256=None, path=path, form="json",
            report=lambda *_: None, notice=lambda _: None,
        )  # fmt: skip


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
