"""Write a GGUF file as a stream: the header, then one tensor after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from diffusecli.models.gguf_tensors import GgufTensor, encode_values


def write_gguf(path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Iterable[GgufTensor]) -> None:
    """Write a whole file. Memory: one tensor. Raises `OSError`; the caller writes into a temporary folder."""
    import gguf

    writer = gguf.GGUFWriter(None, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    listed = list(tensors)
    for tensor in listed:
        kind = gguf.GGMLQuantizationType[tensor.kind]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(tensor.name, tensor.shape, _FLOAT, prod(tensor.shape) // block * size, raw_dtype=kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in listed:
            writer.write_tensor_data(encode_values(tensor.values(), tensor.kind, tensor.name))
    finally:
        writer.close()


_FLOAT = "float32"  # shapes are given in values, not in bytes


def _add(writer: Any, key: str, value: Any) -> None:
    """Add metadata in llama.cpp's types: sizes are uint32, other numbers float32."""
    import gguf

    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        kind = {str: kinds.STRING, int: kinds.INT32, float: kinds.FLOAT32}[type(value[0])]
        writer.add_key_value(key, value, kinds.ARRAY, sub_type=kind)
    else:
        kind = {bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}[type(value)]
        writer.add_key_value(key, value, kind)
