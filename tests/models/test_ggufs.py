"""Models that come as one GGUF file: the weights and the tokenizer they were written from, and a plain folder when they are exported."""

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import load_chat, load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.system.errors import InputError
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from diffusecli.verbs.export import export
from diffusecli.verbs.train import train
from tests.tiny import CHATML, byte_tokenizer, tiny_llama

LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


MERGES = [("a", "b")]  # a tokenizer without any is none


def halves_interleaved(weight, heads):
    """llama.cpp pairs neighbours where transformers pairs halves of a head (rotary positions)."""
    return weight.view(heads, 2, weight.shape[0] // heads // 2, -1).transpose(1, 2).reshape(weight.shape)


def write_gguf(path, model, way="smollm"):
    """A Llama and the tokenizer of bytes as llama.cpp's converter writes them; `way` is how the tokenizer splits text."""
    config, weights, tokenizer = model.config, model.state_dict(), byte_tokenizer(MERGES)
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_dimension_count(config.head_dim)
    file.add_rope_freq_base(config.rope_parameters["rope_theta"])
    file.add_vocab_size(config.vocab_size)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre(way)
    file.add_token_list(tokenizer.convert_ids_to_tokens(list(range(config.vocab_size))))
    file.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (config.vocab_size - 3))
    file.add_token_merges([" ".join(pair) for pair in MERGES])
    file.add_eos_token_id(2)
    file.add_pad_token_id(0)
    file.add_chat_template(CHATML)
    file.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy())
    file.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy())
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in LAYER.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            weight = halves_interleaved(weight, heads[theirs]) if theirs in heads else weight
            file.add_tensor(f"blk.{layer}.{theirs}.weight", weight.contiguous().numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return str(path)


@pytest.fixture(scope="module")
def source():
    return tiny_llama(vocabulary=259 + len(MERGES))


def test_the_weights_are_those_that_were_written(source, tmp_path):
    loaded = load_model(ModelSource(write_gguf(tmp_path / "m.gguf", source), device="cpu"), print)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, source(ids).logits, atol=1e-4, rtol=1e-4)
    assert loaded.revision.startswith("fingerprint sha256")


def test_text_is_split_as_the_file_says_where_that_is_known(source, tmp_path):
    said = []
    chats = {
        way: load_chat(ModelSource(write_gguf(tmp_path / f"{way}.gguf", source, way)), said.append)
        for way in ("smollm", "gpt-2", "unheard-of")
    }
    pieces = {way: chat.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12") for way, chat in chats.items()}
    assert [piece for piece, _ in pieces["smollm"]] == ["1", "2"]
    assert [piece for piece, _ in pieces["gpt-2"]] == ["12"]
    assert said == [
        "unheard-of.gguf: unknown pre-tokenizer (unheard-of). Tokens may differ from those in the model's training. "
        "Use the model's Hugging Face folder instead"
    ]


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_part_of_a_split_file_says_how_to_join_them(source, tmp_path, part, renamed):
    """Whether it is known by its name or by what its header says; as llama.cpp's own writer splits."""
    whole = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=8)
    whole.add_block_count(2)
    for name, weight in source.state_dict().items():
        whole.add_tensor(name, weight.numpy())
    whole.write_header_to_file()
    whole.write_kv_data_to_file()
    whole.write_tensors_to_file()
    whole.close()
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    path = parts[part - 1].rename(tmp_path / "x.gguf") if renamed else parts[part - 1]
    first, joined = ("x.gguf", "x-whole.gguf") if renamed else ("m-00001-of-00003.gguf", "m.gguf")
    for load in (lambda: load_model(ModelSource(str(path), device="cpu"), print), lambda: load_chat(ModelSource(str(path)), print)):
        with pytest.raises(InputError) as refused:
            load()
        assert str(refused.value) == (
            f"the model file {path} is one of 3 parts of a split GGUF file. Parts are not supported. Join them: "
            f"`llama-gguf-split --merge {tmp_path / first} {tmp_path / joined}` (from llama.cpp). Or use the unsplit file, or the "
            "model's folder with .safetensors"
        )


@pytest.mark.parametrize("name", ["m.gguf.part1of2", "m.gguf-split-a"])
def test_raw_parts_of_a_file_are_joined_by_cat(tmp_path, name):
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=rf"is a file, but not a \.gguf file.*join them: `cat {tmp_path}/m.* > model\.gguf`"):
        load_model(ModelSource(str(tmp_path / name), device="cpu"), print)


def test_a_folder_of_gguf_files_asks_for_the_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=rf"is a folder of \.gguf files\. Name the file, e\.g\. {tmp_path}/m\.gguf"):
        load_model(ModelSource(str(tmp_path), device="cpu"), print)


def test_a_gguf_model_is_trained_and_exported_as_a_plain_folder(source, tmp_path, prompt_file):
    config = Config.model_validate({
        "model": write_gguf(tmp_path / "m.gguf", source), "train_prompts": [str(prompt_file("p.json"))], "device": "cpu",
        "output_dir": str(tmp_path / "run"), "alg_config": {"n_iters": 3}, "generate": False, "retain": False,
    })  # fmt: skip
    done = train(config, report=lambda _: None, notice=lambda _: None)
    export(done.run, tmp_path / "plain", precision=None, force=False, notice=print)
    base = load_model(ModelSource(config.model, device="cpu"), print)
    load_adapter(base, done.run.path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    assert not hasattr(plain.config, "quantization_config")
    encoded = encode_prompt(read_prompt(tmp_path / "p.json"), base.chat)
    expected = score(base.model, encoded, RowsPass()).log_probs
    assert score(plain, encoded, RowsPass()).log_probs == pytest.approx(expected, abs=1e-4)
