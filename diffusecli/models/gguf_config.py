"""A transformers config as the metadata of a GGUF file: the architecture's name in llama.cpp and its hyperparameters.

It knows no weights and no tokenizer. It refuses what llama.cpp computes in another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusecli.system.errors import InputError

_ELSEWHERE = (
    "Merge into a folder instead (`diffuse export RUN -o DIR`), then convert it with llama.cpp's own convert_hf_to_gguf.py. "
    "It may support the model"
)
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models: llama.cpp scales the attention of these by another rule."""


@dataclass(frozen=True)
class GgufConfig:
    """What llama.cpp must know of a model except its weights and tokenizer."""

    architecture: str  # its name in llama.cpp
    values: Mapping[str, Any]  # metadata without the prefix of the architecture
    heads: tuple[int, int]  # of queries, of keys
    layers: int
    permuted: bool = False  # whether rows of q and k are reordered
    norm_offset: float = 0.0  # added to the weights of norms
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)  # factors of the rotary embedding

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata with full names."""
        return {f"{self.architecture}.{name}": value for name, value in self.values.items()}


def gguf_config(model: Any) -> GgufConfig:
    """The architecture of a model without an adapter. Raises `InputError` if it is unknown, or llama.cpp computes it in another way."""
    known = _KNOWN.get(type(model).__name__)
    if known is None:
        raise _refused(f"the architecture {type(model).__name__} is not supported")
    return known(model.config)


def _refused(reason: str) -> InputError:
    names = ", ".join(sorted({name.removesuffix("ForCausalLM") for name in _KNOWN}))
    return InputError(f"GGUF: {reason}. Supported are {names}. {_ELSEWHERE}")


def _require(config: Any, **expected: Any) -> None:
    """Raise `InputError` for a setting that llama.cpp does not have. Each argument lists the values that are supported."""
    for name, values in expected.items():
        if (found := getattr(config, name, values[0])) not in values:
            raise _refused(f"llama.cpp does not support {name} = {found} of this model")


def _common(config: Any, rope: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters that all architectures have. Sizes are int, others float."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1.0)),
        "rope.freq_base": float(rope["rope_theta"]),
    }


def _made(architecture: str, config: Any, values: dict[str, Any], **more: Any) -> GgufConfig:
    heads = config.num_attention_heads, config.num_key_value_heads
    return GgufConfig(architecture, values, heads, config.num_hidden_layers, **more)


def _within_window(config: Any, values: dict[str, Any]) -> None:
    """Limit the context to the attention window. llama.cpp ignores the windows of these architectures, which has no effect in shorter texts."""
    window = getattr(config, "sliding_window", None)
    if window and "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"]):
        values["context_length"] = min(values["context_length"], window)


def _decoder(architecture: str, *, permuted: bool = False) -> Callable[[Any], GgufConfig]:
    """Architectures of Llama's kind."""

    def build(config: Any) -> GgufConfig:
        _require(config, hidden_act=("silu", "swish"), pretraining_tp=(1,))
        if architecture == "qwen3":
            _require(config, attention_bias=(False,))
        rope = config.rope_parameters
        values, tensors = _common(config, rope), {}
        _require_plain(rope, "partial_rotary_factor", 1.0)
        kind = rope.get("rope_type", "default")
        if kind == "llama3" and architecture == "llama":
            tensors["rope_freqs.weight"] = _frequency_factors(config)
        else:
            _scale(values, rope, config)
        _within_window(config, values)
        return _made(architecture, config, values, permuted=permuted, tensors=tensors)

    return build


def _require_plain(rope: Mapping[str, Any], name: str, *allowed: Any) -> None:
    if rope.get(name) not in (None, *allowed):
        raise _refused(f"llama.cpp does not support {name} = {rope[name]} of this model's rotary embedding")


def _scale(values: dict[str, Any], rope: Mapping[str, Any], config: Any) -> None:
    """Add the scaling of the rotary embedding."""
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return
    if kind not in {"linear", "yarn"}:
        raise _refused(f"the scaling {kind} of this model's rotary embedding is not supported")
    values |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        for name, allowed in (("attention_factor", ()), ("mscale", ()), ("mscale_all_dim", ()), ("beta_fast", (32,)), ("beta_slow", (1,)), ("truncate", (True,))):  # fmt: skip
            _require_plain(rope, name, *allowed)
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        values["rope.scaling.original_context_length"] = int(original)


def _frequency_factors(config: Any) -> np.ndarray:
    """How much slower each pair of the rotary embedding turns than without scaling [head_dim / 2]."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, "cpu")
    pairs = np.arange(len(scaled), dtype=np.float64) / len(scaled)
    return (config.rope_parameters["rope_theta"] ** -pairs / scaled.numpy()).astype(np.float32)


def _phi3(config: Any) -> GgufConfig:
    _require(config, hidden_act=("silu", "swish"))
    rope = config.rope_parameters
    values, tensors = _common(config, rope), {}
    if values["attention.key_length"] * config.num_attention_heads != config.hidden_size:
        raise _refused("its heads do not add up to the hidden size")
    kind = rope.get("rope_type", "default")
    if kind == "longrope":
        # llama.cpp chooses the long factors by the size of its context, transformers by the length of the text. Both use the short ones here.
        original = int(rope.get("original_max_position_embeddings") or config.original_max_position_embeddings)
        factor = rope.get("factor") or config.max_position_embeddings / original
        known = rope.get("attention_factor")
        values["context_length"] = min(original, config.max_position_embeddings)
        values["rope.scaling.original_context_length"] = original
        values["rope.scaling.attn_factor"] = float(
            known or (1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original)))
        )
        for name in ("long", "short"):
            tensors[f"rope_factors_{name}.weight"] = np.array(rope[f"{name}_factor"], dtype=np.float32)
    elif kind != "default":
        raise _refused(f"the scaling {kind} of this model's rotary embedding is not supported")
    _within_window(config, values)
    return _made("phi3", config, values, tensors=tensors)


def _gemma(architecture: str, config: Any, rope: Mapping[str, Any], period: int) -> GgufConfig:
    """Hyperparameters that Gemma 2 and 3 share; every `period`-th layer attends to all positions."""
    _require(config, hidden_activation=("gelu_pytorch_tanh",), tie_word_embeddings=(True,), attention_bias=(False,))
    _require(config, use_bidirectional_attention=(False, None))
    values = _common(config, rope)
    head = values["attention.key_length"]
    by_size = config.num_hidden_layers == _LARGEST[architecture]
    _require(config, query_pre_attn_scalar=(config.hidden_size // config.num_attention_heads if by_size else head,))
    values["attention.sliding_window"] = int(config.sliding_window)
    expected = [("full" if (place + 1) % period == 0 else "sliding") + "_attention" for place in range(config.num_hidden_layers)]
    if list(config.layer_types) != expected:
        raise _refused("its order of sliding and full attention is not supported")
    return _made(architecture, config, values, norm_offset=1.0)


def _gemma2(config: Any) -> GgufConfig:
    made = _gemma("gemma2", config, config.rope_parameters, 2)
    _require_plain(config.rope_parameters, "rope_type", "default")
    caps = {"attn_logit_softcapping": config.attn_logit_softcapping, "final_logit_softcapping": config.final_logit_softcapping}
    for name, cap in caps.items():
        if cap is None:
            raise _refused(f"llama.cpp does not support this model without {name}")
    return _made("gemma2", config, {**made.values, **{name: float(cap) for name, cap in caps.items()}}, norm_offset=1.0)


def _gemma3(config: Any) -> GgufConfig:
    _require(config, attn_logit_softcapping=(None,), final_logit_softcapping=(None,))
    whole, sliding = (config.rope_parameters[f"{kind}_attention"] for kind in ("full", "sliding"))
    first = next((place for place, kind in enumerate(config.layer_types) if kind == "full_attention"), None)
    period = config.num_hidden_layers + 1 if first is None else first + 1
    made = _gemma("gemma3", config, whole, period)
    _require_plain(sliding, "rope_type", "default")
    values = {**made.values, "rope.freq_base_swa": float(sliding["rope_theta"]), "attention.sliding_window_pattern": period}
    _scale(values, whole, config)
    return _made("gemma3", config, values, norm_offset=1.0)


_KNOWN: dict[str, Callable[[Any], GgufConfig]] = {
    "LlamaForCausalLM": _decoder("llama", permuted=True),
    "MistralForCausalLM": _decoder("llama", permuted=True),
    "Qwen2ForCausalLM": _decoder("qwen2"),
    "Qwen3ForCausalLM": _decoder("qwen3"),
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
    "Phi3ForCausalLM": _phi3,
}
"""The supported classes of transformers."""
