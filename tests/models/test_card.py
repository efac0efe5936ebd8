"""The model card of an adapter: its code finds the base model."""

import ast

import diffusecli
from diffusecli.models.card import model_card

MANIFEST = {
    "exact_kl": {}, "exact_kl_before": {}, "exact_on_target": {}, "exact_on_target_before": {}, "exact_kl_test": {},
    "exact_on_target_test": {}, "retention_kl": None, "steps": 1, "training_seconds": 1.0, "stopped": "all done",
}  # fmt: skip


def code_of(model):
    card = model_card({**MANIFEST, "model": model}, [])
    return card.split("```python\n")[1].split("```")[0]


def test_a_built_in_model_is_found_through_the_public_api():
    (imported, call) = ("from diffusecli import ensure_builtin", 'from_pretrained(ensure_builtin("smollm2-135m-instruct")')
    assert imported in code_of("smollm2-135m-instruct")
    assert call in code_of("smollm2-135m-instruct")
    assert "ensure_builtin" in diffusecli.__all__
    ast.parse(code_of("smollm2-135m-instruct"))


def test_other_models_are_named_as_they_were():
    assert 'from_pretrained("owner/model")' in code_of("owner/model")
    assert 'from_pretrained("folder", gguf_file="m.gguf")' in code_of("folder/m.gguf")
    assert "diffusecli" not in code_of("owner/model")
