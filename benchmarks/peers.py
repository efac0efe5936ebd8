"""Compare the original, TRL and `diffuse`: numbers 1-10 to an exact KL of .05, and 1000 samples of the tuned model.

The original's steps are counted with packed passes, at the measured cost of a step of rows (see `recipe`). TRL's `SFTTrainer`
learns from targets drawn by weight. It runs in a separate environment, created once below the cache folder, and saves its adapter at every
step. This process then measures their exact KL, so the checks do not count as TRL's time. Loading counts for memory, but not for
seconds, on every side. If TRL cannot be installed, its row shows this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.command import Done, measured, measured_program
from benchmarks.packing import packed_way
from benchmarks.recipe import GOAL, original_steps, reached, row_step
from benchmarks.sampling import SAMPLES, compare
from benchmarks.workbench import NUMBERS_10, adapted_model, encode
from diffusecli.files.cache import private_cache
from diffusecli.models.builtin import ensure_builtin
from diffusecli.models.lora import load_adapter, merged
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.iteration import Iteration
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import DiffuseError
from diffusecli.training.loss import score

MODEL = "smollm2-135m-instruct"
RATES = (5e-4, 1e-3, 2e-3)
STEPS, BATCH, WARMUP, PATIENCE = 30, 16, 3, 900
SIZES = (20, 200)


class PartError(Exception):
    """A part that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Row:
    """One way of training until the goal, or the reason why it was not measured."""

    way: str
    steps: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    kl: float = 0.0  # exact, nats, after these steps
    missing: str = ""


def main() -> None:
    """Print one row per way of training, then the learning rates of TRL, then one row per way of sampling."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        defaults, bare = ours(folder, "defaults"), ours(folder, "retain: off", "retain=off")
        tried = peers(folder)
        best = min(tried, key=lambda row: (bool(row.missing), row.kl > GOAL, row.seconds))
        print(table([original(), best, defaults, bare], defaults, bare))
        print(f"\n{settings_of_peers()}\n")
        for row in tried:
            print(f"- {row.way}: {row.missing or _in_words(row)}")
        done, found = part("sampling", folder / "retain=off")
        print(f"\n{sampling_table(found)}")
        print(f"\nMB at the peak of the process that samples both ways: {done.megabytes:.0f}")


def table(rows: Sequence[Row], defaults: Row, bare: Row) -> str:
    """Time to the goal and memory, one line per row."""
    lines = [
        f"| training on numbers 1-10 | steps to KL {GOAL} | seconds | seconds / defaults' | seconds / `retain: off`'s | MB at the peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.missing:
            lines.append(f"| {row.way} | {row.missing} | - | - | - | - |")
            continue
        more = "" if row.kl <= GOAL else "> "
        steps = f"{row.steps}" if row.kl <= GOAL else f"not reached: lowest KL {row.kl:.3f} at {row.steps}"
        lines.append(
            f"| {row.way} | {steps} | {row.seconds:.1f} | {more}{row.seconds / defaults.seconds:.1f}x "
            f"| {more}{row.seconds / bare.seconds:.1f}x | {row.megabytes:.0f} |"
        )
    return "\n".join(lines)


def _in_words(row: Row) -> str:
    return f"KL {row.kl:.3f} after {row.steps} steps, {row.seconds:.1f} s, {row.megabytes:.0f} MB"


def settings_of_peers() -> str:
    """Settings of all TRL runs."""
    return (
        f"TRL's learning rates, each with batches of {BATCH} drawn targets and a linear decay over {STEPS} steps after {WARMUP} of warm-up. "
        "First KL at most the goal, otherwise the lowest:"
    )


def ours(folder: Path, name: str, *changes: str) -> Row:
    """`diffuse train` as a command, with its defaults except these changes, without samples."""
    run = folder / (changes[0] if changes else "defaults")
    config = folder / f"{run.name}.yaml"
    config.write_text(json.dumps({"model": MODEL, "train_prompts": [NUMBERS_10], "test_prompts": [], "output_dir": str(run)}))
    sets = [word for change in ("generate=false", *changes) for word in ("--set", change)]
    done = _sound(measured(Path.cwd(), "train", config, *sets))
    seen = [Iteration(**json.loads(line)) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps, seconds = reached(seen, NUMBERS_10)
    return Row(f"diffuse, {name}", steps, seconds, done.megabytes, seen[steps].kl[NUMBERS_10])


def original() -> Row:
    """One row per target, AdamW at 5e-5; the memory is that of a process that makes steps of rows."""
    done, seconds = part("rows")
    _, steps = part("steps")
    return Row("the original's recipe, a row per target", steps, steps * seconds, done.megabytes, GOAL)


def peers(folder: Path) -> list[Row]:
    """TRL's `SFTTrainer`, once per learning rate."""
    try:
        python = environment()
    except PartError as error:
        return [Row("TRL SFTTrainer", missing=str(error))]
    return [_peer(python, folder / f"rate-{rate}", rate) for rate in RATES]


def _peer(python: Path, folder: Path, rate: float) -> Row:
    way = f"TRL SFTTrainer, learning rate {rate:g}, batch {BATCH}"
    folder.mkdir()
    settings = {
        "model": str(ensure_builtin(MODEL, print)), "output_dir": str(folder), "learning_rate": rate, "batch_size": BATCH,
        "steps": STEPS, "warmup": WARMUP, "seconds": PATIENCE, "rows": drawn_rows(read_prompt(NUMBERS_10), STEPS * BATCH, seed=0),
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    script = Path(__file__).with_name("peer_sft.py")
    done = measured_program(
        folder, str(script), folder / "settings.json", python=python, HF_HUB_OFFLINE="1", PYTHONPATH="", PYTHONWARNINGS="ignore"
    )
    saved = [json.loads(line) for line in done.said.splitlines() if line.startswith('{"folder"')]
    if done.code or not saved:
        return Row(way, missing=f"failed: {_last_line(done.told)}")
    kls = exact_kls([Path(one["folder"]) for one in saved])
    at = first_or_lowest(kls)
    return Row(way, saved[at]["step"], saved[at]["seconds"], done.megabytes, kls[at])


def drawn_rows(prompt: Prompt, n: int, seed: int) -> list[dict[str, Any]]:
    """Conversations for `SFTTrainer`, each with a target drawn from the prompt's weights."""
    drawn = np.random.default_rng(seed).choice(len(prompt.targets), n, p=prompt.probabilities)
    asked = [{"role": "user", "content": prompt.request}]
    return [{"prompt": asked, "completion": [{"role": "assistant", "content": prompt.targets[k]}]} for k in drawn]


def first_or_lowest(kls: Sequence[float]) -> int:
    """The index of the first exact KL that is at most the goal, otherwise of the lowest one."""
    return next((i for i, kl in enumerate(kls) if kl <= GOAL), int(np.argmin(kls)))


def exact_kls(folders: Sequence[Path]) -> list[float]:
    """KL(weights || model) of numbers 1-10 with the adapter in each folder, nats. All adapters have one shape."""
    from peft import load_peft_weights, set_peft_model_state_dict

    base = adapted_model(fresh_adapter=False)
    load_adapter(base, folders[0])
    encoded = encode(base, NUMBERS_10)
    strategy, found = packed_way(base, encoded), []
    for folder in folders:
        set_peft_model_state_dict(base.model, load_peft_weights(str(folder), device="cpu"))
        log_probs = score(base.model, encoded, strategy).log_probs
        found.append(float(-np.dot(encoded.trie.weights, log_probs)) - encoded.trie.entropy)
    return found


def environment() -> Path:
    """The Python of TRL's environment, created completely or not at all if it does not exist.

    It has the versions of `constraints.txt`. Raises `PartError` if it cannot be created, e.g. offline.
    """
    try:
        cache = private_cache("peers")
        python = cache / "trl" / "bin" / "python"
        if not python.exists():
            print("installing TRL in an environment of its own (once, 1.5 GB)", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                made = Path(scratch) / "trl"
                _quiet([sys.executable, "-m", "venv", made])
                _quiet([made / "bin" / "python", "-m", "pip", "install", "-q", "-c", "constraints.txt", "trl", "peft", "torch"])
                shutil.rmtree(cache / "trl", ignore_errors=True)  # of a Python that does not exist any more
                os.replace(made, cache / "trl")
    except (OSError, DiffuseError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise PartError(f"TRL cannot be installed: {_last_line(said)}") from error
    return python


def _quiet(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800, stdin=subprocess.DEVNULL)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].replace("|", "/")


def sampling_table(found: dict[str, Any]) -> str:
    """Seconds for 1000 samples of the model tuned with `retain: off`, both ways."""
    ways = [(f"Hugging Face `generate`, {size} rows a batch", took) for size, took in found["generate"].items()]
    lines = [f"| {SAMPLES} samples of numbers 1-10 | seconds | ratio to counting |", "|---|---|---|"]
    lines += [
        f"| {way} | {took:.2f} | {took / found['counting']:.1f}x |"
        for way, took in [*ways, ("counting sampler", found["counting"])]
    ]
    return "\n".join(lines)


def part(*words: object) -> tuple[Done, Any]:
    """Measure a part in a separate process; returns the cost of the process and its result."""
    done = _sound(measured_program(Path.cwd(), "benchmarks.peers", *words, PYTHONWARNINGS="ignore"))
    return done, json.loads(done.said.splitlines()[-1])


def _sound(done: Done) -> Done:
    if done.code:
        raise RuntimeError(done.told)
    return done


def _rows() -> float:
    base = adapted_model(fused=False)
    encoded = encode(base, NUMBERS_10)
    row_step(base, encoded)  # warm up
    return row_step(base, encoded, 2)


def _steps() -> int:
    return original_steps(encode(adapted_model(), NUMBERS_10))


def _sampling(run: str) -> dict[str, Any]:
    base = adapted_model(fresh_adapter=False)
    load_adapter(base, run)
    with torch.no_grad(), merged(base.model):
        return asdict(compare(base, read_prompt(NUMBERS_10), SamplingSettings(SAMPLES, 50), SIZES))


PARTS: dict[str, Callable[..., Any]] = {"rows": _rows, "steps": _steps, "sampling": _sampling}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
