"""One packed pass against one row per target: same loss, same gradient, how much faster.

Both are also computed in float64, where they agree to the last digits: what they differ by in
float32 is rounding, and the packed pass has less of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.workbench import NUMBERS_10, NUMBERS_100, adapted_model, encode, matmul_gflops, seconds
from diffusecli.loss import PackedPass, Pass, RowsPass, score


def main() -> None:
    """Print a row per prompt; packed is the best of three, rows (minutes long) one call."""
    base = adapted_model()
    print(f"machine: {matmul_gflops():.0f} GFLOP/s in a 1024^3 float32 product\n")
    print(
        "| targets | rows: tokens, s/step | packed: tokens, s/step | ratio | loss: rows, packed | loss differs in float64 | gradient differs (relative) |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, path in (("numbers 1-10", NUMBERS_10), ("numbers 1-100", NUMBERS_100)):
        encoded = encode(base, path)
        weights = np.array(encoded.trie.weights)
        rows = _measure(base.model, encoded, RowsPass(), 1)
        packed = _measure(base.model, encoded, PackedPass(), 3)
        gradient_gap = float((rows[3] - packed[3]).norm() / rows[3].norm())
        base.model.double()
        exact_gap = abs(
            float(weights @ (score(base.model, encoded, RowsPass()).log_probs - score(base.model, encoded, PackedPass()).log_probs))
        )
        base.model.float()
        print(
            f"| {name} | {rows[1]}, {rows[0]:.2f} | {packed[1]}, {packed[0]:.2f} | {rows[0] / packed[0]:.1f}x "
            f"| {-weights @ rows[2]:.6f}, {-weights @ packed[2]:.6f} | {exact_gap:.1e} | {gradient_gap:.1e} |"
        )


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
