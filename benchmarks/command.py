"""Run the command, or another program, in a separate process and measure its exit code, time and peak memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
import runpy, sys
peak, program, sys.argv = int(sys.argv[1]), sys.argv[2], sys.argv[2:]
try:
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    elif program:
        runpy.run_module(program, run_name="__main__")
finally:
    with open("/proc/self/status") as status, open(peak, "w") as told:
        told.write(next(line for line in status if line.startswith("VmHWM")))
"""
"""The process reports its own peak: the figure of `wait4` includes the parent's memory at the start."""


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    said: str  # on stdout
    told: str  # on stderr
    seconds: float
    megabytes: float  # peak memory; nan if it was killed

    def __str__(self) -> str:
        """Without its output."""
        return f"exit code {self.code}, {self.seconds:.1f} s, {self.megabytes:.0f} MB"


def measured(folder: Path, *words: object, timeout: float | None = None, **environment: str) -> Done:
    """Run `diffuse` with these arguments in a folder; without arguments only start Python. `timeout` in seconds."""
    return measured_program(folder, "diffusecli" if words else "", *words, timeout=timeout, **environment)


def measured_program(
    folder: Path,
    program: str,
    *words: object,
    python: str | Path = sys.executable,
    timeout: float | None = None,
    **environment: str,
) -> Done:
    """Run a module, or a script whose name ends in `.py`, with these arguments in a folder. `timeout` in seconds."""
    with tempfile.TemporaryFile("r") as peak:
        command = [str(python), "-c", _SCRIPT, str(peak.fileno()), program, *map(str, words)]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
            pass_fds=(peak.fileno(),), env={**os.environ, **environment},
        )  # fmt: skip
        took = time.perf_counter() - started
        peak.seek(0)
        held = peak.read().split()
    return Done(done.returncode, done.stdout, done.stderr, took, int(held[1]) * 1024 / 1e6 if held else math.nan)
