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
MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
GATED_DELTA = {
    "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 8, "num_key_value_heads": 4, "linear_head_dim": 8,
    "linear_num_heads": 4, "layer_types": ["linear_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse"],
    "num_experts": 4, "num_experts_per_token": 2, "moe_intermediate_size": 16,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
RECURRENT = {
    "Mamba": {"state_size": 4}, "FalconMamba": {"state_size": 4}, "Rwkv": {"attention_hidden_size": 32},
    "Mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8},
    "RecurrentGemma": {"lru_width": 32, "num_hidden_layers": 3},
    "Jamba": {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    "FalconH1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8},
    "Bamba": {**MAMBA_2, "attn_layer_indices": [1]},
    "GraniteMoeHybrid": {
        **MAMBA_2, "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4, "shared_intermediate_size": 16,
    },
    "NemotronH": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"], "head_dim": 8, "ssm_state_size": 8, "chunk_size": 8,
        "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "n_routed_experts": 4, "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16, "num_hidden_layers": 4,
    },
    "Zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"], "num_hidden_layers": 3, "mamba_d_state": 8,
        "n_mamba_heads": 4, "mamba_headdim": 16, "chunk_size": 8, "num_key_value_heads": 4,
    },
    "Lfm2": {"full_attn_idxs": [1]},
    "Lfm2Moe": {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "Lfm3": {
        "layer_types": ["conv", "sliding_attention", "full_attention"], "num_hidden_layers": 3, "sliding_window": 64, "head_dim": 8,
    },
    "Qwen3Next": {**GATED_DELTA, **EXPERTS, "shared_expert_intermediate_size": 16}, "Qwen3_5Text": GATED_DELTA,
    "OlmoHybrid": {**GATED_DELTA, "linear_num_key_heads": 4},
    "KimiLinear": LATENT, "BailingHybrid": {**LATENT, "num_expert_group": 2, "topk_group": 1, "head_dim": 4},
    "MiniMax": {"num_local_experts": 4, "layer_types": ["full_attention", "linear_attention"], "block_size": 8},
    "xLSTM": {"hidden_size": 128, "embedding_dim": 128, "num_blocks": 2, "chunk_size": 16, "autocast_kernel_dtype": "float32"},
    "Zaya": {**EXPERTS, "num_experts_per_tok": 1, "head_dim": 8, "router_hidden_size": 8, "layer_types": ["hybrid", "hybrid"]},
}  # fmt: skip
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel", "Qwen3_5Text": "Qwen3_5ForCausalLM"}


def configured(name, **more):
    """The class of a model and its config."""
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **ARCHITECTURES.get(name, {}), **RECURRENT.get(name, {}), **more})
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM")), config


def build(name, **more):
    torch.manual_seed(0)
    kind, config = configured(name, **more)
    return kind(config).eval()
