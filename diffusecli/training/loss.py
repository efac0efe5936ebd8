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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.attention import Tree, additive_mask, enable, over
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import attention_windows, keeps_more_than_attention, without_wrapper
from diffusecli.models.overflow import NotNumbersError
from diffusecli.models.trie import ROOT, TokenTrie
from diffusecli.system.memory import out_of_memory

_SLICE_ROWS = 192  # of logits that exist at once
_PROBE_SCALES = (1.0, 30.0, 1000.0)  # of logits: soft caps and clamps begin at some size


@dataclass(frozen=True)
class Part:
    """A range of internal nodes (packed) or of paths (rows), and the tokens fed for it."""

    start: int
    end: int
    tokens: int


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


def score(model: Any, encoded: EncodedPrompt, way: Pass, *, backward: bool = False) -> PathScores:
    """Run every part, one after the other; with `backward`, add up the gradient of L = - sum_k p_k ln q(y_k | x)."""
    found = {part: way.run(model, encoded, part, backward=backward) for part in way.parts(encoded)}
    return PathScores(way.joined(encoded, found), sum(part.tokens for part in found))


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
        packed = _pack(encoded, part, model.device)
        attention: AbstractContextManager[None]
        mask: Tensor | dict[str, Tensor]
        if self.tree and packed.nodes.size:
            attention, mask = over(_tree(encoded, packed, model.dtype)), torch.zeros(1, 1, 1, 1, device=model.device)
        else:
            attention, mask = nullcontext(), _dense_mask(model.config, encoded, packed, model.dtype)
        head = _head(model) if self.sliced_head else None
        with torch.set_grad_enabled(backward), attention:
            with _headless(head):
                scores = model(
                    input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=mask,
                    logits_to_keep=packed.scored, use_cache=False,
                ).logits.squeeze(0)  # fmt: skip
            weight, bias = (None, None) if head is None else (head.weight, head.bias)
            loss, log_probs = _WeightedCrossEntropy.apply(scores, weight, bias, packed, scale, backward)
            if backward:
                loss.backward()
        return np.asarray(log_probs.cpu().numpy())

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The sum of the edges' log-probabilities along each path."""
        edges = np.zeros(len(encoded.trie))
        for part, log_probs in found.items():
            edges[_edges(encoded.trie, part)[1]] = log_probs
        return _path_sums(encoded.trie, edges)


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
        weights = torch.tensor(trie.weights[part.start : part.end], dtype=_exact(model.device), device=model.device) * scale
        with torch.set_grad_enabled(backward):
            logits = model(input_ids=input_ids, attention_mask=inside, use_cache=False).logits[:, prompt_length - 1 : -1]
            scores = torch.log_softmax(_wide(logits), dim=-1).gather(2, input_ids[:, prompt_length:, None])[:, :, 0]
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


def choose_pass(model: Any, encoded: EncodedPrompt, *, batch_size: int = 32, max_tokens: int | None = None) -> tuple[Pass, str]:
    """Probe the loaded model: the packed pass if it agrees with rows on a few paths, else rows; and why.

    `encoded` is the prompt whose rows are longest; the probe's are short, but where a window slides over those.
    Rows go `batch_size` at a time, packed parts hold up to `max_tokens`. Raises `NotNumbersError` when the rows' figures are not numbers.
    """
    in_rows = RowsPass(batch_size)
    if more := keeps_more_than_attention(model):
        return in_rows, f"rows: the model has {more}, which no mask reaches"
    if why := _hidden_by_window(model.config, encoded, max_tokens):
        return in_rows, f"rows: {why}"
    probe = _probe_prompt(encoded, attention_windows(model.config).get("sliding_window"))
    by_rows = score(model, probe, in_rows.sized(1)).log_probs  # all logits of a row exist at once
    if np.isnan(by_rows).any():
        raise NotNumbersError
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.2
    trees, heads = (True, False) if enable(model) else (False,), (True, False) if _head_alone(model, probe) else (False,)
    for tree, sliced_head in product(trees, heads):
        try:
            packed = score(model, probe, PackedPass(None, tree, sliced_head)).log_probs
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            if out_of_memory(error):
                raise
            reason = f"rows: the model takes no packed input ({type(error).__name__})"
            continue
        gap = float(np.abs(packed - by_rows).max())
        if gap <= tolerance:
            short = [word for word, missing in (("dense attention", not tree), ("whole logits", not sliced_head)) if missing]
            how = ", ".join(["packed", *short])
            return PackedPass(max_tokens, tree, sliced_head), f"{how}: log-probabilities agree with rows to {gap:.1e} nats"
        reason = f"rows: packed log-probabilities differ by {gap:.1e} nats"
    return in_rows, reason


def _hidden_by_window(config: Any, encoded: EncodedPrompt, max_tokens: int | None) -> str:
    """Why attention windows forbid packing: those that do not slide by position may count places in the packed sequence."""
    whole = len(encoded.prompt_ids) + len(encoded.trie.internal)
    fed = whole if max_tokens is None else min(whole, max_tokens)
    for name, window in attention_windows(config).items():
        if name != "sliding_window" and window < fed:
            return f"the model's {name} ({window}) is shorter than a packed part ({fed} tokens)"
    return ""


def target_log_probs(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> np.ndarray:
    """K: ln q of every target, its response variants summed."""
    totals = np.full(len(encoded.prompt.targets), -np.inf)
    np.logaddexp.at(totals, np.array(encoded.owners, dtype=int), path_log_probs)
    return totals


def row_length(encoded: EncodedPrompt) -> int:
    """The tokens of the prompt with its longest target, terminator included."""
    return len(encoded.prompt_ids) + encoded.longest


def _probe_prompt(encoded: EncodedPrompt, window: int | None) -> EncodedPrompt:
    """Four three-token paths that branch at the first and the second token, after the end of the real prompt.

    Where the window slides over rows (their last tokens are not fed), after all of the longest row but its end:
    as much is out of sight there as in that row.
    """
    a, b, c, d = (*dict.fromkeys([*encoded.prompt_ids[-8:], 0, 1, 2, 3]),)[:4]
    trie = TokenTrie.build([(a, b, c), (a, c, d), (b, a, d), (b, d, a)], [0.25] * 4)
    prompt_ids, length = encoded.prompt_ids[-32:], row_length(encoded)
    if window is not None and length - 1 > window:
        longest_path = max(map(encoded.trie.path, range(len(encoded.trie.leaves))), key=len)
        prompt_ids = (*encoded.prompt_ids, *longest_path)[: max(1, length - 3)]
    return EncodedPrompt(encoded.prompt, prompt_ids, trie, (0,) * 4, encoded.stop_ids)


@dataclass(frozen=True)
class _Packed:
    input_ids: Tensor  # [1, S]
    position_ids: Tensor  # [1, S]
    nodes: np.ndarray  # [I] the trie nodes that are fed after the prompt, depth first
    scored: Tensor  # [R] the tokens whose next-token distribution is wanted
    edge_rows: Tensor  # [E] which of the R rows holds the distribution
    edge_tokens: Tensor  # [E]
    edge_masses: Tensor  # [E]


def _edges(trie: TokenTrie, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The nodes whose next tokens a part scores (ROOT with the first part), and the nodes those edges lead to."""
    scoring = np.array([*([ROOT] if part.start == 0 else []), *trie.internal[part.start : part.end]], dtype=int)
    return scoring, np.flatnonzero(np.isin(np.array(trie.parents, dtype=int), scoring))


def _pack(encoded: EncodedPrompt, part: Part, device: torch.device) -> _Packed:
    """Lay out `[prompt | ancestors of the part | its internal nodes]`."""
    trie, length = encoded.trie, len(encoded.prompt_ids)
    own = np.array(trie.internal[part.start : part.end], dtype=int)
    context = np.array(trie.ancestors(int(own[0]))[:-1] if len(own) else [], dtype=int)
    fed = np.concatenate([context, own])  # depth-first order: every ancestor of a fed node is fed before it
    tokens, parents, depths, masses = (np.array(axis) for axis in (trie.tokens, trie.parents, trie.depths, trie.masses))
    scoring, edges = _edges(trie, part)
    rows = np.full(len(trie) + 1, -1)
    rows[scoring] = np.arange(len(scoring))  # index -1 is the root's
    places = [length - 1] * (len(scoring) - len(own)) + [length + len(context) + i for i in range(len(own))]
    return _Packed(
        input_ids=torch.tensor([[*encoded.prompt_ids, *tokens[fed].tolist()]], device=device),
        position_ids=torch.tensor([[*range(length), *(length - 1 + depths[fed]).tolist()]], device=device),
        nodes=fed,
        scored=torch.tensor(places, device=device),
        edge_rows=torch.from_numpy(rows[parents[edges]]).to(device),
        edge_tokens=torch.from_numpy(tokens[edges]).to(device),
        edge_masses=torch.from_numpy(masses[edges]).to(device, _exact(device)),
    )


def _tree(encoded: EncodedPrompt, packed: _Packed, dtype: torch.dtype) -> Tree:
    """Where in the sequence each fed node finds itself and its ancestors."""
    trie, length, fed = encoded.trie, len(encoded.prompt_ids), packed.nodes
    parents = np.array(trie.parents)
    places = np.zeros(len(trie) + 1, dtype=int)
    places[fed] = length + np.arange(len(fed))
    ancestors, at = [], fed
    for _ in range(max(trie.depths[node] for node in fed)):
        ancestors.append(at)
        at = np.where(at == ROOT, ROOT, parents[at])
    chain = np.stack(ancestors, axis=1)  # [I, D]
    absent = torch.zeros(chain.shape, dtype=dtype).masked_fill_(torch.from_numpy(chain == ROOT), torch.finfo(dtype).min)
    device = packed.input_ids.device
    return Tree(length, torch.from_numpy(np.where(chain == ROOT, 0, places[chain])).to(device), absent.to(device))


def _dense_mask(config: Any, encoded: EncodedPrompt, packed: _Packed, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """The mask that replaces a model's own, window included; one for each type of layer where only some slide."""
    allowed, positions = _allowed(encoded, packed), packed.position_ids[0]
    window = attention_windows(config).get("sliding_window")
    if window is None or int(positions.max()) < window:
        return additive_mask(allowed, dtype)
    by_type = {"full_attention": allowed, "sliding_attention": allowed & (positions[:, None] - positions < window)}
    types = set(getattr(config.get_text_config(), "layer_types", None) or ["sliding_attention"])
    masks = {kind: additive_mask(by_type[kind], dtype) for kind in types}  # no such type: the probe turns to rows
    return masks if len(masks) > 1 else masks.popitem()[1]


def _allowed(encoded: EncodedPrompt, packed: _Packed) -> Tensor:
    """[S, S]: the prompt is causal; a node sees the prompt, its ancestors and itself.

    `u` is an ancestor of `v` (or `v` itself) exactly when u <= v < ends[u].
    """
    device, length = packed.input_ids.device, len(encoded.prompt_ids)
    nodes = torch.from_numpy(packed.nodes).to(device)
    ends = torch.from_numpy(np.array(encoded.trie.ends, dtype=int)[packed.nodes]).to(device)
    size = length + len(nodes)
    allowed = torch.ones(size, size, dtype=torch.bool, device=device).tril_()
    allowed[length:, length:] = (nodes[None, :] <= nodes[:, None]) & (nodes[:, None] < ends[None, :])
    return allowed


class _WeightedCrossEntropy(torch.autograd.Function):
    """- sum_e mass_e ln softmax(scores[row_e])[token_e], a slice of rows at a time.

    `scores` are logits [R, V], or hidden states [R, h] with the `head` [V, h] (and its bias) that makes logits
    of them: then no more than a slice of logits ever exists. The gradient is found in the same go, while the
    slice is in the processor's cache; for logits it is written over them.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, head: Tensor | None, bias: Tensor | None, packed: _Packed, scale: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss and the log-probabilities [E], float64; `wanted` tells whether a gradient is."""
        rows, tokens, masses = packed.edge_rows, packed.edge_tokens, packed.edge_masses * scale
        log_probs = torch.zeros_like(masses)
        gradient = torch.empty_like(scores) if wanted and head is not None else scores
        logits = None if head is None else head.new_empty(min(_SLICE_ROWS, len(scores)), len(head))
        for start in range(0, len(scores), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            here = ((rows >= start) & (rows < start + _SLICE_ROWS)).nonzero()[:, 0]
            own = scores[part] if head is None else _linear(scores[part].to(head.dtype), head, bias, logits)
            log_probs[here], difference = _slice(own, rows[here] - start, tokens[here], masses[here], wanted)
            if wanted and head is not None:
                gradient[part] = difference.to(head.dtype) @ head  # rounded once, after the subtraction
            elif wanted and difference.dtype != scores.dtype:
                gradient[part] = difference
        if wanted:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(log_probs)
        return -(masses * log_probs).sum(), log_probs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient that was found, times that of the loss."""
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None, None, None, None


def _slice(logits: Tensor, rows: Tensor, tokens: Tensor, masses: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of edges and d loss / d logits = (mass out of the row) softmax - (mass of the edge at its token).

    The gradient takes the place of float32 logits; narrower ones are widened first.
    """
    wide = _wide(logits)
    chosen, highest = wide[rows, tokens].to(masses.dtype), wide.amax(-1)
    totals = wide.sub_(highest[:, None]).exp_().sum(-1)
    log_probs = chosen - (highest.to(masses.dtype) + totals.to(masses.dtype).log())[rows]
    if wanted:
        narrow = masses.to(wide.dtype)
        outflow = torch.zeros_like(totals).index_add_(0, rows, narrow)
        wide.mul_((outflow / totals)[:, None]).index_put_((rows, tokens), -narrow, accumulate=True)
    return log_probs, wide


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`hidden weight' + bias`, written into the first rows of `out`: fresh memory for every slice would cost as much again."""
    result = torch.mm(hidden, weight.t(), out=out[: len(hidden)])
    return result if bias is None else result.add_(bias)


def _head(model: Any) -> Any | None:
    """The output layer, where it is a plain linear one that is not trained."""
    head = without_wrapper(model).get_output_embeddings()
    plain = type(head) is torch.nn.Linear and not head.weight.requires_grad and not hasattr(head, "_hf_hook")
    return head if plain else None


def _head_alone(model: Any, probe: EncodedPrompt) -> bool:
    """Whether the model's logits are what its plain output layer puts out, but for a factor: no soft cap, no clamp.

    The layer is replaced by tensors of several sizes, so that what a model does to large logits shows before it has any.
    """
    head = _head(model)
    if head is None:
        return False
    scales = torch.tensor(_PROBE_SCALES)[:, None, None]
    ids = torch.tensor([probe.prompt_ids[-4:]] * len(_PROBE_SCALES), device=model.device)
    logits = torch.randn(*ids.shape, len(head.weight), generator=torch.Generator().manual_seed(0)) * scales
    logits = logits.to(ids.device, model.dtype)
    head.forward = lambda _: logits.clone()
    try:
        with torch.no_grad():
            found = model(input_ids=ids, use_cache=False).logits
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        if out_of_memory(error):
            raise
        return False
    finally:
        del head.forward
    if found.shape != logits.shape:
        return False
    factor = (found.double() / logits.double()).flatten()
    return torch.allclose(factor, factor.median().expand_as(factor), rtol=1e-4 if model.dtype == torch.float32 else 0.02, atol=0)


@contextmanager
def _headless(head: Any | None) -> Iterator[None]:
    """Inside, the model's "logits" are the hidden states that its output layer would get."""
    if head is None:
        yield
        return
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


def _exact(device: torch.device) -> torch.dtype:
    """Sums are float64, but on Apple's MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _wide(values: Tensor) -> Tensor:
    """At least float32, so that 16-bit logits are normalised with care."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _path_sums(trie: TokenTrie, edges: np.ndarray) -> np.ndarray:
    """J: the sum of the edges' log-probabilities along each path."""
    totals = edges.copy()
    depths, parents = np.array(trie.depths), np.array(trie.parents)
    for depth in range(2, max(trie.depths, default=0) + 1):
        level = np.flatnonzero(depths == depth)
        totals[level] += totals[parents[level]]
    return totals[np.array(trie.leaves, dtype=int)]
