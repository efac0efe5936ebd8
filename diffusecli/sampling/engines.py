"""Where answers come from: the engines by name. What all of them keep is in `engine.py`.

An engine draws answers to a prompt and hands over what it has as it comes; one that has `draw_all` too gets all prompts at once.
To add one, write a function with the `@engine` decorator: it takes an `EngineRequest`, makes an `Engine`, yields it, and cleans up. Its name is the value of `--engine`,
its keyword-only parameters are options of `diffuse sample`. What it needs is imported inside of it: `diffuse --help` reads this.
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

    kind: Any  # type of its value
    help: str
    default: Any


@dataclass(frozen=True)
class Kind:
    """An engine that the command line can name."""

    name: str
    summary: str
    loads_model: bool  # options about device, precision and the like are for those that do
    make: Callable[..., AbstractContextManager[Engine]]

    @property
    def required(self) -> list[str]:
        """Those of its options that must be given."""
        return [name for name, option in self.options.items() if option.default is inspect.Parameter.empty]

    @property
    def options(self) -> dict[str, Option]:
        """Its own options by parameter."""
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
    """Register a function that yields an engine; its options are annotated with their type and what they mean."""

    def register(make: _Make) -> _Make:
        name = make.__name__.replace("_", "-")
        ENGINES[name] = Kind(name, summary, loads_model, contextmanager(make))
        return make

    return register


@engine("the loaded model", loads_model=True)
def counting(asked: EngineRequest) -> Iterator[Engine]:
    """Raises `InputError` when the adapter is not of this very model."""
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
                f"{adapter.path}: was trained with another system text, chat template or variables of it; answers may not follow "
                "the targets"
            )
        load_adapter(base, adapter.path, recorded=recorded, named=asked.source.named, notice=asked.notice)
    if asked.home is not None:
        base.call_as(asked.home.read_manifest())
    with merged(base.model):
        yield LocalEngine(base, asked.settings, asked.max_rows, asked.notice)


@engine("a server that speaks OpenAI's protocol")
def openai(
    asked: EngineRequest, *, base_url: Annotated[str, "e.g. http://localhost:8000/v1"],
    concurrency: Annotated[int, "requests under way at once"] = 8,
    requests_per_minute: Annotated[float, "no more than this; 0 is no limit"] = 0.0,
    tries: Annotated[int, "how often a request that fails is sent"] = 6,
    timeout: Annotated[float, "seconds to wait for an answer"] = 120.0,
    omit: Annotated[list[str] | None, "a field that is never sent, such as top_p; may be repeated"] = None,
    n_per_request: Annotated[int | None, "answers asked for at once (n); 32, or 1 if the server gives one, by default"] = None,
) -> Iterator[Engine]:  # fmt: skip
    """Raises `InputError` and `MachineError` as `server_engine.ServerEngine`."""
    from diffusecli.sampling.connection import Service
    from diffusecli.sampling.server_engine import ServerEngine

    service = Service(base_url, asked.model, concurrency, requests_per_minute, tries, timeout, tuple(omit or ()), n_per_request)
    yield ServerEngine(service, asked.settings, asked.notice, asked.source.chat)
