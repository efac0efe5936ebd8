"""How long `diffuse evaluate` takes, with imports and reading: an ordinary run, and a million samples of a thousand targets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.workbench import NUMBERS_10, NUMBERS_100
from diffusecli.prompt import read_prompt
from diffusecli.runs import RunDir, prompts_as_json, write_json

_BODY = "runpy.run_module('diffusecli', run_name='__main__')"
_PEAK = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"


def main() -> None:
    """Wall seconds and peak memory of the command, the best of five."""
    print("| what | seconds | MB at the peak |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _ordinary(RunDir(folder / "run"))
        targets = [f"{{{i}}}" for i in range(1000)]
        write_json(folder / "p.json", {"request": "x", "targets": targets})
        (folder / "s.json").write_text(json.dumps(np.random.default_rng(0).choice(targets, 1_000_000).tolist()))
        for what, words in (
            ("python, nothing else", []),
            ("diffuse evaluate --help", ["evaluate", "--help"]),
            ("two prompts, untuned and lora, 1000 samples each", ["evaluate", "run"]),
            ("1 000 000 samples of 1000 targets", ["evaluate", "s.json", "--prompt", "p.json"]),
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
    """A process tells its own peak: what `wait4` says includes the parent at the moment of the fork."""
    script = f"import runpy, sys; sys.argv = {['diffuse', *words]}\ntry: {_BODY if words else 'pass'}\nfinally: {_PEAK}"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - started, int(done.stderr.split()[-2]) / 1000
