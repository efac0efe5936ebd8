"""Packed against one row per target: the same training twice, numbers 1-10, and the loss before every step of each."""

from __future__ import annotations

import csv
import sys
import time

import numpy as np
import torch

from benchmarks.packing import packed_way
from benchmarks.workbench import NUMBERS_10, adapted_model, encode
from diffusecli.training.loss import Pass, score
from diffusecli.training.rows_pass import RowsPass

STEPS = 15
RATE = 1.3e-3


def main() -> None:
    """Print a line of CSV per step: loss in nats and seconds so far, packed and by rows."""
    curves = [_curve(packed=True), _curve(packed=False)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["step", "packed_loss", "packed_seconds", "rows_loss", "rows_seconds"])
    for step, (packed, rows) in enumerate(zip(*curves, strict=True)):
        writer.writerow([step, *(f"{value:.6f}" for value in (*packed, *rows))])


def _curve(*, packed: bool) -> list[tuple[float, float]]:
    """Loss before each step, and seconds since the first, of AdamW at a constant rate without retention."""
    base = adapted_model(fused=packed)
    encoded = encode(base, NUMBERS_10)
    way: Pass = packed_way(base, encoded) if packed else RowsPass()
    weights = [p for p in base.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.99), eps=1e-5)
    seen, started = [], time.perf_counter()
    for _ in range(STEPS):
        log_probs = score(base.model, encoded, way, backward=True).log_probs
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seen.append((float(-np.dot(encoded.trie.weights, log_probs)), time.perf_counter() - started))
    return seen


if __name__ == "__main__":
    main()
