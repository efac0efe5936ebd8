"""Time to an exact KL of .05: the defaults against the original's recipe (a row per target, learning rate 5e-5).

The original's steps are counted with packed passes, which give the same gradient (see `packing`), and
each is charged what a step of rows takes, measured in the same run: hours would pass otherwise.
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.workbench import NUMBERS_10, NUMBERS_100, adapted_model, encode, seconds
from diffusecli.config import Config
from diffusecli.loss import RowsPass, score
from diffusecli.runs import Iteration
from diffusecli.train import train

GOAL = 0.05
_ORIGINAL = {"learning_rate": 5e-5, "schedule": "constant", "n_iters": 1000, "target_kl": GOAL}


def main() -> None:
    """Print a row per prompt."""
    print("| targets | original: steps, s/step, seconds | defaults: steps, seconds | ratio | without retention | ratio |")
    print("|---|---|---|---|---|---|")
    base = adapted_model()
    for name, path in (("numbers 1-10", NUMBERS_10), ("numbers 1-100", NUMBERS_100)):
        encoded = encode(base, path)
        rows = seconds(lambda e=encoded: score(base.model, e, RowsPass(), backward=True))  # type: ignore[misc]
        steps, _ = _until(path, alg_config=_ORIGINAL, retain=False)
        ours, took = _until(path)
        bare, bare_took = _until(path, retain=False)
        print(
            f"| {name} | {steps}, {rows:.2f}, {steps * rows:.0f} | {ours}, {took:.1f} | {steps * rows / took:.0f}x "
            f"| {bare}, {bare_took:.1f} | {steps * rows / bare_took:.0f}x |",
            flush=True,
        )


def _until(path: str, **settings: Any) -> tuple[int, float]:
    """Steps and seconds until the exact KL was at most the goal; iteration i saw the adapter after i - 1 steps."""
    seen: list[Iteration] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {"model": "smollm2-135m-instruct", "train_prompts": [path], "output_dir": folder, **settings}
        )
        train(config, report=seen.append, notice=lambda _: None)
    there = next(i for i in seen if i.kl[path] <= GOAL)
    return there.iteration - 1, seen[there.iteration - 2].seconds


if __name__ == "__main__":
    main()
