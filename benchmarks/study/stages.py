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
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from diffusecli.files.locks import only_writer
from diffusecli.files.writing import write_json, write_text

WHERE = Path("results/study")
JOURNAL = WHERE / "stages.json"

Journal = Mapping[str, Mapping[str, object]]

_WRITING = threading.Lock()


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


def run(stages: Iterable[Stage], jobs: int = 1) -> None:
    """Run what is not done, `jobs` commands at a time, in an order in which each finds what it reads.

    Ends the program with the code of the first command that fails. Commands that run beside it finish before, also after Ctrl-C.
    Raises `InputError` if another process runs the study in this folder.
    """
    left, running, code = list(stages), dict[Future[int], Stage](), 0
    with only_writer(WHERE, WHERE / ".lock"), ThreadPoolExecutor(jobs) as pool:
        while (left and not code) or running:
            while not code and len(running) < jobs and (stage := _next(left, running.values())):
                left.remove(stage)
                if not is_done(stage, read_journal()):
                    print(f"[{len(left)} left] {stage.told}", flush=True)
                    running[pool.submit(_run, stage, jobs)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                code = code or future.result()
                del running[future]
    if code:
        sys.exit(code)


def _next(left: Sequence[Stage], running: Iterable[Stage]) -> Stage | None:
    """The first stage that reads nothing which a stage before it, or a running one, has yet to leave."""
    coming = {stage.product for stage in running}
    for stage in left:
        if coming.isdisjoint(stage.reads):
            return stage
        coming.add(stage.product)
    return None


def _run(stage: Stage, jobs: int) -> int:
    """Run one command and write what became of it into the journal; its exit code."""
    known = read_journal().get(stage.name, {})
    same = known.get("command") == stage.told
    if stage.fills_folder and known and (known.get("done") or not same):  # of other settings, or from another beginning
        shutil.rmtree(stage.product.parent, ignore_errors=True)
    before = float(str(known.get("seconds", 0.0))) if same and not known.get("done") else 0.0
    entry = {"command": stage.told, "done": False, "seconds": before}
    _write(stage, entry)
    started = time.perf_counter()
    try:
        code, printed = _call(stage, jobs)
        if code == 0 and stage.prints:
            write_text(stage.product, printed)
        entry["done"] = code == 0
    finally:
        entry["seconds"] = round(before + time.perf_counter() - started, 1)
        _write(stage, entry)
    return code


def _write(stage: Stage, entry: Mapping[str, object]) -> None:
    """Write the entry into the journal as it is now: other commands run beside this one."""
    with _WRITING:
        write_json(JOURNAL, {**read_journal(), stage.name: entry})


def _call(stage: Stage, jobs: int) -> tuple[int, str]:
    """Run it with its notices in a log of its own; the exit code and what it printed.

    Several commands at a time have one thread each. Ctrl-C is the command's to answer: it writes what it has.
    """
    log = WHERE / "logs" / f"{stage.name.replace('/', '.')}.log"
    for path in (log, stage.product):
        path.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        called = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *stage.command], stdout=subprocess.PIPE if stage.prints else subprocess.DEVNULL,
            stderr=errors, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})},
        )  # fmt: skip
        printed, _ = called.communicate()
    if called.returncode:
        print(f"ended with {called.returncode}: {log.read_text(encoding='utf-8')[-2000:]}", file=sys.stderr)
    return called.returncode, printed or ""
