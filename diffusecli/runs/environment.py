"""The environment of a run: time, machine, versions, commit of the checkout."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from diffusecli.system.checkout import git_state

_PACKAGES = ("diffuse-lm", "torch", "transformers", "peft", "numpy")


def environment() -> dict[str, Any]:
    """Versions, platform, git state and time, to reproduce a run."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
