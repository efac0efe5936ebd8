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

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.attention import over
from diffusecli.models.block_attention import Blocks
from diffusecli.models.devices import sum_dtype
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.trie import TokenTrie
from diffusecli.training.answers import Answer, Held, divergence, summary
from diffusecli.training.batches import Batch, Item, filled
from diffusecli.training.cross_entropy import PackedLoss, widened
from diffusecli.training.layout import Packed, Part, dense_mask, edges_of, pack, path_sums
from diffusecli.training.output_layer import output_layer, without_output_layer


@dataclass(frozen=True)
class PathScores:
    """ln q of every path under the model, exact, and how many tokens were fed to find them."""

    log_probs: np.ndarray  # J, nats
    tokens_fed: int


@dataclass(frozen=True)
class Found:
    """What a pass over a batch found, in its order."""

    parts: tuple[np.ndarray, ...]  # of edges (packed) or paths (rows), nats
    answers: tuple[np.ndarray, ...]  # [T] KL(base || tuned) of each token, nats


@dataclass(frozen=True)
class Loss:
    """What is added to the gradient: `scale` times the loss, in which answers weigh `hold`."""

    hold: float = 0.0
    scale: float = 1.0


class Pass(Protocol):
    """A way to score prompts and answers, batch by batch."""

    @property
    def size(self) -> int | None:
        """The most tokens (packed) or rows of a part; None for no bound."""

    def sized(self, size: int | None) -> Pass:
        """The same in parts of another size."""

    def halved(self, batches: Sequence[Batch]) -> Pass:
        """The same in parts half as large as the largest of these."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Cut the work on one prompt; into `at_least` so many parts where the trie is large enough."""

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """What is run at once; `at_least` so many batches where there is enough work."""

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Score one batch of what `batches` was given; with a `loss`, its gradient is added."""

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """J: ln q of every path from the results of all parts, nats."""

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """Logits of the answers' tokens, one answer after the other [sum of T, V]."""


def score(model: Any, encoded: EncodedPrompt, strategy: Pass, *, backward: bool = False) -> PathScores:
    """Score one prompt, part by part; with `backward`, add up the gradient of L = - sum_k p_k ln q(y_k | x)."""
    batches = strategy.batches([encoded])
    found: dict[Part, np.ndarray] = {}
    for batch in batches:
        results = strategy.run(model, [encoded], (), batch, loss=Loss() if backward else None).parts
        found |= {part: result for (_, part), result in zip(batch.parts, results, strict=True)}
    return PathScores(strategy.joined(encoded, found), sum(batch.tokens for batch in batches))


def cut(strategy: Pass | OneByOne, encoded: Sequence[EncodedPrompt], others: int, at_least: int) -> list[tuple[int, Part]]:
    """The parts of all prompts; more of each where they, and `others`, are fewer than `at_least`."""
    each = -(-at_least // max(1, len(encoded) + others))
    return [(place, part) for place, e in enumerate(encoded) for part in strategy.parts(e, at_least=each)]


@dataclass(frozen=True)
class PackedPass:
    """Each distinct prefix is fed once, and all that fits the budget in one sequence (see `forest.py`).

    L = - sum_k p_k ln q(y_k | x) = - sum_v mass(v) ln q(token(v) | path to its parent). A trie with more
    than `max_tokens` packed tokens is cut into depth-first chunks, each with the prompt and the ancestors it needs.
    With `tree` (see `block_attention.py`) a node costs no attention to trees it does not see; without, a dense mask hides them.
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

    def halved(self, batches: Sequence[Batch]) -> PackedPass:
        """Half the tokens of the largest batch."""
        return self.sized(max(batch.tokens for batch in batches) // 2)

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Ranges of internal nodes, by their order, that fit the budget; about equally large, for the largest is what memory must hold."""
        trie, internal, length = encoded.trie, encoded.trie.internal, len(encoded.prompt_ids)
        if not internal:
            return [Part(0, 0, length)]
        deepest = encoded.trie.deepest - 1
        room = len(internal) if self.max_tokens is None else max(1, self.max_tokens - length - deepest)
        room = -(-len(internal) // max(at_least, -(-len(internal) // room)))
        found, start = [], 0
        while start < len(internal):
            context = trie.depths[internal[start]] - 1
            end = min(start + room, len(internal))
            found.append(Part(start, end, length + context + end - start))
            start = end
        return found

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """Full batches of parts and answers that begin alike."""
        parts = cut(self, encoded, len(answers), at_least)
        items = [Item(encoded[i].prompt_ids, part.tokens - len(encoded[i].prompt_ids), (i, part)) for i, part in parts]
        items += [Item(a.prompt_ids, len(a.answer_ids) - 1, answer=place) for place, a in enumerate(answers)]
        return filled(items, self.max_tokens, at_least=at_least)

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Log-probabilities of the edges that leave a part's nodes, in the order of the nodes they lead to."""
        own = [answers[place] for place in batch.answers]
        packed = pack([(encoded[i], part) for i, part in batch.parts], own, model.device)
        head, backward = output_layer(model) if self.sliced_head else None, loss or Loss()
        with torch.set_grad_enabled(loss is not None), self.seeing(model, packed) as mask:
            scores = self.scores(model, packed, mask, head)
            weight, bias = (None, None) if head is None else (head.weight, head.bias)
            value, log_probs, kl = PackedLoss.apply(scores, weight, bias, packed, backward.scale, backward.hold, loss is not None)
            if loss is not None:
                value.backward()
        by_part = np.split(log_probs.cpu().numpy(), np.cumsum(packed.edges)[:-1]) if packed.edges else []
        by_answer = np.split(kl.cpu().numpy(), np.cumsum([len(a.answer_ids) for a in own])[:-1]) if own else []
        return Found(tuple(by_part), tuple(by_answer))

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The sum of the edges' log-probabilities along each path."""
        edges = np.zeros(len(encoded.trie))
        for part, log_probs in found.items():
            edges[edges_of(encoded.trie, part)[1]] = log_probs
        return path_sums(encoded.trie, edges)

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """All answers in one sequence."""
        packed = pack([], answers, model.device)
        with self.seeing(model, packed) as mask:
            return self.scores(model, packed, mask, None)

    @contextmanager
    def seeing(self, model: Any, packed: Packed) -> Iterator[Tensor | dict[str, Tensor]]:
        """Inside, forward and backward passes see the layout; the value is the mask that the model takes."""
        if self.tree:
            with over(Blocks.of(packed.forest)):
                yield torch.zeros(1, 1, 1, 1, device=model.device)
        else:
            yield dense_mask(model.config, packed.forest, model.dtype, model.device)

    @staticmethod
    def scores(model: Any, packed: Packed, mask: Tensor | dict[str, Tensor], head: Any | None) -> Tensor:
        """Logits of the scored rows [R, V]; with a `head`, what it would get [R, h]."""
        with without_output_layer(head):
            logits: Tensor = model(
                input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=mask,
                logits_to_keep=packed.scored, use_cache=False,
            ).logits.squeeze(0)  # fmt: skip
        return logits


class OneByOne:
    """A pass that is run for one part, or one answer, at a time."""

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """A batch for each."""
        parts = cut(self, encoded, len(answers), at_least)
        of_parts = [Batch(((place, part),), (), part.tokens, self.memory(encoded[place], part)) for place, part in parts]
        return of_parts + [Batch((), (place,), answer.tokens) for place, answer in enumerate(answers)]

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Log-probabilities of the part, or an answer's divergence."""
        with torch.set_grad_enabled(loss is not None):
            parts = [self.part(model, encoded[i], part, loss) for i, part in batch.parts]
            return Found(tuple(parts), tuple([_divergence(model, answers[place], loss) for place in batch.answers]))

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """A row each."""
        return torch.cat([_answer_logits(model, answer) for answer in answers])

    @abstractmethod
    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """See `Pass`."""

    @abstractmethod
    def part(self, model: Any, encoded: EncodedPrompt, part: Part, loss: Loss | None) -> np.ndarray:
        """Score one part; with a `loss`, its gradient is added."""

    def memory(self, _encoded: EncodedPrompt, part: Part) -> int:
        """The tokens that take as much memory as a part."""
        return part.tokens


def _divergence(model: Any, answer: Answer, loss: Loss | None) -> np.ndarray:
    """KL(base || tuned) of each token [T]; with a `loss`, `hold` times its mean is added to the gradient."""
    held = Held.of([answer], model.device)
    kl = divergence(held, *summary(_answer_logits(model, answer), held.likeliest))
    if loss is not None:
        ((held.weights * kl).sum() * (loss.hold * loss.scale)).backward()
    return np.asarray(kl.detach().double().cpu().numpy())


def _answer_logits(model: Any, answer: Answer) -> Tensor:
    """Of an answer's tokens [T, V], from a plain row."""
    ids = torch.tensor([[*answer.prompt_ids, *answer.answer_ids[:-1]]], device=model.device)
    scored = torch.arange(len(answer.prompt_ids) - 1, ids.shape[1], device=model.device)
    logits: Tensor = model(input_ids=ids, logits_to_keep=scored, use_cache=False).logits[0]
    return logits


@dataclass(frozen=True)
class RowsPass(OneByOne):
    """One row per path, `batch_size` rows at a time, padded on the right."""

    batch_size: int = 32

    @property
    def size(self) -> int | None:
        """Rows."""
        return self.batch_size

    def sized(self, size: int | None) -> RowsPass:
        """Parts of so many rows."""
        return RowsPass(size or 1)

    def halved(self, batches: Sequence[Batch]) -> RowsPass:
        """Half the rows of the largest part."""
        return RowsPass(max(1, max((part.end - part.start for batch in batches for _, part in batch.parts), default=1) // 2))

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Ranges of paths."""
        trie = encoded.trie
        size = max(1, min(self.batch_size, -(-len(trie.leaves) // at_least)))
        ranges = [(start, min(start + size, len(trie.leaves))) for start in range(0, len(trie.leaves), size)]
        return [Part(a, b, (b - a) * (len(encoded.prompt_ids) + self._longest(trie, a, b))) for a, b in ranges]

    def part(self, model: Any, encoded: EncodedPrompt, part: Part, loss: Loss | None) -> np.ndarray:
        """Log-probabilities of the part's paths."""
        trie, prompt_length = encoded.trie, len(encoded.prompt_ids)
        paths = [trie.path(index) for index in range(part.start, part.end)]
        longest = self._longest(trie, part.start, part.end)
        rows = [[*encoded.prompt_ids, *path, *[0] * (longest - len(path))] for path in paths]
        lengths = torch.tensor([prompt_length + len(path) for path in paths], device=model.device)
        input_ids = torch.tensor(rows, device=model.device)  # [B, P + longest]
        inside = (torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]).long()
        weights = torch.tensor(trie.weights[part.start : part.end], dtype=sum_dtype(model.device), device=model.device)
        logits = model(input_ids=input_ids, attention_mask=inside, use_cache=False).logits[:, prompt_length - 1 : -1]
        scores = torch.log_softmax(widened(logits), dim=-1).gather(2, input_ids[:, prompt_length:, None])[:, :, 0]
        scores = (scores * inside[:, prompt_length:]).sum(1)  # [B]
        if loss is not None:
            (-(weights * scores).sum() * loss.scale).backward()
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
