"""The pass for models with a recurrent state: feed the prompt once, then the trie level by level, one row per distinct prefix.

A mask does not affect a recurrent state, so siblings cannot share a sequence. They are rows instead: the rows of a level continue
from copies of their parents' states. Every distinct prefix is fed once, and the gradient flows through the states to the prompt.
A probe of the loaded model decides whether to use this pass: continuing from a state is separate code in a model, which may
give other numbers than whole rows, or may not pass a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.architecture import shape_of, trainable, without_wrapper
from diffusecli.models.devices import uploaded
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.overflow import NotNumbersError
from diffusecli.models.probing import UNSUPPORTED
from diffusecli.models.states import states_of
from diffusecli.models.trie import ROOT
from diffusecli.system.memory import out_of_memory
from diffusecli.training.batches import Batch
from diffusecli.training.comparison import compared
from diffusecli.training.cross_entropy import scored
from diffusecli.training.layout import Packed, Part, edges_of, nodes_of, pack, path_sums
from diffusecli.training.loss import Loss, Pass, score
from diffusecli.training.output_layer import is_all_of_the_logits, output_layer, without_output_layer
from diffusecli.training.rows_pass import OneByOne, RowsPass

_STATES_PER_NODE = 5  # the backward pass keeps the states before and after a step, and intermediate values of that size


@dataclass(frozen=True)
class StatePass(OneByOne):
    """Feed each distinct prefix once, from its parent's state.

    A part takes as much memory as `max_tokens` tokens of a row. A node counts as `node_tokens` tokens, because its state is kept
    until the backward pass. Each part feeds the prompt and its ancestors again. With `sliced_head` only a slice of rows of
    logits is in memory at a time.
    """

    max_tokens: int | None = None
    sliced_head: bool = False
    node_tokens: float = 1.0

    @property
    def size(self) -> int | None:
        """Tokens of a row."""
        return self.max_tokens

    def sized(self, size: int | None) -> StatePass:
        """The same pass with parts that take as much memory as `size` tokens."""
        return replace(self, max_tokens=size)

    def halved(self, batches: Sequence[Batch]) -> StatePass:
        """Half the memory of the largest part."""
        return self.sized(max(batch.size for batch in batches) // 2)

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Consecutive ranges of internal nodes of about equal size."""
        trie, internal, length = encoded.trie, encoded.trie.internal, len(encoded.prompt_ids)
        if not len(internal):
            return [Part(0, 0, length)]
        room = len(internal)
        if self.max_tokens is not None:
            deepest = trie.deepest - 1
            room = max(1, min(room, int((self.max_tokens - length) / self.node_tokens) - deepest))
        count = max(min(at_least, len(internal)), -(-len(internal) // room))
        starts = [len(internal) * place // count for place in range(count + 1)]
        contexts = (trie.depths[internal[starts[:-1]]] - 1).tolist()
        return [
            Part(start, end, length + context + end - start)
            for start, end, context in zip(starts[:-1], starts[1:], contexts, strict=True)
        ]

    def part(self, model: Any, encoded: EncodedPrompt, part: Part, loss: Loss | None) -> np.ndarray:
        """Log-probabilities of the edges that leave the part's nodes, in the order of the child nodes."""
        packed = pack([(encoded, part)], [], model.device)
        head = output_layer(model) if self.sliced_head else None
        with without_output_layer(head):
            scores = _level_by_level(model, encoded, part, packed)
        return packed.by_part(scored(scores, head, packed, loss)[0].cpu().numpy())[0]

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The sum of the edges' log-probabilities along each path."""
        return path_sums(encoded.trie, found)

    def memory(self, encoded: EncodedPrompt, part: Part) -> int:
        """Equivalent tokens: a node with its state takes more memory than a token of a row."""
        length = len(encoded.prompt_ids)
        return round(length + self.node_tokens * (part.tokens - length))


def _level_by_level(model: Any, encoded: EncodedPrompt, part: Part, packed: Packed) -> Tensor:
    """The model's logits at the part's nodes [R, V], or hidden states [R, h] without its output layer."""
    trie, nodes = encoded.trie, nodes_of(encoded.trie, part)
    states, level = states_of(model), np.array([ROOT])
    try:
        found, order = [states.feed(packed.input_ids[:, : len(encoded.prompt_ids)])], [level]
        for depth in range(1, 1 + int(trie.depths[nodes].max(initial=0))):
            above, level = level, nodes[trie.depths[nodes] == depth]
            rows = np.searchsorted(above, trie.parents[level])
            own, tokens = uploaded([torch.from_numpy(rows), torch.from_numpy(trie.tokens[level, None])], model.device)
            states.select(own)
            found.append(states.feed(tokens))
            order.append(level)
    finally:
        states.forget()
    places = {node: place for place, node in enumerate(np.concatenate(order).tolist())}
    scored = torch.tensor([places[node] for node in edges_of(trie, part)[0].tolist()])
    return torch.cat(found)[uploaded([scored], model.device)[0]]


def choose_state_pass(
    model: Any, encoded: EncodedPrompt, probe: EncodedPrompt, in_rows: RowsPass, max_tokens: int | None, why: str
) -> tuple[Pass, str]:
    """Probe the loaded model: the state pass if its log-probabilities and gradients agree with rows, otherwise rows. Returns the pass and the reason.

    `why` names the part of the model that ignores masks. Raises `NotNumbersError` if the rows' figures are NaN.
    """
    because = f"the model has {why}, which ignores attention masks"
    if getattr(without_wrapper(model), "is_gradient_checkpointing", False):
        return in_rows, f"rows: {because}, and gradient_checkpointing does not keep states"
    ways, by_rows = compared(model, partial(_measured, model, probe, in_rows.sized(1)))
    if any(np.isnan(log_probs).any() for log_probs, _ in by_rows):
        raise NotNumbersError
    reason = ""
    for sliced_head in (True, False) if is_all_of_the_logits(model, probe) else (False,):
        strategy = StatePass(None, sliced_head)
        try:
            found = [way.measured(partial(_measured, model, probe, strategy)) for way in ways]
            node_tokens = _node_tokens(model, encoded)
        except UNSUPPORTED as error:
            if out_of_memory(error):
                raise
            reason = f"its states cannot be used ({type(error).__name__})"
            continue
        gaps = [float(np.abs(own - rows).max()) for (own, _), (rows, _) in zip(found, by_rows, strict=True)]
        slopes = [_gradient_gap(own, rows) for (_, own), (_, rows) in zip(found, by_rows, strict=True)]
        gap, slope = gaps[0], slopes[0]
        if all(g <= way.gap and s <= way.slope for g, s, way in zip(gaps, slopes, ways, strict=True)):
            how = "states" if sliced_head else "states, whole logits"
            return replace(strategy.sized(max_tokens), node_tokens=node_tokens), (
                f"{how}: log-probabilities agree with rows to {gap:.1e} nats, gradients to {slope:.1e}"
            )
        reason = f"with states, log-probabilities differ by {max(gaps):.1e} nats and gradients by {max(slopes):.1e} (relative)"
    return in_rows, f"rows: {because}; {reason}"


def _measured(model: Any, probe: EncodedPrompt, strategy: Pass) -> tuple[np.ndarray, list[Tensor | None]]:
    """Log-probabilities and the gradient of every trained weight. Existing gradients are restored."""
    weights = trainable(model)
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        log_probs = score(model, probe, strategy, backward=bool(weights)).log_probs
        return log_probs, [weight.grad for weight in weights]
    finally:
        for weight, grad in zip(weights, before, strict=True):
            weight.grad = grad


def _gradient_gap(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The largest relative difference of a weight's gradient (relative to its norm, or to 1/100 of the largest norm if that is larger).

    Weights are compared one by one: a state that passes no gradient affects the layers below it, but the layers above have larger gradients.
    """
    largest = max((float(gradient.norm()) for gradient in expected if gradient is not None), default=0.0)
    gaps = [0.0]
    for own, other in zip(found, expected, strict=True):
        if own is None and other is None:
            continue
        size = 0.0 if other is None else float(other.norm())
        difference = own if other is None else other if own is None else own - other
        gaps.append(float(difference.norm()) / max(size, largest / 100, 1e-30))  # type: ignore[union-attr]
    return max(gaps)


@torch.no_grad()
def _node_tokens(model: Any, encoded: EncodedPrompt) -> float:
    """How many tokens of a row take as much memory as a node, with its state and its copy of the prompt's keys and values.

    A token of a row keeps about ten vectors of the hidden width and five of the MLP's in each layer.
    """
    states, sizes = states_of(model), []
    for _ in range(2):
        states.feed(torch.tensor([encoded.prompt_ids[-1:]], device=model.device))
        sizes.append(sum(kept.numel() for kept in states.tensors()))
    states.forget()
    per_token = sizes[1] - sizes[0]  # keys and values; the rest has constant size
    shape = shape_of(without_wrapper(model).config, 0)
    of_a_token = shape.layers * (10 * shape.hidden_size + 5 * shape.intermediate_size)
    length = len(encoded.prompt_ids) + encoded.longest
    return 1 + (_STATES_PER_NODE * (sizes[0] - per_token) + 2 * per_token * length) / of_a_token
