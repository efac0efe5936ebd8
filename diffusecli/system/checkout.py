"""The git checkout a command is run in: its commit, and whether files differ. Runs nothing that the checkout asks for.

A checkout may be somebody else's, and git's own settings name programs: monitors of files, filters, hooks, transports.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

_HARMLESS = {
    "core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.attributesFile": os.devnull,
    "safe.bareRepository": "explicit",  # a stranger's folder may be a repository in disguise
}  # fmt: skip
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0"}
_TIMEOUT = 10.0  # seconds for one command of git
_FILTER_COMMANDS = ("clean", "smudge", "process")


def git_state() -> Mapping[str, Any] | None:
    """Commit and dirty flag of the working directory, None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        unfiltered = _without_filters()
        changed = _git("status", "--porcelain", "--ignore-submodules=all", settings=unfiltered)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed.strip())}


def _without_filters() -> dict[str, str]:
    """Settings that take every filter its programs away: `git status` would run them on files it cannot tell by their dates."""
    names = _git("config", "--null", "--name-only", "--list").split("\0")
    filters = {name.rpartition(".")[0] for name in names if name.lower().startswith("filter.")}
    commands = {f"{name}.{command}": "" for name in filters for command in _FILTER_COMMANDS}
    return {**commands, **{f"{name}.required": "false" for name in filters}}


def _git(*words: str, settings: Mapping[str, str] | None = None) -> str:
    """What git prints, its settings overridden through the environment, where their names need no quoting."""
    given = {**_HARMLESS, **(settings or {})}
    numbered = {"GIT_CONFIG_COUNT": str(len(given))}
    for number, (name, value) in enumerate(given.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    done = subprocess.run(
        ["git", "--no-pager", *words], capture_output=True, timeout=_TIMEOUT, check=True, stdin=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT, **numbered},
    )  # fmt: skip
    return done.stdout.decode(errors="surrogateescape")
