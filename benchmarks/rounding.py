"""Rounding of a bf16 model: the error of each answer's log-probability, with logits in 16 bits and in float32, and what is stated beside figures.

The reference is the model with the same weights, widened to float32. "Common" is the mean error by weight, which shifts all answers alike; "rest"
is the standard deviation around it. The tuned model is trained in bf16, and judged like the untuned one.
"""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import numpy as np
import torch

from benchmarks.workbench import NAMES_200, NUMBERS_10, NUMBERS_100, encode, seconds
from diffusecli.models.attention import enable
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.models.wide_output import WideLinear
from diffusecli.prompts.config import Config
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question, figures_of
from diffusecli.training.scorer import Scorer
from diffusecli.verbs.train import train

SOURCE = ModelSource("smollm2-135m-instruct", device="cpu", precision="bf16")
PROMPTS = {"numbers 1-10": NUMBERS_10, "numbers 1-100": NUMBERS_100, "200 names": NAMES_200}
STEPS = 20


def main() -> None:
    """Print a row per prompt and output layer; nats per answer."""
    print(
        "| model | answers | logits | mean error | largest | common | rest | KL is off by | stated | seconds, and for what is stated |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    base = load_model(SOURCE, print)
    for name, path in PROMPTS.items():
        _rows("untuned", name, base, path)
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({
            "model": SOURCE.name, "precision": "bf16", "device": "cpu", "train_prompts": [NUMBERS_10], "output_dir": folder, "retain": "off",
            "generate": False, "alg_config": {"n_iters": STEPS},
        })  # fmt: skip
        train(config, report=lambda _: None, notice=lambda _: None, force=True)
        tuned = load_model(SOURCE, print)
        load_adapter(tuned, folder)
    _rows(f"tuned, {STEPS} steps", "numbers 1-10", tuned, NUMBERS_10)


def _rows(model: str, name: str, base: LoadedModel, path: str) -> None:
    encoded = encode(base, path)
    base.model.requires_grad_(False)
    wide = copy.deepcopy(base.model).float()
    wide.get_output_embeddings().__class__ = torch.nn.Linear
    enable(base.model), enable(wide)
    true = _log_probs(wide, encoded)
    head = base.model.get_output_embeddings()
    for logits, kind in (("16 bits", torch.nn.Linear), ("float32", WideLinear)):
        head.__class__ = kind
        own = _log_probs(base.model, encoded)
        errors, weights = own - true, np.array(encoded.trie.weights)
        common = float(weights @ errors)
        rest = float(np.sqrt(weights @ (errors - common) ** 2))
        gap = figures_of(encoded, own).kl - figures_of(encoded, true).kl
        stated = _stated(base.model, encoded) if kind is WideLinear else "-, -"
        limit, times = stated.split(", ", 1)
        print(
            f"| {model} | {name} | {logits} | {np.abs(errors).mean():.3f} | {np.abs(errors).max():.3f} | {common:+.3f} | {rest:.3f} | {gap:+.4f} "
            f"| {limit} | {times} |",
            flush=True,
        )


def _log_probs(model: Any, encoded: EncodedPrompt) -> np.ndarray:
    """From whole logits, so that the model's own output layer computes them."""
    return score(model, encoded, PackedPass(None, tree=True)).log_probs


def _stated(model: Any, encoded: EncodedPrompt) -> str:
    scorer = Scorer(model, PackedPass(None, tree=True, sliced_head=True), None, Processes("cpu"), print)
    question = Question(encoded.prompt, (encoded,))
    alone = seconds(lambda: scorer.exact([question]))
    kept: list[Any] = []
    both = seconds(lambda: kept.append(scorer.exact([question], rounding=True)))
    return f"{kept[0].rounding[0].kl:.4f}, {alone:.1f} + {both - alone:.1f}"
