"""Large lists of targets: steps that draw some targets, compared with steps that use all: seconds per step, and KL after equal time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from diffusecli.api.prompts import init_prompt
from diffusecli.prompts.config import Config
from diffusecli.runs.iteration import Iteration
from diffusecli.training.record import Trained
from diffusecli.verbs.train import train

STEP_OF = 5_000  # numbers; a full step takes a minute
LEARN = 1_000  # numbers; full steps are fast enough for training
BUDGETS = (30, 90)  # seconds of training
STRATEGIES: dict[str, Any] = {"64 drawn": 64, "all": None}


def main() -> None:
    """Print the time of a step, and the exact KL after equal time."""
    print(f"| targets a step | seconds a step, numbers 1-{STEP_OF} | prefixes fed |")
    print("|---|---|---|")
    for name, count in STRATEGIES.items():
        _, fed, took = _trained(STEP_OF, count, 2)  # the first step also warms up
        print(f"| {name} | {took[-1]:.1f} | {fed} |", flush=True)
    print(f"\n| targets a step | steps | seconds | exact KL of numbers 1-{LEARN}, nats |")
    print("|---|---|---|---|")
    for budget in BUDGETS:
        for name, count in STRATEGIES.items():
            _, _, probe = _trained(LEARN, count, 3)
            steps = max(2, round(budget / min(probe)))
            done, _, _ = _trained(LEARN, count, steps)
            (kl,) = done.after.kl.values()
            print(f"| {name} | {steps} | {done.seconds:.0f} | {kl:.4f} |", flush=True)


def _trained(numbers: int, count: int | None, steps: int) -> tuple[Trained, int, list[float]]:
    """Train some steps; also returns the tokens of one step, and the seconds of each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers.json")
        path.write_text(init_prompt(uniform=(1, numbers)).to_json(), encoding="utf-8")
        config = Config.model_validate({
            "model": "smollm2-135m-instruct", "train_prompts": [str(path)], "test_prompts": [], "output_dir": f"{folder}/run", "generate": False,
            "alg_config": {"n_iters": steps, "learning_rate": 1e-3, "warmup": 0.05, "targets_per_step": count or numbers}, "lora": {"r": 8}, "retain": False,
        })  # fmt: skip
        seen: list[Iteration] = []
        done = train(config, report=seen.append, notice=lambda _: None)
    ends = [line.seconds for line in seen]
    return done, seen[-1].tokens // steps, [end - start for start, end in zip([0.0, *ends], ends, strict=False)]


if __name__ == "__main__":
    main()
