"""The counting sampler on a tuned model: 1000 and 100 000 draws, against batched `generate` of 20 rows."""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from benchmarks.workbench import NUMBERS_10, adapted_model, encode, seconds
from diffusecli.config import Config
from diffusecli.models import load_adapter, merged
from diffusecli.sampling import Draws, SamplingSettings, draw
from diffusecli.train import train

BATCHES_MEASURED = 5


def main() -> None:
    """Tune numbers 1-10 with the defaults, then draw. `generate` is timed on 5 batches of 20 and scaled to 1000."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({"model": "smollm2-135m-instruct", "train_prompts": [NUMBERS_10], "output_dir": folder})
        trained = train(config, report=lambda _: None, notice=lambda _: None)
        base = adapted_model(fresh_adapter=False)
        load_adapter(base, folder)
    print(f"tuned to an exact KL of {trained.after.kl[NUMBERS_10]:.4f} nats, {trained.after.on_target[NUMBERS_10]:.2%} on target\n")
    encoded = encode(base, NUMBERS_10)
    print("| way | samples | seconds | tokens fed | distinct |")
    print("|---|---|---|---|---|")
    took = {}
    with merged(base.model) as model:
        for n in (1000, 100_000):
            kept: list[Draws] = []
            took[n] = seconds(lambda n=n, kept=kept: kept.append(draw(model, base.tokenizer, encoded, SamplingSettings(n))))  # type: ignore[misc]
            print(f"| counting sampler | {n} | {took[n]:.2f} | {kept[0].tokens_fed} | {len(kept[0].counts)} |")
        ids = torch.tensor([encoded.prompt_ids] * 20)
        batch = seconds(lambda: _generate(model, ids))
    plain = batch * 1000 / (20 * BATCHES_MEASURED)
    print(f"| generate, 20 rows a batch | 1000 | {plain:.1f} (from {20 * BATCHES_MEASURED}) | - | - |")
    print(f"\n1000 samples: {plain / took[1000]:.0f}x")


def _generate(model: Any, ids: torch.Tensor) -> None:
    with torch.inference_mode():
        for _ in range(BATCHES_MEASURED):
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True,
                temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=50,
            )  # fmt: skip
