"""One packed pass compared with one row per target: same loss and gradient, speed-up, memory saved.

Both are also computed in float64, where they agree to the last digits. So the difference in
float32 is rounding, and the packed pass has less of it. Rows are as in the original: PEFT's
layers, 32 rows per batch, logits at every position.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import torch

from benchmarks.workbench import NAMES_200, NUMBERS_10, NUMBERS_100, adapted_model, encode, matmul_gflops, seconds
from diffusecli.models.architecture import shape_of
from diffusecli.models.attention import enable
from diffusecli.models.devices import peak_memory_mb
from diffusecli.training.budget import fastest_part
from diffusecli.training.loss import Pass, score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.rows_pass import RowsPass

PROMPTS = {"numbers 1-10": NUMBERS_10, "numbers 1-100": NUMBERS_100, "200 names": NAMES_200}


def main() -> None:
    """Print one row per prompt. Packed: best of three calls. Rows: one call, because it takes minutes."""
    base, plain = adapted_model(), adapted_model(fused=False)
    print(f"machine: {matmul_gflops():.0f} GFLOP/s in a 1024^3 float32 product\n")
    print(
        "| targets | rows: tokens, s/step, MB | packed: tokens, s/step, MB | time | memory | loss: rows, packed "
        "| loss differs in float64 | gradient differs (relative) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, path in PROMPTS.items():
        encoded = encode(base, path)
        way = packed_way(base, encoded)
        weights = np.array(encoded.trie.weights)
        rows = _measure(plain.model, encoded, RowsPass(), 1)
        packed = _measure(base.model, encoded, way, 3)
        gradient_gap = float((rows[3] - packed[3]).norm() / rows[3].norm())
        memory = [_peak_alone(name, kind) for kind in ("rows", "packed")]
        gap = "-"
        if len(weights) <= 100:  # float64 takes minutes beyond
            base.model.double()
            both = [score(base.model, encoded, one).log_probs for one in (RowsPass(), PackedPass())]
            gap = f"{abs(float(weights @ (both[0] - both[1]))):.1e}"
            base.model.float()
        print(
            f"| {name} | {rows[1]}, {rows[0]:.2f}, {memory[0]} | {packed[1]}, {packed[0]:.2f}, {memory[1]} "
            f"| {rows[0] / packed[0]:.1f}x | 1/{memory[0] / memory[1]:.1f} "
            f"| {-weights @ rows[2]:.6f}, {-weights @ packed[2]:.6f} | {gap} | {gradient_gap:.1e} |",
            flush=True,
        )
    _kept_by_format()


def _kept_by_format() -> None:
    """Megabytes that the backward pass of a packed step keeps, without the weights."""
    print("\n| base model | tokens | PEFT's layers: MB | fused: MB |\n|---|---|---|---|")
    for precision in ("fp32", "bf16"):
        found = []
        for fused in (False, True):
            base = adapted_model(fused=fused, precision=precision)
            enable(base.model)
            found.append(_kept(base.model, encode(base, NUMBERS_100)))
        print(f"| {precision} | {found[0][0]} | {found[0][1]:.0f} | {found[1][1]:.0f} |", flush=True)


def _kept(model: Any, encoded: Any) -> tuple[int, float]:
    """The tokens of a step, and the megabytes of all tensors that its backward pass keeps."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fed = score(model, encoded, PackedPass(None, tree=True, sliced_head=True), backward=True).tokens_fed
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return fed, sum(size for place, size in sizes.items() if place not in weights) / 1e6


def packed_way(base: Any, encoded: Any) -> Pass:
    """The pass and the size of its parts that training would choose with enough memory."""
    most = fastest_part(shape_of(base.model.config, base.parameters), len(encoded.prompt_ids))
    return choose_pass(base.model, encoded, max_tokens=most)[0]


def _peak_alone(name: str, kind: str) -> int:
    """Peak memory in MB of a process that makes only one step."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.packing", name, kind], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def _one_step(name: str, kind: str) -> None:
    base = adapted_model(fused=kind == "packed")
    encoded = encode(base, PROMPTS[name])
    score(base.model, encoded, RowsPass() if kind == "rows" else packed_way(base, encoded), backward=True)
    print(peak_memory_mb())


def _measure(model: Any, encoded: Any, way: Pass, repeats: int) -> tuple[float, int, np.ndarray, torch.Tensor]:
    """Seconds, tokens fed, log-probabilities, gradient."""
    score(model, encoded, way)  # warm up
    kept: list[Any] = []

    def step() -> None:
        model.zero_grad()
        kept[:] = [score(model, encoded, way, backward=True)]

    took = seconds(step, repeats)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return took, kept[0].tokens_fed, kept[0].log_probs, gradient


if __name__ == "__main__":
    _one_step(*sys.argv[1:])
