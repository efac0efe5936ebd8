"""The pass from states gives the numbers of rows, forwards and backwards, and a probe refuses it where it does not."""

from functools import wraps
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import Cache, LinearAttentionLayer
from transformers.models.mamba2 import modeling_mamba2
from transformers.utils import ModelOutput

from diffusecli.models import states
from diffusecli.models.architecture import trainable
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import attach_lora
from diffusecli.models.source import ModelSource
from diffusecli.models.states import states_of
from diffusecli.models.wide_output import widen_output
from diffusecli.prompts.config import AlgConfig, LoraSettings
from diffusecli.training import pass_choice
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.state_pass import StatePass
from tests.models.architectures import RECURRENT, build
from tests.models.test_trie import path_sets
from tests.training.test_loss import encoded

NUMBERS = [(*(3 + int(digit) for digit in str(number)), 2) for number in range(1, 101)]
PROMPT = tuple(3 + 7 * place % 20 for place in range(50))
WEIGHTS = np.arange(1, 101) / 5050
JAMBA = build("Jamba")


class Decaying(torch.nn.Module):
    """Its state is y = a y + x over the tokens x, and its scores are (y, 0): written over in place, as in transformers."""

    def __init__(self, decay):
        super().__init__()
        self.decay = torch.nn.Parameter(torch.tensor(decay))
        self.config = SimpleNamespace(model_type="decaying")

    def forward(self, input_ids, cache_params=None, use_cache=True):
        cache = cache_params or Cache(layers=[LinearAttentionLayer()])
        layer = cache.layers[0]
        before = layer.recurrent_states[0]
        state = torch.zeros(len(input_ids)) if before is None else before
        for token in input_ids.T:
            state = state * self.decay + token
        if before is None:
            layer.device = state.device
            cache.update_recurrent_state(state, 0)
        else:
            before.copy_(state)
        return ModelOutput(cache_params=cache, logits=torch.stack([state, torch.zeros_like(state)], -1)[:, None])


def test_states_by_hand():
    """After 1, 2: y = a + 2. Then 3 and 5 in two rows, and 7 after the second: y = a^3 + 2 a^2 + 5 a + 7, dy/da = 3 a^2 + 4 a + 5."""
    model = Decaying(0.5)
    kept = states_of(model)
    assert kept.feed(torch.tensor([[1, 2]])).tolist() == [[2.5, 0]]
    kept.select(torch.tensor([0, 0]))
    assert kept.feed(torch.tensor([[3], [5]])).tolist() == [[4.25, 0], [6.25, 0]]
    kept.select(torch.tensor([1]))
    last = kept.feed(torch.tensor([[7]]))
    assert last.tolist() == [[10.125, 0]]
    last[0, 0].backward()
    assert float(model.decay.grad) == 7.75


def gradients(model, example, way):
    model.zero_grad()
    scores = score(model, example, way, backward=True)
    return scores, [None if weight.grad is None else weight.grad.clone() for weight in trainable(model)]


def assert_same_gradients(found, expected, closest=1e-3):
    largest = max(float(gradient.norm()) for gradient in expected if gradient is not None)
    for own, other in zip(found, expected, strict=True):
        assert (own is None) == (other is None)
        if other is not None:
            assert float((own - other).norm()) <= closest * max(float(other.norm()), largest / 100)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_chosen_pass_agrees_with_rows_and_feeds_each_prefix_once(name):
    model, example = build(name), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    way, why = choose_pass(model, example)
    assert isinstance(way, StatePass), why
    rows, expected = gradients(model, example, RowsPass())
    found, gradient = gradients(model, example, way)
    np.testing.assert_allclose(found.log_probs, rows.log_probs, atol=3e-4)
    assert_same_gradients(gradient, expected)
    assert found.tokens_fed == 50 + 9 + 90 + 1  # the prompt; 1 to 9, 10 to 99, 100
    assert rows.tokens_fed > 35 * found.tokens_fed


def adapted(name, dtype=torch.float32):
    """With fused layers and an adapter that does something, as in training."""
    base = LoadedModel(name, build(name).to(dtype), None, "r")
    widen_output(base.model)
    attach_lora(base, LoraSettings(r=4, alpha=8))
    fuse(base.model)
    for weight in trainable(base.model):
        torch.nn.init.normal_(weight, std=0.2)
    return base.model


@pytest.mark.parametrize("name", ["Mamba", "Mamba2", "Jamba", "FalconH1", "RecurrentGemma", "Rwkv", "Lfm2", "Qwen3Next"])
def test_an_adapter_gets_the_gradient_of_rows_in_parts_too_and_learns(name):
    model, weights = adapted(name), [0.4, 0.3, 0.2, 0.1]
    example = encoded([(1, 3, 5, 2), (1, 3, 6, 2), (1, 4, 2), (7, 2)], weights, prompt_ids=(8, 9, 10, 11, 12))
    way, why = choose_pass(model, example)
    assert isinstance(way, StatePass), why
    assert way.sliced_head is (name != "RecurrentGemma")  # which caps its logits
    expected = gradients(model, example, RowsPass())[1]
    in_parts = StatePass(1, way.sliced_head)
    assert len(in_parts.parts(example)) == 6  # a node each
    for same in (way, in_parts):
        assert_same_gradients(gradients(model, example, same)[1], expected)
    optimiser, losses = torch.optim.Adam(trainable(model), lr=0.03), []
    for _ in range(6):
        optimiser.zero_grad()
        losses.append(-score(model, example, way, backward=True).log_probs @ weights)
        optimiser.step()
    assert losses[-1] < losses[0] - 0.5


@settings(max_examples=8, deadline=None)
@given(path_sets(), st.integers(1, 6), st.integers(1, 14))
def test_any_trie_in_any_parts_equals_rows(paths_and_weights, prompt_length, budget):
    example = encoded(*paths_and_weights, prompt_ids=tuple(range(4, 4 + prompt_length)))
    rows, expected = gradients(JAMBA, example, RowsPass(3))
    for way in (StatePass(), StatePass(budget), StatePass(budget, node_tokens=1.7)):
        found, gradient = gradients(JAMBA, example, way)
        np.testing.assert_allclose(found.log_probs, rows.log_probs, atol=3e-4)
        assert_same_gradients(gradient, expected)


def test_a_node_takes_the_room_of_several_tokens_and_halves_end_at_one_node():
    example = encoded([(a, b, 2) for a in (3, 4) for b in (5, 6, 7)], [1 / 6] * 6, prompt_ids=(8, 9))  # 8 internal nodes
    assert [part.tokens for part in StatePass().parts(example)] == [2 + 8]
    assert [part.tokens for part in StatePass(None).parts(example, at_least=2)] == [2 + 4, 2 + 4]
    assert [part.tokens for part in StatePass(7).parts(example)] == [2 + 4, 2 + 4]  # the second begins with a first token
    assert [part.tokens for part in StatePass(2 + 5 * 3, node_tokens=3).parts(example)] == [2 + 4, 2 + 4]
    way = StatePass(None, node_tokens=3)
    halved = way.halved(way.batches([example]))
    assert halved.size == (2 + 8 * 3) // 2
    for _ in range(6):
        halved = halved.halved(halved.batches([example]))
    assert [part.end - part.start for part in halved.parts(example)] == [1] * 8


def test_parts_are_as_large_as_free_memory_lets_them_be(monkeypatch):
    """A node of this model takes the memory of nine tokens; 256 tokens fit at least."""
    base, example = LoadedModel("Mamba2", build("Mamba2"), None, "r"), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    alone = SimpleNamespace(everyones=lambda value: [value], sharded=False)

    def parts(free, **chosen):
        monkeypatch.setattr(pass_choice, "free_memory", lambda _: free)
        way, _ = pass_choice.choose_strategy(base, [example], ModelSource("m"), AlgConfig(**chosen), alone)
        assert round(way.node_tokens) == 9
        return way.parts(example)

    assert len(parts(1e12)) == 1
    assert [part.end - part.start for part in parts(0)] == [20] * 5  # (256 - 50) / 9 nodes, two of them ancestors
    assert len(parts(1e12, max_tokens_per_pass=256)) == 5


def test_a_16_bit_model_is_compared_in_float32(monkeypatch):
    """A state that is off by 1 % changes log-probabilities by less than rounding does."""
    model, example = adapted("Mamba", torch.bfloat16), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    assert isinstance(choose_pass(model, example)[0], StatePass)
    put = states._Replaceable.put.__func__
    monkeypatch.setattr(states._Replaceable, "put", classmethod(lambda kind, value, *box: put(kind, value * 1.01, *box)))
    way, why = choose_pass(model, example)
    assert isinstance(way, RowsPass), why
    assert float(why.split("differ by ")[1].split()[0]) < 0.2


@pytest.mark.parametrize(("name", "kind"), [("Qwen3Moe", PackedPass), ("Qwen3Next", StatePass)])
def test_adapters_of_experts_that_cannot_compute_in_float32_are_compared_in_16_bits(name, kind):
    way, why = choose_pass(adapted(name, torch.bfloat16), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT))
    assert isinstance(way, kind), why


def test_a_state_without_a_gradient_is_refused_though_its_numbers_are_right(monkeypatch):
    put = states._Replaceable.put.__func__
    monkeypatch.setattr(states._Replaceable, "put", classmethod(lambda kind, value, *box: put(kind, value.detach(), *box)))
    model, example = build("Mamba"), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    way, why = choose_pass(model, example)
    assert isinstance(way, RowsPass)
    assert "with states, log-probabilities differ by" in why
    gap, slope = why.split("differ by ")[1].split(" nats and gradients by ")
    assert float(gap) < 1e-4
    assert float(slope.split()[0]) > 0.1
    assert isinstance(choose_pass(model.requires_grad_(False), example)[0], StatePass), "nothing is trained"


@pytest.mark.parametrize("name", ["Zamba2", "NemotronH"])
def test_time_steps_have_the_bounds_of_whole_rows(monkeypatch, name):
    """transformers bounds them from below when it reads many tokens, and not when it goes on by one; without the bound the probe refuses."""
    model, example = build(name, time_step_min=0.3), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    way, why = choose_pass(model, example)
    assert isinstance(way, StatePass), why
    monkeypatch.setattr(states, "_bounded", lambda _, step: step)
    way, why = choose_pass(model, example)
    assert isinstance(way, RowsPass)
    assert why.startswith("rows: the model has layers of the kind")
    assert float(why.split("differ by ")[1].split()[0]) > 0.01


def test_a_compiled_step_without_a_gradient_is_passed_by(monkeypatch):
    """As mamba-ssm has one; transformers wraps its own function in it."""
    own, compiled = modeling_mamba2.mamba2_selective_state_update.__wrapped__, []

    @wraps(own)
    def step(*given, **named):
        compiled.append(1)
        with torch.no_grad():
            return own(*given, **named)

    monkeypatch.setattr(modeling_mamba2, "mamba2_selective_state_update", step)
    model, example = build("Mamba2"), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT)
    assert isinstance(choose_pass(model, example)[0], StatePass)
    assert not compiled
    assert modeling_mamba2.mamba2_selective_state_update is step
    monkeypatch.setattr(states, "_steps", lambda _: [])
    way, why = choose_pass(model, example)
    assert compiled
    assert isinstance(way, RowsPass), why


def test_a_cache_of_an_unknown_kind_means_rows(monkeypatch):
    monkeypatch.setattr(states, "_NAMES", ("mems",))
    way, why = choose_pass(build("Mamba"), encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT))
    assert isinstance(way, RowsPass)
    assert "cannot be used (StopIteration)" in why


def test_layers_that_are_checkpointed_keep_no_states():
    model = build("Mamba2")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    way, why = choose_pass(model, encoded(NUMBERS, WEIGHTS, prompt_ids=PROMPT))
    assert isinstance(way, RowsPass)
    assert "gradient_checkpointing does not keep states" in why


@pytest.mark.parametrize("name", ["Mamba", "RecurrentGemma", "Rwkv"])
def test_a_probe_leaves_gradients_and_modules_as_they_were(name):
    model, example = build(name), encoded([(1, 3, 2), (4, 2)], [0.5, 0.5])
    rows, before = gradients(model, example, RowsPass())
    choose_pass(model, example)
    for weight, gradient in zip(trainable(model), before, strict=True):
        assert (gradient is None and weight.grad is None) or torch.equal(weight.grad, gradient)
    assert not [m for m in model.modules() if getattr(m, "conv1d_state", None) is not None]
    np.testing.assert_array_equal(score(model, example, RowsPass()).log_probs, rows.log_probs)


def test_prompts_one_after_the_other_know_nothing_of_each_other():
    """RecurrentGemma's modules would remember the prompt before."""
    model = build("RecurrentGemma")
    first, second = (encoded([(1, 3, 2), (4, 2)], [0.5, 0.5], prompt_ids=ids) for ids in ((5, 6, 7), (9,)))
    alone = score(model, second, StatePass()).log_probs
    score(model, first, StatePass())
    np.testing.assert_array_equal(score(model, second, StatePass()).log_probs, alone)
