"""Loading a base model, as far as no other test is about it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from diffusecli.models import loading
from diffusecli.models.source import ModelSource


@pytest.mark.parametrize(("load", "called"), [(loading.load_model, "from_pretrained"), (loading.load_hollow, "from_config")])
def test_models_are_made_one_at_a_time(tiny_model_folder, monkeypatch, load, called):
    """transformers' switches for it are the process's, so a second thread has to wait."""
    from transformers import AutoModelForCausalLM

    make, free = getattr(AutoModelForCausalLM, called), []

    def watched(*given, **more):
        with ThreadPoolExecutor(1) as other:
            free.append(other.submit(loading._ONE_AT_A_TIME.acquire, blocking=False).result())
        return make(*given, **more)

    monkeypatch.setattr(AutoModelForCausalLM, called, watched)
    load(ModelSource(str(tiny_model_folder), device="cpu"), print)
    assert free == [False]
