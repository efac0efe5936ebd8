"""The routes of servers that return log-probabilities of given text: which requests are sent."""

import asyncio
from collections import Counter

from diffusecli.models.chat import ChatSettings
from diffusecli.sampling.answer_paths import Asked, paths_of
from diffusecli.sampling.connection import Service
from diffusecli.sampling.given_text import LlamaCpp


class Routes:
    """llama.cpp's routes with a token per character; counts requests."""

    def __init__(self):
        self.asked = Counter()

    async def fetch(self, address, body=None):
        route = address.rsplit("/", 1)[1]
        self.asked[route] += 1
        if route == "apply-template":
            return {"prompt": "".join(f"<{turn['role']}>{turn['content']}|" for turn in body["messages"]) + "<assistant>"}
        if route == "detokenize":
            return {"content": "".join(map(chr, body["tokens"]))}
        return {"tokens": [ord(sign) for sign in body["content"]]}


def test_llama_cpp_renders_a_prompt_once_for_all_answers():
    routes = Routes()
    server = LlamaCpp(routes, Service("http://h/v1", "m"), ChatSettings())
    for request in ("q", "r"):
        found = asyncio.run(paths_of(Asked("p", ({"role": "user", "content": request},), tuple(map(str, range(50)))), server))
        assert "".join(map(chr, found.answers[49])) == "49|"
    assert routes.asked["apply-template"] == 2 * 2, "each prompt, and a conversation that shows the end of its answers"
