"""Estimates before training: tokens, memory, and the size of the parts of a trie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffusecli.models.architecture import ModelShape
from diffusecli.models.devices import number_format
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.questions import Question
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.schedule import learning_rate
from diffusecli.training.visits import in_a_step, prompts_per_step, wordings_per_visit

_SMALLEST_PART = 256  # tokens; a smaller part spends most of its time on the prompt
_ATTENTION_PRICE = 2.0  # measured: how much slower attention's products are than a linear layer's
_NODES_PER_PROMPT_TOKEN = 24  # every part reads the prompt again: 1/25 of the work
_PER_ADAPTER_WEIGHT = 16  # bytes: the weight, its gradient and two moments of AdamW in float32


@dataclass(frozen=True)
class Plan:
    """What training would do, computed without reading weights."""

    tokens: dict[str, tuple[int, float, int, int]]  # alias -> targets, entropy, tokens fed packed, tokens as rows
    steps: int
    tokens_in_all: int
    learning_rate: float
    parameters: int
    memory_gb: float


def planned(questions: Sequence[Question], shape: ModelShape, source: ModelSource, settings: AlgConfig, adapter: int) -> Plan:
    """The cost of training an adapter of so many weights on these prompts, with the number of wordings that a visit uses."""
    tokens = {}
    for question in questions:
        share = wordings_per_visit(settings, question) / len(question.wordings)
        packed, rows = (
            round(share * sum(part.tokens for wording in wordings for part in strategy.parts(wording)))
            for strategy, wordings in ((PackedPass(), in_a_step(question, settings).wordings), (RowsPass(1), question.wordings))
        )
        tokens[question.alias] = (len(question.prompt.targets), question.prompt.entropy, packed, rows)
    encoded = [wording for question in questions for wording in in_a_step(question, settings).wordings]
    chosen, together = settings.max_tokens_per_pass, prompts_per_step(settings, len(questions))
    most = max(fastest_part(shape, max(len(e.prompt_ids) for e in encoded)) if chosen == "auto" else chosen, 1)
    at_once = max(part.tokens for e in encoded for part in PackedPass(most).parts(e))
    at_once = max(at_once, min(most, together * max(packed for _, _, packed, _ in tokens.values())))
    return Plan(
        tokens,
        steps=settings.n_iters * -(-len(questions) // together),
        tokens_in_all=settings.n_iters * sum(packed for _, _, packed, _ in tokens.values()),
        learning_rate=learning_rate(settings, shape.hidden_size),
        parameters=shape.parameters,
        memory_gb=(estimated_memory(shape, source, settings, at_once, at_once) + _PER_ADAPTER_WEIGHT * adapter) / 1e9,
    )


def fastest_part(shape: ModelShape, prompt_length: int, *, tree: bool = True) -> int:
    """The size in tokens of a packed part with the lowest cost per scored token, or close to it.

    With tree attention a node costs the same in any part; larger parts only save the prompt. With a dense mask,
    a part of P prompt tokens and c nodes costs (P + c) (a + b (P + c)), where a and b (P + c) are the floating-point
    operations per token of the linear layers and of attention. The cost per node is lowest at c = sqrt(P (a / b + P)).
    """
    if tree:
        return max(_SMALLEST_PART, prompt_length * (1 + _NODES_PER_PROMPT_TOKEN))
    linear = 2.0 * shape.parameters
    attention = _ATTENTION_PRICE * 4.0 * shape.hidden_size * shape.layers
    return max(_SMALLEST_PART, round(prompt_length + math.sqrt(prompt_length * (linear / attention + prompt_length))))


def fitting_part(shape: ModelShape, source: ModelSource, settings: AlgConfig, free: float) -> int:
    """The largest part, in tokens, that fits into half of the free memory after loading the weights; at least a few hundred.

    The system may report too little free memory (it could drop caches). A part that does not fit is halved later.
    """
    fixed = estimated_memory(shape, source, settings, 0, 0)
    per_token = estimated_memory(shape, source, settings, 1, 1) - fixed
    return max(_SMALLEST_PART, round(0.5 * free / per_token))


def estimated_memory(shape: ModelShape, source: ModelSource, settings: AlgConfig, tokens: int, scored: int) -> float:
    """Bytes at the peak of a step: weights of the base, activations that the backward pass keeps, logits, libraries.

    Per token and layer the backward pass keeps about ten vectors of the hidden width and five of the MLP's. Fused layers
    keep half of that, but after a few steps the allocator holds as much again. With gradient checkpointing it keeps one
    vector per layer, and the rest for one layer at a time.
    """
    size = number_format(source.precision, source.device).itemsize
    one_layer = tokens * (10 * shape.hidden_size + 5 * shape.intermediate_size) * size
    if settings.gradient_checkpointing:
        layers = one_layer + shape.layers * tokens * shape.hidden_size * size
    else:
        layers = shape.layers * one_layer
    weights = shape.parameters * (0.6 if source.quantize else size)
    return weights + layers + 2 * (scored + 1) * shape.vocabulary * size + 0.6e9
