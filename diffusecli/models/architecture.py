"""Properties of a model from its config and modules: size, context, windows, layers other than attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class ModelShape:
    """The size of a model, from its config."""

    parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    context: int | None  # maximum tokens of a row; None: no limit


def shape_of(config: Any, parameters: int) -> ModelShape:
    """The size of a model from its transformers config."""
    text = config.get_text_config()
    return ModelShape(
        parameters, text.num_hidden_layers, text.hidden_size,
        _widest(getattr(text, "intermediate_size", None)) or 4 * text.hidden_size, text.vocab_size,
        getattr(text, "max_position_embeddings", None),
    )  # fmt: skip


def _widest(size: Any) -> int | None:
    """The largest size; some models have one per layer."""
    return max(size) if isinstance(size, list | tuple) else size


def attention_windows(config: Any) -> dict[str, int]:
    """The attention windows of a model in tokens, by their names in the transformers config."""
    text = config.get_text_config()
    names = ["window_size", "attention_chunk_size", "attention_window_size", "sliding_window_size"]
    if getattr(text, "use_sliding_window", True):
        names.append("sliding_window")
    found = {name: getattr(text, name, None) for name in names}
    return {name: window for name, window in found.items() if isinstance(window, int) and window > 0}


def counted_windows(config: Any) -> dict[str, int]:
    """The windows that count places in the sequence, not positions."""
    return {name: window for name, window in attention_windows(config).items() if name != "sliding_window"}


def counted_window(config: Any) -> int | None:
    """The shortest such window; None if there is none. A longer sequence must be a row."""
    return min(counted_windows(config).values(), default=None)


_ATTENDS_ONLY = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layer types of transformers in which tokens interact only through masked attention."""


def keeps_more_than_attention(model: Any) -> str:
    """The part of a model that an attention mask does not control (recurrent states, convolutions, chosen keys); "" if none."""
    inner = without_wrapper(model)
    others = set(getattr(inner.config.get_text_config(), "layer_types", None) or ()) - _ATTENDS_ONLY
    if others:
        return f"layers of the kind {min(others)}"
    return "a recurrent state" if getattr(inner, "_is_stateful", False) else ""


def without_wrapper(model: Any) -> Any:
    """The transformers model itself (with adapter layers in place), without the PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """The weights that training changes."""
    return [weight for weight in model.parameters() if weight.requires_grad]
