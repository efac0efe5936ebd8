"""Many trees in one sequence: each token finds its own ancestors, likeness is fed once."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusecli.models import block_attention, forest
from diffusecli.models.attention import additive_mask
from diffusecli.models.block_attention import Blocks
from diffusecli.models.forest import Forest, Strand, common_prefix
from diffusecli.models.trie import TokenTrie
from tests.models.test_trie import path_sets


def test_the_worked_example():
    assert doctest.testmod(forest).failed == 0


def strand(prompt, paths):
    """All nodes of a trie below a prompt."""
    trie = TokenTrie.build(paths, [1 / len(paths)] * len(paths))
    return Strand(tuple(prompt), trie.tokens, trie.depths, trie.ends)


def contexts(one):
    """What each token of a strand must see, itself last: the prompt's beginning, or the prompt and the node's path."""
    found = [one.prompt_ids[: length + 1] for length in range(len(one.prompt_ids))]
    above = []
    for token, depth in zip(one.tokens, one.depths, strict=True):
        above[depth - 1 :] = [int(token)]
        found.append((*one.prompt_ids, *above))
    return found


def sight(found):
    """Which token sees which [S, S]."""
    places = np.arange(len(found))
    return found.sees(places[:, None], places[None, :])


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=6)
strands = st.lists(st.builds(lambda prompt, paths: strand(prompt, paths[0]), prompts, path_sets()), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(strands)
def test_every_token_sees_its_own_context_and_nothing_else(some):
    found = Forest.of(some)
    seen = sight(found)
    of_place = [tuple(found.tokens[row].tolist()) for row in seen]
    assert [len(context) - 1 for context in of_place] == found.positions.tolist()
    for index, one in enumerate(some):
        own = contexts(one)
        assert of_place[found.last_prompt[index]] == own[len(one.prompt_ids) - 1]
        first = found.first_below[index]
        assert of_place[first : first + len(one.tokens)] == own[len(one.prompt_ids) :]
    beginnings = {one.prompt_ids[: length + 1] for one in some for length in range(len(one.prompt_ids))}
    assert len(found) == len(beginnings) + sum(len(one.tokens) for one in some), "every beginning of prompts is fed once"


@settings(max_examples=60, deadline=None)
@given(strands)
def test_what_a_range_sees_before_it_are_the_ancestors_of_its_first_token(some):
    found = Forest.of(some)
    seen = sight(found)
    for start in range(len(found)):
        before = np.flatnonzero(seen[start:, :start].any(axis=0))
        assert set(before) <= set(found.ancestors(start))


@settings(max_examples=40, deadline=None)
@given(strands, st.integers(1, 9), st.none() | st.integers(1, 4), st.booleans(), st.integers(0, 3))
def test_attention_by_blocks_equals_attention_with_a_mask(some, block, window, kept, seed):
    found = Forest.of(some)
    torch.manual_seed(seed)
    heads, groups, size, width = 4, 2, len(found), 3
    query, key, value = (torch.randn(1, n, size, width, dtype=torch.float64, requires_grad=True) for n in (heads, groups, groups))
    allowed = sight(found)
    if window is not None:
        allowed &= found.positions[:, None] - found.positions < window
    mask = additive_mask(torch.from_numpy(allowed), torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.7, enable_gqa=True).transpose(1, 2)
    way = torch.randn(expected.shape, dtype=torch.float64)
    expected_gradients = torch.autograd.grad(expected, (query, key, value), way)
    with pytest.MonkeyPatch.context() as during:
        during.setattr(block_attention, "BLOCK", block)
        during.setattr(block_attention, "_KEPT", 512 if kept else 0)
        out = Blocks.of(found).attend(None, query, key, value, 0.7, window)
        gradients = torch.autograd.grad(out, (query, key, value), way)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, expected_gradients)


def test_paths_of_very_different_length_are_products_of_their_own():
    long = Forest.of([strand(range(1000), [(1, 2), (2, 3)])])
    groups = Blocks.of(long).groups
    assert len(groups) > 2
    for group in groups:
        lengths = (group.keys[:, : group.keys.shape[1] - group.queries.shape[1]] >= 0).sum(1)
        assert group.keys.shape[1] - group.queries.shape[1] <= max(127, 2 * int(lengths.min()))
    assert sorted(place for group in groups for place in group.queries.flatten() if place >= 0) == list(range(len(long)))


def test_blocks_of_long_paths_are_cut_so_that_their_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(block_attention, "_CELLS", 64 * 300)
    groups = Blocks.of(Forest.of([strand(range(600), [(1, 2), (2, 3)])])).groups
    assert all(group.hidden.size <= 64 * 300 or len(group.queries) == 1 for group in groups)


def test_common_prefix():
    assert [common_prefix(*pair) for pair in [((), (1,)), ((1, 2), (1, 2)), ((1, 2, 3), (1, 2, 4)), ((2,), (1, 2))]] == [0, 2, 2, 0]
