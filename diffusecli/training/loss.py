"""Exact loss and exact probabilities of every target from one packed pass over their trie.

No I/O, no tokenizer. Axis names: P prompt tokens, I internal nodes of the trie, N nodes, J paths,
S = P + I packed tokens, V vocabulary.

Two ways give the same numbers. `PackedPass` feeds the prompt and each distinct prefix once;
`RowsPass` feeds one row per path, prompt repeated. The first is the product; the second is its
oracle, its fallback for architectures that take no custom mask, and its baseline in benchmarks.
Both cut their work into parts whose gradients add up, so that parts can be run one after the other
or shared out between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.attention import over
from diffusecli.models.devices import sum_dtype
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.trie import TokenTrie
from diffusecli.training.cross_entropy import WeightedCrossEntropy, widened
from diffusecli.training.layout import Part, dense_mask, edges_of, pack, path_sums, tree_of
from diffusecli.training.output_layer import output_layer, without_output_layer


@dataclass(frozen=True)
class PathScores:
    """ln q of every path under the model, exact, and how many tokens were fed to find them."""

    log_probs: np.ndarray  # J, nats
    tokens_fed: int


class Pass(Protocol):
    """A way to score a trie, part by part."""

    @property
    def size(self) -> int | None:
        """The most tokens (packed) or rows of a part; None for no bound."""

    def sized(self, size: int | None) -> Pass:
        """The same in parts of another size."""

    def halved(self, encoded: Sequence[EncodedPrompt]) -> Pass:
        """The same in parts half as large as the largest of these prompts."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Cut the work into what is run at once; into `at_least` so many where the trie is large enough."""

    def run(self, model: Any, encoded: EncodedPrompt, part: Part, *, backward: bool = False, scale: float = 1.0) -> np.ndarray:
        """Log-probabilities of one part; with `backward`, `scale` times its loss is added to the gradient."""

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """J: ln q of every path from the results of all parts, nats."""


def score(model: Any, encoded: EncodedPrompt, strategy: Pass, *, backward: bool = False) -> PathScores:
    """Run every part, one after the other; with `backward`, add up the gradient of L = - sum_k p_k ln q(y_k | x)."""
    found = {part: strategy.run(model, encoded, part, backward=backward) for part in strategy.parts(encoded)}
    return PathScores(strategy.joined(encoded, found), sum(part.tokens for part in found))


@dataclass(frozen=True)
class PackedPass:
    """Each distinct prefix is fed once.

    L = - sum_k p_k ln q(y_k | x) = - sum_v mass(v) ln q(token(v) | path to its parent). A trie with more
    than `max_tokens` packed tokens is cut into depth-first chunks, each with the prompt and the ancestors it needs.
    With `tree` (see `attention.py`) a node costs no attention to nodes it does not see; without, a dense mask hides them.
    With `sliced_head` logits exist a slice of rows at a time only; without, all rows that are scored at once.
    """

    max_tokens: int | None = None
    tree: bool = False
    sliced_head: bool = False

    @property
    def size(self) -> int | None:
        """Tokens."""
        return self.max_tokens

    def sized(self, size: int | None) -> PackedPass:
        """Parts of so many tokens."""
        return replace(self, max_tokens=size)

    def halved(self, encoded: Sequence[EncodedPrompt]) -> PackedPass:
        """Half the tokens of the largest part."""
        return self.sized(max(part.tokens for e in encoded for part in self.parts(e)) // 2)

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Ranges of internal nodes, by their order, that fit the budget; about equally large, for the largest is what memory must hold."""
        trie, internal, length = encoded.trie, encoded.trie.internal, len(encoded.prompt_ids)
        if not internal:
            return [Part(0, 0, length)]
        deepest = max(trie.depths[node] for node in internal) - 1
        room = len(internal) if self.max_tokens is None else max(1, self.max_tokens - length - deepest)
        room = -(-len(internal) // max(at_least, -(-len(internal) // room)))
        found, start = [], 0
        while start < len(internal):
            context = trie.depths[internal[start]] - 1
            end = min(start + room, len(internal))
            found.append(Part(start, end, length + context + end - start))
            start = end
        return found

    def run(self, model: Any, encoded: EncodedPrompt, part: Part, *, backward: bool = False, scale: float = 1.0) -> np.ndarray:
        """Log-probabilities of the edges that leave the part's nodes, in the order of the nodes they lead to."""
        packed = pack(encoded, part, model.device)
        attention: AbstractContextManager[None]
        mask: Tensor | dict[str, Tensor]
        if self.tree and packed.nodes.size:
            attention, mask = over(tree_of(encoded, packed, model.dtype)), torch.zeros(1, 1, 1, 1, device=model.device)
        else:
            attention, mask = nullcontext(), dense_mask(model.config, encoded, packed, model.dtype)
        head = output_layer(model) if self.sliced_head else None
        with torch.set_grad_enabled(backward), attention:
            with without_output_layer(head):
                scores = model(
                    input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=mask,
                    logits_to_keep=packed.scored, use_cache=False,
                ).logits.squeeze(0)  # fmt: skip
            weight, bias = (None, None) if head is None else (head.weight, head.bias)
            loss, log_probs = WeightedCrossEntropy.apply(scores, weight, bias, packed, scale, backward)
            if backward:
                loss.backward()
        return np.asarray(log_probs.cpu().numpy())

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The sum of the edges' log-probabilities along each path."""
        edges = np.zeros(len(encoded.trie))
        for part, log_probs in found.items():
            edges[edges_of(encoded.trie, part)[1]] = log_probs
        return path_sums(encoded.trie, edges)


@dataclass(frozen=True)
class RowsPass:
    """One row per path, `batch_size` rows at a time, padded on the right."""

    batch_size: int = 32

    @property
    def size(self) -> int | None:
        """Rows."""
        return self.batch_size

    def sized(self, size: int | None) -> RowsPass:
        """Parts of so many rows."""
        return RowsPass(size or 1)

    def halved(self, encoded: Sequence[EncodedPrompt]) -> RowsPass:
        """Half the rows of the largest part."""
        return RowsPass(max(1, max(part.end - part.start for e in encoded for part in self.parts(e)) // 2))

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Ranges of paths."""
        trie = encoded.trie
        size = max(1, min(self.batch_size, -(-len(trie.leaves) // at_least)))
        ranges = [(start, min(start + size, len(trie.leaves))) for start in range(0, len(trie.leaves), size)]
        return [Part(a, b, (b - a) * (len(encoded.prompt_ids) + self._longest(trie, a, b))) for a, b in ranges]

    def run(self, model: Any, encoded: EncodedPrompt, part: Part, *, backward: bool = False, scale: float = 1.0) -> np.ndarray:
        """Log-probabilities of the part's paths."""
        trie, prompt_length = encoded.trie, len(encoded.prompt_ids)
        paths = [trie.path(index) for index in range(part.start, part.end)]
        longest = self._longest(trie, part.start, part.end)
        rows = [[*encoded.prompt_ids, *path, *[0] * (longest - len(path))] for path in paths]
        lengths = torch.tensor([prompt_length + len(path) for path in paths], device=model.device)
        input_ids = torch.tensor(rows, device=model.device)  # [B, P + longest]
        inside = (torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]).long()
        weights = torch.tensor(trie.weights[part.start : part.end], dtype=sum_dtype(model.device), device=model.device) * scale
        with torch.set_grad_enabled(backward):
            logits = model(input_ids=input_ids, attention_mask=inside, use_cache=False).logits[:, prompt_length - 1 : -1]
            scores = torch.log_softmax(widened(logits), dim=-1).gather(2, input_ids[:, prompt_length:, None])[:, :, 0]
            scores = (scores * inside[:, prompt_length:]).sum(1)  # [B]
            if backward:
                (-(weights * scores).sum()).backward()
        return np.asarray(scores.detach().cpu().numpy())

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The paths in their order."""
        log_probs = np.zeros(len(encoded.trie.leaves))
        for part, values in found.items():
            log_probs[part.start : part.end] = values
        return log_probs

    @staticmethod
    def _longest(trie: TokenTrie, start: int, end: int) -> int:
        return max(trie.depths[leaf] for leaf in trie.leaves[start:end])


def longest(encoded: Sequence[EncodedPrompt]) -> EncodedPrompt:
    """The prompt whose rows are longest, the one a sliding window would cut first."""
    return max(encoded, key=row_length)


def target_log_probs(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> np.ndarray:
    """K: ln q of every target, its response variants summed."""
    totals = np.full(len(encoded.prompt.targets), -np.inf)
    np.logaddexp.at(totals, np.array(encoded.owners, dtype=int), path_log_probs)
    return totals


def row_length(encoded: EncodedPrompt) -> int:
    """The tokens of the prompt with its longest target, terminator included."""
    return len(encoded.prompt_ids) + encoded.longest
