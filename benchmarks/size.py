"""Cost by size: seconds and peak memory of a step for 10 to 20 000 targets, each size in a separate process."""

from __future__ import annotations

import math
import subprocess
import sys

from benchmarks.packing import packed_way
from benchmarks.workbench import NAMES_200, adapted_model, seconds
from diffusecli.models.devices import peak_memory_mb
from diffusecli.models.encoding import encode_prompt
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.training.loss import score

SIZES = (10, 100, 1000, 10_000, 20_000)


def main() -> None:
    """Print one row per size; the slope is that of ln(seconds) over ln(targets) from row to row."""
    for kind in ("numbers", "names"):
        print(f"\n{kind}\n\n| targets | tokens fed | s/step | slope | MB at the peak |\n|---|---|---|---|---|")
        before: tuple[int, float] | None = None
        for size in SIZES:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.size", kind, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            fed, took, memory = done.stdout.split()
            slope = "-" if before is None else f"{math.log(float(took) / before[1]) / math.log(size / before[0]):.2f}"
            print(f"| {size} | {fed} | {float(took):.2f} | {slope} | {memory} |", flush=True)
            before = (size, float(took))


def _prompt(kind: str, size: int) -> Prompt:
    """Uniform numbers from 1, or first names (pairs of names if more than 200 are needed)."""
    if kind == "numbers":
        targets = [f"{{{number}}}" for number in range(1, size + 1)]
    else:
        names = [target.strip("{}") for target in read_prompt(NAMES_200).targets]
        if size > len(names):
            names = [f"{a} {b}" for a in names for b in names if a != b]
        targets = [f"{{{name}}}" for name in names[:size]]
    return Prompt(request="Pick one at random.", targets=tuple(targets), alias=kind)


def _one_step(kind: str, size: int) -> None:
    base = adapted_model()
    encoded = encode_prompt(_prompt(kind, size), base.chat)
    way = packed_way(base, encoded)
    took = seconds(lambda: score(base.model, encoded, way, backward=True), 3 if size <= 100 else 1)
    print(sum(part.tokens for part in way.parts(encoded)), took, peak_memory_mb())


if __name__ == "__main__":
    _one_step(sys.argv[1], int(sys.argv[2]))
