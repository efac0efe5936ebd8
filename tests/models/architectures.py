"""Tiny random models of many architectures, the same whenever they are built."""

import torch
import transformers

SMALL = {
    "vocab_size": 24, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
ARCHITECTURES = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 8}, "Phi3": {}, "Mistral": {"sliding_window": None}, "Granite": {"logits_scaling": 3.0},
    "Cohere": {"logit_scale": 0.5}, "Gemma2": {"head_dim": 8, "sliding_window": 64}, "Gemma3Text": {"head_dim": 8, "sliding_window": 64},
    "GPT2": {}, "GPTNeoX": {}, "Olmo2": {},
    "Qwen3Moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
SLIDING = {
    "Mistral": {}, "Phi3": {}, "Gemma2": {}, "Gemma3Text": MIXED, "Qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "Qwen3": {"use_sliding_window": True, "max_window_layers": 1}, "Qwen3Moe": {"use_sliding_window": True},
    "Cohere2": {**MIXED, "head_dim": 8}, "Olmo3": MIXED,
}  # fmt: skip
RECURRENT = {
    "Mamba": {"state_size": 4}, "Rwkv": {"attention_hidden_size": 32}, "RecurrentGemma": {"lru_width": 32, "num_hidden_layers": 3},
    "Jamba": {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    "FalconH1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8},
    "Lfm2": {"full_attn_idxs": [1]},
}  # fmt: skip
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


def configured(name, **more):
    """The class of a model and its config."""
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **ARCHITECTURES.get(name, {}), **RECURRENT.get(name, {}), **more})
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM")), config


def build(name, **more):
    torch.manual_seed(0)
    kind, config = configured(name, **more)
    return kind(config).eval()
