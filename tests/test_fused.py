"""The fused LoRA product against PEFT's own: same output, same gradients, and hands off what it does not know."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusecli.fused import fuse
from tests.conftest import tiny_llama


def adapted(**more):
    model = get_peft_model(tiny_llama(), LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", **more))
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
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-4)


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


def test_layers_in_16_bits_are_left_alone():
    assert fuse(adapted().bfloat16()) == 0
