"""A tokenizer with more tokens than the model's embedding, and an embedding with more rows than the tokenizer has tokens."""

import json
from collections import Counter

import pytest
import yaml

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.models.tokens import decode_answer
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from tests.tiny import CHATML, byte_tokenizer, tiny_llama

ROWS = 259  # of the tiny model: the tokens of bytes and three special ones
EXTRA = ["<|eot|>", "<|x|>"]  # ids 259 and 260; the word 261 is an ordinary token


def larger_tokenizer(template=CHATML, eos="<|im_end|>"):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": EXTRA})
    tokenizer.add_tokens(["zyx"])
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    return tokenizer


PLACES = {
    "the request or its chat template": (CHATML, "Say <|x|>.", "{a}", "<|x|>", 260),
    "the target '{zyx}'": (CHATML, "Say it.", "{zyx}", "zyx", 261),
    "the end of every answer": (CHATML.replace("{{ m['content'] }}<|im_end|>", "{{ m['content'] }}{{ '<|eot|>' if m['role'] == 'assistant' else '<|im_end|>' }}"), "Say it.", "{a}", "<|eot|>", 259),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Write a model folder; and what is asked of it."""

    def make(template=CHATML, request="Say it.", target="{a}", rows=ROWS, **fields):
        path = tmp_path / "model"
        tiny_llama(rows).save_pretrained(path)
        larger_tokenizer(template).save_pretrained(path)
        (tmp_path / "p.json").write_text(json.dumps({"request": request, "targets": [target, "{b}"]}))
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({
            "model": "model", "train_prompts": ["p.json"], "test_prompts": ["p.json"], "output_dir": "results/r", "retain": False,
            "alg_config": {"n_iters": 1}, "generate": False, "device": "cpu", **fields,
        }))  # fmt: skip
        return path

    return make


COMMANDS = {
    "validate": (("validate", "p.json", "--model", "model"), 1), "dry run": (("train", "c.yaml", "--dry-run"), 2),
    "train": (("train", "c.yaml"), 2), "sample": (("sample", "--model", "model", "--prompt", "p.json", "-n", 5), 2),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_token_beyond_the_embedding_is_named_by_every_command(folder, in_process, command, place):
    template, request, target, token, number = PLACES[place]
    folder(template, request, target)
    words, code = COMMANDS[command]
    done = in_process(*words)
    assert done.returncode == code, done.stderr
    assert (
        f"p.json: {place} contains the token '{token}' (id {number}), but the model's embedding has {ROWS} rows (ids 0 to {ROWS - 1}). "
        "Use the tokenizer that belongs to the model"
    ) in done.stderr


@pytest.mark.parametrize(
    "words", [("validate", "c.yaml", "--model", "model"), ("train", "c.yaml", "--dry-run"), ("train", "c.yaml")]
)
def test_so_is_one_in_a_retention_instruction(folder, in_process, tmp_path, words):
    for number, request in enumerate(["Name a river.", "Name a hill.", "What is <|x|>?"]):
        (tmp_path / f"i{number}.json").write_text(json.dumps({"request": request, "targets": []}))
    folder(retain={"prompts": [f"i{number}.json" for number in range(3)]})
    done = in_process(*words)
    assert done.returncode != 0
    assert "i2.json: the request or its chat template contains the token '<|x|>' (id 260)" in done.stderr


def test_and_in_a_built_in_instruction(folder, in_process):
    folder(CHATML.replace("m['content']", "m['content'] | replace('Explain', '<|x|>')"), retain={"weight": 1.0})
    for words in [("validate", "c.yaml", "--model", "model"), ("train", "c.yaml", "--dry-run"), ("train", "c.yaml")]:
        done = in_process(*words)
        assert done.returncode != 0
        assert "instruction " in done.stderr
        assert "contains the token '<|x|>' (id 260)" in done.stderr


def test_a_larger_tokenizer_whose_further_tokens_are_not_used_changes_nothing(folder, in_process, tmp_path):
    folder()
    for words, _ in COMMANDS.values():
        done = in_process(*words)
        assert done.returncode == 0, done.stderr
    chat = Chat(larger_tokenizer(), rows=ROWS)
    prompt = Prompt(request="Say it.", targets=("{a}", "{b}"))
    assert encode_prompt(prompt, chat) == encode_prompt(prompt, Chat(byte_tokenizer()))


def test_run_and_export_name_it_when_the_tokenizer_grew_later(folder, in_process, tmp_path):
    path = folder(rows=ROWS)
    assert in_process("train", "c.yaml").returncode == in_process("sample", "results/r", "-n", 3).returncode == 0
    tokenizer = larger_tokenizer("<|x|>" + CHATML)
    tokenizer.save_pretrained(path)
    assert in_process("sample", "results/r", "-n", 3).returncode == 2
    for words in [("evaluate", "results/r", "--exact"), ("export", "results/r", "-o", "merged")]:
        done = in_process(*words)
        assert done.returncode == 2
        assert "contains the token '<|x|>' (id 260)" in done.stderr, done.stderr
    assert not (tmp_path / "merged").exists()


def test_a_stop_token_that_the_model_cannot_say_stops_nothing_and_is_told():
    """Not even as what fills up the rows of a batch."""
    tokenizer = larger_tokenizer(eos="zyx")
    prompt = Prompt(request="Say it.", targets=("{a}", "{b}"), alias="p")
    encoded = encode_prompt(prompt, Chat(tokenizer, frozenset({260}), rows=ROWS))
    assert encoded.stop_ids == {2}
    assert encoded.remarks == tuple(
        f"the token '{name}' (id {number}) should end an answer, but the model's embedding has only 259 rows, so the model never generates it"
        for name, number in (("<|x|>", 260), ("zyx", 261))
    )
    assert encode_prompt(prompt, Chat(tokenizer, frozenset({260}))).stop_ids == {2, 260, 261}


class InPython:
    """A tokenizer that fails for ids it does not have, as those in Python do."""

    def __init__(self):
        self.whole = byte_tokenizer()

    def __call__(self, *given, **more):
        return self.whole(*given, **more)

    def convert_ids_to_tokens(self, ids):
        return [self.whole.convert_ids_to_tokens(list(range(259)))[number] for number in ids]

    def decode(self, ids, **more):
        self.convert_ids_to_tokens(ids)
        return self.whole.decode(ids, **more)


@pytest.mark.parametrize("make", [byte_tokenizer, InPython])
@pytest.mark.parametrize(("ids", "text"), [([300], "�"), ([68, 300], "a�"), ([300, 68, 301, 302], "�a��"), ([68], "a")])
def test_an_id_that_the_tokenizer_lacks_is_a_sign_that_no_answer_holds(make, ids, text):
    tokenizer = make()
    a = byte_tokenizer()("a", add_special_tokens=False)["input_ids"][0]
    assert decode_answer(tokenizer, [a if number == 68 else number for number in ids]) == text


@pytest.mark.parametrize("max_rows", [None, 3])
def test_a_padded_embedding_is_sampled_whatever_it_says(max_rows):
    """Half of what a random model says is beyond the tokenizer."""
    base = LoadedModel("m", tiny_llama(600), byte_tokenizer(), "r")
    engine = LocalEngine(base, SamplingSettings(200, 3), max_rows)
    counts, _ = drawn(engine, Prompt(request="x", targets=("{a}",), alias="p"))
    assert counts.total() == 200
    assert Counter("�" in text for text in counts.elements())[True] > 20
