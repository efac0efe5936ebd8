"""Base models and LoRA adapters: load, attach, save; device and dtype.

Knows nothing of prompts, losses or samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffusecli.files.paths import exists, look_again
from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.models.architecture import ModelShape, shape_of, without_wrapper
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin, unknown_model
from diffusecli.models.chat import Chat, ChatSettings, chat_settings
from diffusecli.models.devices import PRECISIONS, choose_device, four_bits
from diffusecli.models.ggufs import made_plain, mended, parsed_once, require_sound
from diffusecli.models.hub import answers, cached_folder, told_apart
from diffusecli.models.identity import Identity, identify
from diffusecli.prompts.config import Config
from diffusecli.system.errors import DiffuseError, InputError
from diffusecli.system.notices import Notice


@dataclass
class LoadedModel:
    """A causal language model, its tokenizer, and where it came from."""

    name: str  # as the user wrote it
    model: Any
    tokenizer: Any
    revision: str  # what pins the weights: a hub commit or a hash
    chat_settings: ChatSettings = field(default_factory=ChatSettings)
    identity: Identity | None = None  # None for a model that was not loaded from files

    @property
    def fingerprint(self) -> str:
        """Of its weights' content, wherever they lie; empty where it is not known."""
        return self.identity.fingerprint if self.identity else ""

    @property
    def recorded(self) -> dict[str, str]:
        """What files say about it, so that its weights are recognised wherever they lie by then."""
        return {"model": self.name, "model_revision": self.revision, "model_fingerprint": self.fingerprint}

    def has_weights_of(self, recorded: Mapping[str, Any]) -> bool:
        """Whether its weights are those that a run's manifest or a checkpoint recorded, or none are recorded."""
        return (self.identity or Identity(self.revision)).matches(recorded)

    def call_as(self, recorded: Mapping[str, Any]) -> None:
        """Go by the revision that a run recorded of these very weights, so that what is written now stands beside what was."""
        if recorded.get("model_revision") is not None and self.has_weights_of(recorded):
            self.revision = str(recorded["model_revision"])

    @cached_property
    def chat(self) -> Chat:
        """How it is talked to; one for all prompts, so that its template is looked at once."""
        return Chat(self.tokenizer, self.eos_ids, self.chat_settings, self.rows)

    @property
    def rows(self) -> int:
        """How many tokens the model can read and say; its tokenizer may have more, or fewer."""
        inner = without_wrapper(self.model)
        layers = (inner.get_input_embeddings(), inner.get_output_embeddings())
        return min(layer.weight.shape[0] for layer in layers if layer is not None)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        device: torch.device = self.model.device
        return device

    @property
    def eos_ids(self) -> frozenset[int]:
        """The stop tokens of the checkpoint's generation config; nothing else of it is ever used."""
        eos = getattr(self.model.generation_config, "eos_token_id", None)
        return frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)

    @property
    def parameters(self) -> int:
        """How many weights the base model has, adapters not counted."""
        return sum(p.numel() for name, p in self.model.named_parameters() if "lora_" not in name)


def load_configured(config: Config, notice: Notice, *, device: str | None = None, named: bool = True) -> LoadedModel:
    """The base model that a config names, on its device or another; `named` by the user, or by a run. Raises as `load_model` does."""
    try:
        return load_model(
            config.model, device=device or config.device, precision=config.precision, notice=notice, revision=config.revision,
            trust_remote_code=config.trust_remote_code, device_map=config.device_map, quantize=config.quantize,
            chat=chat_settings(config),
        )  # fmt: skip
    except DiffuseError as error:
        if named or config.model in BUILTIN_MODELS or exists(config.model):
            raise
        raise type(error)(f"{error}; if the run's base model is in another place now, name it with --model") from error


def load_model(
    name: str, *, device: str = "auto", precision: str = "fp32", notice: Notice, revision: str | None = None,
    trust_remote_code: bool = False, device_map: str | None = None, quantize: str | None = None, chat: ChatSettings | None = None,
) -> LoadedModel:  # fmt: skip
    """Load a built-in model, a local folder, a `.gguf` file or a Hugging Face id.

    Raises `InputError` when no such model is found, `MachineError` when it cannot be reached.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, options = located(name, notice, revision, trust_remote_code)
    placed: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if quantize:
        placed = {"quantization_config": four_bits(precision), "device_map": device_map or {"": choose_device(device)}}
    with _reading(name, options):
        tokenizer, doubt = _tokenizer(source, options)
        model, found = AutoModelForCausalLM.from_pretrained(
            source, dtype=PRECISIONS[precision], use_safetensors=True, output_loading_info=True, **placed, **options,
            adapter_kwargs={"local_files_only": options["local_files_only"]},  # it would look for an adapter, patiently
        )  # fmt: skip
        identity = identify(name, _place(source, options), model.config)
    if doubt:
        notice(doubt)
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random ones
        raise InputError(f"the model {name} lacks {len(missing)} of its weights ({missing[0]}, …), fetch it again")
    if "gguf_file" in options:
        made_plain(model)
    if not placed:
        model.to(choose_device(device))
    model.eval()
    return LoadedModel(name, model, tokenizer, identity.revision, chat or ChatSettings(), identity)


def load_chat(
    name: str, chat: ChatSettings, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False
) -> Chat:
    """The tokenizer, and how many tokens the model knows; no weights read. Raises as `load_model` does."""
    source, options = located(name, notice, revision, trust_remote_code)
    with _reading(name, options):
        tokenizer, doubt = _tokenizer(source, options)
        rows = _rows(source, options)
    if doubt:
        notice(doubt)
    return Chat(tokenizer, settings=chat, rows=rows)


def _rows(source: str, options: dict[str, Any]) -> int | None:
    """The rows of the embedding, as the model's config says; None for a folder that holds no more than a tokenizer."""
    from transformers import AutoConfig

    try:
        rows = getattr(AutoConfig.from_pretrained(source, **options).get_text_config(), "vocab_size", None)
    except (OSError, ValueError, KeyError):
        return None
    return rows if isinstance(rows, int) else None


def _tokenizer(source: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer, and what is doubtful about it; not told in here, where stderr is closed to progress bars."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    doubt = ""
    tokenizer("a")  # some files are read, and fail when they are used
    if "gguf_file" in options and (way := mended(tokenizer, Path(source) / options["gguf_file"])):
        doubt = (
            f"{options['gguf_file']}: how its tokenizer splits text ({way}) is not known here, tokens may not be those it was trained with; "
            "the model's Hugging Face folder has them"
        )
    return tokenizer, doubt


@contextmanager
def _reading(name: str, options: dict[str, Any]) -> Iterator[None]:
    """What goes wrong while files of a model are read is told in a sentence; a GGUF file is parsed once."""
    with told_apart(name), parsed_once() if "gguf_file" in options else nullcontext():
        yield


def load_shape(name: str, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelShape:
    """The size of a model from its config alone, no weights read. Raises as `load_model` does."""
    hollow = load_hollow(name, notice, revision=revision, trust_remote_code=trust_remote_code)
    return shape_of(hollow.model.config, hollow.parameters)


def load_hollow(name: str, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False) -> LoadedModel:
    """A model whose weights have shapes and no values: adapters can be put on it, nothing can be computed. Raises as `load_model` does."""
    from transformers import AutoConfig, AutoModelForCausalLM

    source, options = located(name, notice, revision, trust_remote_code)
    with _reading(name, options), torch.device("meta"):
        config = AutoConfig.from_pretrained(source, **options)
        hollow = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        identity = identify(name, _place(source, options), config)
    return LoadedModel(name, hollow, None, identity.revision, identity=identity)


def _tell_of_code(name: str, notice: Notice, trusted: bool) -> None:
    if trusted:
        notice(f"running Python code that comes with {name}, because trust_remote_code is set")


def located(name: str, notice: Notice, revision: str | None, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Where transformers finds the model, and with which options."""
    if name in BUILTIN_MODELS:
        return str(ensure_builtin(name, notice)), {"local_files_only": True, "trust_remote_code": False}
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise InputError(f"the model file {name} does not exist: {look_again(name, 'check the path')}")
        require_sound(Path(name))
        return str(Path(name).parent), {"gguf_file": Path(name).name, "local_files_only": True, "trust_remote_code": False}
    if Path(name).is_dir():
        if (Path(name) / ADAPTER_FILES[0]).is_file():  # transformers would load it, and whatever model it names
            raise InputError(f"the model {name} is an adapter: name it with --adapter, or the model that it was made for")
        if not (Path(name) / "config.json").is_file() and (files := sorted(Path(name).glob("*.gguf"))):
            raise InputError(f"the model {name} is a folder of .gguf files. Name the file, e.g. {files[0]}")
        _tell_of_code(name, notice, trust_remote_code)
        return name, {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if Path(name).is_file():
        how = (
            f". If it is one of several parts, join them: `cat {Path(name).with_suffix('')}* > model.gguf`"
            if ".gguf" in name
            else ""
        )
        raise InputError(f"the model {name} is a file, but not a .gguf file. Name a .gguf file, or the folder of a model{how}")
    if unknown := unknown_model(name):
        raise InputError(unknown)
    _tell_of_code(name, notice, trust_remote_code)
    return name, {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "local_files_only": not answers(name, revision),
    }


def _place(source: str, options: dict[str, Any]) -> Path | None:
    """The folder, or the .gguf file, that the model was read from; None where it is not known."""
    if "gguf_file" in options:
        return Path(source) / options["gguf_file"]
    return Path(source) if Path(source).is_dir() else cached_folder(source, options["revision"])
