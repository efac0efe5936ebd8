"""All that a step needs in one pass: the same figures and gradients as one pass each, in full batches."""

import doctest
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusecli.models.architecture import trainable
from diffusecli.models.attention import enable
from diffusecli.training import batches, layout
from diffusecli.training.answers import Answer, summary
from diffusecli.training.batches import Item, filled
from diffusecli.training.loss import Loss
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question
from diffusecli.training.retention import Retention
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from tests.models.test_trie import path_sets
from tests.tiny import tiny_llama
from tests.training.test_loss import assert_same_gradient, encoded

MODEL = tiny_llama(vocabulary=12).double()


def answer(prompt, spoken, seed):
    """An answer that some other model gave."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(spoken), 12, generator=generator, dtype=torch.float64)
    likeliest = logits.topk(5).indices
    log_probs, rest = summary(logits, likeliest)
    return Answer(tuple(prompt), tuple(spoken), likeliest.int(), log_probs, rest)


def scorer(way, weight=0.7):
    return Scorer(MODEL, way, Retention(weight, (), (), 0), Processes("cpu"), print)


def found(way, prompts, answers):
    """Log-probabilities, divergences, gradient and tokens."""
    MODEL.zero_grad()
    scores = scorer(way).score(prompts, answers, backward=True)
    return scores, torch.cat([weight.grad.flatten() for weight in trainable(MODEL)])


words = st.lists(st.integers(0, 11), min_size=1, max_size=4)
some_prompts = st.lists(st.tuples(path_sets(), words), min_size=1, max_size=4)
some_answers = st.lists(st.builds(answer, words, words, st.integers(0, 9)), max_size=3)


@settings(max_examples=25, deadline=None)
@given(some_prompts, some_answers, st.none() | st.integers(1, 40), st.booleans(), st.booleans())
def test_prompts_and_answers_in_one_pass_equal_rows_of_each(drawn, answers, budget, tree, sliced):
    assert enable(MODEL)
    prompts = [encoded(*paths, prompt_ids=tuple(ids)) for paths, ids in drawn]
    expected, expected_gradient = found(RowsPass(2), prompts, answers)
    MODEL.lm_head.weight.requires_grad_(True)
    together, gradient = found(PackedPass(budget, tree), prompts, answers)
    for one, other in zip([*together.log_probs, *together.divergences], [*expected.log_probs, *expected.divergences], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
    assert_same_gradient(gradient, expected_gradient)


@pytest.mark.parametrize("rows_at_once", [1, 3, 192])
def test_the_gradient_of_held_answers_is_autograds(monkeypatch, rows_at_once):
    """Against the same sum written with logsumexp."""
    monkeypatch.setattr(layout, "SLICE_ROWS", rows_at_once)
    answers = [answer((1, 2), (3, 4, 5), 1), answer((1, 3), (4,), 2)]
    expected, expected_gradient = found(RowsPass(), [], answers)
    together, gradient = found(PackedPass(), [], answers)
    assert float(expected_gradient.norm()) > 0.1
    assert_same_gradient(gradient, expected_gradient)
    np.testing.assert_allclose(together.divergences[0], expected.divergences[0], rtol=1e-6)


def test_a_step_is_one_pass_that_feeds_every_beginning_once():
    header = (1, 2, 3, 4)
    prompts = [encoded([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25], prompt_ids=(*header, 5, n)) for n in range(6, 9)]
    held = [answer((*header, 9), (1, 2, 3), 0)]
    way = PackedPass(200, tree=True)
    (only,) = way.batches(prompts, held)
    assert (
        only.tokens == 4 + 1 + 3 * (1 + 4) + 1 + 2
    )  # header, the 5, three times its last token and four nodes, instruction, answer
    assert found(way, prompts, held)[0].tokens_fed == only.tokens


def test_equal_requests_share_their_whole_prompt():
    twice = [encoded([(1, 0), (2, 0)], [0.5, 0.5]), encoded([(3, 0), (2, 0)], [0.9, 0.1])]
    (only,) = PackedPass().batches(twice)
    assert only.tokens == 4 + 2 + 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 9)), max_size=20),
    st.integers(1, 30),
    st.integers(1, 4),
)
def test_batches_hold_everything_once_keep_the_budget_and_are_not_too_many(drawn, most, at_least):
    items = [Item(tuple(ids), below, answer=place) for place, (ids, below) in enumerate(drawn)]
    made = filled(items, most, at_least=at_least)
    assert Counter(place for batch in made for place in batch.answers) == Counter(range(len(items)))
    for batch in made:
        assert batch.tokens <= most or len(batch.answers) == 1
    alone = sum(len(item.prompt_ids) + item.below for item in items)
    assert sum(batch.tokens for batch in made) <= alone
    assert len(made) <= max(at_least, 2 * -(-alone // most) + 1)


def test_the_worked_example_of_batches():
    assert doctest.testmod(batches).failed == 0


def test_figures_of_many_prompts_take_few_passes_and_keep_no_graph(monkeypatch):
    prompts = [encoded([(1, 0), (2, 0)], [0.5, 0.5], prompt_ids=(5, 6, n % 12, n // 12)) for n in range(100)]
    passes, whole = [], PackedPass.run
    monkeypatch.setattr(PackedPass, "run", lambda *a, **k: passes.append(k["loss"]) or whole(*a, **k))
    MODEL.zero_grad(set_to_none=True)
    scorer(PackedPass(200)).exact([Question(e.prompt, (e,)) for e in prompts])
    assert 2 <= len(passes) <= 4
    assert set(passes) == {None}
    assert all(weight.grad is None for weight in trainable(MODEL))


def test_the_same_plan_gives_the_same_bits():
    prompts = [encoded([(1, 2, 0), (2, 0)], [0.5, 0.5], prompt_ids=(5, 6, n)) for n in range(4)]
    held = [answer((5, 9), (1, 2), 0)]
    one, other = (found(PackedPass(30, tree=True), prompts, held)[1] for _ in range(2))
    assert torch.equal(one, other)


def test_without_a_weight_answers_are_only_measured():
    held = [answer((5, 9), (1, 2), 0)]
    MODEL.zero_grad()
    way = PackedPass()
    way.run(MODEL, [], held, *way.batches([], held), loss=Loss(hold=0.0))
    assert all(weight.grad is None or float(weight.grad.abs().max()) == 0 for weight in trainable(MODEL))
    assert scorer(replace(way, max_tokens=50)).drift(held) > 0.1
