"""Several draws in one answer: a tree that is never listed, against the tree of all sequences."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.sequences import Sequences
from diffusecli.models.tokens import decode_answer
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.parts import SeveralDraws
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.system.errors import InputError
from tests.models.test_sampled_tree import places_in
from tests.tiny import byte_tokenizer

TARGETS, WEIGHTS = [(1,), (2, 3), (2, 4)], [0.5, 0.25, 0.25]
FIRST, LAST = (TokenTrie.build([(*path, end) for path in TARGETS], WEIGHTS) for end in (9, 0))


def sequences_of(replace):
    """Three draws of the targets."""
    parts = SeveralDraws(Draws(n=3, replace=replace), ("a", "b", "c"), np.array(WEIGHTS))
    return Sequences((FIRST, FIRST, LAST), parts.weights)


def listed(n, replace):
    """All sequences with their probabilities, as a tree."""
    paths, weights = [], []
    for drawn in product(range(3), repeat=n):
        if replace or len(set(drawn)) == n:
            left, p = 1.0, 1.0
            for index in drawn:
                p, left = p * WEIGHTS[index] / left, left if replace else left - WEIGHTS[index]
            paths.append(
                tuple(token for place, index in enumerate(drawn) for token in (*TARGETS[index], 0 if place == n - 1 else 9))
            )
            weights.append(p)
    return TokenTrie.build(paths, weights)


@pytest.mark.parametrize("replace", [True, False])
def test_the_mean_of_drawn_trees_is_the_tree_of_all_sequences(replace):
    whole, sequences = listed(3, replace), sequences_of(replace)
    draws, mean = 4000, np.zeros(len(whole))
    for seed in range(draws):
        part = sequences.sample(3, seed)
        known = part.conditionals > 0  # what may not come again is an edge without mass
        assert part.masses[~known].sum() == 0
        places = places_in_known(whole, part, known)
        np.add.at(mean, places, part.masses[known] / draws)
    assert (np.abs(mean - whole.masses) <= 4.5 * np.sqrt(whole.masses / draws)).all()


def places_in_known(whole, part, known):
    """As `places_in`, of the nodes that a sequence may have."""
    if known.all():
        return places_in(whole, part)
    below = {(int(parent), int(token)): node for node, (parent, token) in enumerate(zip(whole.parents, whole.tokens, strict=True))}
    found = {-1: -1}
    for node in np.flatnonzero(known).tolist():
        found[node] = below[found[int(part.parents[node])], int(part.tokens[node])]
    return [found[node] for node in np.flatnonzero(known).tolist()]


@given(st.integers(1, 9), st.integers(0, 1000), st.booleans())
def test_a_drawn_tree_is_in_depth_first_order_and_its_flows_add_up(count, seed, replace):
    tree = sequences_of(replace).sample(count, seed)
    assert len(tree.drawn) == count
    for node in range(len(tree)):
        inside = {other for other in range(len(tree)) if node in tree.ancestors(other)}
        assert inside == set(range(node, tree.ends[node]))
    passed = np.bincount([node for leaf in tree.drawn.tolist() for node in tree.ancestors(leaf)], minlength=len(tree)) / count
    for node in tree.internal.tolist():
        children = np.flatnonzero(tree.parents == node)
        assert tree.masses[children].sum() == pytest.approx(passed[node])
        assert tree.conditionals[children].sum() == pytest.approx(1)
    assert tree.masses[tree.parents == -1].sum() == pytest.approx(1)


def test_estimates_of_a_perfect_model_are_zero_and_the_lowest_loss_is_the_entropy():
    sequences = sequences_of(True)
    tree = sequences.sample(16, 0)
    log_q = tree.down_to(np.log(tree.conditionals))
    found = tree.estimates(log_q)
    assert (found.kl, found.error, found.tvd) == (pytest.approx(0), pytest.approx(0), pytest.approx(0))
    assert found.on_target == pytest.approx(1)
    assert tree.loss(log_q) == tree.lowest == pytest.approx(3 * FIRST.entropy)


def encoded(**fields):
    draws = Draws(**{"n": 3, "wrap": "{%s}", **fields.pop("draws", {})})
    return encode_prompt(
        Prompt(request="Roll.", targets=fields.pop("targets", ("1", "10", "2")), draws=draws, alias="p.json", **fields),
        Chat(byte_tokenizer()),
    )


def test_places_of_a_sequence_spell_answers_with_what_is_around_them():
    found = encoded()
    places = [[decode_answer(byte_tokenizer(), trie.path(k)) for k in range(3)] for trie in found.sequences.places]
    assert places == [["{1,", "{10,", "{2,"], [" 1,", " 10,", " 2,"], [" 1}", " 10}", " 2}"]]
    assert found.longest == len("{10, 10, 10}") + 1
    for leaf in found.trie.drawn.tolist():
        text = decode_answer(byte_tokenizer(), found.trie.tokens[found.trie.ancestors(leaf)].tolist())
        assert found.prompt.record.parse(text) is not None


def test_a_separator_of_spaces_alone_ends_the_draw_before_it():
    found = encoded(draws={"separator": " ", "wrap": "%s"})
    assert [decode_answer(byte_tokenizer(), found.sequences.places[0].path(k)) for k in range(3)] == ["1 ", "10 ", "2 "]


def test_tokens_that_span_two_draws_are_refused():
    merged = byte_tokenizer(merges=[(",", "Ġ"), (",Ġ", "1")])
    prompt = Prompt(request="Roll.", targets=("1", "2"), draws=Draws(n=2), alias="p.json")
    with pytest.raises(InputError, match="the tokens of a draw depend on neighbouring draws"):
        encode_prompt(prompt, Chat(merged))


def test_draws_without_replacement_go_by_what_is_left():
    sequences = sequences_of(False)
    assert sequences.at([0]).weights.tolist() == [0, 0.5, 0.5]
    assert sequences.at([0, 2]).weights.tolist() == [0, 1, 0]
    assert sequences.longest == 9
