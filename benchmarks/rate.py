"""Useful work of a step as a share of the machine's matrix-multiply rate, and the cost of retention and of a mixture.

Useful: 4 x parameters x distinct tokens of each prompt (its own and its internal nodes, once each) per step. Tokens shared by prompts
are fed once but count for each prompt; "fed" counts them once. Product and step alternate, and shares compare neighbours in time,
so that a slower machine affects both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.packing import PROMPTS, packed_way
from benchmarks.workbench import adapted_model, encode, matmul_gflops, seconds
from diffusecli.models.architecture import trainable
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.config import Retain
from diffusecli.prompts.prompt import Prompt
from diffusecli.training.answers import Answer
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question
from diffusecli.training.retention import prepare, read_instructions
from diffusecli.training.scorer import Scorer

TURNS = 9

EIGHT = [
    *(f"prompts/numbers/{name}-0.json" for name in ("rng", "even", "odd", "prime")),
    *(f"prompts/day-date/{name}.json" for name in ("day-0", "day-1", "december-0", "june-0")),
]


def main() -> None:
    """Print medians of nine repeats."""
    base = adapted_model()
    weights = FlatWeights.of(trainable(base.model))
    alone = {name: encode(base, path) for name, path in PROMPTS.items()}
    print(
        "| step | prompts | useful tokens | fed | s/step | useful GFLOP/s | product GFLOP/s | share (median) | best | share of fed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, encoded in alone.items():
        _share(name, base, [encoded], weights)
    _share("numbers, days, dates", base, [encode(base, path) for path in EIGHT], weights)
    _retention(base, alone["numbers 1-10"], weights)
    _mixture(base, alone["200 names"], weights)


def _share(name: str, base: LoadedModel, prompts: list[EncodedPrompt], weights: FlatWeights) -> None:
    scorer = scorer_of(base, prompts, weights)
    useful = sum(len(e.prompt_ids) + len(e.trie.internal) for e in prompts)
    fed = scorer.score(prompts, backward=True).tokens_fed
    took, products = _turns(lambda: scorer.score(prompts, backward=True))
    rates = [4 * base.parameters * useful / t / 1e9 for t in took]
    shares = sorted(rate / product for rate, product in zip(rates, products, strict=True))
    median = statistics.median(shares)
    print(
        f"| {name} | {len(prompts)} | {useful} | {fed} | {statistics.median(took):.2f} | {statistics.median(rates):.0f} "
        f"| {statistics.median(products):.0f} | {median:.0%} | {shares[-1]:.0%} | {median * fed / useful:.0%} |",
        flush=True,
    )


def _retention(base: LoadedModel, encoded: EncodedPrompt, weights: FlatWeights) -> None:
    """A full step (gradient, clipping, AdamW) with and without a retention answer, alternating."""
    scorer = scorer_of(base, [encoded], weights)
    scorer.retention = prepare(base, Retain(), read_instructions(Retain()), seed=0, strategy=scorer.strategy, notice=print)
    optimiser = torch.optim.AdamW(weights.vectors, lr=1e-5, fused=True)
    answers = scorer.retention.kept
    turn = iter(range(10**6))

    def step(held: Sequence[Answer]) -> None:
        scorer.score([encoded], held, backward=True)
        torch.nn.utils.clip_grad_norm_(weights.vectors, 1.0)
        optimiser.step()
        weights.clear()

    without, held, ratios = [], [], []
    step(answers[:1])
    for _ in range(TURNS):
        without.append(seconds(lambda: step(())))
        held.append(seconds(lambda: step([answers[next(turn) % len(answers)]])))
        ratios.append(held[-1] / without[-1])
    print("\n| an iteration of 1-10 | s without retention | s with | ratio (median of neighbours) |\n|---|---|---|---|")
    print(f"| | {statistics.median(without):.2f} | {statistics.median(held):.2f} | {statistics.median(ratios):.2f} |", flush=True)


def _mixture(base: LoadedModel, long: EncodedPrompt, weights: FlatWeights, *, at_once: int = 8) -> None:
    """Steps of a mixture of 600 short prompts compared with steps of one long prompt, and the time to measure all 600."""
    prompts = [encode(base, prompt) for prompt in mixture()]
    scorer, lone = scorer_of(base, prompts, weights), scorer_of(base, [long], weights)
    mixed, single, ratios = [], [], []
    for turn in range(TURNS):
        batch = prompts[turn * at_once : (turn + 1) * at_once]
        own = sum(len(e.prompt_ids) + len(e.trie.internal) for e in batch)
        mixed.append(own / seconds(lambda b=batch: scorer.score(b, backward=True)))  # type: ignore[misc]
        single.append((len(long.prompt_ids) + len(long.trie.internal)) / seconds(lambda: lone.score([long], backward=True)))
        ratios.append(mixed[-1] / single[-1])
    print("\n| tokens a second | 600 prompts, eight a step | one long prompt | ratio (median of neighbours) |\n|---|---|---|---|")
    print(f"| | {statistics.median(mixed):.0f} | {statistics.median(single):.0f} | {statistics.median(ratios):.2f} |", flush=True)
    took = seconds(lambda: scorer.exact([Question(e.prompt, (e,)) for e in prompts]))
    passes = len(scorer.strategy.batches(prompts))
    own = sum(len(e.prompt_ids) + len(e.trie.internal) for e in prompts)
    print(
        f"\nFigures of all 600: {passes} passes, {took:.1f} s; an iteration over all {own} tokens: {own / statistics.median(mixed):.0f} s"
    )


def mixture() -> list[Prompt]:
    """600 prompts: numbers of 600 ranges."""
    return [
        Prompt(
            request=f"Give me a random whole number from {first} to {first + width - 1}.", alias=f"{first}-{width}",
            targets=tuple(map(str, range(first, first + width))),
        )
        for width in (6, 8, 10, 12, 16, 20) for first in range(1, 101)
    ]  # fmt: skip


def scorer_of(base: LoadedModel, prompts: list[EncodedPrompt], weights: FlatWeights) -> Scorer:
    """A scorer with the pass and part size that training would choose with enough memory."""
    longest = max(prompts, key=lambda e: len(e.prompt_ids))
    return Scorer(base.model, packed_way(base, longest), None, Processes("cpu"), print, weights)


def _turns(step: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Seconds of the step and rates of the product, alternating."""
    took, products = [], []
    for _ in range(TURNS):
        products.append(matmul_gflops())
        took.append(seconds(step))
    return took, products
