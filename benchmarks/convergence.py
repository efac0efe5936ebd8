"""Steps and seconds of training until the exact KL of numbers 1-10 is .05 and .01."""

from __future__ import annotations

import tempfile

from benchmarks.workbench import NUMBERS_10
from diffusecli.prompts.config import Config
from diffusecli.runs.iteration import Iteration
from diffusecli.verbs.train import train

GOALS = (0.05, 0.01)


def main() -> None:
    """Train with the defaults for 30 iterations; the KL of an iteration belongs to the adapter before its step."""
    seen: list[Iteration] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {"model": "smollm2-135m-instruct", "train_prompts": [NUMBERS_10], "output_dir": folder, "alg_config": {"n_iters": 30}}
        )
        trained = train(config, report=seen.append, notice=lambda _: None)
    print("| exact KL at most | after steps | after seconds |")
    print("|---|---|---|")
    for goal in GOALS:
        first = next((i for i in seen if i.kl[NUMBERS_10] <= goal), None)
        # iteration i measures the adapter after i - 1 steps, which was ready at the start of iteration i
        told = f"{first.iteration - 1} | {seen[first.iteration - 2].seconds:.1f}" if first else "not reached | -"
        print(f"| {goal} | {told} |")
    print(f"\nat the start {seen[0].kl[NUMBERS_10]:.2f}, after {len(seen)} steps {trained.after.kl[NUMBERS_10]:.4f} nats, ")
    print(f"on target {trained.after.on_target[NUMBERS_10]:.2%}, {trained.seconds:.1f} s in all")
