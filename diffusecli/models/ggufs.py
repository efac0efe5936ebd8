"""GGUF files through transformers: parse once, convert to plain models, fix the pre-tokenizer where it is known."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.system.errors import InputError

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9
_MOST_ENTRIES = 2_000_000  # maximum list length; the largest vocabularies have 300 000 entries
_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
"""How llama.cpp names the parts of a split file."""
_MOST_LAYERS = 1000  # if the file has fewer tensors


def require_sound(path: Path) -> None:
    """Read the header and check every size against the size of the file, because the libraries do not.

    Raises `InputError`, also for a part of a split file. The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    if (named := _PART.fullmatch(path.name)) and int(named["count"]) > 1:
        raise InputError(_joined(path, int(named["count"])))
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(_Header(data))
    except _PartOfAFileError as error:
        raise InputError(_joined(path, error.count)) from error
    except (OSError, ValueError, struct.error) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "it ends too early" if isinstance(error, struct.error) else str(error)
        )
        raise InputError(f"the model file {path} cannot be read as GGUF: {reason}. Fetch it again") from error


class _PartOfAFileError(Exception):
    """A GGUF file has only part of a model's tensors; `count` files have all."""

    def __init__(self, count: int) -> None:
        self.count = count


def _joined(path: Path, count: int) -> str:
    """The message for a part of a split file: how to join the parts."""
    found = _PART.fullmatch(path.name)
    whole = f"{found['stem']}.gguf" if found else f"{path.stem}-whole.gguf"
    first = path.with_name(f"{found['stem']}-00001-of-{found['count']}.gguf") if found else path
    return (
        f"the model file {path} is one of {count} parts of a split GGUF file. Parts are not supported. Join them: "
        f"`llama-gguf-split --merge {first} {path.with_name(whole)}` (from llama.cpp). Or use the unsplit file, or the model's folder "
        "with .safetensors"
    )


@dataclass
class _Header:
    """Bytes and the current position. Raises `struct.error` at the end."""

    data: mmap.mmap
    at: int = 0
    order: str = "<"

    def number(self, kind: str) -> Any:
        """The next number, in a format of `struct`."""
        (value,) = struct.unpack_from(self.order + kind, self.data, self.at)
        self.at += struct.calcsize(self.order + kind)
        return value

    def skip(self, size: int) -> None:
        """Skip bytes."""
        if size > len(self.data) - self.at:
            raise ValueError(f"a part of {size} bytes does not fit into the file")
        self.at += size

    def text(self) -> str:
        """The next string."""
        size, start = self.number("Q"), self.at
        self.skip(size)
        return self.data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """The next value if it is a number; other values are skipped and give None."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            self.skip(self.number("Q"))
        elif kind == _LIST:
            inner, count = self.number("I"), self.number("Q")
            if count > _MOST_ENTRIES:
                raise ValueError(f"a list of {count} entries is longer than any vocabulary")
            if inner in _NUMBERS:
                self.skip(count * struct.calcsize(self.order + _NUMBERS[inner]))
            elif inner == _STRING:
                for _ in range(count):
                    self.skip(self.number("Q"))
            else:
                raise ValueError(f"unknown type {inner} of list values")
        else:
            raise ValueError(f"unknown type {kind} of a value")
        return None


def _walk(header: _Header) -> None:
    if header.data[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    header.at = 4
    if header.number("I") & 65535 == 0:  # the other byte order
        header.order = ">"
    tensors, pairs = header.number("Q"), header.number("Q")
    metadata = {header.text(): header.value(header.number("I")) for _ in range(pairs)}  # stops at the end of the file
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise _PartOfAFileError(parts)
    layers = max((value for key, value in metadata.items() if key.endswith(".block_count") and isinstance(value, int)), default=0)
    if layers > max(tensors, _MOST_LAYERS):
        raise ValueError(f"it has more layers ({layers}) than tensors ({tensors})")
    ends = [_tensor_end(header) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise ValueError(f"invalid alignment {alignment}")
    start = math.ceil(header.at / alignment) * alignment
    if start + max(ends, default=0) > max(len(header.data), start):
        raise ValueError("its tensors do not fit into the file")


def _tensor_end(header: _Header) -> int:
    """The end of the next tensor, counted from the start of the tensor data."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = header.text(), header.number("I")
    if dimensions > 4:
        raise ValueError(f"the tensor {name[:60]!r} has {dimensions} dimensions")
    values = math.prod(header.number("Q") for _ in range(dimensions))
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(header.number("I"))]
    return int(header.number("Q")) + int(values // block * size)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Parse a GGUF file once. Transformers parses it for config, weights and tokenizer, 6 s each, with a progress bar that cannot be disabled."""
    import gguf

    parse = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(parse)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        gguf.GGUFReader = parse


def made_plain(model: Any) -> Any:
    """The model without quantisation settings. Its weights are dequantised, but transformers would refuse to save them."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config._name_or_path = ""
    return model


def with_pre_tokenizer(tokenizer: Any, path: Path) -> str:
    """Set the pre-tokenizer that the file names. Returns its name if it is unknown, otherwise "".

    The file only names it (`tokenizer.ggml.pre`). For names that transformers does not know, it uses that of GPT-2.
    """
    import gguf
    from tokenizers import pre_tokenizers

    fields = gguf.GGUFReader(str(path)).fields
    kind, name = (str(fields[key].contents()) if key in fields else "" for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if name == "smollm":  # digits are split one by one before byte-level pieces
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
        return ""
    return name if kind == "gpt2" and name not in {"", "default", "gpt-2", *_known_to_transformers()} else ""


def _known_to_transformers() -> frozenset[str]:
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # before 5.20 or so it knew none
        return frozenset()
    return frozenset(GGUF_PRE_TOKENIZER_SPLITS)
