"""The packed pass against the one-row-per-path oracle, and both against arithmetic done by hand."""

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from diffusecli.models.attention import enable
from diffusecli.models.block_attention import Blocks
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.forest import Forest
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.prompt import Prompt
from diffusecli.training import cross_entropy, layout, loss, packed_pass
from diffusecli.training.layout import Slice
from diffusecli.training.loss import score, target_log_probs
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.rows_pass import RowsPass
from tests.models.test_trie import path_sets
from tests.tiny import tiny_llama

MODEL = tiny_llama(vocabulary=12).double()
SLIDING = MistralForCausalLM(MistralConfig(**MODEL.config.to_dict())).double().eval()


blocks_of = Blocks.of


def encoded(paths, weights, prompt_ids=(5, 6, 7, 8), owners=None):
    owners = tuple(owners or range(len(paths)))
    targets = tuple(str(index) for index in range(max(owners, default=-1) + 1))
    prompt = Prompt(request="x", targets=targets, alias="x.json")
    return EncodedPrompt(prompt, prompt_ids, TokenTrie.build(paths, weights), owners, frozenset({0}))


def gradient(way, example, model=MODEL):
    model.zero_grad()
    scores = score(model, example, way, backward=True)
    return scores.log_probs, torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_same_gradient(found, expected):
    """Llama's norms compute in float32 whatever the model's dtype, so 1e-6 of the whole is exact."""
    assert float((found - expected).norm()) <= 1e-6 * (1 + float(expected.norm()))


@settings(max_examples=20, deadline=None)
@given(path_sets(), st.integers(1, 6))
def test_packed_equals_rows_in_probability_and_gradient(paths_and_weights, prompt_length):
    example = encoded(*paths_and_weights, prompt_ids=tuple(range(4, 4 + prompt_length)))
    packed, packed_gradient = gradient(PackedPass(), example)
    rows, rows_gradient = gradient(RowsPass(3), example)
    np.testing.assert_allclose(packed, rows, rtol=1e-6)
    assert_same_gradient(packed_gradient, rows_gradient)


@settings(max_examples=20, deadline=None)
@given(path_sets(), st.integers(1, 6), st.integers(1, 14))
def test_attention_by_tree_equals_the_dense_mask(paths_and_weights, prompt_length, budget):
    assert enable(MODEL)
    example = encoded(*paths_and_weights, prompt_ids=tuple(range(4, 4 + prompt_length)))
    dense, dense_gradient = gradient(PackedPass(budget), example)
    by_tree, tree_gradient = gradient(PackedPass(budget, tree=True), example)
    np.testing.assert_allclose(by_tree, dense, rtol=1e-6)
    assert_same_gradient(tree_gradient, dense_gradient)


@settings(max_examples=20, deadline=None)
@given(path_sets(), st.integers(1, 8), st.integers(1, 14), st.integers(1, 9), st.booleans())
def test_a_sliding_window_hides_the_same_from_a_packed_pass_as_from_rows(paths_and_weights, prompt_length, budget, window, tree):
    assert enable(SLIDING)
    SLIDING.config.sliding_window = window
    example = encoded(*paths_and_weights, prompt_ids=tuple(range(1, 1 + prompt_length)))
    packed, packed_gradient = gradient(PackedPass(budget, tree=tree), example, SLIDING)
    rows, rows_gradient = gradient(RowsPass(3), example, SLIDING)
    np.testing.assert_allclose(packed, rows, rtol=1e-6)
    assert_same_gradient(packed_gradient, rows_gradient)


@settings(max_examples=20, deadline=None)
@given(path_sets(), st.integers(1, 14))
def test_chunks_add_up_to_the_whole(paths_and_weights, budget):
    example = encoded(*paths_and_weights)
    whole, whole_gradient = gradient(PackedPass(), example)
    chunked, chunked_gradient = gradient(PackedPass(budget), example)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)
    assert_same_gradient(chunked_gradient, whole_gradient)


def test_path_probability_is_the_product_of_the_models_own_conditionals():
    example = encoded([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25])
    with torch.no_grad():
        expected = []
        for path in [(1, 2, 0), (1, 3, 0), (2, 0)]:
            log_q = MODEL(torch.tensor([[5, 6, 7, 8, *path]])).logits[0].log_softmax(-1)
            expected.append(sum(float(log_q[3 + i, token]) for i, token in enumerate(path)))
    np.testing.assert_allclose(score(MODEL, example, PackedPass()).log_probs, expected, rtol=1e-6)


def test_each_distinct_prefix_is_fed_once_and_leaves_never():
    example = encoded([(1, 2, 0), (1, 3, 0), (2, 0)], [0.5, 0.25, 0.25])
    assert score(MODEL, example, PackedPass()).tokens_fed == 4 + 4  # prompt; a, ab, ac, b
    assert score(MODEL, example, RowsPass()).tokens_fed == 3 * (4 + 3)


def test_a_single_target_and_a_single_token_work():
    example = encoded([(3,)], [1.0])
    np.testing.assert_allclose(
        score(MODEL, example, PackedPass()).log_probs, score(MODEL, example, RowsPass()).log_probs, rtol=1e-6
    )


def test_slices_of_the_cross_entropy_do_not_change_it(monkeypatch):
    example = encoded([(a, b, 0) for a in range(1, 5) for b in range(1, 5)], [1 / 16] * 16)
    whole, whole_gradient = gradient(PackedPass(), example)
    monkeypatch.setattr(layout, "SLICE_ROWS", 3)
    sliced, sliced_gradient = gradient(PackedPass(), example)
    np.testing.assert_allclose(sliced, whole)
    assert_same_gradient(sliced_gradient, whole_gradient)


def test_variants_of_a_target_add_up():
    example = encoded([(1, 0), (2, 0), (3, 0)], [0.25, 0.25, 0.5], owners=(0, 0, 1))
    total = target_log_probs(example, np.log([0.1, 0.2, 0.4]))
    np.testing.assert_allclose(np.exp(total), [0.3, 0.4])


def test_the_probe_takes_the_packed_pass_where_it_agrees():
    way, why = choose_pass(MODEL, encoded([(1, 0), (2, 0)], [0.5, 0.5]))
    assert isinstance(way, PackedPass)
    assert "agree with rows" in why


def test_the_probe_goes_from_tree_to_mask_to_rows_when_numbers_are_wrong(monkeypatch):
    example = encoded([(1, 0), (2, 0)], [0.5, 0.5])

    def see_everything(config, forest, dtype, device):
        return torch.zeros(1, 1, len(forest), len(forest), dtype=dtype)

    monkeypatch.setattr(
        Blocks, "of", lambda forest: blocks_of(Forest(**{**vars(forest), "ends": np.full(len(forest), len(forest))}))
    )
    way, why = choose_pass(MODEL, example)
    assert way.tree is False
    assert why.startswith("packed, dense attention")
    monkeypatch.setattr(packed_pass, "dense_mask", see_everything)
    way, why = choose_pass(MODEL, example)
    assert isinstance(way, RowsPass)
    assert "differ by" in why


def test_the_probe_looks_at_the_longest_row_not_at_the_deepest_trie():
    deep, wide = encoded([(1, 2, 3, 0)], [1.0], prompt_ids=(5,)), encoded([(1, 0)], [1.0], prompt_ids=tuple(range(1, 12)))
    assert loss.longest([deep, wide]) is wide


def test_the_chosen_pass_keeps_its_budgets():
    example = encoded([(a, b, 0) for a in range(1, 5) for b in range(1, 5)], [1 / 16] * 16)
    way, _ = choose_pass(MODEL, example, max_tokens=8)
    assert score(MODEL, example, way).tokens_fed > score(MODEL, example, PackedPass()).tokens_fed, "parts repeat the prompt"


def by_slices(logits, tokens, mass, head=None):
    """Loss and log-probabilities of one row whose edges lead to `tokens`, all of the same mass."""
    edges = SimpleNamespace(
        rows_of_edges=1, held=None, edge_rows=torch.zeros(len(tokens), dtype=torch.long), edge_tokens=tokens,
        edge_masses=torch.full((len(tokens),), mass, dtype=torch.float64), slices=(Slice(slice(0, 1), slice(0, len(tokens))),),
    )  # fmt: skip
    return cross_entropy.PackedLoss.apply(logits.clone(), head, None, edges, 1.0, 0.0, True)


def test_a_16_bit_gradient_is_rounded_once_after_the_subtraction():
    """Near the optimum softmax and target nearly cancel: rounding each first would leave noise."""
    generator = torch.Generator().manual_seed(0)
    exact = (torch.randn(1, 10, generator=generator, dtype=torch.float64) * 0.01).bfloat16()
    gradients = []
    for dtype in (torch.float64, torch.bfloat16):
        logits = exact.to(dtype).requires_grad_()
        by_slices(logits, torch.arange(10), 0.1)[0].backward()
        gradients.append(logits.grad.double())
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.01


def test_log_probabilities_of_16_bit_models_are_normalised_in_32():
    logits = (torch.randn(1, 1000, generator=torch.Generator().manual_seed(1)) * 3).bfloat16()
    found = by_slices(logits, torch.arange(1000), 1e-3)[1]
    torch.testing.assert_close(found, logits[0].double().log_softmax(-1), atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(path_sets(), st.integers(1, 14), st.integers(1, 5))
def test_logits_by_slices_equal_whole_logits(paths_and_weights, budget, rows_at_once):
    example = encoded(*paths_and_weights)
    whole, whole_gradient = gradient(PackedPass(budget), example)
    before, layout.SLICE_ROWS = layout.SLICE_ROWS, rows_at_once
    MODEL.lm_head.weight.requires_grad_(False)
    try:
        MODEL.zero_grad()
        sliced = score(MODEL, example, PackedPass(budget, sliced_head=True), backward=True).log_probs
        found = [p.grad for p in MODEL.parameters() if p.requires_grad]
        assert torch.isfinite(MODEL(torch.tensor([[1, 2]])).logits).all()  # its head is back in place
        assert MODEL(torch.tensor([[1, 2]])).logits.shape[-1] == 12
    finally:
        layout.SLICE_ROWS = before
        MODEL.lm_head.weight.requires_grad_(True)
    np.testing.assert_allclose(sliced, whole, rtol=1e-6)
    trained = torch.cat([g.flatten() for g in found])
    assert_same_gradient(trained, whole_gradient[-len(trained) :])  # all but the tied embedding, which comes first
