"""Parts of a server's response, with their types checked."""

from __future__ import annotations

from typing import Any

from diffusecli.system.errors import MachineError


class OtherShapeError(MachineError):
    """A response does not have the documented shape."""


def part(value: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a response. Raises `OtherShapeError` if it is missing or of another type.

    >>> part({"tokens": [3]}, "tokens", list)
    [3]
    """
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise OtherShapeError(f"the server's response has no {name!r}: {str(value)[:200]!r}. Check the server's version")
    return found
