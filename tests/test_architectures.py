"""The pass that the probe picks gives the numbers of rows, forwards and backwards, whatever the architecture."""

import numpy as np
import pytest
import torch
import transformers

from diffusecli.loss import RowsPass, choose_pass, score
from tests.test_loss import encoded

SMALL = {
    "vocab_size": 24, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
ARCHITECTURES = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 8}, "Phi3": {}, "Mistral": {"sliding_window": None}, "Granite": {"logits_scaling": 3.0},
    "Cohere": {"logit_scale": 0.5}, "Gemma2": {"head_dim": 8, "sliding_window": 64}, "Gemma3Text": {"head_dim": 8, "sliding_window": 64},
    "GPT2": {}, "GPTNeoX": {},
}  # fmt: skip
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


def build(name, **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **ARCHITECTURES[name], **more})
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config).eval()


def gradient_of_first_block(model, example, way):
    model.zero_grad()
    log_probs = score(model, example, way, backward=True).log_probs
    found = [p.grad.flatten() for n, p in model.named_parameters() if p.grad is not None and (".0." in n)]
    return log_probs, torch.cat(found)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_chosen_pass_agrees_with_rows(name):
    model = build(name)
    for parameter in (model.get_output_embeddings().weight, model.get_input_embeddings().weight):
        parameter.requires_grad_(False)  # as in training
    example = encoded([(1, 3, 5, 2), (1, 3, 6, 2), (1, 4, 2), (7, 2)], [0.4, 0.3, 0.2, 0.1], prompt_ids=(8, 9, 10, 11, 12))
    way, why = choose_pass(model, example, max_tokens=8)
    assert why.startswith("packed"), why
    expected, expected_gradient = gradient_of_first_block(model, example, RowsPass())
    found, gradient = gradient_of_first_block(model, example, way)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert float((gradient - expected_gradient).norm()) < 1e-3 * float(expected_gradient.norm())


@pytest.mark.parametrize(
    ("name", "how"),
    [("Llama", "packed"), ("Granite", "packed"), ("Cohere", "packed"), ("Gemma2", "packed, dense attention, whole logits")],
)
def test_a_model_that_bends_its_scores_gets_what_it_can_take(name, how):
    """Granite and Cohere scale their logits, which slices allow; Gemma 2 caps scores and logits."""
    model = build(name).requires_grad_(False)
    assert choose_pass(model, encoded([(1, 2), (3, 2)], [0.5, 0.5]))[1].split(":")[0] == how


def test_a_window_shorter_than_a_row_means_rows():
    way, why = choose_pass(build("Gemma2", sliding_window=3), encoded([(1, 2), (3, 2)], [0.5, 0.5]))
    assert isinstance(way, RowsPass)
    assert "window" in why


def test_a_model_that_counts_places_gets_no_packed_part_beyond_its_window():
    model = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(
        vocab_size=24, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )).eval()  # fmt: skip
    wide = encoded([(a, b, 2) for a in range(3, 9) for b in range(3, 9)], [1 / 36] * 36)
    way, why = choose_pass(model, wide)
    assert isinstance(way, RowsPass)
    assert "window_size (8) is shorter than a packed part" in why
