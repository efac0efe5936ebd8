"""The current git checkout: its commit, and whether files differ. Runs no program that the checkout names.

A checkout may be untrusted, and git's settings name programs: file monitors, filters, hooks, transports.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

_HARMLESS = {
    "core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.attributesFile": os.devnull,
    "safe.bareRepository": "explicit",  # an untrusted folder may contain a hidden bare repository
}  # fmt: skip
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0"}
_TIMEOUT = 10.0  # seconds per git command
_FILTER_COMMANDS = ("clean", "smudge", "process")


def git_state() -> Mapping[str, Any] | None:
    """Commit and dirty flag of the working directory. None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        unfiltered = _without_filters()
        changed = _git("status", "--porcelain", "--ignore-submodules=all", settings=unfiltered)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed.strip())}


def _without_filters() -> dict[str, str]:
    """Settings that disable the programs of all filters. `git status` would run them on files with changed dates."""
    names = _git("config", "--null", "--name-only", "--list").split("\0")
    filters = {name.rpartition(".")[0] for name in names if name.lower().startswith("filter.")}
    commands = {f"{name}.{command}": "" for name in filters for command in _FILTER_COMMANDS}
    return {**commands, **{f"{name}.required": "false" for name in filters}}


def _git(*words: str, settings: Mapping[str, str] | None = None) -> str:
    """The output of git. Settings are passed through the environment, where names need no quoting."""
    given = {**_HARMLESS, **(settings or {})}
    numbered = {"GIT_CONFIG_COUNT": str(len(given))}
    for number, (name, value) in enumerate(given.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    done = subprocess.run(
        ["git", "--no-pager", *words], capture_output=True, timeout=_TIMEOUT, check=True, stdin=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT, **numbered},
    )  # fmt: skip
    return done.stdout.decode(errors="surrogateescape")
