"""What `state.safetensors` says about a training, read without torch: its progress, and whether its result is complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusecli.runs.run_dir import STATE_FORMAT, RunDir, step_of


def recorded_progress(state: Path) -> dict[str, Any] | None:
    """The progress in the state of a training; None if this version cannot resume from it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(state, framework="np") as file:
            metadata = file.metadata()
        found = json.loads(metadata["progress"]) if metadata["format"] == STATE_FORMAT else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("asked"), dict) else None


def has_result(run: RunDir, checkpoint: Path) -> bool:
    """Whether the training of this checkpoint is complete and its result is in the run: only samples are missing."""
    manifest = run.read_manifest() if run.has_adapter else {}
    if manifest.get("steps") != step_of(checkpoint) or manifest.get("adapter_sha256") != run.adapter_sha256:
        return False
    progress = recorded_progress(RunDir(checkpoint).state)
    return progress is not None and bool(progress.get("finished"))
