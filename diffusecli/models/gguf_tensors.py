"""Weights of a model or an adapter under llama.cpp's names and in its order of rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from diffusecli.models.gguf_config import GgufConfig
from diffusecli.system.errors import InputError

TYPES = {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
"""Types of weights, as in `--gguf`, and their names in GGUF files."""

_BLOCK = 32
"""Values per block of Q8_0; a row must consist of whole blocks."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor to write: its values are made when they are needed."""

    name: str
    shape: tuple[int, ...]
    kind: str  # F32, F16, BF16 or Q8_0
    values: Callable[[], np.ndarray]  # float32


def stored_kind(shape: tuple[int, ...], kind: str) -> str:
    """How llama.cpp stores a tensor in a file of weights of `kind`: vectors stay F32, and short rows are not cut into blocks.

    >>> stored_kind((576,), "Q8_0"), stored_kind((576, 48), "Q8_0"), stored_kind((576, 64), "Q8_0")
    ('F32', 'F16', 'Q8_0')
    """
    if len(shape) < 2:
        return "F32"
    return "F16" if kind == "Q8_0" and shape[-1] % _BLOCK else kind


def encode_values(values: np.ndarray, kind: str, name: str) -> np.ndarray:
    """Values as they are stored: numbers, or bytes of blocks. Raises `InputError` if a number is too large for 16 bits."""
    import gguf

    with np.errstate(over="ignore"):
        stored = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType[kind])
    if kind in {"F16", "Q8_0"} and not np.isfinite(gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[kind])).all():
        raise InputError(f"GGUF: {name} has numbers that are too large for {kind.lower()}. Use --gguf bf16")
    return stored


def round_weights(model: Any, kind: str) -> None:
    """Round the float32 weights of a model in place, as a file of weights of `kind` stores them."""
    import gguf
    import torch

    for name, weight in model.named_parameters():
        if (stored := stored_kind(tuple(weight.shape), kind)) != "F32":
            rounded = gguf.quants.dequantize(encode_values(_numbers(weight), stored, name), gguf.GGMLQuantizationType[stored])
            weight.data = torch.from_numpy(rounded).to(weight.device)


def model_tensors(model: Any, config: GgufConfig, kind: str) -> Iterator[GgufTensor]:
    """All tensors of a merged model. Tied weights are written once."""
    for name, values in config.tensors.items():
        yield GgufTensor(name, values.shape, "F32", partial(np.asarray, values))
    for path, weight in model.named_parameters():  # names tied weights once
        shape = tuple(weight.shape)
        yield GgufTensor(_named(path, config), shape, stored_kind(shape, kind), partial(_changed, weight, _placed(path, config)))


def adapter_tensors(model: Any, matrices: Mapping[str, Any], config: GgufConfig) -> tuple[list[GgufTensor], float]:
    """Both matrices of every layer with an adapter, and alpha, by which llama.cpp scales: alpha / rank.

    `model` may be hollow; `matrices` are those of the adapter's file. Scales of layers that differ are multiplied into the second matrix.
    Only that one has the rows of the layer, so only it is reordered.
    """
    layers = [(path, layer) for path, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")]
    scales = [layer.scaling["default"] * layer.r["default"] for _, layer in layers]
    tensors = []
    for (path, _), scale in zip(layers, scales, strict=True):
        first, second = (matrices[f"base_model.model.{path}.lora_{which}.weight"] for which in "AB")
        name, made, factor = _named(f"{path}.weight", config), _placed(f"{path}.weight", config), scale / scales[0]
        tensors += [
            GgufTensor(f"{name}.lora_a", tuple(first.shape), "F32", partial(_numbers, first)),
            GgufTensor(f"{name}.lora_b", tuple(second.shape), "F32", partial(_changed, second, made, factor)),
        ]
    return tensors, float(scales[0])


def _changed(weight: Any, made: Callable[[np.ndarray], np.ndarray], factor: float = 1.0) -> np.ndarray:
    return made(_numbers(weight)) * np.float32(factor)


def _numbers(weight: Any) -> np.ndarray:
    array: np.ndarray = weight.detach().float().cpu().numpy()
    return array


def _named(path: str, config: GgufConfig) -> str:
    """The name of a weight in llama.cpp."""
    name: str | None = _names(config.architecture, config.layers).get_name(path, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise InputError(f"GGUF: llama.cpp has no name for the weight {path} of this model")
    return name


@cache
def _names(architecture: str, layers: int) -> Any:
    """All names of an architecture, built once: for one name of each weight, that would take seconds."""
    import gguf

    return gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], layers)


def _placed(path: str, config: GgufConfig) -> Callable[[np.ndarray], np.ndarray]:
    """How values of a weight change on their way into the file."""
    if config.norm_offset and re.search(r"norm\.weight$", path):
        return lambda values: values + np.float32(config.norm_offset)
    if config.permuted and (found := re.search(r"self_attn\.([qk])_proj\.", path)):
        heads = config.heads["qk".index(found[1])]
        return lambda values: interleaved(values, heads)
    return lambda values: values


def interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head, as llama.cpp needs them for Llama models.

    Its rotary embedding turns neighbours (0, 1), (2, 3), …; that of transformers turns row i with row i + half.

    >>> interleaved(np.array([0, 1, 2, 3, 10, 11, 12, 13]), heads=2).tolist()
    [0, 2, 1, 3, 10, 12, 11, 13]
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
