"""Large inputs and long runs through the installed command, with seconds and memory: `python -m tests.reliability.load [NAME …]`.

The model is a random one of 16 000 weights, so that what is measured is the tool and not the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.command import Done, measured


def diffuse(folder: Path, *words: object) -> Done:
    """Run the command in a folder, with one thread and a cache of its own."""
    return measured(folder, *words, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", DIFFUSE_CACHE=str(folder / "cache"))


def write_config(folder: Path, prompts: list[str], iterations: int, **more: object) -> None:
    """`cfg.yaml` of a training without extras."""
    settings = {
        "model": str(folder / "model"), "train_prompts": prompts, "test_prompts": prompts, "output_dir": "results/run", "device": "cpu",
        "alg_config": {"n_iters": iterations}, "generate": False, "retain": False, **more,
    }  # fmt: skip
    (folder / "cfg.yaml").write_text(yaml.safe_dump(settings))


def write_prompt(path: Path, targets: list[str], request: str = "Say one.") -> None:
    """A prompt file."""
    path.write_text(json.dumps({"request": request, "targets": targets}))


def many_targets(folder: Path, count: int = 20_000) -> dict[str, Done]:
    """One prompt of so many targets, all the way."""
    write_prompt(folder / "p.json", [f"{{{number}}}" for number in range(count)])
    write_config(folder, ["p.json"], 2)
    return all_the_way(folder, 2 * count)


def many_prompts(folder: Path, count: int = 2_000) -> dict[str, Done]:
    """So many prompts, all the way."""
    (folder / "prompts").mkdir()
    for number in range(count):
        write_prompt(folder / "prompts" / f"{number}.json", ["{a}", "{b}", "{c}"], f"Say a letter, {number}.")
    write_config(folder, ["prompts"], 1)
    return all_the_way(folder, 20)


def all_the_way(folder: Path, samples: int) -> dict[str, Done]:
    """From the check to the report."""
    return {
        "validate": diffuse(folder, "validate", "cfg.yaml"),
        "train": diffuse(folder, "train", "cfg.yaml"),
        "sample": diffuse(folder, "sample", "results/run", "-n", samples, "--max-new-tokens", 8),
        "evaluate": diffuse(folder, "evaluate", "results/run"),
        "evaluate --html": diffuse(folder, "evaluate", "results/run", "--html", "report.html"),
    }


def long_request(folder: Path) -> dict[str, Done]:
    """A request of 100 000 tokens, in a model that takes 1024."""
    write_prompt(folder / "p.json", ["{a}", "{b}"], "a" * 100_000)
    write_config(folder, ["p.json"], 1)
    return {
        "train": diffuse(folder, "train", "cfg.yaml"),
        "sample": diffuse(folder, "sample", "--model", folder / "model", "--prompt", "p.json", "-n", 5),
    }


def many_samples(folder: Path, count: int = 1_000_000) -> dict[str, Done]:
    """So many answers to one prompt, drawn from a trained run and judged."""
    write_prompt(folder / "p.json", [f"{{{number}}}" for number in range(100)])
    write_config(folder, ["p.json"], 30, alg_config={"n_iters": 30, "learning_rate": 0.02})
    return {
        "train": diffuse(folder, "train", "cfg.yaml"),
        "a thousand": diffuse(folder, "sample", "results/run", "-n", 1000, "--max-new-tokens", 8),
        "a million": diffuse(folder, "sample", "results/run", "-n", count, "--max-new-tokens", 8),
        "evaluate": diffuse(folder, "evaluate", "results/run"),
    }


def a_day(folder: Path, iterations: int = 28_800) -> dict[str, Done]:
    """An iteration every three seconds for a day, as far as files and memory are concerned."""
    write_prompt(folder / "p.json", ["{a}", "{b}"])
    write_config(folder, ["p.json"], iterations, save_every=200)
    done = {"train": diffuse(folder, "train", "cfg.yaml"), "sample": diffuse(folder, "sample", "results/run", "-n", 50)}
    done["evaluate --html"] = diffuse(folder, "evaluate", "results/run", "--html", "report.html")
    return done


@dataclass(frozen=True)
class Pace:
    """The first and the last tenth of a long training."""

    seconds: tuple[float, float]  # of an iteration, the fastest tenth: others may use the machine
    memory_mb: tuple[int, int]  # the most held by then
    line_bytes: tuple[float, float]  # of metrics.jsonl, mean

    def __str__(self) -> str:
        (a, b), (c, d), (e, f) = self.seconds, self.memory_mb, self.line_bytes
        return f"first and last tenth: {1000 * a:.2f} and {1000 * b:.2f} ms an iteration, {c} and {d} MB, {e:.0f} and {f:.0f} bytes a line"


def pace(metrics: Path) -> Pace:
    """From the lines of a training's metrics."""
    import numpy as np

    lines = metrics.read_bytes().splitlines(keepends=True)
    seen = [json.loads(line) for line in lines]
    tenth = len(lines) // 10
    took = np.diff([line["seconds"] for line in seen])
    return Pace(
        (float(np.quantile(took[:tenth], 0.1)), float(np.quantile(took[-tenth:], 0.1))), (seen[tenth]["memory_mb"], seen[-1]["memory_mb"]),
        (float(np.mean([*map(len, lines[:tenth])])), float(np.mean([*map(len, lines[-tenth:])]))),
    )  # fmt: skip


LOADS: dict[str, Callable[[Path], dict[str, Done]]] = {
    "20 000 targets": many_targets, "2 000 prompts": many_prompts, "a request of 100 000 tokens": long_request,
    "1 000 000 samples": many_samples, "28 800 iterations": a_day,
}  # fmt: skip


def write_model(folder: Path) -> None:
    """The random model."""
    from tests.tiny import byte_tokenizer, tiny_llama

    tiny_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    for name in sys.argv[1:] or LOADS:
        print(f"\n{name}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch)
            write_model(here / "model")
            for command, done in LOADS[name](here).items():
                print(f"  {command:16} {done}" + (f": {done.told.splitlines()[-1][:160]}" if done.code else ""), flush=True)
            if LOADS[name] is a_day:
                print(f"  {pace(here / 'results' / 'run' / 'metrics.jsonl')}")
                print(f"  metrics.jsonl {(here / 'results' / 'run' / 'metrics.jsonl').stat().st_size / 1e6:.1f} MB")
