"""A merged model as one GGUF file with a Modelfile beside it, or an adapter as a GGUF file of its own.

Everything that can be refused is refused by `GgufPlan.of`, before anything is computed or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from diffusecli.models.chat import Chat, ChatSettings
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.gguf_config import GgufConfig, gguf_config
from diffusecli.models.gguf_file import write_gguf
from diffusecli.models.gguf_tensors import TYPES, adapter_tensors, model_tensors
from diffusecli.models.gguf_vocabulary import end_tokens, strips_after_specials, vocabulary
from diffusecli.models.loading import LoadedModel
from diffusecli.models.modelfile import NEUTRAL, Message, go_template, modelfile
from diffusecli.models.tokens import decode, tokenise
from diffusecli.system.errors import InputError

_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
"""`general.file_type`: the type of most weights."""

_QUANTISATION = 2
"""Version of the formats of quantised blocks."""

_NAMES_THAT_ACT = ("phi-3", "phi3", "modern-bert")
"""llama.cpp changes its tokenizer for models with these names."""

BYTES = {"f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
"""Bytes per weight."""


_UNKNOWN = "?"


def file_name(folder: Path, kind: str) -> str:
    """The name of the model file in an output folder, as model hubs and llama.cpp's tools write it.

    >>> file_name(Path("out/numbers"), "q8_0")
    'numbers-Q8_0.gguf'
    """
    return f"{folder.absolute().name}-{TYPES[kind]}.gguf"


def adapter_name(folder: Path) -> str:
    """The name of the adapter file in an output folder.

    >>> adapter_name(Path("numbers")), adapter_name(Path("numbers-lora"))
    ('numbers-lora.gguf', 'numbers-lora.gguf')
    """
    return f"{folder.absolute().name.removesuffix('-lora')}-lora.gguf"


@dataclass(frozen=True)
class GgufPlan:
    """What is written beside the weights."""

    config: GgufConfig
    metadata: Mapping[str, Any]
    modelfile: str
    file: str
    kind: str  # of most weights: F16, BF16 or Q8_0

    @classmethod
    def of(cls, base: LoadedModel, encoded: Sequence[EncodedPrompt], template: Any, folder: Path, kind: str) -> GgufPlan:
        """For the base model without an adapter, prompts of the run and the chat template to write.

        Raises `InputError` if llama.cpp does not have the architecture or the tokenizer, or if a prompt with an answer is too long.
        """
        config, tokenizer = gguf_config(base.model), base.tokenizer
        require_context(config, encoded)
        chat = Chat(tokenizer, base.eos_ids, ChatSettings(_with_thoughts(template, base, encoded)))
        openings = [chat.render(chat.messages(e.prompt)[0], e.alias) for e in encoded]
        texts = [opening + target for opening, e in zip(openings, encoded, strict=True) for target in e.prompt.targets or ("",)]
        begins = chat.begins_texts and all(e.prompt_ids[:1] == (tokenizer.bos_token_id,) for e in encoded)
        stop_ids = frozenset().union(*(e.stop_ids for e in encoded))
        stops = [decode(tokenizer, [token], special=True) for token in sorted(stop_ids)]
        stops += dict.fromkeys(e.stop_text for e in encoded if e.stop_text)
        file, stored = file_name(folder, kind), TYPES[kind]
        metadata = {
            "general.type": "model", "general.name": _model_name(folder, tokenizer), "general.file_type": _FILE_TYPES[stored],
            "general.quantization_version": _QUANTISATION, **_sampling(), **config.metadata,
            **vocabulary(tokenizer, base.rows, texts, begins=begins), **end_tokens(tokenizer, stop_ids, _terminator(encoded)),
            "tokenizer.chat_template": str(chat.template),
        }  # fmt: skip
        go = go_template(lambda messages: _rendered(chat, messages), str(tokenizer.bos_token) if begins else "")
        return cls(config, metadata, modelfile(file, go, stops), file, stored)

    def write(self, folder: Path, model: Any) -> None:
        """Write the merged model and the Modelfile into an existing folder. Raises `OSError`."""
        write_gguf(folder / self.file, self.config.architecture, self.metadata, model_tensors(model, self.config, self.kind))
        (folder / "Modelfile").write_text(self.modelfile, encoding="utf-8")


def write_adapter(path: Path, model: Any, matrices: Mapping[str, Any], config: GgufConfig) -> int:
    """Write the LoRA matrices of a PEFT model in float32. Returns their number of weights. Raises `OSError`."""
    tensors, alpha = adapter_tensors(model, matrices, config)
    metadata = {
        "general.type": "adapter", "general.name": path.stem, "general.file_type": _FILE_TYPES["F32"], "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }  # fmt: skip
    write_gguf(path, config.architecture, metadata, tensors)
    return sum(prod(tensor.shape) for tensor in tensors)


def require_applicable(model: Any) -> None:
    """Raise `InputError` if llama.cpp cannot apply this kind of adapter."""
    if model.peft_config["default"].use_dora:
        raise InputError("GGUF: llama.cpp does not support DoRA adapters. Merge the model instead: --gguf f16")


def require_context(config: GgufConfig, encoded: Sequence[EncodedPrompt]) -> None:
    """Raise `InputError` if a prompt with its longest answer does not fit into the context in which llama.cpp computes the model."""
    longest = max(encoded, key=lambda e: len(e.prompt_ids) + e.longest)
    tokens, context = len(longest.prompt_ids) + longest.longest, config.values["context_length"]
    if tokens > context:
        raise InputError(
            f"GGUF: {longest.alias}: request and answer have up to {tokens} tokens, but llama.cpp computes this model correctly only up to "
            f"{context}. Use `diffuse export` without GGUF, or sample with the adapter"
        )


def _sampling() -> dict[str, Any]:
    """Neutral settings, which servers of 2026 and later use where a request has none."""
    names = {"temperature": "temp", "repeat_penalty": "penalty_repeat"}
    return {
        f"general.sampling.{names.get(name, name)}": value if name == "top_k" else float(value) for name, value in NEUTRAL.items()
    }


def _model_name(folder: Path, tokenizer: Any) -> str:
    """A name that has the effect on llama.cpp's tokenizer that this tokenizer needs."""
    name = folder.absolute().name
    if strips_after_specials(tokenizer):
        return f"Phi-3 {name}"
    return "merged model" if any(acting in name.lower() for acting in _NAMES_THAT_ACT) else name


def _with_thoughts(template: Any, base: LoadedModel, encoded: Sequence[EncodedPrompt]) -> str:
    """The template with text that it puts before every answer, such as an empty block of thoughts, but leaves out of prompts.

    Training had it in the prompt, so servers must have it there.
    """

    def missing(template: str) -> set[str]:
        """What a template leaves out of prompts."""
        chat, found = Chat(base.tokenizer, base.eos_ids, ChatSettings(template)), set()
        for e in encoded:
            opening = chat.render(chat.messages(e.prompt)[0], e.alias)
            whole = decode(base.tokenizer, e.prompt_ids, special=True)
            if tuple(tokenise(base.tokenizer, opening)) != e.prompt_ids:
                found.add(whole.removeprefix(opening) if whole.startswith(opening) else _UNKNOWN)
        return found

    left_out = missing(str(template))
    if not left_out:
        return str(template)
    body = str(template).removesuffix("\n")  # Jinja ignores a last line break, but not one in the middle
    added = f"{body}{{% if add_generation_prompt %}}{{{{ {next(iter(left_out))!r} }}}}{{% endif %}}"
    for changed in (f"{{%- set enable_thinking = false %}}{{{{- '' }}}}{template}", added):
        if not missing(changed):
            return changed
    raise InputError("GGUF: the chat template makes other prompts than in training. Set chat_template_kwargs or your own chat_template, "
                     "and train again")  # fmt: skip


def _terminator(encoded: Sequence[EncodedPrompt]) -> int | None:
    """The token that ends the answers of training."""
    for e in encoded:
        if len(e.trie.leaves) and (last := e.trie.path(0)[-1]) in e.stop_ids:
            return int(last)
    return None


def _rendered(chat: Chat, messages: Sequence[Message]) -> str | None:
    try:
        return chat.render([dict(message) for message in messages], "a probe")
    except InputError:
        return None
