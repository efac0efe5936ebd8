"""The engines by name. Their interface is in `engine.py`.

An engine draws answers to a prompt and passes them on as they arrive. An engine with `draw_all` gets all prompts at once.
To add one, write a function with the `@engine` decorator that takes an `EngineRequest`, yields an `Engine`, and cleans up. Its name is the value
of `--engine`, and its keyword-only parameters are options of `diffuse sample`. Import inside the function, because `diffuse --help` loads this module.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from diffusecli.sampling.engine import Engine, EngineRequest


@dataclass(frozen=True)
class Option:
    """An option of one engine."""

    kind: Any  # type of the value
    help: str
    default: Any


@dataclass(frozen=True)
class Kind:
    """An engine that the command line can name."""

    name: str
    summary: str
    loads_model: bool  # whether options such as device and precision apply
    make: Callable[..., AbstractContextManager[Engine]]

    @property
    def required(self) -> list[str]:
        """Its required options."""
        return [name for name, option in self.options.items() if option.default is inspect.Parameter.empty]

    @property
    def options(self) -> dict[str, Option]:
        """Its options by parameter."""
        hints = typing.get_type_hints(self.make, include_extras=True)
        found = {}
        for parameter in inspect.signature(self.make).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                kind, words = typing.get_args(hints[parameter.name])
                found[parameter.name] = Option(kind, words, parameter.default)
        return found


ENGINES: dict[str, Kind] = {}


_Make = Callable[..., Iterator[Engine]]


def engine(summary: str, *, loads_model: bool = False) -> Callable[[_Make], _Make]:
    """Register a function that yields an engine. Its options are annotated with type and help text."""

    def register(make: _Make) -> _Make:
        name = make.__name__.replace("_", "-")
        ENGINES[name] = Kind(name, summary, loads_model, contextmanager(make))
        return make

    return register


@engine("the loaded model", loads_model=True)
def counting(asked: EngineRequest) -> Iterator[Engine]:
    """Raises `InputError` when the adapter belongs to another model."""
    from diffusecli.files.locks import require_idle
    from diffusecli.models.adapters import recorded_base
    from diffusecli.models.loading import load_model
    from diffusecli.models.lora import load_adapter, merged, require_trained_on
    from diffusecli.sampling.local_engine import LocalEngine

    base = load_model(asked.source, asked.notice)
    if (adapter := asked.adapter) is not None:
        require_idle(adapter.path, adapter.lock)
        require_trained_on(base, recorded := recorded_base(adapter), adapter.path)
        if adapter.read_manifest().get("chat", base.chat_settings.recorded) != base.chat_settings.recorded:
            asked.notice(
                f"{adapter.path}: was trained with a different system prompt, chat template or template variables. Answers may not follow "
                "the targets"
            )
        load_adapter(base, adapter.path, recorded=recorded, named=asked.source.named, notice=asked.notice)
    if asked.home is not None:
        base.call_as(asked.home.read_manifest())
    with merged(base.model):
        yield LocalEngine(base, asked.settings, asked.max_rows, asked.notice)


@engine("an OpenAI-compatible server")
def openai(
    asked: EngineRequest, *, base_url: Annotated[str, "e.g. http://localhost:8000/v1"],
    concurrency: Annotated[int, "requests in parallel"] = 8,
    requests_per_minute: Annotated[float, "maximum rate (0: no limit)"] = 0.0,
    tries: Annotated[int, "maximum attempts per request"] = 6,
    timeout: Annotated[float, "timeout per request in seconds"] = 120.0,
    omit: Annotated[list[str] | None, "a field to leave out of requests, such as top_p; repeatable"] = None,
    n_per_request: Annotated[int | None, "answers per request, n (default: 32, or 1 if the server returns one)"] = None,
) -> Iterator[Engine]:  # fmt: skip
    """Raises `InputError` and `MachineError` as `server_engine.ServerEngine`."""
    from diffusecli.sampling.connection import Service
    from diffusecli.sampling.server_engine import ServerEngine

    service = Service(base_url, asked.model, concurrency, requests_per_minute, tries, timeout, tuple(omit or ()), n_per_request)
    run = "" if asked.adapter is None else str(asked.adapter.path)
    yield ServerEngine(service, asked.settings, asked.notice, asked.source.chat, run)
