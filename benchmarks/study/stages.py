"""Commands that are run once: each leaves a file, and is left out while that file is what the command would leave again.

That is so when the journal below `results/study` knows the same command as done, and none of the files that it reads has changed since.
A stage that was interrupted is run again; `diffuse` itself goes on inside a training or a sampling. The journal also says how long each took.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusecli.files.writing import write_json, write_text

WHERE = Path("results/study")
JOURNAL = WHERE / "stages.json"

Journal = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Stage:
    """One command, `python -m` what it says, and the file that it leaves."""

    name: str
    command: tuple[str, ...]
    product: Path
    reads: tuple[Path, ...] = ()  # what other stages leave and this one depends on
    prints: bool = False  # the product is what it prints
    fills_folder: bool = False  # the product's folder is all its own, and goes when the command changes
    minutes: float = 0.0  # how long it is expected to take; 0: not estimated

    @property
    def told(self) -> str:
        """As a line for a shell; what is not diffuse's is `python -m`."""
        return shlex.join(("diffuse", *self.command[1:]) if self.command[0] == "diffusecli" else ("python", "-m", *self.command))


def seconds_of(stages: Iterable[Stage], journal: Journal) -> float:
    """What they took so far, interrupted attempts with them."""
    return sum(float(str(journal.get(stage.name, {}).get("seconds", 0.0))) for stage in stages)


def read_journal() -> dict[str, dict[str, object]]:
    """Stage name -> its command, whether it is done, and seconds."""
    return json.loads(JOURNAL.read_text(encoding="utf-8")) if JOURNAL.is_file() else {}


def is_done(stage: Stage, journal: Journal) -> bool:
    """Whether this very command has left its file, and nothing that it read has changed since."""
    known = journal.get(stage.name, {})
    if not known.get("done") or known.get("command") != stage.told or not stage.product.exists():
        return False
    made = stage.product.stat().st_mtime_ns
    return all(path.exists() and path.stat().st_mtime_ns <= made for path in stage.reads)


def run(stages: Iterable[Stage]) -> None:
    """Run what is not done, in order; ends the program with the code of a command that fails."""
    stages = list(stages)
    for number, stage in enumerate(stages, 1):
        journal = read_journal()
        if is_done(stage, journal):
            continue
        print(f"[{number}/{len(stages)}] {stage.told}", flush=True)
        known = journal.get(stage.name, {})
        same = known.get("command") == stage.told
        if stage.fills_folder and known and (known.get("done") or not same):  # of other settings, or from another beginning
            shutil.rmtree(stage.product.parent, ignore_errors=True)
        before = float(str(known.get("seconds", 0.0))) if same and not known.get("done") else 0.0
        entry = {"command": stage.told, "done": False, "seconds": before}
        _write(stage, entry)
        started = time.perf_counter()
        try:
            code, printed = _call(stage)
            if code == 0 and stage.prints:
                write_text(stage.product, printed)
            entry["done"] = code == 0
        finally:
            entry["seconds"] = round(before + time.perf_counter() - started, 1)
            _write(stage, entry)
        if code:
            sys.exit(code)


def _write(stage: Stage, entry: Mapping[str, object]) -> None:
    """Write the entry into the journal as it is now: other pieces may run beside this one."""
    write_json(JOURNAL, {**read_journal(), stage.name: entry})


def _call(stage: Stage) -> tuple[int, str]:
    """Run it with its notices in a log of its own; the exit code and what it printed. Ctrl-C is the command's to answer."""
    log = WHERE / "logs" / f"{stage.name.replace('/', '.')}.log"
    for path in (log, stage.product):
        path.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        called = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *stage.command], stdout=subprocess.PIPE if stage.prints else subprocess.DEVNULL,
            stderr=errors, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        try:
            printed, _ = called.communicate()
        except KeyboardInterrupt:  # it was asked as well, and writes what it has
            printed, _ = called.communicate()
    if called.returncode:
        print(f"ended with {called.returncode}: {log.read_text(encoding='utf-8')[-2000:]}", file=sys.stderr)
    return called.returncode, printed or ""
