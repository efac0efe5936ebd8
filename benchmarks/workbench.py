"""Code that benchmarks share: the built-in model, library prompts, a clock, a machine rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import attach_lora
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import LoraSettings
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt

NUMBERS_10 = "prompts/numbers/rng-0.json"
NUMBERS_100 = "prompts/numbers/rng-1.json"
NAMES_200 = "prompts/names/first-names.json"


def adapted_model(*, fresh_adapter: bool = True, fused: bool = True, precision: str = "fp32") -> LoadedModel:
    """The built-in model on the CPU with a new rank-4 adapter; its weights are the same in every run."""
    import torch

    torch.manual_seed(0)
    base = load_model(ModelSource("smollm2-135m-instruct", device="cpu", precision=precision), print)
    if fresh_adapter:
        attach_lora(base, LoraSettings(r=4, alpha=8))
        if fused:
            fuse(base.model)
    return base


def encode(base: LoadedModel, prompt: str | Prompt) -> EncodedPrompt:
    """A library prompt, or another one, in the model's tokens."""
    found = read_prompt(prompt) if isinstance(prompt, str) else prompt
    return encode_prompt(found, base.chat)


def seconds(action: Callable[[], object], repeats: int = 1) -> float:
    """The lowest wall time of `repeats` calls."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return best


def matmul_gflops() -> float:
    """The rate of a plain 1024 x 1024 x 1024 float32 product on this machine, in GFLOP/s."""
    import torch

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ b, 20) / 1e9
