"""Steps that draw some paths of a tree: their mean over all draws is the whole step, and they vary less than drawn strings do."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusecli.models.sampled_tree import draw_paths, sampled_tree
from diffusecli.models.trie import ROOT, TokenTrie
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.rows_pass import RowsPass
from tests.models.test_trie import path_sets
from tests.training.test_loss import assert_same_gradient, encoded, gradient

HAND = TokenTrie.build([(1,), (2, 3), (2, 4)], [0.5, 0.25, 0.25])  # a, bc, bd


def offsets(most):
    return st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=most).map(np.array)


def all_draws(trie, count):
    """Every set of paths that stratified sampling can draw, with its probability: in each stratum, the offset decides, piece by piece."""
    edges = np.cumsum(trie.weights[np.argsort(trie.leaves)]) / trie.weights.sum() * count
    strata = []
    for first in range(count):
        borders = np.unique([0.0, *np.clip(edges - first, 0, 1).tolist(), 1.0])
        strata.append([(high - low, (low + high) / 2) for low, high in itertools.pairwise(borders) if high - low > 1e-12])
    for pieces in itertools.product(*strata):
        yield math.prod(share for share, _ in pieces), draw_paths(trie, np.array([offset for _, offset in pieces]))


def places_in(whole, part):
    """Of each node of a sampled tree: which node of the whole it is."""
    below = {(int(parent), int(token)): node for node, (parent, token) in enumerate(zip(whole.parents, whole.tokens, strict=True))}
    found = []
    for parent, token in zip(part.parents.tolist(), part.tokens.tolist(), strict=True):
        found.append(below[ROOT if parent == ROOT else found[parent], token])
    return found


def test_the_hand_derived_example():
    for offset, last in ((0.3, 1), (0.7, 2)):
        drawn = draw_paths(HAND, np.array([0.9, offset]))
        assert drawn.tolist() == [0, last]
        found = sampled_tree(HAND, drawn)
        assert found.tokens.tolist() == [1, 2, 3, 4]
        assert found.masses.tolist() == [0.5, 0.5, 0.25, 0.25]
        assert found.weights.tolist() == [0.5, 0, 0.25, 0.25]
        assert found.internal.tolist() == [1]
        assert found.drawn.tolist() == [0, 1 + last]
    alone = sampled_tree(HAND, np.array([0]))  # b is not visited: of it only the first token is known
    assert (alone.tokens.tolist(), alone.masses.tolist()) == ([1, 2], [0.5, 0.5])


@given(path_sets(), st.integers(1, 7))
def test_the_mean_over_all_draws_is_the_whole_tree(paths_and_weights, count):
    """So is every loss and gradient, as both are linear in the masses."""
    whole = TokenTrie.build(*paths_and_weights)
    mean, certain = np.zeros(len(whole)), 0.0
    for probability, drawn in all_draws(whole, count):
        part = sampled_tree(whole, drawn)
        np.add.at(mean, places_in(whole, part), probability * part.masses)
        certain += probability
    assert certain == pytest.approx(1)
    np.testing.assert_allclose(mean, whole.masses, atol=1e-9)


@given(path_sets(), offsets(7))
def test_every_node_is_visited_as_often_as_its_mass_asks_to_within_two(paths_and_weights, offsets):
    whole = TokenTrie.build(*paths_and_weights)
    count, drawn = len(offsets), draw_paths(whole, offsets)
    passed = np.zeros(len(whole))
    for path in drawn.tolist():
        passed[whole.ancestors(int(whole.leaves[path]))] += 1
    assert np.abs(passed - count * whole.masses).max() < 2


@given(offsets(9))
def test_a_path_without_weight_is_never_drawn(offsets):
    trie = TokenTrie.build([(1,), (2,), (3,), (4,)], [0, 0.3, 0, 0.7])
    assert set(draw_paths(trie, offsets).tolist()) <= {1, 3}
    last = TokenTrie.build([(1,), (2,)], [1, 0])
    assert set(draw_paths(last, offsets).tolist()) == {0}


@settings(max_examples=15, deadline=None)
@given(path_sets(), offsets(4))
def test_rows_and_packed_parts_give_the_same_gradient_of_a_sampled_tree(paths_and_weights, offsets):
    example = encoded(*paths_and_weights)
    trie = sampled_tree(example.trie, draw_paths(example.trie, offsets))
    part = replace(example, trie=trie)
    rows, rows_gradient = gradient(RowsPass(3), part)
    for way in (PackedPass(), PackedPass(7)):
        packed, packed_gradient = gradient(way, part)
        np.testing.assert_allclose(packed, rows, rtol=1e-6, atol=1e-9)
        assert_same_gradient(packed_gradient, rows_gradient)


def test_the_gradient_of_a_model_has_the_whole_steps_mean_over_all_draws():
    paths = [(1, 2, 0), (1, 3, 0), (1, 3, 4, 0), (2, 0), (3, 1, 1, 0), (3, 1, 2, 0)]
    example = encoded(paths, [0.3, 0.1, 0.05, 0.25, 0.2, 0.1])
    _, expected = gradient(PackedPass(), example)
    mean, scattered = torch.zeros_like(expected), 0.0
    for probability, drawn in all_draws(example.trie, 2):
        _, found = gradient(PackedPass(), replace(example, trie=sampled_tree(example.trie, drawn)))
        mean += probability * found
        scattered += probability * float((found - expected).square().sum())
    assert_same_gradient(mean, expected)
    assert scattered > 0.01 * float(expected.square().sum())  # single draws do differ


def test_conditionals_vary_less_than_drawn_strings():
    """Of the gradient with regard to the logits at each node: the sum of the variances, over the same number of drawn paths."""
    rng = np.random.default_rng(0)
    numbers = [(*map(int, f"{number:03d}"), 11) for number in range(200)]
    trie = TokenTrie.build(numbers, np.full(200, 1 / 200))
    q = rng.dirichlet(np.ones(12), size=len(trie) + 1)  # of each node, the root's last

    def of_masses(tree, masses):
        """d loss / d logits: (mass out of the node) q - masses at the tokens, at the nodes of the whole tree."""
        slope = np.zeros_like(q)
        at, above = np.array(places_in(trie, tree)), tree.parents
        where = np.where(above == ROOT, len(trie), at[above])
        np.add.at(slope, where, masses[:, None] * q[where])
        np.add.at(slope, (where, tree.tokens), -masses)
        return slope

    def variance(draw):
        slopes = np.stack([draw() for _ in range(300)])
        return float(slopes.var(axis=0).sum()), slopes.mean(axis=0)

    def conditionals():
        tree = sampled_tree(trie, draw_paths(trie, rng.random(16)))
        return of_masses(tree, tree.masses)

    def strings():
        counts = np.bincount(rng.integers(0, 200, 16), minlength=200) / 16
        return of_masses(trie, trie.reweighted(counts).masses)

    exact = of_masses(trie, trie.masses)
    (low, mean), (high, plain) = variance(conditionals), variance(strings)
    np.testing.assert_allclose(mean, exact, atol=0.02)
    np.testing.assert_allclose(plain, exact, atol=0.02)
    assert low < high / 3, (low, high)


def test_the_standard_error_of_an_estimate_holds_for_a_tree_whose_paths_repeat():
    """The divergence of a number depends on its last digit. 8 of 60 evenly spaced numbers have four different last digits."""
    trie = TokenTrie.build([(*map(int, str(number)), 11) for number in range(100, 160)], np.full(60, 1 / 60))
    ends = trie.tokens == 11
    log_q = np.zeros(len(trie))
    log_q[ends] = -0.5 * trie.tokens[trie.parents[ends]]  # the end after digit d has the probability exp(-d / 2)
    whole = sampled_tree(trie, np.arange(60))
    rng = np.random.default_rng(0)

    def estimate(drawn):
        tree = sampled_tree(trie, drawn)
        return tree.estimates(log_q[places_in(trie, tree)])

    found = [estimate(draw_paths(trie, rng.random(8))) for _ in range(1000)]
    kls, errors = np.array([e.kl for e in found]), np.array([e.error for e in found])
    assert abs(kls.mean() - whole.estimates(log_q).kl) < 4 * kls.std() / np.sqrt(1000)
    assert kls.std() < np.sqrt(np.mean(errors**2))
    assert np.mean(np.abs(kls - kls.mean()) < 1.96 * errors) > 0.9


def test_estimates_from_all_paths_are_the_exact_figures():
    """By hand: targets .5, .25, .25 and a model that gives them .4, .3 · .5 = .15 and .3 · .2 = .06; nine tenths of b's tokens are c or d."""
    trie = sampled_tree(HAND, draw_paths(HAND, np.full(4, 0.5)))
    log_q = np.log([0.4, 0.3, 0.15, 0.06])  # of a, b, bc, bd
    found = trie.estimates(log_q)
    kl = 0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.15) + 0.25 * math.log(0.25 / 0.06)
    assert found.kl == pytest.approx(kl)
    assert found.on_target == pytest.approx(0.61)
    assert found.tvd == pytest.approx(0.5 * (0.1 + 0.1 + 0.19 + 0.39))
    at_root, at_b = 0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.3), 0.5 * math.log(0.5 / 0.5) + 0.5 * math.log(0.5 / 0.2)
    assert found.error == pytest.approx(np.std([at_root, at_root, at_root + at_b, at_root + at_b], ddof=1) / 2)
    assert trie.loss(log_q) == pytest.approx(HAND.entropy + kl) == pytest.approx(HAND.loss(log_q[[0, 2, 3]]))


def test_a_scaled_estimate_is_the_estimate_scaled():
    trie = sampled_tree(HAND, np.array([1, 2]))
    log_q = np.log([0.4, 0.3, 0.15, 0.06])
    assert trie.scaled(0.25).loss(log_q) == pytest.approx(0.25 * trie.loss(log_q))
    assert trie.scaled(0.25).estimates(log_q) == trie.estimates(log_q)
    assert trie.scaled(0.25).masses.tolist() == (0.25 * trie.masses).tolist()
