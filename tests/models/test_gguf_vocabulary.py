"""Tokenizers in GGUF files: llama.cpp splits text as the tokenizer does, or the export is refused."""

import pytest
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from diffusecli.models.chat import ChatSettings
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.gguf_export import GgufPlan
from diffusecli.models.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, end_tokens, merge_scores, vocabulary
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from tests.models.llama_cpp import served
from tests.models.test_gguf_out import tokenizer_like_gpt2
from tests.models.test_tokenizers import LLAMA_2, MISTRAL_V3
from tests.models.tokenizers import real_tokenizer

TEXTS = [
    "Hello world", "tab\tand\n\nnew lines\n", "1234567 and 3.14, 2024-01-05", "don't DON'T we'll I'M", "naïve café Ünïcode",
    "日本語テキスト 한국어", "emoji 🎉🏳️‍🌈 ok", '{7} {10} {"a": 1}', "a.b,c;d:e!f?g(h)[i]", "trailing   ", "CamelCase snake_case ALLCAPS",
    "\n\n\n\n", "x" * 50, "\u00a0nbsp\u2003em", "Привет мир", "مرحبا", "\\ / | ~ ` @ # $ % ^ & *", "hello\r\nworld", "'s 't", "−5 ½ ²",
    *("a" + sign * count + "b" for sign in " \n\t" for count in (2, 3, 5, 30, 31, 32, 40)),
]  # fmt: skip


def written(tokenizer, folder, template=None, rows=None):
    """The GGUF file of a tiny model with this tokenizer, its plan, and the prompt in tokens."""
    config = LlamaConfig(
        vocab_size=rows or len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None,
    )  # fmt: skip
    base = LoadedModel("m", LlamaForCausalLM(config).eval(), tokenizer, "r", ChatSettings(template))
    encoded = encode_prompt(Prompt(request="Say a letter, {x}: 12.", targets=("{a}", "{b}")), base.chat)
    plan = GgufPlan.of(base, [encoded], base.chat.template, folder, "f16")
    plan.write(folder, base.model)
    return plan, encoded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "template", "model", "pre"),
    [
        ("llama-2", LLAMA_2, "llama", "default"),
        ("llama-3", None, "gpt2", "llama-bpe"),
        ("llama-3.1", None, "gpt2", "llama-bpe"),
        ("qwen-3", None, "gpt2", "qwen2"),
        ("gemma-3", None, "llama", "default"),
        ("mistral-v3", MISTRAL_V3, "llama", "default"),
        ("mistral-nemo", MISTRAL_V3, "gpt2", "tekken"),
        pytest.param("built-in", None, "gpt2", "smollm", marks=pytest.mark.model),
    ],
)
def test_llama_cpp_has_the_same_tokens(source, template, model, pre, tmp_path, request):
    """Also of whole prompts, with one BOS token, and Qwen's empty block of thoughts that is part of the prompt in training."""
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    if source == "built-in":
        tokenizer = request.getfixturevalue("builtin_model").tokenizer
    else:
        tokenizer = real_tokenizer(source, request.config.cache.mkdir("tokenizers"))
    plan, encoded = written(tokenizer, tmp_path, template)
    assert (plan.metadata["tokenizer.ggml.model"], plan.metadata["tokenizer.ggml.pre"]) == (model, pre)
    with served(tmp_path / plan.file) as server:
        start = tokenizer.bos_token if model == "llama" else ""  # at the very start of a text, some put a space before it
        texts = [start + text for text in TEXTS]
        different = [text for text in texts if server.tokens(text) != tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert different == []
        written_with_spaces = [
            token for token, (piece, kind) in enumerate(tokens_and_types(plan)) if kind == USER_DEFINED and " " in piece
        ]
        assert [token for token in written_with_spaces if server.text([token]) != tokenizer.decode([token])] == []
        assert len(written_with_spaces) == (30 if source == "gemma-3" else 0)
        assert tuple(server.prompt_tokens([{"role": "user", "content": "Say a letter, {x}: 12."}])) == encoded.prompt_ids


def tokens_and_types(plan):
    return zip(plan.metadata["tokenizer.ggml.tokens"], plan.metadata["tokenizer.ggml.token_type"], strict=True)


def metadata(tokenizer, rows=None, texts=("{a}",), *, begins=False):
    return vocabulary(tokenizer, rows or len(tokenizer), texts, begins=begins)


def test_tokens_types_and_merges_are_those_of_the_tokenizer():
    tokenizer = tokenizer_like_gpt2()
    tokenizer.add_tokens(["<note>"])
    made = metadata(tokenizer, rows=263)
    tokens, types = made["tokenizer.ggml.tokens"], made["tokenizer.ggml.token_type"]
    assert (tokens[1], types[1]) == ("<|im_start|>", CONTROL)
    assert (tokens[259], types[259]) == ("ab", NORMAL)
    assert (tokens[260], types[260]) == ("<note>", USER_DEFINED)
    assert (tokens[261:], types[261:]) == (["[PAD261]", "[PAD262]"], [UNUSED, UNUSED])
    assert made["tokenizer.ggml.merges"] == ["a b"]
    assert (made["tokenizer.ggml.model"], made["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert made["tokenizer.ggml.padding_token_id"] == 0
    assert "tokenizer.ggml.bos_token_id" not in made


def test_tokens_without_a_row_in_the_model_are_left_out():
    assert len(metadata(tokenizer_like_gpt2(), rows=200)["tokenizer.ggml.tokens"]) == 200


@pytest.mark.parametrize(
    ("steps", "whole", "name"),
    [
        ([pre_tokenizers.ByteLevel(add_prefix_space=False)], False, "gpt-2"),
        ([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)], False, "smollm"),
        ([pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)], False, None),
        ([pre_tokenizers.ByteLevel(add_prefix_space=True)], False, None),
        ([pre_tokenizers.ByteLevel(add_prefix_space=False)], True, None),
        ([pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], False, None),
    ],
)  # fmt: skip
def test_a_pre_tokenizer_is_named_by_its_structure_or_refused(steps, whole, name):
    tokenizer = tokenizer_like_gpt2()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.backend_tokenizer.model.ignore_merges = whole
    if name is None:
        with pytest.raises(InputError, match=r"llama\.cpp has no name for the pre-tokenizer"):
            metadata(tokenizer)
    else:
        assert metadata(tokenizer)["tokenizer.ggml.pre"] == name


def test_text_that_llama_cpp_would_not_compose_is_refused():
    tokenizer = tokenizer_like_gpt2()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    metadata(tokenizer, texts=["caf\u00e9"])
    with pytest.raises(InputError, match="composes characters"):
        metadata(tokenizer, texts=["cafe\u0301"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match=r"normalises text \(Lowercase\)"):
        metadata(tokenizer)


@pytest.mark.parametrize("flag", ["lstrip", "single_word"])
def test_tokens_that_change_text_around_them_are_refused(flag):
    tokenizer = tokenizer_like_gpt2()
    tokenizer.add_tokens([AddedToken("<mask>", **{flag: True})])
    with pytest.raises(InputError, match="<mask>"):
        metadata(tokenizer)


def test_white_space_after_special_tokens_is_removed_as_in_phi_3_or_refused(tmp_path):
    """llama.cpp removes it for models with Phi-3 in their name, after all special tokens but three."""
    tokenizer = tokenizer_like_gpt2()
    tokenizer.add_tokens([AddedToken("<|user|>", rstrip=True)])
    with pytest.raises(InputError, match=r"'<\|im_start\|>' .* treats white space after it differently from Phi-3"):
        metadata(tokenizer)


def test_a_folder_named_after_phi_3_does_not_change_the_tokenizer(tmp_path):
    folder = tmp_path / "my-Phi-3"
    folder.mkdir()
    plan, _ = written(tokenizer_like_gpt2(), folder)
    assert (plan.metadata["general.name"], plan.file) == ("merged model", "my-Phi-3-F16.gguf")


def test_scores_join_pairs_in_the_order_of_the_merges():
    assert merge_scores(["t h", "th e", "t he"]) == {"th": -1.0, "the": -2.0}
    with pytest.raises(InputError, match="the order of its tokenizer's merges"):
        merge_scores([["t", "h"], ["th", "e"], ["a", "n"], ["t", "he"]])


def tokenizer_like_sentencepiece(added=()):
    """Characters `a` and space, bytes for all others, and a space before every text."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("▁", "a")], byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_added_tokens_with_spaces_are_the_same_text_in_llama_cpp(tmp_path):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    tokenizer = tokenizer_like_sentencepiece(["▁▁▁", "x▁y"])
    template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
    plan, _ = written(tokenizer, tmp_path, template)
    ids = [token for token, (_, kind) in enumerate(tokens_and_types(plan)) if kind == USER_DEFINED]
    assert [tokenizer.convert_ids_to_tokens(ids), len(ids)] == [["▁▁▁", "x▁y"], 2]
    a = tokenizer.convert_tokens_to_ids("a")
    with served(tmp_path / plan.file) as server:
        for tokens in (ids[:1], ids[1:], [a, *ids, a]):
            assert server.text(tokens) == tokenizer.decode(tokens)
        assert server.text([a, *ids, a]) == "a   x ya"


def test_byte_tokens_are_marked():
    tokenizer = tokenizer_like_sentencepiece()
    made = metadata(tokenizer, texts=["<s>a"], begins=True)
    assert made["tokenizer.ggml.token_type"][:4] == [2, CONTROL, CONTROL, BYTE]
    assert made["tokenizer.ggml.scores"][-3:] == [-2.0, -2.0, -1.0]
    assert (made["tokenizer.ggml.add_space_prefix"], made["tokenizer.ggml.add_bos_token"]) == (True, True)
    with pytest.raises(InputError, match="does not have the normalisation"):
        metadata(tokenizer, texts=["<s> a"])  # Metaspace puts no space before a space; llama.cpp does


@pytest.mark.parametrize(
    ("eos", "stops", "terminator", "expected"),
    [
        (2, {2}, 2, (2, 2)),
        (1, {1, 107}, 107, (1, 107)),  # Gemma: <eos> and <end_of_turn>
        (128001, {128009}, 128009, (128009, 128009)),
        (None, {5}, 5, (5, 5)),
    ],
)
def test_the_end_of_answers_is_named_by_id(eos, stops, terminator, expected):
    class Tokenizer:
        eos_token_id = eos

    made = end_tokens(Tokenizer, frozenset(stops), terminator)
    assert (made["tokenizer.ggml.eos_token_id"], made["tokenizer.ggml.eot_token_id"]) == expected
