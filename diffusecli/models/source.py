"""Which base model is meant, how it is put in memory, and how it is talked to: what a config says of a model, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from diffusecli.files.paths import exists
from diffusecli.models.builtin import BUILTIN_MODELS
from diffusecli.models.chat import ChatSettings, read_template
from diffusecli.prompts.config import Config
from diffusecli.system.errors import DiffuseError


@dataclass(frozen=True)
class ModelSource:
    """All that loading a base model depends on."""

    name: str  # built-in, a folder, a .gguf file, or an id on the hub
    revision: str | None = None  # of a model on the hub
    trust_remote_code: bool = False
    device: str = "auto"
    device_map: str | None = None
    quantize: str | None = None
    precision: str = "fp32"
    chat: ChatSettings = field(default_factory=ChatSettings)
    named: bool = True  # by the user; else by the run, whose base model may be in another place by now


def chat_settings(config: Config) -> ChatSettings:
    """How a config says that the model is talked to. Raises `InputError` for a template file that cannot be read."""
    return ChatSettings(read_template(config.chat_template), config.chat_template_kwargs, config.system)


def model_source(config: Config, *, named: bool = True) -> ModelSource:
    """What a config says of its base model. Raises as `chat_settings` does."""
    with perhaps_elsewhere(config.model, named=named):
        chat = chat_settings(config)
    return ModelSource(
        config.model, config.revision, config.trust_remote_code, config.device, config.device_map, config.quantize, config.precision,
        chat, named,
    )  # fmt: skip


@contextmanager
def perhaps_elsewhere(model: str, *, named: bool) -> Iterator[None]:
    """Within it, errors say how to name a run's base model, where that is not `named` by the user and not here."""
    try:
        yield
    except DiffuseError as error:
        if named or model in BUILTIN_MODELS or exists(model):
            raise
        raise type(error)(f"{error}; if the run's base model is in another place now, name it with --model") from error
