"""`sample --engine openai` against a real llama.cpp server with a tiny random model: does it draw the model's own distribution?"""

import json
import socket
from collections import Counter
from urllib.error import HTTPError

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare

from diffusecli.models import gguf_export
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.draws import stream_seed
from tests.models import llama_cpp
from tests.models.llama_cpp import NEUTRAL, LlamaServer, served
from tests.models.test_gguf_out import VOCABULARY, tokenizer_like_gpt2, write
from tests.tiny import tiny_llama

pytest.importorskip("openai")
pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")

REQUEST = "Say a letter."
ENDS = (0, 2)  # <|endoftext|> and <|im_end|>: llama.cpp ends answers at both
REST = "(rest)"
SLOTS = 8
ALMOST_NEVER = 1e-5
"""A sampler without a fault has a lower p-value once in 100 000 seeds. The seed is fixed."""


def letters_model(**more):
    """A random model that says letters, or nothing more: the end is as likely as a g, other tokens are rare."""
    model = tiny_llama(vocabulary=VOCABULARY, seed=3, tie_word_embeddings=False, **more)
    weight, texts = model.lm_head.weight.data, [tokenizer_like_gpt2().decode([token]) for token in range(VOCABULARY)]
    weight[[token for token, text in enumerate(texts) if not (text.isascii() and text.isalpha())]] = 0
    weight[2] = weight[texts.index("g")]
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model as the files have it; as we export it, and without the sampling defaults that our export adds."""
    model, neutral = letters_model(), gguf_export.NEUTRAL
    found = {"exported": write(tmp_path_factory.mktemp("exported") / "m", model)}
    gguf_export.NEUTRAL = {}
    try:
        return model, found | {"plain": write(tmp_path_factory.mktemp("plain") / "m", model)}
    finally:
        gguf_export.NEUTRAL = neutral


@pytest.fixture(scope="module")
def server(files):
    with served(files[1]["plain"], context=64, slots=SLOTS) as running:
        yield running


@pytest.fixture(scope="module")
def law(files):
    """The probability of each text of at most two tokens in ASCII, and the share of answers that two tokens do not finish."""
    model, tokenizer = files[0], tokenizer_like_gpt2()
    prompt = encode_prompt(Prompt(request=REQUEST, targets=()), Chat(tokenizer)).prompt_ids
    with torch.no_grad():
        first = model(torch.tensor([list(prompt)])).logits[0, -1].double().softmax(-1)
        rows = torch.tensor([[*prompt, token] for token in range(VOCABULARY)])
        second = model(rows).logits[:, -1].double().softmax(-1)
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(VOCABULARY)]
    found, unfinished = Counter(), 0.0
    for one in range(VOCABULARY):
        if one in ENDS:
            found[""] += float(first[one])
            continue
        for other in range(VOCABULARY):
            p = float(first[one] * second[one, other])
            text = texts[one] + ("" if other in ENDS else texts[other])
            found[text if text.isascii() else REST] += p
            unfinished += 0.0 if other in ENDS else p
    assert sum(found.values()) == pytest.approx(1)
    return found, unfinished


def p_value(counts, law):
    """Pearson's test. Rare texts, and those that are not in the law, are one cell."""
    n = counts.total()
    common = [text for text, p in law.items() if n * p >= 10 and text != REST]
    seen = [counts[text] for text in common]
    expected = [n * law[text] for text in common]
    return chisquare([*seen, n - sum(seen)], [*expected, n - sum(expected)]).pvalue


@pytest.fixture
def sampled(server, in_process, prompt_file, tmp_path):
    """Sample a server with the command: the answers counted, how many were not finished, and what the command says."""

    def run(*words, n=2000, at=server, name="s.json"):
        done = in_process(
            "sample", "--engine", "openai", "--base-url", f"{at.address}/v1", "--model", "tiny", "--prompt", prompt_file("p.json"),
            "-n", n, "--max-new-tokens", 2, "--format", "counts", "-o", tmp_path / name, *words,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        meta = json.loads((tmp_path / name).with_suffix(".meta.json").read_text())
        (counts,), (cut,) = json.loads((tmp_path / name).read_text()).values(), meta["unfinished"].values()
        return Counter(counts), sum(cut.values()), meta

    return run


def test_answers_follow_the_models_own_distribution(sampled, law):
    counts, unfinished, meta = sampled()
    assert counts.total() == 2000
    assert p_value(counts, law[0]) > ALMOST_NEVER
    assert binomtest(unfinished, 2000, law[1]).pvalue > ALMOST_NEVER
    assert 0.5 < law[1] < 0.99, "some answers end before the limit, some do not"
    assert "refused" not in meta, "the server knows all fields"


@pytest.mark.parametrize("left", [["temperature", "top_k", "top_p", "min_p"], ["min_p"]])
def test_the_servers_own_defaults_would_bend_it(sampled, server, law, left):
    default = server.get("props")["default_generation_settings"]["params"]
    assert [round(default[name], 4) for name in ("temperature", "top_k", "top_p", "min_p")] == [0.8, 40, 0.95, 0.05]
    counts, _, meta = sampled(*(word for name in left for word in ("--omit", name)))
    assert p_value(counts, law[0]) < 1e-12
    assert meta["omitted"] == sorted(left)


def test_a_file_that_we_export_has_neutral_defaults(files, sampled, law):
    with served(files[1]["exported"], context=64, slots=SLOTS) as own:
        counts, _, _ = sampled("--omit", "temperature", "--omit", "top_k", "--omit", "top_p", "--omit", "min_p", at=own)
    assert p_value(counts, law[0]) > ALMOST_NEVER


def test_the_same_seed_repeats_answers_and_another_does_not(sampled):
    """Whether or not the prompt is cached, and whatever else the server does at the time."""
    first, _, _ = sampled(n=300)
    assert sampled("--concurrency", 1, n=300, name="again.json")[0] == first
    assert sampled("--seed", 1, n=300, name="other.json")[0] != first


def test_the_answers_of_one_request_have_the_seeds_that_follow(server):
    """So the seeds of our requests must be far apart."""
    asked = {"messages": [{"role": "user", "content": REQUEST}], "max_tokens": 2, **NEUTRAL}

    def answers(seed, n):
        return [
            choice["message"]["content"]
            for choice in server.post("v1/chat/completions", {**asked, "seed": seed, "n": n})["choices"]
        ]

    assert answers(5, 4) == [answers(seed, 1)[0] for seed in range(5, 9)]
    assert len(set(answers(5, 8))) > 1
    seeds = np.sort([stream_seed(0, tuple(REQUEST.encode()), 0, place) for place in range(0, 8000, SLOTS)])
    assert np.diff(seeds).min() > SLOTS


def test_more_answers_per_request_than_slots_are_refused_and_the_request_shrinks(server, sampled):
    with pytest.raises(HTTPError) as refused:
        server.post("v1/chat/completions", {"messages": [{"role": "user", "content": REQUEST}], "n": SLOTS + 1})
    assert refused.value.code == 400
    assert f"1 <= value <= {SLOTS}" in refused.value.read().decode()
    assert sampled("--n-per-request", 64, n=20, name="many.json")[0].total() == 20
    _, _, meta = sampled(n=64)
    assert meta["tokens_fed"] == 64 // SLOTS * 34, "the server counts the tokens of the prompt and of one answer of a request"


def test_an_answer_ends_before_a_stop_text(sampled, law):
    counts, _, _ = sampled("--stop", "H")
    cut = Counter()
    for text, p in law[0].items():
        cut[text.partition("H")[0]] += p
    assert p_value(counts, cut) > ALMOST_NEVER
    assert not [text for text in counts if "H" in text]
    assert p_value(counts, law[0]) < 1e-12, "the stop text matters here"


def test_a_hang_and_a_failed_start_end_in_an_error_that_names_them(monkeypatch, tmp_path):
    monkeypatch.setattr(llama_cpp, "SLOWEST", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = LlamaServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(AssertionError, match="hangs: no answer to /props"):
            hanging.get("props")
    monkeypatch.undo()
    with pytest.raises(AssertionError, match=r"did not start with .*missing\.gguf"), served(tmp_path / "missing.gguf"):
        pass
