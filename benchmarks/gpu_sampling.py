"""Part of `gpu`: the counting sampler, `generate`, a compiled step, and vLLM if it is installed, on the same random model.

Random weights would give a different answer every time. So all but the digits and the terminator are forbidden, as a tuned model would
forbid them: answers are numbers of up to four digits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import DIGITS, END
from benchmarks.workbench import seconds
from diffusecli.models.attention import enable
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel
from diffusecli.sampling.batched import generate_rows
from diffusecli.sampling.counting import CountingSampler, Drawing
from diffusecli.sampling.rows import SharedPrompt
from diffusecli.sampling.settings import SamplingSettings

LONGEST = 5  # tokens
ALLOWED = [*DIGITS, END]
ROWS = 1000  # of `generate`, in one batch
STEP_ROWS = 64  # of a single step
STEPS = 16  # at most, of such rows


def counting(base: LoadedModel, encoded: EncodedPrompt, samples: int) -> dict[str, Any]:
    """Seconds, tokens fed and distinct answers of the counting sampler."""
    kept: list[Any] = []

    def draw() -> None:
        drawing = Drawing(encoded, SamplingSettings(samples, LONGEST))
        CountingSampler(SharedPrompt(base.model, encoded.prompt_ids), _tokenizer(), [drawing], ROWS).draw()
        kept[:] = [drawing]

    if not enable(base.model):
        return {"error": "the model's attention cannot be replaced"}
    with only_numbers(base.model):
        draw()  # warm up
        took = seconds(draw)
    return {"seconds": round(took, 4), "tokens_fed": kept[0].tokens_fed, "distinct": len(kept[0].counts)}


def generating(base: LoadedModel, encoded: EncodedPrompt, samples: int) -> dict[str, Any]:
    """Seconds of `generate`, scaled from one batch."""
    rows, settings = min(samples, ROWS), SamplingSettings(samples, LONGEST)
    with only_numbers(base.model):
        took = seconds(lambda: generate_rows(base.model, [encoded.prompt_ids] * rows, encoded.stop_ids, settings=settings, seed=0))
    return {"seconds": round(took * samples / rows, 4), "rows": rows}


def step(
    base: LoadedModel, encoded: EncodedPrompt, compiled: bool, timed: Callable[[Callable[[], Any], int], float]
) -> dict[str, Any]:
    """Seconds of a decoding step of `STEP_ROWS` rows with a static cache: eager, or compiled, with CUDA graphs on CUDA.

    The sampler's own step has rows that change in number, which a graph does not allow. This is the most that compiling it could gain.
    """
    from transformers import StaticCache

    model, length = base.model, len(encoded.prompt_ids)
    cache = StaticCache(config=model.config, max_cache_len=length + STEPS)
    tokens = torch.tensor([encoded.prompt_ids] * STEP_ROWS, device=base.device)
    place = torch.arange(length, device=base.device)

    def feed(input_ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        out = model(
            input_ids=input_ids,
            position_ids=places[None].expand_as(input_ids),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits
        return logits

    with torch.no_grad():
        feed(tokens, place)
        called = (
            torch.compile(feed, mode="reduce-overhead" if base.device.type == "cuda" else None, dynamic=False) if compiled else feed
        )
        started = time.perf_counter()
        for _ in range(3):  # compiles and records
            called(tokens[:, -1:], place[-1:])
        first = time.perf_counter() - started
        took = timed(lambda: called(tokens[:, -1:], place[-1:]), 10)
    return {"seconds_per_step": float(f"{took:.4g}"), "rows": STEP_ROWS, "first_steps": round(first, 2)}


def vllm(base: LoadedModel, encoded: EncodedPrompt, samples: int, limit: float) -> dict[str, Any]:
    """Seconds of vLLM in a process of its own, without its start; or why there are none."""
    if find_spec("vllm") is None:
        return {"left_out": "vLLM is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        base.model.save_pretrained(folder)
        asked = {
            "model": folder,
            "prompt": encoded.prompt_ids,
            "samples": samples,
            "longest": LONGEST,
            "allowed": ALLOWED,
            "end": END,
        }
        Path(folder, "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_sampling", str(Path(folder, "asked.json"))],
                capture_output=True, text=True, check=True, timeout=max(1.0, limit),
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            return {"error": str(getattr(error, "stderr", None) or error)[-300:]}
    return {"seconds": round(float(done.stdout.split()[-1]), 4)}


@contextmanager
def only_numbers(model: Any) -> Iterator[None]:
    """Inside this context, the output layer forbids all other tokens."""
    head = model.get_output_embeddings()
    forbidden = torch.full((len(head.weight),), float("-inf"), device=head.weight.device)
    forbidden[ALLOWED] = 0.0
    handle = head.register_forward_hook(lambda _module, _given, logits: logits + forbidden)
    try:
        yield
    finally:
        handle.remove()


def _tokenizer() -> Any:
    """Words for the few tokens that answers have."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"<{token}>": token for token in range(max(ALLOWED) + 1)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")), eos_token=f"<{END}>")  # noqa: S106 (a piece of text)


def _with_vllm(asked: dict[str, Any]) -> float:
    """Seconds for all samples; in a process without other use of the device."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]

    model = LLM(asked["model"], skip_tokenizer_init=True, dtype="bfloat16", enable_prefix_caching=True, gpu_memory_utilization=0.3)
    wanted = SamplingParams(
        n=asked["samples"], temperature=1.0, max_tokens=asked["longest"], allowed_token_ids=asked["allowed"], stop_token_ids=[asked["end"]],
        detokenize=False, seed=0,
    )  # fmt: skip
    prompt = {"prompt_token_ids": asked["prompt"]}
    model.generate([prompt], wanted, use_tqdm=False)  # warm up
    return seconds(lambda: model.generate([prompt], wanted, use_tqdm=False))


if __name__ == "__main__":
    print(_with_vllm(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
