"""The pretended device, and models on it beside the same models on the CPU."""

from copy import deepcopy

import pytest
import torch

from diffusecli.models.devices import sum_dtype
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import attach_lora
from diffusecli.prompts.config import LoraSettings
from tests.accelerator import Device, install
from tests.tiny import byte_tokenizer, tiny_llama


@pytest.fixture(scope="session")
def registered():
    return install()


@pytest.fixture(autouse=True)
def device(registered):
    """A new device for every test. Backward passes use one thread: the pretended GPUs have none of their own."""
    Device.reset()
    sum_dtype.cache_clear()
    with torch.autograd.set_multithreading_enabled(False):
        yield Device
    sum_dtype.cache_clear()


@pytest.fixture
def no_float64(device):
    """As on Apple's MPS."""
    device.float64 = False


@pytest.fixture
def tiny():
    """A loaded model on the CPU, with an adapter that changes it."""

    def make(model=None, *, dtype=torch.float32, fused=True, **lora):
        base = LoadedModel("tiny", (model or tiny_llama(vocabulary=400)).to(dtype), byte_tokenizer(), "r")
        torch.manual_seed(1)
        attach_lora(base, LoraSettings(**{"r": 2, "alpha": 4, **lora}))
        for name, weight in base.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        base.model.eval()
        if fused:
            fuse(base.model)
        return base

    return make


@pytest.fixture
def on_gpu():
    """The same model on the device; over two GPUs with `spread`."""

    def move(base, *, spread=False):
        moved = deepcopy(base)
        if spread:
            over_two(moved.model)
        else:
            moved.model.to("gpu")
        return moved

    return move


def over_two(model):
    """As `device_map: auto` does it: the first half of the layers on the first GPU, the rest on the second."""
    from accelerate import dispatch_model

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    first = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.layers.0"), "gpu:0")
    second = dict.fromkeys(("model.layers.1", "model.norm", "lm_head"), "gpu:1")
    dispatch_model(inner, first | second, main_device="gpu:0")  # otherwise accelerate takes either
