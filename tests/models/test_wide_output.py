"""16-bit models: logits in float32, and a forward pass without rounding."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusecli.models import wide_output
from diffusecli.models.devices import number_format, own_random_numbers, precision_on
from diffusecli.models.unrounded import Unrounded, can_be_unrounded
from diffusecli.models.wide_output import WideLinear, wide_product, widen_output
from diffusecli.training.pass_choice import choose_pass
from tests.models.architectures import build
from tests.tiny import tiny_llama
from tests.training.test_loss import encoded

IDS = torch.arange(24).view(2, 12)


def narrow(dtype=torch.bfloat16, **more):
    model = tiny_llama(**more).to(dtype)
    widen_output(model)
    return model.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_16_bit_models_are_products_in_float32(dtype, tied):
    model = narrow(dtype, tie_word_embeddings=tied)
    hidden = model.model(IDS).last_hidden_state
    logits = model(IDS).logits
    assert logits.dtype == torch.float32
    exact = hidden.double() @ model.lm_head.weight.double().t()
    assert float((logits - exact).abs().max()) < 1e-5 * float(exact.abs().max())
    rounded = torch.nn.functional.linear(hidden, model.lm_head.weight)
    assert float((rounded - exact).abs().max()) > 1e-4 * float(exact.abs().max())  # what the layer would have returned


def test_the_gradient_of_a_wide_output_is_that_of_the_layer():
    torch.manual_seed(0)
    plain = torch.nn.Linear(8, 20, dtype=torch.bfloat16).requires_grad_(False)
    wide = copy.deepcopy(plain)
    wide.__class__ = WideLinear
    x = torch.randn(3, 5, 8, dtype=torch.bfloat16)
    found = []
    for layer in (plain, wide):
        own = x.clone().requires_grad_()
        (layer(own).float() * torch.arange(20.0)).sum().backward()
        found.append(own.grad)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(wide(x), torch.nn.functional.linear(x.float(), plain.weight.float(), plain.bias.float()))


def test_weights_are_widened_in_blocks(monkeypatch):
    x, weight, bias = torch.randn(3, 8).bfloat16(), torch.randn(20, 8).bfloat16(), torch.randn(20).bfloat16()
    expected = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    monkeypatch.setattr(wide_output, "_BLOCK", 7)
    torch.testing.assert_close(wide_product(x, weight, bias), expected)
    out = torch.empty(3, 20)
    assert wide_product(x, weight, bias, out) is out
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("into", [True, False])
def test_a_product_of_the_device_is_in_memory_once(monkeypatch, into):
    """As on a GPU: `torch.mm` has `out_dtype`. Without a version that writes into a tensor, the product is copied."""
    plain, made = torch.mm, []

    def mm(x, y, *, out_dtype, out=None):
        if out is not None and not into:
            raise NotImplementedError
        made.append(plain(x.to(out_dtype), y.to(out_dtype)) if out is None else plain(x.to(out_dtype), y.to(out_dtype), out=out))
        return made[-1]

    x, weight, bias = torch.randn(3, 8).bfloat16(), torch.randn(20, 8).bfloat16(), torch.randn(20).bfloat16()
    expected = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    wide_output._widens.cache_clear()
    monkeypatch.setattr(torch, "mm", mm)
    try:
        alone = wide_product(x, weight, bias)
        assert alone is made[-1]
        out = torch.empty(3, 20)
        assert wide_product(x, weight, bias, out) is out
        assert (made[-1] is out) == into
    finally:
        wide_output._widens.cache_clear()
    torch.testing.assert_close(alone, expected)
    torch.testing.assert_close(out, expected)


def test_no_rows_have_no_logits():
    layer = torch.nn.Linear(8, 20, dtype=torch.bfloat16)
    layer.__class__ = WideLinear
    assert layer(torch.empty(2, 0, 8, dtype=torch.bfloat16)).shape == (2, 0, 20)


def test_a_32_bit_output_layer_is_not_changed():
    model = tiny_llama()
    widen_output(model)
    assert type(model.lm_head) is torch.nn.Linear


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Qwen3", "GPT2", "GPTNeoX", "Phi3", "Mistral", "Qwen3Moe", "Cohere"])
def test_a_16_bit_model_without_rounding_computes_what_its_weights_compute_in_32_bits(name):
    model = build(name).bfloat16()
    wide = copy.deepcopy(model).float()
    widen_output(model)
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        expected, rounded = wide(ids).logits, model(ids).logits
        with Unrounded():
            found = model(ids).logits
    gap, rounding = (float((one - expected).abs().max()) for one in (found, rounded))
    assert gap < 1e-4 * float(expected.abs().max())
    assert gap < 0.05 * rounding


def test_an_adapter_is_part_of_it():
    def adapted(model):
        torch.manual_seed(1)
        found = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, weight in found.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.1)
        return found.eval()

    model, wide = adapted(narrow()), adapted(tiny_llama().bfloat16().float())
    with torch.no_grad(), Unrounded():
        torch.testing.assert_close(model(IDS).logits, wide(IDS).logits, rtol=1e-4, atol=1e-4)


def test_choosing_a_pass_leaves_offloaded_weights_in_16_bits(tmp_path):
    from accelerate import dispatch_model

    model = narrow(tie_word_embeddings=False)
    places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.norm", "lm_head"), "cpu")
    model = dispatch_model(
        model, {**places, "model.layers.1": "disk"}, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    before = {name: weight.dtype for name, weight in model.named_parameters()}
    with torch.no_grad():
        logits = model(IDS).logits
        choose_pass(model, encoded([(3, 4, 2), (3, 5, 2), (4, 4, 2)], [0.5, 0.25, 0.25], prompt_ids=(5, 6, 7)))
        assert {name: weight.dtype for name, weight in model.named_parameters()} == before
        assert torch.equal(model(IDS).logits, logits)
    assert not can_be_unrounded(model)
    assert can_be_unrounded(narrow())


def test_auto_is_bf16_only_on_gpus_that_compute_in_it(monkeypatch):
    gpu, asked = torch.device("cuda", 0), []
    answers = iter([True, False])

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return next(answers)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    assert [precision_on("auto", gpu) for _ in range(2)] == ["bf16", "fp32"]
    assert asked == [False, False]  # emulated bf16 is slower than fp32
    assert [precision_on("auto", torch.device(kind)) for kind in ("cpu", "mps")] == ["fp32", "fp32"]
    assert [precision_on(name, gpu) for name in ("fp32", "fp16")] == ["fp32", "fp16"]
    assert number_format("auto", "cpu") == torch.float32
    assert number_format("bf16", "cuda:7") == torch.bfloat16  # asks no device


@pytest.mark.parametrize("with_device", [False, True])
def test_random_numbers_of_a_device_continue_as_before(monkeypatch, with_device):
    """In older versions of torch the functions of MPS take no device."""
    restored = []

    def get():
        return torch.tensor([7], dtype=torch.uint8)

    def put(state):
        restored.append(state.tolist())

    monkeypatch.setattr(torch.mps, "get_rng_state", (lambda device: get()) if with_device else get)
    monkeypatch.setattr(torch.mps, "set_rng_state", (lambda state, device: put(state)) if with_device else put)
    model, before = SimpleNamespace(parameters=lambda: [SimpleNamespace(device=torch.device("mps"))]), torch.get_rng_state()
    with pytest.raises(KeyError), own_random_numbers(model, 3):
        own = torch.rand(2)
        raise KeyError
    assert restored == [[7]]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), own)
