"""The pass that the probe picks gives the numbers of rows, forwards and backwards, whatever the architecture."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from diffusecli.models.architecture import attention_windows, trainable
from diffusecli.models.block_attention import Blocks
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import attach_lora, load_adapter, save_adapter
from diffusecli.prompts.config import LoraSettings
from diffusecli.training import packed_pass
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import checked_up_to, choose_pass
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from tests.models.architectures import ARCHITECTURES, SLIDING, build
from tests.training.test_loss import encoded

DEEP = [(1, 3, 5, 4, 6, 7, 2), (1, 3, 5, 4, 8, 2), (1, 3, 6, 2), (1, 4, 2), (7, 9, 3, 1, 2)]


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
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert float((gradient - expected_gradient).norm()) < 1e-4 * float(expected_gradient.norm())


@pytest.mark.parametrize(
    ("name", "how"),
    [("Llama", "packed"), ("Granite", "packed"), ("Cohere", "packed"), ("Gemma2", "packed, dense attention, whole logits")],
)
def test_a_model_that_bends_its_scores_gets_what_it_can_take(name, how):
    """Granite and Cohere scale their logits, which slices allow; Gemma 2 caps scores and logits."""
    model = build(name).requires_grad_(False)
    assert choose_pass(model, encoded([(1, 2), (3, 2)], [0.5, 0.5]))[1].split(":")[0] == how


@pytest.mark.parametrize("bend", [lambda x: x.clamp(-500, 500), lambda x: 900 * torch.tanh(x / 900)], ids=["a clamp", "a soft cap"])
def test_logits_that_are_bent_only_once_they_are_large_are_never_passed_by(bend):
    """A model whose logits are small now may have large ones after training."""
    plain, bent = build("Llama").requires_grad_(False), build("Llama").requires_grad_(False)
    bent.register_forward_hook(lambda _module, _given, out: type(out)(**{**out, "logits": bend(out.logits)}))
    example = encoded([(1, 2), (3, 2)], [0.5, 0.5])
    assert choose_pass(plain, example)[0].sliced_head
    assert not choose_pass(bent, example)[0].sliced_head


@pytest.mark.parametrize("name", SLIDING)
@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize(("prompt_length", "window"), [(12, 5), (12, 14), (2, 3), (4, 1)])
def test_windows_shorter_than_a_row_slide_over_positions_whatever_the_layout(name, tree, prompt_length, window):
    """They end within the prompt or among the targets; the trie is cut into parts, which start below its root."""
    model = build(name, **SLIDING[name], sliding_window=window)
    for parameter in (model.get_output_embeddings().weight, model.get_input_embeddings().weight):
        parameter.requires_grad_(False)
    example = encoded(DEEP, [0.3, 0.2, 0.2, 0.2, 0.1], prompt_ids=tuple(range(8, 8 + prompt_length)))
    way, why = choose_pass(model, example, max_tokens=prompt_length + 6)
    assert why.startswith("packed"), why
    assert way.tree is (name != "Gemma2")  # which caps its scores, and sdpa cannot
    assert len(way.parts(example)) > 1
    way = replace(way, tree=way.tree and tree)
    expected, expected_gradient = gradient_of_first_block(model, example, RowsPass())
    found, gradient = gradient_of_first_block(model, example, way)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert float((gradient - expected_gradient).norm()) < 1e-4 * float(expected_gradient.norm())
    unbound = build(name, **SLIDING[name], sliding_window=64)
    assert np.abs(score(unbound, example, way).log_probs - expected).max() > 0.01


def test_a_window_is_met_by_the_probe_that_proves_it(monkeypatch):
    """Here the keyword is lost on the way, so attention by tree sees too much, and then the mask does too."""
    example, model = encoded(DEEP, [0.2] * 5), build("Mistral", sliding_window=6)
    assert choose_pass(model, example)[0].tree
    rows = Blocks.rows
    monkeypatch.setattr(
        Blocks, "rows", lambda blocks, *a: rows(blocks, *(None if place == 4 else each for place, each in enumerate(a)))
    )
    way, why = choose_pass(model, example)
    assert why.startswith("packed, dense attention")
    masked = packed_pass.dense_mask
    monkeypatch.setattr(packed_pass, "dense_mask", lambda _, *rest: masked(build("Llama").config, *rest))
    way, why = choose_pass(model, example)
    assert isinstance(way, RowsPass)
    assert "differ by" in why
    short = encoded([(1, 2), (3, 2)], [0.5, 0.5], prompt_ids=(5, 6))
    assert choose_pass(model, short)[0].tree, "no row is longer than the window"


def test_a_window_that_the_config_names_and_the_model_has_not_means_rows():
    model = build("Llama")
    model.set_attn_implementation("eager")
    model.config.sliding_window = 6
    way, why = choose_pass(model, encoded(DEEP, [0.2] * 5))
    assert isinstance(way, RowsPass)
    assert "differ by" in why


def test_a_window_that_the_config_turns_off_is_none():
    assert (
        attention_windows(SimpleNamespace(get_text_config=lambda: SimpleNamespace(sliding_window=3, use_sliding_window=False)))
        == {}
    )
    assert attention_windows(build("Qwen2", use_sliding_window=False, sliding_window=3).config) == {}


def test_what_is_longer_than_a_window_that_no_trained_row_reaches_is_measured_in_rows(monkeypatch):
    model = build("Mistral", sliding_window=8)
    trained = encoded([(1, 2), (3, 2)], [0.5, 0.5], prompt_ids=(5, 6))
    longer = encoded(DEEP, [0.2] * 5, prompt_ids=tuple(range(8, 20)))
    way, _ = choose_pass(model, trained)
    most = checked_up_to(model.config, [trained])
    assert (isinstance(way, PackedPass), most, checked_up_to(model.config, [longer])) == (True, 8, None)
    questions = [Question(e.prompt, (e,)) for e in (trained, longer)]
    in_rows = Scorer(model, RowsPass(), None, Processes("cpu"), print).exact(questions)
    monkeypatch.setattr(packed_pass, "dense_mask", None)  # a packed pass would fail
    monkeypatch.setattr(PackedPass, "run", None)
    scorer = Scorer(model, way, None, Processes("cpu"), print, most=most)
    assert scorer.exact(questions) == in_rows
    with pytest.raises(TypeError):
        scorer.exact(questions[:1])
    assert scorer.strategy is way


def test_a_model_that_counts_places_gets_no_packed_part_beyond_its_window():
    model = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(
        vocab_size=24, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )).eval()  # fmt: skip
    wide = encoded([(a, b, 2) for a in range(3, 9) for b in range(3, 9)], [1 / 36] * 36)
    way, why = choose_pass(model, wide)
    assert isinstance(way, RowsPass)
    assert "window_size (8) is shorter than a packed part" in why
    for block in model.transformer.h:  # a window that the probe fits
        if hasattr(block.attn.attention, "bias"):
            block.attn.attention.bias.copy_(torch.ones_like(block.attn.attention.bias).tril())
    model.config.window_size = 16
    narrow = [encoded([(n, 2), (n + 1, 2)], [0.5, 0.5], prompt_ids=(n, 6, 7, 8)) for n in range(3, 9)]
    way, why = choose_pass(model, narrow[0], max_tokens=500)
    assert why.startswith("packed"), why
    assert [batch.tokens for batch in way.batches(narrow)] == [12] * 3, "together they would be longer than the window"


def adapted(name):
    base = LoadedModel(name, build(name), None, "r")
    attach_lora(base, LoraSettings(r=4, alpha=8))
    return base


@pytest.mark.parametrize(("name", "left_out"), [("Mamba", {"out_proj"}), ("FalconH1", {"out_proj"}), ("Llama", set())])
def test_all_linear_leaves_out_what_peft_refuses_and_nothing_else(name, left_out, tmp_path):
    base = adapted(name)
    inner = base.model.get_base_model()
    plain = {path for path, module in inner.named_modules() if type(module) is torch.nn.Linear and "lora" not in path}
    bare = {path.rpartition(".")[2] for path in plain if not path.endswith("base_layer")}
    assert bare == {"lm_head"} | left_out
    for weight in trainable(base.model):
        torch.nn.init.normal_(weight, std=0.3)
    save_adapter(base, tmp_path)
    again = LoadedModel(name, build(name), None, "r")
    load_adapter(again, tmp_path)
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(again.model(tokens).logits, base.model(tokens).logits)
