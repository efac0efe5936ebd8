"""Servers on the loopback interface that compute with a real model and answer in the format of others: vLLM, OpenAI."""

import json

import torch

from tests.sampling.test_server_engine import Server


class ModelServer(Server):
    """A model behind the routes of `routes`: path -> function of the body. All others have the response `missing`."""

    missing = 404, {"detail": "Not Found"}

    def __init__(self, model, tokenizer):
        super().__init__()
        self.model, self.tokenizer, self.asked = model, tokenizer, []

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.asked.append((handler.path, body))
        route = self.routes.get(handler.path)
        status, content = route(body) if route else self.missing
        self.send(handler, status, content)

    def rendered(self, messages, **how):
        return self.tokenizer(self.tokenizer.apply_chat_template(messages, tokenize=False, **how))["input_ids"]

    def log_probs(self, ids):
        """Ln of the probabilities of the next token after each token [T, V]."""
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)


class Vllm(ModelServer):
    """`/tokenize` and `prompt_logprobs` as vLLM documents them."""

    @property
    def routes(self):
        return {"/tokenize": self.tokenize, "/detokenize": self.detokenize, "/v1/completions": self.complete}

    def tokenize(self, body):
        if "messages" in body:
            kwargs = body.get("chat_template_kwargs", {})
            ids = self.rendered(body["messages"], add_generation_prompt=body["add_generation_prompt"], **kwargs)
        else:
            ids = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
        return 200, {"count": len(ids), "max_model_len": 1024, "tokens": ids, "token_strs": None}

    def detokenize(self, body):
        return 200, {"prompt": self.tokenizer.decode(body["tokens"])}

    def complete(self, body):
        ids, each = body["prompt"], self.log_probs(body["prompt"])
        places = [None]
        for place, token in enumerate(ids[1:]):
            likeliest = int(each[place].argmax())
            shown = dict.fromkeys([token, likeliest])
            places.append({str(one): {"logprob": float(each[place, one]), "rank": 1, "decoded_token": "?"} for one in shown})
        choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length", "prompt_logprobs": places}
        return 200, {"id": "1", "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice]}


class OpenAi(ModelServer):
    """Chat completions with `top_logprobs`, at most `most` of them."""

    def __init__(self, model, tokenizer, most=20, newer=False):
        super().__init__(model, tokenizer)
        self.most, self.newer = most, newer

    @property
    def routes(self):
        return {"/v1/chat/completions": self.chat}

    def chat(self, body):
        if body.get("top_logprobs", 0) > self.most:
            return 400, {"error": {"message": f"top_logprobs must be at most {self.most}", "param": "top_logprobs"}}
        if self.newer and "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}}
        first = self.log_probs(self.rendered(body["messages"], add_generation_prompt=True))[-1]
        listed = [self.entry(token, first) for token in first.topk(body["top_logprobs"]).indices.tolist()]
        choice = {
            "index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "x"},
            "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]},
        }  # fmt: skip
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}

    def entry(self, token, log_probs):
        """A byte of the tokenizer of tests is a token; special tokens have no text."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        own = [] if token in self.tokenizer.all_special_ids or token < 3 else byte_of(piece)
        return {"token": bytes(own).decode("utf-8", "replace"), "bytes": own, "logprob": float(log_probs[token])}


class Silent(ModelServer):
    """Chat completions without log-probabilities."""

    @property
    def routes(self):
        return {"/v1/chat/completions": self.chat}

    def chat(self, body):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}, "logprobs": None}
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}


def byte_of(piece):
    """The bytes of a piece in the alphabet of byte-level tokenizers."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    known = {sign: byte for byte, sign in bytes_to_unicode().items()}
    return [known[sign] for sign in piece]
