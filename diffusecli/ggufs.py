"""GGUF files through transformers: parsed once, as plain models, split as their tokenizers were meant to where that is known.

Knows nothing of where files come from or what they are used for.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def parsed_once() -> Iterator[None]:
    """Transformers parses a GGUF file anew for config, weights and tokenizer, 6 s each; its progress bar cannot be turned off."""
    import gguf

    parse = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(parse)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        gguf.GGUFReader = parse


def made_plain(model: Any) -> Any:
    """The model without its marks of quantisation: its weights are whole by now, but transformers would refuse to save them."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config._name_or_path = ""
    return model


def mended(tokenizer: Any, path: Path) -> str:
    """Split text as the file's tokenizer does; returns the name of its way where nobody here knows it.

    The file only names it (`tokenizer.ggml.pre`), and where transformers knows no such name it takes GPT-2's way.
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
