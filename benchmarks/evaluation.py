"""How long `diffuse evaluate` takes, with imports and reading: an ordinary run, and a million samples of a thousand targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.workbench import NUMBERS_10, NUMBERS_100
from diffusecli.prompt import read_prompt
from diffusecli.runs import RunDir, prompts_as_json, write_json


def main() -> None:
    """Wall seconds and peak memory of the command, the best of five; beside `python -c pass` and the import of scipy.stats."""
    print("| what | seconds | MB at the peak |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _ordinary(RunDir(folder / "run"))
        targets = [f"{{{i}}}" for i in range(1000)]
        write_json(folder / "p.json", {"request": "x", "targets": targets})
        (folder / "s.json").write_text(json.dumps(np.random.default_rng(0).choice(targets, 1_000_000).tolist()))
        for what, words in (
            ("python -c pass", ["-c", "pass"]),
            ("import scipy.stats", ["-c", "import scipy.stats"]),
            ("two prompts, untuned and lora, 1000 samples each", ["-m", "diffusecli", "evaluate", "run"]),
            ("1 000 000 samples of 1000 targets", ["-m", "diffusecli", "evaluate", "s.json", "--prompt", "p.json"]),
        ):
            seconds, megabytes = min(_measured(words, folder) for _ in range(5))
            print(f"| {what} | {seconds:.2f} | {megabytes:.0f} |")


def _ordinary(run: RunDir) -> None:
    prompts = [read_prompt(NUMBERS_10), read_prompt(NUMBERS_100)]
    rng = np.random.default_rng(0)
    write_json(run.manifest, {})
    write_json(run.prompts, prompts_as_json(prompts))
    write_json(run.samples("lora"), {p.alias: rng.choice(p.targets, 1000).tolist() for p in prompts})
    write_json(run.samples("untuned"), {p.alias: [p.targets[6]] * 500 + [f"text {i}" for i in range(500)] for p in prompts})


def _measured(words: list[str], folder: Path) -> tuple[float, float]:
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words}: ended with {status}")
    process.returncode = 0
    return time.perf_counter() - started, usage.ru_maxrss / 1000
