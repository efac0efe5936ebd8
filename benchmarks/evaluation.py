"""Time of `diffuse evaluate`, including imports and reading: an ordinary run, and a million samples of a thousand targets."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.command import measured
from benchmarks.workbench import NUMBERS_10, NUMBERS_100
from diffusecli.files.writing import write_json
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.run_dir import RunDir, prompts_as_json


def main() -> None:
    """Wall time in seconds and peak memory of the command; best of five."""
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
            runs = [measured(folder, *words) for _ in range(5)]
            if failed := next((run for run in runs if run.code), None):
                raise SystemExit(f"{words}: ended with {failed.code}: {failed.told}")
            best = min(runs, key=lambda run: run.seconds)
            print(f"| {what} | {best.seconds:.2f} | {best.megabytes:.0f} |")


def _ordinary(run: RunDir) -> None:
    prompts = [read_prompt(NUMBERS_10), read_prompt(NUMBERS_100)]
    rng = np.random.default_rng(0)
    write_json(run.manifest, {})
    write_json(run.prompts, prompts_as_json(prompts))
    write_json(run.samples("lora"), {p.alias: rng.choice(p.targets, 1000).tolist() for p in prompts})
    write_json(run.samples("untuned"), {p.alias: [p.targets[6]] * 500 + [f"text {i}" for i in range(500)] for p in prompts})
