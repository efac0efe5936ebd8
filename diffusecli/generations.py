"""Draw answers for many prompts and write them with all that is needed to judge them later.

Shared by `diffuse train` (its samples at the end) and `diffuse sample`. Knows models, samplers and
the run directory's files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusecli.encoding import encode_prompt
from diffusecli.models import LoadedModel, merged
from diffusecli.prompt import Prompt
from diffusecli.runs import RunDir, environment, meta_path, prompts_as_json, write_json
from diffusecli.sampling import Draws, SamplingSettings, draw

Report = Callable[[str, Draws], None]


@dataclass(frozen=True)
class Sampled:
    """What was drawn: prompt alias -> draws, where it was written, how long it took."""

    draws: dict[str, Draws]
    path: Path
    seconds: float  # of sampling alone, the model already loaded


def generate(
    base: LoadedModel, prompts: Sequence[Prompt], settings: SamplingSettings, *, adapter: RunDir | None, path: Path, report: Report,
    write: bool = True,
) -> Sampled:  # fmt: skip
    """Sample every prompt and write `{alias: [text, …]}` to `path`, its settings, prompts and hashes beside it.

    `adapter` is the run whose adapter `base` carries, None for the untuned model. Of several processes that draw the
    same, one writes.
    """
    drawn: dict[str, Draws] = {}
    started = time.perf_counter()
    with merged(base.model) as model:
        for prompt in prompts:
            drawn[prompt.alias] = draw(model, base.tokenizer, encode_prompt(prompt, base.tokenizer, base.eos_ids), settings)
            report(prompt.alias, drawn[prompt.alias])
    seconds = time.perf_counter() - started
    if not write:
        return Sampled(drawn, path, seconds)
    write_json(path, {alias: draws.shuffled(settings.seed) for alias, draws in drawn.items()})
    write_json(meta_path(path), {
        "mode": "untuned" if adapter is None else "lora",
        "model": base.name, "model_revision": base.revision,
        "adapter_sha256": None if adapter is None else adapter.adapter_sha256,
        "engine": "counting", "settings": asdict(settings),
        "device": str(base.device), "dtype": str(base.model.dtype).removeprefix("torch."),
        "seconds": round(seconds, 3), "tokens_fed": sum(draws.tokens_fed for draws in drawn.values()),
        "prompts": prompts_as_json(prompts), **environment(),
    })  # fmt: skip
    return Sampled(drawn, path, seconds)
