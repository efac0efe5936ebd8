"""The counting sampler compared with batches of `generate`, and many prompts together compared with one at a time.

`generate` has 20 rows as in the original, and the best of several sizes. Tuned models give short answers with few distinct prefixes.
An untuned model that writes freely for 64 tokens has hardly any common prefixes. `generate` is timed on a few batches and scaled to 1000
samples; both sides run in one process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.workbench import NAMES_200, NUMBERS_10, NUMBERS_100, adapted_model, encode, seconds
from diffusecli.models.devices import peak_memory_mb
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import load_adapter, merged
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt, read_prompts
from diffusecli.runs.samples import write_samples
from diffusecli.sampling.batched import generate_rows
from diffusecli.sampling.engine import Wanted, drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.verbs.train import train

SAMPLES = 1000
SIZES = (20, 64, 200, 500)
LIBRARY = Path("prompts")
FREE = Prompt(request="Tell me something about the sea.", targets=(), alias="untuned, 64 tokens")


def main() -> None:
    """Print one row per prompt and method; then a million samples, and memory by N, each in a separate process."""
    print("| prompt | way | seconds for 1000 | tokens fed | distinct | counting is faster |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in (NUMBERS_10, NAMES_200):
            base = _tuned(path, folder)
            with merged(base.model):
                _print(read_prompt(path), compare(base, read_prompt(path), SamplingSettings(SAMPLES, 50), (20,)))
        _print(FREE, compare(adapted_model(fresh_adapter=False), FREE, SamplingSettings(SAMPLES, 64), SIZES))
        _together()
        _tuned(NUMBERS_100, folder)
        print(
            "\n| numbers 1-100, samples | seconds | tokens fed | distinct | MB at the peak | seconds to write, bytes as counts | as json |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for n in (1000, 10_000, 100_000, 1_000_000):
            subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.sampling", folder, str(n)], check=True)


def _tuned(path: str, folder: str) -> LoadedModel:
    config = Config.model_validate({
        "model": "smollm2-135m-instruct", "train_prompts": [path], "output_dir": folder, "retain": "off",
    })  # fmt: skip
    train(config, report=lambda _: None, notice=lambda _: None, force=True)
    base = adapted_model(fresh_adapter=False)
    load_adapter(base, folder)
    return base


@dataclass(frozen=True)
class Compared:
    """Seconds for 1000 samples of one prompt, with both methods."""

    counting: float
    fed: int  # tokens that the counting sampler fed
    distinct: int
    generate: dict[int, float]  # rows a batch -> seconds


def compare(base: LoadedModel, prompt: Prompt, settings: SamplingSettings, sizes: tuple[int, ...]) -> Compared:
    """Time `generate` with several batch sizes, then the counting sampler."""
    encoded = encode(base, prompt)
    engine = LocalEngine(base, settings)
    plain = {}
    for size in sizes:
        batches = 3 if size < 64 else 1
        took = seconds(lambda size=size, batches=batches: _batches(base.model, encoded, settings, size, batches))  # type: ignore[misc]
        plain[size] = took * SAMPLES / (size * batches)
    kept: list[Any] = []
    own = seconds(lambda: kept.append(drawn(engine, prompt)))
    counts, fed = kept[0]
    return Compared(own, fed, len(counts), plain)


def _print(prompt: Prompt, found: Compared) -> None:
    print(f"| {prompt.alias} | counting | {found.counting:.2f} | {found.fed} | {found.distinct} | |")
    for size, took in found.generate.items():
        print(f"| | generate, {size} rows a batch | {took:.1f} | | | {took / found.counting:.1f}x |", flush=True)


def _together() -> None:
    """A few answers to each of many prompts."""
    base = adapted_model(fresh_adapter=False)
    prompts = read_prompts([LIBRARY])[:25]
    settings = SamplingSettings(10, 16)
    print("\n| 25 prompts, 10 answers of at most 16 tokens, untuned | seconds | tokens fed |")
    print("|---|---|---|")
    for name, action in (("one after the other", _one_by_one), ("together", _all_at_once)):
        engine, fed = LocalEngine(base, settings), [0]
        action(engine, prompts[:2], [0])  # probes
        took = seconds(lambda engine=engine, fed=fed, action=action: action(engine, prompts, fed))  # type: ignore[misc]
        print(f"| {name} | {took:.1f} | {fed[0]} |", flush=True)


def _one_by_one(engine: LocalEngine, prompts: list[Prompt], fed: list[int]) -> None:
    fed[0] = sum(drawn(engine, prompt)[1] for prompt in prompts)


def _all_at_once(engine: LocalEngine, prompts: list[Prompt], fed: list[int]) -> None:
    def arrived(_: Answers, tokens: int) -> None:
        fed[0] += tokens

    engine.draw_all([Wanted(prompt, engine.settings.n_generations, Answers(), arrived, lambda _: None) for prompt in prompts])


def _batches(model: Any, encoded: Any, settings: SamplingSettings, size: int, batches: int) -> None:
    for batch in range(batches):
        generate_rows(model, [encoded.prompt_ids] * size, encoded.stop_ids, settings=settings, seed=batch)


def _many(folder: str, n: int) -> None:
    base = adapted_model(fresh_adapter=False)
    load_adapter(base, folder)
    prompt, settings = read_prompt(NUMBERS_100), SamplingSettings(n)
    with torch.no_grad(), merged(base.model):
        kept: list[Any] = []
        took = seconds(lambda: kept.append(drawn(LocalEngine(base, settings), prompt)))
    peak = peak_memory_mb()
    counts, fed = kept[0]
    written = []
    for form in ("counts", "json"):
        path = Path(folder) / f"gen.{form}"
        write = seconds(lambda form=form, path=path: write_samples(path, {prompt.alias: counts}, form, 0))  # type: ignore[misc]
        written.append(f"{write:.2f}, {path.stat().st_size}")
    print(f"| {n} | {took:.2f} | {fed} | {len(counts)} | {peak} | {written[0]} | {written[1]} |", flush=True)


if __name__ == "__main__":
    _many(sys.argv[1], int(sys.argv[2]))
