"""The model settings of a config: base model, device, precision, chat settings."""

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
    """Everything that loading a base model depends on."""

    name: str  # built-in, a folder, a .gguf file, or an id on the hub
    revision: str | None = None  # for a model on the hub
    trust_remote_code: bool = False
    device: str = "auto"
    device_map: str | None = None
    quantize: str | None = None
    precision: str = "auto"
    chat: ChatSettings = field(default_factory=ChatSettings)
    named: bool = True  # by the user; False: by the run, whose base model may have been moved


def chat_settings(config: Config) -> ChatSettings:
    """The chat settings of a config. Raises `InputError` for a template file that cannot be read."""
    return ChatSettings(read_template(config.chat_template), config.chat_template_kwargs, config.system)


def model_source(config: Config, *, named: bool = True) -> ModelSource:
    """The base model of a config. Raises the errors of `chat_settings`."""
    with perhaps_elsewhere(config.model, named=named):
        chat = chat_settings(config)
    return ModelSource(
        config.model, config.revision, config.trust_remote_code, config.device, config.device_map, config.quantize, config.precision,
        chat, named,
    )  # fmt: skip


@contextmanager
def perhaps_elsewhere(model: str, *, named: bool) -> Iterator[None]:
    """Inside this context, errors explain how to set a run's base model, if the user has not `named` it and it is not found."""
    try:
        yield
    except DiffuseError as error:
        if named or model in BUILTIN_MODELS or exists(model):
            raise
        raise type(error)(f"{error}. If the run's base model was moved, set its path with --model") from error
