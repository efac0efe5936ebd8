"""GGUF files of tiny random models: read back by transformers, and computed by llama.cpp as transformers computes them."""

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.gguf_export import GgufPlan
from diffusecli.models.gguf_tensors import round_weights
from diffusecli.models.ggufs import made_plain, require_sound
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.prompt import Prompt
from tests.models.architectures import build
from tests.models.llama_cpp import served
from tests.tiny import byte_tokenizer

VOCABULARY = 260
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 3.0, 5.0, 9.0], "original_max_position_embeddings": 64}  # fmt: skip
LOCAL = {"rope_type": "default", "rope_theta": 100.0}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
MODELS = {
    "Llama": ("Llama", {}),
    "Llama, tied, with biases": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "Llama, wide heads": ("Llama", {"head_dim": 16}),
    "Llama 3.1": ("Llama", {"rope_parameters": LLAMA_3}),
    "Llama, linear": ("Llama", {"rope_parameters": LINEAR}),
    "Mistral": ("Mistral", {"sliding_window": 64}),
    "Qwen2": ("Qwen2", {}),
    "Qwen2, YaRN": ("Qwen2", {"rope_parameters": YARN}),
    "Qwen3": ("Qwen3", {}),
    "Gemma2": ("Gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "Gemma3": ("Gemma3Text", {
        "sliding_window": 8, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL},
    }),
    "Phi3": ("Phi3", {}),
    "Phi3, half of the head turns": ("Phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "Phi3, long": ("Phi3", {"rope_parameters": LONG}),
}  # fmt: skip
each_model = pytest.mark.parametrize("name", MODELS)


def tokenizer_like_gpt2():
    """The byte tokenizer of tests, with a merge and the pre-tokenizer of GPT-2."""
    made = byte_tokenizer([("a", "b")])
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return made


def tiny(name):
    kind, settings = MODELS[name]
    model = build(kind, vocab_size=VOCABULARY, **settings)
    for path, weight in model.named_parameters():
        if weight.dim() == 1:  # norms of one and biases of zero would hide mistakes
            weight.data = weight.data + 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(path)))
    return model


def write(folder, model, kind="f16", **more):
    """Write a model whose weights are rounded first. Returns the file."""
    base = LoadedModel("tiny", model, tokenizer_like_gpt2(), "r", **more)
    encoded = [encode_prompt(Prompt(request="Say a letter.", targets=("{a}", "{b}")), base.chat)]
    plan = GgufPlan.of(base, encoded, base.chat.template, folder, kind)
    round_weights(model, plan.kind)
    folder.mkdir(exist_ok=True)
    plan.write(folder, model)
    return folder / plan.file


@each_model
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_transformers_reads_the_weights_that_were_written(name, kind, tmp_path):
    """Its reader knows llama.cpp's names and orders independently of this project."""
    model = tiny(name)
    before = {path: weight.clone() for path, weight in model.state_dict().items()}
    path = write(tmp_path / "m", model, kind)
    require_sound(path)
    if "long" in name or "Phi3, half" in name:
        pytest.skip("transformers does not read the rotary factors of Phi 3 from GGUF files")
    model.config.model_type = {"mistral": "llama"}.get(model.config.model_type, model.config.model_type)  # as the file says
    read = made_plain(
        AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, config=model.config)
    )
    closest = {"f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 254 + 2**-10}[kind]  # of the largest number in a block
    for weight, found in read.state_dict().items():
        if "rotary" in weight:
            continue
        torch.testing.assert_close(found, model.state_dict()[weight], rtol=0, atol=1e-6)
        assert (found - before[weight]).abs().max() <= closest * before[weight].abs().max() + 1e-6


@each_model
def test_llama_cpp_computes_the_same_probabilities(name, tmp_path):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    model = tiny(name)
    path = write(tmp_path / "m", model)
    ids = [7, 200, 31, 45, 45, 100, 3, 250, 17, 18, 19, 20, 33, 7, 90, 91, 92, 60, 61, 5, 6, 9, 150, 151]  # longer than windows
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy()
    with served(path, context=64) as server:
        found = server.log_probs(ids, VOCABULARY)
    assert np.abs(found - expected).max() < 0.05, np.abs(found - expected).max()
    assert np.ptp(expected) > 1
