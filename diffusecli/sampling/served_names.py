"""Compare the model's name with what a server lists: some servers (llama.cpp) ignore the name and answer anyway."""

from __future__ import annotations

from typing import Any

from diffusecli.sampling.connection import Connection, RefusedError, Service, until_done
from diffusecli.system.errors import InputError, MachineError
from diffusecli.system.notices import some_of


def name_warning(service: Service, what: str, run: str = "") -> str:
    """As `warning_of`, with a connection of its own."""

    async def asked() -> str:
        async with Connection(service) as connection:
            return await warning_of(connection, service, what, run)

    return until_done(asked())


async def warning_of(connection: Connection, service: Service, what: str, run: str = "") -> str:
    """A warning if the server answered, but does not list the model that was asked for. Empty if it does, or if it has no list.

    `what` came from the server: answers or figures. `run`: the trained run that they should be of.
    """
    try:
        listed = _names(await connection.trying_once().fetch("/models"))
    except (RefusedError, InputError, MachineError):
        return ""
    if not listed or any(_is_called(service.model, name) for name in listed):
        return ""
    if len(listed) == 1:
        found = f"the server serves {listed[0]} and ignores the name asked for ({service.model})"
    else:
        found = f"{service.model} is not among the models that the server lists ({some_of(listed)})"
    other = listed[0] if len(listed) == 1 and not run else ""
    whose = f"are those of {other}" if other else f"may not be those of {run or service.model}"
    return f"warning: {service.base_url}: {found}. The {what} {whose}"


def _names(answer: Any) -> list[str]:
    """The ids in a list of models; empty if it is not one."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    names: list[Any] = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            others = entry.get("aliases")
            names += [entry.get("id"), *(others if isinstance(others, list) else ())]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def _is_called(asked: str, listed: str) -> bool:
    """Whether a listed name is the one asked for; it may have a folder or an owner before it, or Ollama's tag behind it.

    >>> [_is_called("dice", name) for name in ("dice", "dice:latest", "models/dice", "dice-F16.gguf")]
    [True, True, True, False]
    """
    return listed in (asked, f"{asked}:latest") or listed.endswith(f"/{asked}")


def same_model(one: str, other: str) -> bool:
    """Whether two names differ at most in the folders or the owner before them and in Ollama's tag behind them.

    >>> same_model("owner/gpt", "gpt:latest"), same_model("models/gpt", "gpt-1f2e3d4c")
    (True, False)
    """
    first, second = (name.rstrip("/").rpartition("/")[2].removesuffix(":latest") for name in (one, other))
    return first == second
