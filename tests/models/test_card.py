"""The model card of an adapter: its code finds the base model."""

import ast

import diffusecli
from diffusecli.models.card import model_card

MANIFEST = {
    "exact_kl": {}, "exact_kl_before": {}, "exact_on_target": {}, "exact_on_target_before": {}, "exact_kl_test": {},
    "exact_on_target_test": {}, "retention_kl": None, "steps": 1, "training_seconds": 1.0, "stopped": "finished 9 iterations",
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


def test_the_card_of_many_prompts_sums_them_up_by_folder():
    from diffusecli.models.card import model_card

    kl = {f"mix/train/{family}/{n}.json": 0.1 * n for family in ("coins", "dice") for n in range(1, 60)}
    manifest = {
        "model": "some/model", "exact_kl": kl, "exact_on_target": dict.fromkeys(kl, 0.5), "exact_kl_test": {"mix/held-out/odds/1.json": 0.7},
        "exact_on_target_test": {"mix/held-out/odds/1.json": 0.25}, "exact_kl_before": {}, "exact_on_target_before": {},
        "retention_kl": None, "steps": 9, "training_seconds": 60.0, "stopped": "finished 9 iterations", "prompts_trained": 4000,
    }  # fmt: skip
    card = model_card(manifest, [])
    assert "# Answers that follow 4000 distributions" in card
    assert "| coins: median of 59 prompts, trained on | - | - | - | - | 3.0000 | - | 50.00% |" in card
    assert "median of 1 prompt, not trained on | - | - | - | - | 0.7000 | - | 25.00% |" in card
    assert "train/coins/1.json" not in card


def test_a_rounding_on_the_card_is_rounded_up_as_in_reports():
    kl = {"a.json": 0.1, "b.json": 0.1, "c.json": 0.1}
    manifest = {
        **MANIFEST, "model": "some/model", "exact_kl": kl, "exact_on_target": dict.fromkeys(kl, 0.5), "kl_rounding": {"a.json": 0.0141, "b.json": None},
    }  # fmt: skip
    rows = [line.split(" | ")[5] for line in model_card(manifest, []).splitlines() if ".json |" in line]
    assert rows == ["0.1000 ± 0.015 (16-bit rounding)", "0.1000 (16-bit rounding not known)", "0.1000"]
