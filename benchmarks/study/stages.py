"""Commands that are run once: each leaves a file, and is left out when the same command has left it before.

A stage that was interrupted is run again; `diffuse` itself goes on inside a training or a sampling. The journal below `results/study`
says what was run and for how long.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusecli.runs import write_json, write_text

WHERE = Path("results/study")
JOURNAL = WHERE / "stages.json"


@dataclass(frozen=True)
class Stage:
    """One command, `python -m` what it says, and the file that it leaves."""

    name: str
    command: tuple[str, ...]
    product: Path
    prints: bool = False  # the product is what it prints

    @property
    def told(self) -> str:
        """As a line for a shell; what is not diffuse's is `python -m`."""
        return shlex.join(("diffuse", *self.command[1:]) if self.command[0] == "diffusecli" else ("python", "-m", *self.command))


def seconds_of(stages: Iterable[Stage], journal: Mapping[str, Mapping[str, object]]) -> float:
    """What they took so far, interrupted attempts with them."""
    return sum(float(str(journal.get(stage.name, {}).get("seconds", 0.0))) for stage in stages)


def read_journal() -> dict[str, dict[str, object]]:
    """Stage name -> its command, whether it is done, and seconds."""
    return json.loads(JOURNAL.read_text(encoding="utf-8")) if JOURNAL.is_file() else {}


def is_done(stage: Stage, journal: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether this very command has left its file."""
    known = journal.get(stage.name, {})
    return bool(known.get("done")) and known.get("command") == stage.told and stage.product.exists()


def run(stages: Iterable[Stage]) -> None:
    """Run what is not done, in order; ends the program with the code of a command that fails."""
    stages = list(stages)
    for number, stage in enumerate(stages, 1):
        journal = read_journal()
        if is_done(stage, journal):
            continue
        known = journal.get(stage.name, {})
        same = known.get("command") == stage.told
        print(f"[{number}/{len(stages)}] {stage.told}", flush=True)
        started = time.perf_counter()
        code, printed = _call(stage, anew=not same and (bool(known) or stage.product.exists()))
        spent = time.perf_counter() - started + (float(str(known.get("seconds", 0.0))) if same else 0.0)
        if code == 0 and stage.prints:
            write_text(stage.product, printed)
        journal[stage.name] = {"command": stage.told, "done": code == 0, "seconds": round(spent, 1)}
        write_json(JOURNAL, journal)
        if code:
            sys.exit(code)


def _call(stage: Stage, *, anew: bool) -> tuple[int, str]:
    """Run it with its notices in a log of its own; the exit code and what it printed."""
    force = ("--force",) if anew and stage.command[1:2] == ("train",) else ()
    log = WHERE / "logs" / f"{stage.name.replace('/', '.')}.log"
    for path in (log, stage.product):
        path.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *stage.command, *force],
            stdout=subprocess.PIPE if stage.prints else subprocess.DEVNULL, stderr=errors, text=True, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    if done.returncode:
        print(f"ended with {done.returncode}: {log.read_text(encoding='utf-8')[-2000:]}", file=sys.stderr)
    return done.returncode, done.stdout or ""
