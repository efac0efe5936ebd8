"""Load a base model: its weights, its tokenizer, or only its size.

Independent of prompts, losses and samples.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffusecli.models.architecture import ModelShape, shape_of, without_wrapper
from diffusecli.models.chat import Chat, ChatSettings
from diffusecli.models.devices import choose_device, four_bits, keep_four_bits, number_format
from diffusecli.models.ggufs import made_plain, parsed_once, with_pre_tokenizer
from diffusecli.models.hub import explained
from diffusecli.models.identity import Identity, identify
from diffusecli.models.location import locate, weights_place
from diffusecli.models.source import ModelSource, perhaps_elsewhere
from diffusecli.models.wide_output import widen_output
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice
from diffusecli.system.waits import waiting_for

_ONE_AT_A_TIME = threading.RLock()
"""Lock for creating models. If two threads create models at once, transformers returns models with missing weights, also later."""


@dataclass
class LoadedModel:
    """A causal language model, its tokenizer, and its source."""

    name: str  # as the user wrote it
    model: Any
    tokenizer: Any
    revision: str  # identifies the weights: a hub commit or a hash
    chat_settings: ChatSettings = field(default_factory=ChatSettings)
    identity: Identity | None = None  # None for a model that was not loaded from files

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the weights, independent of their path; empty if unknown."""
        return self.identity.fingerprint if self.identity else ""

    @property
    def recorded(self) -> dict[str, str]:
        """What runs record, to recognise its weights at any path."""
        return {"model": self.name, "model_revision": self.revision, "model_fingerprint": self.fingerprint}

    def has_weights_of(self, recorded: Mapping[str, Any]) -> bool:
        """Whether its weights match those in a run's manifest or a checkpoint, or none are recorded."""
        return (self.identity or Identity(self.revision)).matches(recorded)

    def call_as(self, recorded: Mapping[str, Any]) -> None:
        """Use the revision that a run recorded for these weights, so that new files match the run's."""
        if recorded.get("model_revision") is not None and self.has_weights_of(recorded):
            self.revision = str(recorded["model_revision"])

    @cached_property
    def chat(self) -> Chat:
        """The chat settings with the tokenizer. One object for all prompts, so that the template is checked once."""
        return Chat(self.tokenizer, self.eos_ids, self.chat_settings, self.rows)

    @property
    def rows(self) -> int:
        """The number of token ids that the model supports; its tokenizer may have more or fewer."""
        inner = without_wrapper(self.model)
        layers = (inner.get_input_embeddings(), inner.get_output_embeddings())
        return min(layer.weight.shape[0] for layer in layers if layer is not None)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        device: torch.device = self.model.device
        return device

    @property
    def eos_ids(self) -> frozenset[int]:
        """The stop tokens of the checkpoint's generation config, the only part of it that is used."""
        eos = getattr(self.model.generation_config, "eos_token_id", None)
        return frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)

    @property
    def parameters(self) -> int:
        """The number of weights of the base model, without adapters."""
        return sum(p.numel() for name, p in self.model.named_parameters() if "lora_" not in name)


def load_model(source: ModelSource, notice: Notice) -> LoadedModel:
    """The base model and its tokenizer.

    Raises `InputError` when no such model is found, `MachineError` when it cannot be reached.
    """
    with perhaps_elsewhere(source.name, named=source.named), _ONE_AT_A_TIME, waiting_for(f"loading {source.name}"):
        return _load(source, notice)


@collector_off()
def _load(source: ModelSource, notice: Notice) -> LoadedModel:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name, device_map = source.name, source.device_map
    place, options = locate(source, notice)
    dtype = number_format(source.precision, source.device)
    placed: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if source.quantize:
        placed = {
            "quantization_config": four_bits(dtype), "device_map": device_map or {"": choose_device(source.device)},
        }  # fmt: skip
    with _reading(name, options):
        tokenizer, doubt = _tokenizer(place, options)
        model, found = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, use_safetensors=True, output_loading_info=True, **placed, **options,
            adapter_kwargs={"local_files_only": options["local_files_only"]},  # otherwise it would search the hub for an adapter
        )  # fmt: skip
        identity = identify(name, weights_place(place, options), model.config)
    if doubt:
        notice(doubt)
    if missing := sorted(found["missing_keys"]):  # transformers would use random weights
        raise InputError(f"the model {name} lacks {len(missing)} of its weights ({missing[0]}, …). Fetch it again")
    if "gguf_file" in options:
        made_plain(model)
    keep_four_bits(model)  # a base model may have been saved in 4 bits
    if not placed:
        model.to(choose_device(source.device))
    widen_output(model)
    model.eval()
    return LoadedModel(name, model, tokenizer, identity.revision, source.chat, identity)


def load_chat(source: ModelSource, notice: Notice) -> Chat:
    """The tokenizer and the model's number of token ids, without reading weights. Raises the errors of `load_model`."""
    place, options = locate(source, notice)
    with _reading(source.name, options):
        tokenizer, doubt = _tokenizer(place, options)
        rows = _rows(place, options)
    if doubt:
        notice(doubt)
    return Chat(tokenizer, settings=source.chat, rows=rows)


def _rows(source: str, options: dict[str, Any]) -> int | None:
    """The rows of the embedding from the model's config; None for a folder with only a tokenizer."""
    from transformers import AutoConfig

    try:
        rows = getattr(AutoConfig.from_pretrained(source, **options).get_text_config(), "vocab_size", None)
    except (OSError, ValueError, KeyError):
        return None
    return rows if isinstance(rows, int) else None


def _tokenizer(source: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer, and a warning about it. It is returned, because stderr is redirected here to hide progress bars."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    doubt = ""
    tokenizer("a")  # some broken files fail only when used
    if "gguf_file" in options and (splitting := with_pre_tokenizer(tokenizer, Path(source) / options["gguf_file"])):
        doubt = (
            f"{options['gguf_file']}: unknown pre-tokenizer ({splitting}). Tokens may differ from those in the model's training. "
            "Use the model's Hugging Face folder instead"
        )
    return tokenizer, doubt


@contextmanager
def _reading(name: str, options: dict[str, Any]) -> Iterator[None]:
    """Turn errors of reading model files into messages; parse a GGUF file once."""
    with explained(name), parsed_once() if "gguf_file" in options else nullcontext():
        yield


def load_shape(source: ModelSource, notice: Notice) -> ModelShape:
    """The size of a model from its config, without reading weights. Raises the errors of `load_model`."""
    hollow = load_hollow(source, notice)
    return shape_of(hollow.model.config, hollow.parameters)


def load_hollow(source: ModelSource, notice: Notice) -> LoadedModel:
    """A model whose weights have shapes but no values. Adapters can be attached, but it cannot compute. Raises the errors of `load_model`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    place, options = locate(source, notice)
    with _ONE_AT_A_TIME, _reading(source.name, options), torch.device("meta"):
        config = AutoConfig.from_pretrained(place, **options)
        hollow = AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code)
        identity = identify(source.name, weights_place(place, options), config)
    return LoadedModel(source.name, hollow, None, identity.revision, source.chat, identity)
