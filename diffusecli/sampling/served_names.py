"""Compare the model's name with what a server lists: some servers (llama.cpp) ignore the name and answer anyway."""

from __future__ import annotations

from typing import Any

from diffusecli.sampling.connection import Connection, RefusedError, Service, until_done
from diffusecli.sampling.model_names import is_called
from diffusecli.system.errors import InputError, MachineError
from diffusecli.system.notices import some_of


def check_name(service: Service, what: str, run: str = "") -> tuple[str, str]:
    """As `warning_of`, with a connection of its own."""

    async def asked() -> tuple[str, str]:
        async with Connection(service) as connection:
            return await warning_of(connection, service, what, run)

    return until_done(asked())


async def warning_of(connection: Connection, service: Service, what: str, run: str = "") -> tuple[str, str]:
    """A warning if the server answered, but does not list the model that was asked for, and the name of the only one that it lists.

    The warning is empty if the server lists the model, or if it has no list. `what` came from the server: answers or figures. `run`: the
    trained run that they should be of.
    """
    try:
        listed = _names(await connection.trying_once().fetch("/models"))
    except (RefusedError, InputError, MachineError):
        return "", ""
    if not listed or any(is_called(service.model, name) for name in listed):
        return "", ""
    if len(listed) == 1:
        found = f"the server serves {listed[0]} and ignores the name asked for ({service.model})"
    else:
        found = f"{service.model} is not among the models that the server lists ({some_of(listed)})"
    other = listed[0] if len(listed) == 1 and not run else ""
    whose = f"are those of {other}" if other else f"may not be those of {run or service.model}"
    return f"warning: {service.base_url}: {found}. The {what} {whose}", listed[0] if len(listed) == 1 else ""


def _names(answer: Any) -> list[str]:
    """The ids in a list of models; empty if it is not one."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    names: list[Any] = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            others = entry.get("aliases")
            names += [entry.get("id"), *(others if isinstance(others, list) else ())]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))
