"""llama.cpp as a server on the loopback interface, for tests: does it compute and split text as our files say?"""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}


@dataclass(frozen=True)
class LlamaServer:
    """A running server."""

    address: str

    def post(self, route, body):
        content, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/{route}", content, kind)  # noqa: S310 (loopback)
        with urllib.request.urlopen(request) as answer:  # noqa: S310 (loopback)
            return json.load(answer)

    def get(self, route):
        with urllib.request.urlopen(f"{self.address}/{route}") as answer:  # noqa: S310 (loopback)
            return json.load(answer)

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
    """Serve a GGUF file as `llama-server` does, on a free port of the loopback interface."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = context * slots, slots, threads
    params.cpuparams_batch.n_threads, params.verbosity = threads, 0
    params.endpoint_props = True
    params.warmup = params.fit_params = False
    if lora is not None:
        adapter = xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)
        params.lora_adapters = [adapter]
    server = xllamacpp.Server(params)
    try:
        yield LlamaServer(server.listening_address)
    finally:
        del server
