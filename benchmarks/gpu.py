"""`python -m benchmarks gpu`: what a GPU can do with this project, in at most eight minutes and without a network.

Random weights in real shapes (see `gpu_models.py`) in bf16: a packed step compared with rows, the share of the card's own matrix rate, memory;
the counting sampler compared with `generate` and vLLM; a training of the built-in model to its exact KL; two processes on one card. Each part has
a share of the time. When it is spent, the rest of the part is left out, and the output says so. `--tiny` runs all of it in seconds on any device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import SHAPES, TINY, random_model, targets, with_adapter
from benchmarks.gpu_sampling import counting, generating, step, vllm
from benchmarks.gpu_steps import Part, left_out, steps
from benchmarks.workbench import NUMBERS_10
from diffusecli.models.builtin import builtin_folder
from diffusecli.models.devices import choose_device
from diffusecli.prompts.config import Config
from diffusecli.runs.environment import environment
from diffusecli.system.errors import DiffuseError
from diffusecli.training.loss import score
from diffusecli.training.pass_choice import choose_pass

TOTAL = 480.0  # seconds
SHARES = {"rate": 0.03, "steps": 0.42, "sampling": 0.19, "demo": 0.2, "two processes": 0.16}
MODEL = "smollm2-135m-instruct"


def main(words: Sequence[str] = ()) -> None:
    """Print a table per part, and at the end everything as JSON."""
    asked = _parser().parse_args(words)
    if asked.device is None and not torch.accelerator.is_available() and not asked.tiny:
        print("no GPU found. Run it on the CPU with --tiny, or name a device with --device")
        return
    device = choose_device(asked.device or ("cpu" if asked.tiny and not torch.accelerator.is_available() else "auto"))
    found: dict[str, Any] = {"device": _name(device), "tiny": asked.tiny, **environment()}
    print(f"device: {found['device']}")
    started = time.monotonic()
    for name, share in SHARES.items():
        part = Part(device, TINY if asked.tiny else SHAPES, asked.tiny, time.monotonic() + share * asked.seconds, asked.compile)
        print(f"\n### {name}\n", flush=True)
        try:
            found[name] = PARTS[name](part, found)
        except (RuntimeError, DiffuseError, subprocess.SubprocessError, OSError) as error:  # the other parts are worth having
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"failed: {found[name]['error']}")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    found["seconds"] = round(time.monotonic() - started, 1)
    text = json.dumps(found, indent=1)
    if asked.json is None:
        print(f"\n{text}")
    else:
        asked.json.write_text(text + "\n", encoding="utf-8")
        print(f"\n{found['seconds']} s. All figures: {asked.json}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks gpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to test the script")
    parser.add_argument(
        "--compile", action="store_true", help="also a decoding step with and without torch.compile (CUDA graphs on CUDA)"
    )
    parser.add_argument("--device", help="cuda:0, cpu, …; default: the accelerator")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="the time of all parts together")
    parser.add_argument("--json", type=Path, help="write the figures to this file instead of the end of the output")
    return parser


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _rate(part: Part, _: dict[str, Any]) -> dict[str, float]:
    """The rate of a square product in bf16 and float32, TFLOP/s."""
    size = 256 if part.tiny else 8192
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size, size, device=part.device, dtype=dtype) for _ in range(2))
        part.timed(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        found[name] = float(f"{2 * size**3 / part.timed(lambda a=a, b=b: a @ b, 10) / 1e12:.4g}")  # type: ignore[misc]
        print(f"{size}³ product in {name}: {found[name]:g} TFLOP/s", flush=True)
    return found


def _sampling(part: Part, _: dict[str, Any]) -> dict[str, Any]:
    """Seconds for many samples of numbers."""
    samples = 50 if part.tiny else 1000
    base, encoded = random_model(next(iter(part.shapes.values())), part.device), targets()["100 numbers"]
    found: dict[str, Any] = {"samples": samples}
    for name, way in (("counting", counting), ("generate", generating)):
        found[name] = way(base, encoded, samples) if part.left > 0 else left_out(name)
        print(f"{name}: {found[name]}", flush=True)
    for name, compiled in (("eager step", False), ("compiled step", True)) if part.compiles else ():
        found[name] = step(base, encoded, compiled, part.timed) if part.left > 0 else left_out(name)
        print(f"{name}: {found[name]}", flush=True)
    found["vllm"] = vllm(base, encoded, samples, part.left) if part.left > 0 else left_out("vllm")
    print(f"vLLM: {found['vllm']}", flush=True)
    return found


def _demo(part: Part, _: dict[str, Any]) -> dict[str, Any]:
    """Train the built-in model on numbers 1-10 with the defaults."""
    from diffusecli.verbs.train import train

    if part.tiny or not builtin_folder(MODEL).is_dir():
        print(reason := "left out with --tiny" if part.tiny else f"left out: {MODEL} is not in the cache")
        return {"left_out": reason}
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({
            "model": MODEL, "train_prompts": [NUMBERS_10], "output_dir": f"{folder}/run", "device": str(part.device), "generate": False,
        })  # fmt: skip
        done = train(config, report=lambda _: None, notice=lambda _: None, watch=lambda _: part.require_time())
        dtype = done.run.read_manifest()["dtype"]
    (kl,), (rounding,) = done.after.kl.values(), done.after.rounded.values() or (0.0,)
    print(f"exact KL {kl:.4f} nats (rounding {rounding}) after {done.seconds:.1f} s in {dtype}")
    return {"kl": kl, "rounding": rounding, "seconds": round(done.seconds, 1), "dtype": dtype, "drift": done.retention_kl}


def _two(part: Part, _: dict[str, Any]) -> dict[str, Any]:
    """The same steps in one process and in two at once."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--steps-of", next(iter(part.shapes)), str(part.device)]
    found: dict[str, Any] = {}
    for name, count in (("alone", 1), ("together", 2)):
        if part.left <= 0:
            return {**found, name: left_out(name)}
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)]
        ended = []
        for process in running:
            try:
                said, told = process.communicate(timeout=max(1.0, part.left))
            except subprocess.TimeoutExpired:
                process.kill()
                said, told = process.communicate()[0], "stopped, because the time of this part is spent"
            error = told.strip()[-200:] if process.returncode else ""
            ended.append({"exit": process.returncode, "seconds_per_step": said.strip(), "error": error})
        found[name] = ended
        print(
            f"{name}: "
            + "; ".join(f"exit code {e['exit']}, {e['seconds_per_step'] or '-'} s/step {e['error']}".strip() for e in ended),
            flush=True,
        )
    return found


def _steps_of(size: str, device: str) -> None:
    """A child of `_two`: print the seconds of a step."""
    part = Part(torch.device(device), {}, size in TINY, time.monotonic() + 60)
    base, encoded = with_adapter(random_model((SHAPES | TINY)[size], part.device)), targets()["100 numbers"]
    strategy = choose_pass(base.model, encoded)[0]
    steps = 2 if part.tiny else 30
    score(base.model, encoded, strategy, backward=True)
    took = part.timed(lambda: [score(base.model, encoded, strategy, backward=True) for _ in range(steps)])
    print(f"{took / steps:.4g}")


PARTS: dict[str, Callable[[Part, dict[str, Any]], Any]] = {
    "rate": _rate, "steps": steps, "sampling": _sampling, "demo": _demo, "two processes": _two,
}  # fmt: skip

if __name__ == "__main__":
    _steps_of(*sys.argv[2:])
