"""Startup time of commands: to the help, the first optimiser step, the first token, the tables; compared with Python and imports alone."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

_REPEATS = 5
_CLI = ("-m", "diffusecli")
_IMPORTS = "import torch, transformers, peft; from transformers.models.llama.modeling_llama import LlamaForCausalLM"
_FIRST_STEP = "iteration 1/"  # on stderr, when the first step over the only prompt is done


def main() -> None:
    """The median of five measurements of each, alternating."""
    with tempfile.TemporaryDirectory() as place:
        config, run = _trained(Path(place))
        sample = ("sample", str(config), "--mode", "lora", "-n", "1", "--max-new-tokens", "1", "-o", str(Path(place) / "one.json"))
        wanted: dict[str, tuple[Sequence[str], str | None]] = {
            "python -c pass": (("-c", "pass"), None),
            "import torch": (("-c", "import torch"), None),
            "import torch, transformers, peft and a Llama": (("-c", _IMPORTS), None),
            "diffuse --help": ((*_CLI, "--help"), None),
            "diffuse train, to the first step": ((*_CLI, "train", str(config), "--force", "--set", f"output_dir={place}/again"), _FIRST_STEP),
            "diffuse sample --mode lora, one token": ((*_CLI, *sample), None),
            "diffuse evaluate": ((*_CLI, "evaluate", str(run)), None),
            "diffuse evaluate --exact": ((*_CLI, "evaluate", str(run), "--exact"), None),
        }  # fmt: skip
        took: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(_REPEATS):
            for name, (words, until) in wanted.items():
                took[name].append(_seconds(words, until))
    print("| | median of five, s | fastest |\n|---|---|---|")
    for name, some in took.items():
        print(f"| {name} | {statistics.median(some):.2f} | {min(some):.2f} |")


def _trained(place: Path) -> tuple[Path, Path]:
    """A config and its run, with samples."""
    config, run = place / "config.yaml", place / "run"
    config.write_text(yaml.safe_dump({
        "model": "smollm2-135m-instruct", "train_prompts": ["prompts/numbers/rng-0.json"], "test_prompts": ["prompts/numbers/rng-0.json"],
        "output_dir": str(run), "alg_config": {"n_iters": 6}, "generate": False,
    }))  # fmt: skip
    _seconds((*_CLI, "train", str(config)), None)
    _seconds((*_CLI, "sample", str(run), "-n", "100"), None)
    return config, run


def _seconds(words: Sequence[str], until: str | None) -> float:
    """Seconds from the start of Python to the line on stderr with `until`, where the process is stopped, or to its end."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if until is not None and until in line:
                took = time.perf_counter() - started
                process.kill()
                return took
    if process.returncode or until is not None:
        raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}")
    return time.perf_counter() - started
