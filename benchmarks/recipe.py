"""Time to an exact KL of .05: the defaults compared with the original's recipe.

The original feeds one row per target and uses AdamW at 5e-5 (eps 1e-5, gradients clipped to 1). Its steps are
counted with packed passes, which give the same gradient (see `packing`). The time of each is that of a
step of rows, measured in the same run: the real recipe would take hours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.packing import packed_way
from benchmarks.workbench import NUMBERS_10, NUMBERS_100, adapted_model, encode, seconds
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.config import Config
from diffusecli.runs.iteration import Iteration
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from diffusecli.verbs.train import train

GOAL = 0.05


def main() -> None:
    """Print one row per prompt."""
    print("| targets | original: steps, s/step, seconds | defaults: steps, seconds | ratio | without retention | ratio |")
    print("|---|---|---|---|---|---|")
    for name, path in (("numbers 1-10", NUMBERS_10), ("numbers 1-100", NUMBERS_100)):
        base = adapted_model(fused=False)
        encoded = encode(base, path)
        rows = row_step(base, encoded)
        steps = original_steps(encoded)
        ours, took = until(path)
        bare, bare_took = until(path, retain=False)
        print(
            f"| {name} | {steps}, {rows:.2f}, {steps * rows:.0f} | {ours}, {took:.1f} | {steps * rows / took:.0f}x "
            f"| {bare}, {bare_took:.1f} | {steps * rows / bare_took:.0f}x |",
            flush=True,
        )


def row_step(base: LoadedModel, encoded: EncodedPrompt, repeats: int = 1) -> float:
    """Seconds of the original's step: one row per target. `base` has an adapter with PEFT's layers."""
    return seconds(lambda: score(base.model, encoded, RowsPass(), backward=True), repeats)


def original_steps(encoded: EncodedPrompt) -> int:
    """Number of steps until the original's recipe reaches the goal."""
    base = adapted_model()
    weights = [p for p in base.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=5e-5, eps=1e-5)
    way, optimal = packed_way(base, encoded), encoded.trie.entropy
    for step in range(2000):
        log_probs = score(base.model, encoded, way, backward=True).log_probs
        if float(-np.dot(encoded.trie.weights, log_probs)) - optimal <= GOAL:
            return step
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    raise RuntimeError("2000 steps of the original's recipe did not reach the goal")


def until(path: str, **settings: Any) -> tuple[int, float]:
    """Train, and return the steps and seconds until the exact KL is at most the goal."""
    seen: list[Iteration] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {"model": "smollm2-135m-instruct", "train_prompts": [path], "output_dir": folder, **settings}
        )
        train(config, report=seen.append, notice=lambda _: None)
    return reached(seen, path)


def reached(seen: Sequence[Iteration], path: str) -> tuple[int, float]:
    """Steps and seconds until the exact KL is at most the goal; iteration i measures the adapter after i - 1 steps."""
    there = next(i for i in seen if i.kl[path] <= GOAL)
    return there.iteration - 1, seen[there.iteration - 2].seconds


if __name__ == "__main__":
    main()
