"""llama.cpp as a server on the loopback interface, for tests: does it compute and split text as our files say?"""

import json
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}

SLOWEST = 300  # seconds for a start or an answer, which take less than ten: more is a hang

_SERVER = """
import json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # messages of llama.cpp
import xllamacpp

asked = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = asked["path"]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel = asked["context"] * asked["slots"], asked["slots"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
params.verbosity, params.endpoint_props = 0, True
params.warmup = params.fit_params = False
if asked["lora"]:
    adapter = xllamacpp.CommonAdapterLoraInfo(asked["lora"], 1.0)
    params.lora_adapters = [adapter]
server = xllamacpp.Server(params)
print(server.listening_address, file=out, flush=True)
sys.stdin.read()  # until the tests end, whatever ends them
os._exit(0)
"""


@dataclass(frozen=True)
class LlamaServer:
    """A running server."""

    address: str

    def post(self, route, body):
        return self._answer(route, json.dumps(body).encode())

    def get(self, route):
        return self._answer(route, None)

    def _answer(self, route, content):
        request = urllib.request.Request(f"{self.address}/{route}", content, {"Content-Type": "application/json"})  # noqa: S310 (loopback)
        try:
            with urllib.request.urlopen(request, timeout=SLOWEST) as answer:  # noqa: S310 (loopback)
                return json.load(answer)
        except TimeoutError as error:
            raise AssertionError(f"llama.cpp hangs: no answer to /{route} in {SLOWEST} s") from error

    def tokens(self, text, *, special=True, add_special=False):
        return self.post("tokenize", {"content": text, "parse_special": special, "add_special": add_special})["tokens"]

    def text(self, ids):
        return self.post("detokenize", {"tokens": list(ids)})["content"]

    def prompt_tokens(self, messages):
        """The prompt that a chat request makes, in tokens."""
        return self.tokens(self.post("apply-template", {"messages": messages})["prompt"], add_special=True)

    def log_probs(self, ids, vocabulary, most=None):
        """Ln of the probabilities of the next token [V], before sampling; -inf for all but the `most` likely tokens.

        The grammar chooses the token that is sampled: without text in the answer, there would be no probabilities in it.
        """
        asked = {"prompt": list(ids), "n_predict": 1, "n_probs": most or vocabulary, "grammar": 'root ::= "a"', **NEUTRAL}
        done = self.post("completion", asked)
        found = np.full(vocabulary, -np.inf)
        for entry in done["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def draws(self, ids, count, seed):
        """Answers that the server samples in one request; it needs as many slots."""
        asked = {"prompt": list(ids), "n_predict": 8, "n_cmpl": count, "seed": seed, **NEUTRAL, "cache_prompt": True}
        return [answer["content"] for answer in self.post("completion", asked)]

    def path_log_probs(self, prompt_ids, trie, vocabulary, most=None):
        """Ln of the probability of each path of a tree [J]: one request per prefix."""
        known = {}
        totals = []
        for leaf in range(len(trie.leaves)):
            path, total = trie.path(leaf), 0.0
            for place, token in enumerate(path):
                before = tuple(path[:place])
                if before not in known:
                    known[before] = self.log_probs([*prompt_ids, *before], vocabulary, most)
                total += known[before][token]
            totals.append(total)
        return np.array(totals)


@contextmanager
def served(path, *, lora=None, context=512, slots=1, threads=1) -> Iterator[LlamaServer]:
    """Serve a GGUF file as `llama-server` does, on a free port of the loopback interface.

    The server is a process of its own: if its C code hangs with the interpreter's lock, only requests to it fail.
    """
    asked = {"path": str(path), "lora": lora and str(lora), "context": context, "slots": slots, "threads": threads}
    command = [sys.executable, "-c", _SERVER, json.dumps(asked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            started, _, _ = select.select([process.stdout], [], [], SLOWEST)
            assert started, f"llama.cpp hangs: it did not start with {path} in {SLOWEST} s"
            address = process.stdout.readline().strip()
            assert address, f"llama.cpp did not start with {path}. Its messages are on stderr"
            yield LlamaServer(address)
        finally:
            process.kill()
