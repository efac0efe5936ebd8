"""The fused LoRA product against PEFT's own: same output, same gradients, and hands off what it does not know."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusecli.models.attention import enable
from diffusecli.models.fused import _is_gated_mlp, fuse
from diffusecli.models.loading import load_model
from diffusecli.models.source import ModelSource
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from tests.tiny import byte_tokenizer, tiny_llama
from tests.training.test_loss import encoded


def adapted(base=None, **more):
    model = get_peft_model(
        base or tiny_llama(), LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", **more)
    )
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def logits_and_gradients(model):
    model.zero_grad()
    logits = model(torch.arange(24).view(2, 12)).logits
    logits.log_softmax(-1)[..., 5].sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rslora", [False, True])
def test_the_fused_product_is_pefts_forwards_and_backwards(rslora):
    model = adapted(use_rslora=rslora)
    expected, expected_gradients = logits_and_gradients(model)
    assert fuse(model) == 14  # seven linear layers in each of two blocks
    found, gradients = logits_and_gradients(model)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        expected = expected_gradients[name]  # sums of terms of all sizes, rounded as the processor likes
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "biases"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_four_bit_base_has_the_same_loss_and_gradient_fused(dtype, bias, tmp_path):
    """Also after a pass without a gradient, in which bitsandbytes would repack weights on some CPUs."""
    pytest.importorskip("bitsandbytes")
    wide = tiny_llama(vocabulary=24, hidden_size=64, intermediate_size=128, attention_bias=bias, tie_word_embeddings=False)
    wide.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    precision = "fp32" if dtype == torch.float32 else "bf16"
    base = load_model(ModelSource(str(tmp_path), device="cpu", precision=precision, quantize="nf4"), print)
    base.model = adapted(base.model)
    with torch.no_grad():
        base.model(torch.arange(24)[None])
    prompts = [encoded([(5, 6, 2), (7, 2), (8, 9, 10, 2)], [0.5, 0.3, 0.2])]
    ways = [PackedPass(None, tree=False, sliced_head=False), PackedPass(None, tree=True, sliced_head=True)]

    def scored(way):
        base.model.zero_grad()
        found = score(base.model, prompts[0], way, backward=True)
        return found.log_probs, torch.cat([p.grad.flatten().clone() for p in base.model.parameters() if p.grad is not None])

    assert enable(base.model)
    expected = scored(ways[0])
    assert fuse(base.model) == 14
    assert all(
        "forward" in vars(block.self_attn) and "forward" in vars(block.mlp) for block in base.model.get_base_model().model.layers
    )
    rounding = 1e-5 if dtype == torch.float32 else 0.03
    for way in ways:
        log_probs, gradient = scored(way)
        np.testing.assert_allclose(log_probs, expected[0], rtol=rounding, atol=rounding)
        assert float((gradient - expected[1]).norm()) < 10 * rounding * float(expected[1].norm())


def test_a_gated_mlp_is_one_function_only_where_it_is_that_function():
    def fused_mlps(model):
        fuse(model)
        logits = model(torch.arange(12)[None]).logits
        seen, found = [logits.grad_fn], set()
        while seen:
            step = seen.pop()
            if step is not None and step not in found:
                found.add(step)
                seen += [before for before, _ in step.next_functions]
        return sum("GatedMlp" in step.name() for step in found)

    assert fused_mlps(adapted()) == 2
    gelu = adapted()
    for block in gelu.get_base_model().model.layers:
        block.mlp.act_fn = torch.nn.GELU()
    assert fused_mlps(gelu) == 0
    partly = get_peft_model(tiny_llama(), LoraConfig(r=3, target_modules=["gate_proj", "down_proj"], task_type="CAUSAL_LM"))
    assert fused_mlps(partly) == 0


def probed(model, monkeypatch):
    """How many modules were probed, and how many MLPs became one function."""
    asked = []
    monkeypatch.setattr("diffusecli.models.fused._is_gated_mlp", lambda mlp, probe=_is_gated_mlp: asked.append(mlp) or probe(mlp))
    fuse(model)
    return len(asked), sum("forward" in vars(block.mlp) for block in model.get_base_model().model.layers)


def test_mlps_that_are_alike_are_probed_once(monkeypatch):
    assert probed(adapted(tiny_llama(num_hidden_layers=4)), monkeypatch) == (1, 4)


def test_mlps_that_differ_in_a_value_an_activation_or_a_tensor_are_each_probed(monkeypatch):
    class Capped(torch.nn.Module):
        def __init__(self, limit):
            super().__init__()
            self.limit = limit

        def forward(self, x):
            return torch.nn.functional.silu(x).clamp(max=self.limit)

    model = adapted(tiny_llama(num_hidden_layers=8))
    mlps = [block.mlp for block in model.get_base_model().model.layers]
    mlps[1].act_fn = torch.nn.GELU()
    mlps[2].act_fn = Capped(1.0)
    mlps[3].act_fn = Capped(float("inf"))  # the same class without an effect
    mlps[4].register_buffer("unused", torch.ones(1))
    mlps[5].limit = 3  # a value that its function does not read
    mlps[6].register_forward_hook(lambda _module, _inputs, out: out + 1)
    assert probed(model, monkeypatch) == (7, 5)  # 0 and 7 are alike; 1, 2 and 6 are other functions


def test_with_the_adapter_off_the_base_answers():
    model = adapted()
    ids = torch.arange(12)[None]
    with torch.no_grad(), model.disable_adapter():
        expected = model(ids).logits
    fuse(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(ids).logits, expected)
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits, expected)


@pytest.mark.parametrize("more", [{"use_dora": True}, {"lora_dropout": 0.1}])
def test_other_kinds_of_layers_are_left_alone(more):
    assert fuse(adapted(**more)) == 0


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_layers_whose_bias_is_trained_are_left_alone(bias):
    biased = tiny_llama(attention_bias=True, mlp_bias=True)
    model = get_peft_model(biased, LoraConfig(r=3, target_modules="all-linear", bias=bias, task_type="CAUSAL_LM"))
    assert fuse(model) == 0


def test_adapters_in_16_bits_are_left_alone():
    assert fuse(adapted().bfloat16()) == 0


def test_with_a_16_bit_base_the_fused_model_is_as_close_to_32_bits_as_pefts():
    """Both round; the same weights in float32 are the measure of each."""
    dtype = torch.bfloat16
    exact, plain, fused = (adapted(tiny_llama(initializer_range=0.2).to(dtype).to(wide)) for wide in (torch.float32, dtype, dtype))
    assert fuse(fused) == 14
    modules = [
        m
        for block in fused.get_base_model().model.layers
        for m in (block.mlp, block.input_layernorm, block.post_attention_layernorm)
    ]
    assert all("forward" in vars(module) for module in modules)
    expected, expected_gradients = logits_and_gradients(exact)
    errors = []
    for model in (plain, fused):
        logits, gradients = logits_and_gradients(model)
        assert gradients.keys() == expected_gradients.keys()
        assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
        gaps = [float((own - expected_gradients[name]).norm() / expected_gradients[name].norm()) for name, own in gradients.items()]
        errors.append((float((logits.float() - expected).norm() / expected.norm()), sum(gaps) / len(gaps), max(gaps)))
    assert all(own <= 1.3 * pefts for pefts, own in zip(*errors, strict=True)), errors
    assert errors[1][1] < 0.03


def test_with_a_16_bit_base_inputs_are_kept_in_16_bits_for_the_backward_pass():
    def kept(model):
        sizes = {}

        def keep(tensor):
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.arange(240).view(2, 120)).logits.sum()
        weights = {weight.data_ptr() for weight in model.parameters()}
        return sum(size for pointer, size in sizes.items() if pointer not in weights)

    plain, fused = (adapted(tiny_llama().bfloat16()) for _ in range(2))
    fuse(fused)
    assert kept(fused) < 0.6 * kept(plain)


class Bent(torch.nn.Module):
    """A gated MLP that does something to what its inner layers, or its last one, put out; nothing unless it is asked for."""

    def __init__(self, gate=lambda x: x, up=lambda x: x, product=lambda x: x, out=lambda x: x, act=torch.nn.functional.silu):
        super().__init__()
        self.gate_proj, self.up_proj = torch.nn.Linear(32, 48, bias=False), torch.nn.Linear(32, 48, bias=False)
        self.down_proj = torch.nn.Linear(48, 32, bias=False)
        self.bend = gate, up, product, out, act

    def forward(self, x):
        gate, up, product, out, act = self.bend
        return out(self.down_proj(product(act(gate(self.gate_proj(x))) * up(self.up_proj(x)))))


def mlp_fused(model, x):
    """Whether the first block's MLP is one function, and its output before and after."""
    mlp = model.get_base_model().model.layers[0].mlp
    before = mlp(x)
    fuse(model)
    after = mlp(x)
    return "GatedMlp" in after.grad_fn.name(), before, after


BENT = {
    **{f"gate clamped at {limit}": {"gate": lambda x, limit=limit: x.clamp(max=limit)} for limit in (2, 7, 16, 100, 5000)},
    **{f"up clamped at {limit}": {"up": lambda x, limit=limit: x.clamp(-limit, limit)} for limit in (2, 7, 16, 100, 5000)},
    "the activation clamped": {"act": lambda x: torch.nn.functional.silu(x).clamp(max=16)},
    "the product clamped": {"product": lambda x: x.clamp(-1e6, 1e6)},
    "a soft cap": {"gate": lambda x: 500 * torch.tanh(x / 500)},
    "a scaled activation": {"act": lambda x: x * torch.sigmoid(1.702 * x)},
    "a scaled output": {"out": lambda x: 1.01 * x},
    "a clamped output": {"out": lambda x: x.clamp(-1e4, 1e4)},
    "a bias": {"up": lambda x: x + 1},
    "a dead zone": {"gate": lambda x: torch.where(x.abs() < 1e-2, 0, x)},
}


@pytest.mark.parametrize("how", BENT)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_a_gated_mlp_that_bends_its_values_keeps_its_own_way(how, scale, monkeypatch):
    base = tiny_llama()
    base.model.layers[0].mlp = Bent(**BENT[how])
    monkeypatch.setattr("tests.models.test_fused.tiny_llama", lambda: base)
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)) * scale
    fused, before, after = mlp_fused(adapted(), x)
    assert not fused
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * scale**2)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0, 1e5])
def test_a_plain_gated_mlp_is_fused_and_the_same_at_every_scale(scale):
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)) * scale
    fused, before, after = mlp_fused(adapted(), x)
    assert fused
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6 * float(before.detach().abs().max()))


@pytest.mark.parametrize(("bent", "weights"), [({"gate": lambda x: x.clamp(max=7)}, 0.0), ({}, 0.0)])
def test_weights_that_are_zero_hide_no_clamp(bent, weights, monkeypatch):
    base = tiny_llama()
    base.model.layers[0].mlp = Bent(**bent)
    torch.nn.init.constant_(base.model.layers[0].mlp.down_proj.weight, weights)
    monkeypatch.setattr("tests.models.test_fused.tiny_llama", lambda: base)
    fused, _, _ = mlp_fused(adapted(), torch.ones(1, 2, 32))
    assert fused == (not bent)


def test_a_clamp_in_one_layer_only_is_found_there(monkeypatch):
    base = tiny_llama()
    base.model.layers[1].mlp = Bent(gate=lambda x: x.clamp(max=16))
    monkeypatch.setattr("tests.models.test_fused.tiny_llama", lambda: base)
    model = adapted()
    fuse(model)
    x = torch.ones(1, 2, 32)
    names = [layer.mlp(x).grad_fn.name() for layer in model.get_base_model().model.layers]
    assert ["GatedMlp" in name for name in names] == [True, False]


@pytest.mark.parametrize("hook", ["forward hook", "input hook", "own forward"])
def test_a_base_layer_with_a_hook_or_a_forward_of_its_own_is_left_alone(hook, monkeypatch):
    base = tiny_llama()
    layer = base.model.layers[0].self_attn.q_proj
    if hook == "forward hook":
        layer.register_forward_hook(lambda _module, _given, out: out.clamp(-1, 1))
    elif hook == "input hook":
        layer.register_forward_pre_hook(lambda _module, given: (given[0].clamp(-1, 1),))
    else:
        layer.forward = lambda x: torch.nn.functional.linear(x, layer.weight).clamp(-1, 1)
    monkeypatch.setattr("tests.models.test_fused.tiny_llama", lambda: base)
    model = adapted()
    expected, _ = logits_and_gradients(model)
    assert fuse(model) == 13
    torch.testing.assert_close(logits_and_gradients(model)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [1.0, 8.0, 1e4])
@pytest.mark.parametrize(("family", "kind", "more"), [("deepseek_v4", "DeepseekV4MLP", ()), ("step3p7", "Step3p7MLP", (0,))])
def test_mlps_of_models_that_clamp_are_found(family, kind, more, limit, monkeypatch):
    module = pytest.importorskip(f"transformers.models.{family}.modeling_{family}", reason="of a newer transformers")
    settings = SimpleNamespace(
        hidden_size=32, intermediate_size=48, hidden_act="silu", mlp_bias=False, swiglu_limit=limit, swiglu_limits_shared=[limit]
    )
    base = tiny_llama()
    base.model.layers[0].mlp = getattr(module, kind)(settings, *more)
    monkeypatch.setattr("tests.models.test_fused.tiny_llama", lambda: base)
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)) * 1000
    fused, before, after = mlp_fused(adapted(), x)
    assert not fused
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1.0)
