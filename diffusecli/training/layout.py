"""How a part of a trie stands in one sequence: which tokens are fed, at which positions, and what each may see.

P prompt tokens, I internal nodes of the part, S = P + I packed tokens, E edges that leave scored nodes, R scored rows, D depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.architecture import attention_windows
from diffusecli.models.attention import Tree, additive_mask
from diffusecli.models.devices import sum_dtype
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.trie import ROOT, TokenTrie


@dataclass(frozen=True)
class Part:
    """A range of internal nodes (packed) or of paths (rows), and the tokens fed for it."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class Packed:
    """The tensors of a part."""

    input_ids: Tensor  # [1, S]
    position_ids: Tensor  # [1, S]
    nodes: np.ndarray  # [I] the trie nodes that are fed after the prompt, depth first
    scored: Tensor  # [R] the tokens whose next-token distribution is wanted
    edge_rows: Tensor  # [E] which of the R rows holds the distribution
    edge_tokens: Tensor  # [E]
    edge_masses: Tensor  # [E]


def edges_of(trie: TokenTrie, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The nodes whose next tokens a part scores (ROOT with the first part), and the nodes those edges lead to."""
    scoring = np.array([*([ROOT] if part.start == 0 else []), *trie.internal[part.start : part.end]], dtype=int)
    return scoring, np.flatnonzero(np.isin(np.array(trie.parents, dtype=int), scoring))


def pack(encoded: EncodedPrompt, part: Part, device: torch.device) -> Packed:
    """Lay out `[prompt | ancestors of the part | its internal nodes]`."""
    trie, length = encoded.trie, len(encoded.prompt_ids)
    own = np.array(trie.internal[part.start : part.end], dtype=int)
    context = np.array(trie.ancestors(int(own[0]))[:-1] if len(own) else [], dtype=int)
    fed = np.concatenate([context, own])  # depth-first order: every ancestor of a fed node is fed before it
    tokens, parents, depths, masses = (np.array(axis) for axis in (trie.tokens, trie.parents, trie.depths, trie.masses))
    scoring, edges = edges_of(trie, part)
    rows = np.full(len(trie) + 1, -1)
    rows[scoring] = np.arange(len(scoring))  # index -1 is the root's
    places = [length - 1] * (len(scoring) - len(own)) + [length + len(context) + i for i in range(len(own))]
    return Packed(
        input_ids=torch.tensor([[*encoded.prompt_ids, *tokens[fed].tolist()]], device=device),
        position_ids=torch.tensor([[*range(length), *(length - 1 + depths[fed]).tolist()]], device=device),
        nodes=fed,
        scored=torch.tensor(places, device=device),
        edge_rows=torch.from_numpy(rows[parents[edges]]).to(device),
        edge_tokens=torch.from_numpy(tokens[edges]).to(device),
        edge_masses=torch.from_numpy(masses[edges]).to(device, sum_dtype(device)),
    )


def tree_of(encoded: EncodedPrompt, packed: Packed, dtype: torch.dtype) -> Tree:
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


def dense_mask(config: Any, encoded: EncodedPrompt, packed: Packed, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """The mask that replaces a model's own, window included; one for each type of layer where only some slide."""
    allowed, positions = _allowed(encoded, packed), packed.position_ids[0]
    window = attention_windows(config).get("sliding_window")
    if window is None or int(positions.max()) < window:
        return additive_mask(allowed, dtype)
    by_type = {"full_attention": allowed, "sliding_attention": allowed & (positions[:, None] - positions < window)}
    types = set(getattr(config.get_text_config(), "layer_types", None) or ["sliding_attention"])
    masks = {kind: additive_mask(by_type[kind], dtype) for kind in types}  # no such type: the probe turns to rows
    return masks if len(masks) > 1 else masks.popitem()[1]


def _allowed(encoded: EncodedPrompt, packed: Packed) -> Tensor:
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


def path_sums(trie: TokenTrie, edges: np.ndarray) -> np.ndarray:
    """J: the sum of the edges' log-probabilities along each path."""
    totals = edges.copy()
    depths, parents = np.array(trie.depths), np.array(trie.parents)
    for depth in range(2, max(trie.depths, default=0) + 1):
        level = np.flatnonzero(depths == depth)
        totals[level] += totals[parents[level]]
    return totals[np.array(trie.leaves, dtype=int)]
