"""The prefix tree: an example derived by hand, then properties of any tree."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.models.trie import ROOT, TokenTrie

# a=1 b=2 c=3 z=0 is the terminator
EXAMPLE = TokenTrie.build([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25])


@st.composite
def path_sets(draw):
    """Different, non-empty paths of which none begins another: a terminator ends each."""
    bodies = draw(st.lists(st.lists(st.integers(1, 4), max_size=5).map(tuple), min_size=1, max_size=12, unique=True))
    weights = [draw(st.floats(0.01, 1)) for _ in bodies]
    return [(*body, 0) for body in bodies], [w / math.fsum(weights) for w in weights]


def test_masses_of_the_hand_derived_example():
    assert EXAMPLE.tokens.tolist() == [1, 2, 0, 3, 0, 2, 0]
    assert EXAMPLE.parents.tolist() == [ROOT, 0, 1, 0, 3, ROOT, 5]
    assert EXAMPLE.depths.tolist() == [1, 2, 3, 2, 3, 1, 2]
    assert EXAMPLE.ends.tolist() == [5, 3, 3, 5, 5, 7, 7]
    assert EXAMPLE.masses.tolist() == [0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert EXAMPLE.internal.tolist() == [0, 1, 3, 5]


def test_loss_of_the_hand_derived_example_written_out():
    """With q = 1/2 for each of two next tokens everywhere: by paths and by nodes."""
    by_paths = 0.5 * 3 * math.log(2) + 0.25 * 3 * math.log(2) + 0.25 * 2 * math.log(2)
    by_nodes = sum(mass * math.log(2) for mass in EXAMPLE.masses)
    assert by_paths == pytest.approx(2.75 * math.log(2))
    assert by_nodes == pytest.approx(by_paths)


def test_entropy_is_that_of_the_weights():
    assert EXAMPLE.entropy == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


@given(path_sets())
def test_leaf_masses_equal_the_weights(paths_and_weights):
    paths, weights = paths_and_weights
    trie = TokenTrie.build(paths, weights)
    assert [trie.masses[leaf] for leaf in trie.leaves] == weights


@given(path_sets())
def test_children_sum_to_their_parent(paths_and_weights):
    trie = TokenTrie.build(*paths_and_weights)
    for node in trie.internal:
        children = [trie.masses[child] for child in range(len(trie)) if trie.parents[child] == node]
        assert math.fsum(children) == pytest.approx(trie.masses[node])


@given(path_sets())
def test_paths_come_back_and_subtrees_are_contiguous(paths_and_weights):
    paths, weights = paths_and_weights
    trie = TokenTrie.build(paths, weights)
    assert [trie.path(index) for index in range(len(paths))] == paths
    for node in range(len(trie)):
        inside = {other for other in range(len(trie)) if node in trie.ancestors(other)}
        assert inside == set(range(node, trie.ends[node]))


@pytest.mark.parametrize("paths", [[()], [(1, 2), (1, 2)], [(1,), (1, 2)], [(1, 2), (1,)]])
def test_paths_that_cannot_be_told_apart_are_refused(paths):
    with pytest.raises(ValueError, match="none may be a prefix of another"):
        TokenTrie.build(paths, [1 / len(paths)] * len(paths))
