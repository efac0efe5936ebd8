"""Attention modules and norms as one function each: recognised by what they do, equal forwards and backwards, left alone elsewhere."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusecli.models import fused_attention, fused_norm, lora_products
from diffusecli.models.attention import enable
from diffusecli.models.fused import fuse
from diffusecli.models.fused_attention import Heads
from diffusecli.models.wide_output import widen_output
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.rows_pass import RowsPass
from tests.models.architectures import build
from tests.training.test_loss import encoded

PATHS = [(1, 2, 0), (1, 3, 0), (2, 4, 4, 0), (2, 4, 5, 0), (3, 0)]
EXAMPLE = encoded(PATHS, [0.2] * 5, prompt_ids=(7, 8, 9, 10, 11, 6))


def adapted(name="Llama", **settings):
    model = build(name, **settings)
    for weight in model.parameters():
        weight.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.1)
        elif "norm.weight" in key:
            weight.data.normal_(1, 0.3)
    return model.eval()


def attentions(model):
    return [m for m in model.modules() if hasattr(m, "o_proj") and "forward" in vars(m)]


def norms(model):
    return [m for m in model.modules() if type(m).__name__.endswith("RMSNorm") and "forward" in vars(m)]


def measured(model, way):
    model.zero_grad()
    log_probs = score(model, EXAMPLE, way, backward=True).log_probs
    return log_probs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "settings", "fuses"),
    [
        ("Llama", {}, True),
        ("Mistral", {"sliding_window": 4}, True),
        ("Qwen2", {}, True),
        ("Qwen3", {}, False),
        ("Gemma3Text", {}, False),
    ],
)
def test_a_step_by_fused_modules_is_that_of_rows(name, settings, fuses):
    """Biases and windows are part of the function; a norm of queries is not, so such a module keeps its own way."""
    model = adapted(name, **settings)
    expected, expected_gradients = measured(model, RowsPass())
    fuse(model)
    assert bool(attentions(model)) == fuses
    found, gradients = measured(model, PackedPass(None, tree=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
def test_with_a_16_bit_base_a_step_by_fused_modules_is_as_close_to_32_bits_as_by_plain_ones(name):
    def in_format(dtype):
        model = adapted(name, initializer_range=0.15)
        for key, weight in model.named_parameters():
            if "lora_" not in key:
                weight.data = weight.data.bfloat16().to(dtype)
        widen_output(model.get_base_model())
        enable(model)
        return model

    expected, expected_gradients = measured(in_format(torch.float32), PackedPass(None, tree=True))
    plain, fused = in_format(torch.bfloat16), in_format(torch.bfloat16)
    fuse(fused)
    assert len(attentions(fused)) == 2
    assert len(norms(fused)) == 5
    errors = []
    for model in (plain, fused):
        log_probs, gradients = measured(model, PackedPass(None, tree=True))
        assert gradients.keys() == expected_gradients.keys()
        gaps = [float((own - expected_gradients[key]).norm() / expected_gradients[key].norm()) for key, own in gradients.items()]
        errors.append((float(np.abs(log_probs - expected).mean()), sum(gaps) / len(gaps)))
    assert errors[1][0] < 0.05
    assert errors[1][1] < max(0.02, 1.3 * errors[0][1]), errors


def test_what_a_module_does_besides_its_layers_is_found_out():
    model = adapted("Mistral", sliding_window=4)
    fuse(model)
    width = model.config.head_dim or model.config.hidden_size // model.config.num_attention_heads
    expected = Heads(model.config.num_attention_heads, model.config.num_key_value_heads, width, width**-0.5, 4)
    assert {m._diffuse_heads for m in attentions(model)} == {expected}


@pytest.mark.parametrize("change", ["scale", "clamp", "turn"])
def test_a_module_that_does_something_else_keeps_its_own_way(change, monkeypatch):
    """The scale is read from the module; a clamp of values, or another rotary embedding, is another function."""
    from transformers.models.llama import modeling_llama

    model = adapted()
    if change == "scale":
        for block in model.get_base_model().model.layers:
            block.self_attn.scaling = 0.5
    if change == "clamp":
        kind = modeling_llama.LlamaAttention
        original = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, hidden_states, **more: original(self, hidden_states.clamp(-9, 9), **more))
    if change == "turn":
        turned = modeling_llama.apply_rotary_pos_emb
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: turned(q, k, cos, -sin))
    fuse(model)
    assert [m._diffuse_heads.scale for m in attentions(model)] == ([0.5, 0.5] if change == "scale" else [])


def test_outside_a_packed_pass_attention_is_the_models_own():
    model = adapted()
    ids = torch.arange(5, 11)[None]
    with torch.no_grad():
        expected = model(ids).logits
        fuse(model)
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)
        cached = model(ids[:, :3], use_cache=True)
        more = model(ids[:, 3:], past_key_values=cached.past_key_values).logits
    torch.testing.assert_close(more, expected[:, 3:], rtol=1e-4, atol=1e-4)


def test_the_first_layer_finds_no_gradient_of_what_is_not_trained(monkeypatch):
    asked, whole = [], lora_products.gradients
    monkeypatch.setattr(fused_attention, "gradients", lambda *a, **k: asked.append(k.get("of_x", True)) or whole(*a, **k))
    model = adapted()
    fuse(model)
    measured(model, PackedPass(None, tree=True))
    assert asked.count(False) == 1


def test_norms_are_one_function_where_they_are_that_function(monkeypatch):
    model = adapted()
    fuse(model)
    assert len(norms(model)) == 2 * model.config.num_hidden_layers + 1
    gemma = adapted("Gemma3Text")  # whose weights count from one
    fuse(gemma)
    assert norms(gemma) == []


def test_the_gradient_of_a_norm_is_autograds():
    torch.manual_seed(0)
    x, weight = torch.randn(7, 12, dtype=torch.float64, requires_grad=True), torch.randn(12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: fused_norm._RmsNorm.apply(x, weight, 1e-5), (x,))


def test_weights_and_gradients_are_views_of_one_vector():
    model = adapted()
    enable(model)
    _, expected = measured(model, PackedPass(None, tree=True))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    kept = [weight.detach().clone() for weight in trained]
    flat = FlatWeights.of(trained)
    (vector,) = flat.vectors
    assert all(torch.equal(weight, before) for weight, before in zip(trained, kept, strict=True))
    score(model, EXAMPLE, PackedPass(None, tree=True), backward=True)
    torch.testing.assert_close(vector.grad, torch.cat([gradient.flatten() for gradient in expected.values()]), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        vector.mul_(2)
    assert all(torch.equal(weight, 2 * before) for weight, before in zip(trained, kept, strict=True))
    flat.clear()
    assert all(float(weight.grad.abs().sum()) == 0 for weight in trained)


@pytest.mark.parametrize("name", ["Bamba", "GraniteMoeHybrid", "Zamba2"])
def test_a_norm_that_may_take_a_gate_still_takes_it(name):
    model, ids = adapted(name), torch.arange(3, 9)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        fuse(model)
        torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, expected, rtol=1e-4, atol=1e-4)
