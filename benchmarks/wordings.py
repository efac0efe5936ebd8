"""Which settings make a distribution hold in other wordings: one setting changes at a time, and the number of requests stays the same.

Numbers 1 to 10, sixty steps of four wordings (or of the only one). Measured: exact total variation distance on wordings and contexts that
no run is trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from diffusecli.api.prompts import init_prompt
from diffusecli.prompts.config import Config
from diffusecli.verbs.train import train

MOST, HELD_OUT = 160, 24  # wordings; all settings are measured on the same
STEPS = 60
USUAL: Mapping[str, Any] = {
    "wordings": 64,
    "at_once": 4,
    "r": 16,
    "vary": True,
    "spellings": False,
    "retain": {"weight": 4, "answers_per_step": 4},
}
CHANGES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("64 wordings, rank 16, contexts, retention", {}),
    ("1 wording", {"wordings": 1}),
    ("4 wordings", {"wordings": 4}),
    ("16 wordings", {"wordings": 16}),
    ("160 wordings", {"wordings": 160}),
    ("rank 4", {"r": 4}),
    ("rank 32", {"r": 32}),
    ("no contexts", {"vary": False}),
    ("no retention", {"retain": False}),
    ("two wordings a step, twice the steps", {"at_once": 2}),
    ("numbers in figures or words, with or without braces", {"spellings": True}),
)


def main() -> None:
    """Print one row per setting."""
    print("| changed | held-out wordings: median / worst | held-out contexts: median / worst | drift | seconds |")
    print("|---|---|---|---|---|")
    for name, change in CHANGES:
        print(f"| {name} | {' | '.join(measured({**USUAL, **change}))} |", flush=True)


def measured(chosen: Mapping[str, Any]) -> list[str]:
    """Train with these settings; returns the figures at the end of the training."""
    most = init_prompt(uniform=(1, 10), wordings=MOST, held_out=HELD_OUT, seed=0, spellings=chosen["spellings"])
    prompt = most.model_copy(update={"request": most.requests[: chosen["wordings"]]})
    at_once = min(chosen["at_once"], chosen["wordings"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers.json")
        path.write_text(prompt.to_json(), encoding="utf-8")
        config = Config.model_validate({
            "model": "smollm2-135m-instruct", "train_prompts": [str(path)], "output_dir": f"{folder}/run", "vary": chosen["vary"] or {"plain": 1},
            "alg_config": {"n_iters": STEPS * USUAL["at_once"] // at_once if chosen["wordings"] > 1 else STEPS, "wordings_per_step": at_once},
            "lora": {"r": chosen["r"], "alpha": 2 * chosen["r"]}, "retain": chosen["retain"],
        })  # fmt: skip
        trained = train(config, report=lambda _: None, notice=lambda _: None)
    tvds = {
        prompt.alias.rpartition("#")[2]: [figures.tvd for figures in some]
        for prompt, some in zip(trained.test.prompts, trained.test.wordings, strict=True)
    }
    drift = "-" if trained.retention_kl is None else f"{trained.retention_kl:.3f}"
    spread = [f"{median(tvds[kind]):.3f} / {max(tvds[kind]):.3f}" for kind in ("held-out", "contexts")]
    return [*spread, drift, f"{trained.seconds:.0f}"]


if __name__ == "__main__":
    main()
