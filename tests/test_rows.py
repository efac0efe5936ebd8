"""Rows of a prompt: where children go, room that grows, models that keep their own cache."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.engines import LocalEngine, drawn
from diffusecli.models import LoadedModel
from diffusecli.prompt import Prompt
from diffusecli.rows import GatheredCache, SharedPrompt, arrange, choose_rows
from diffusecli.sampling import SamplingSettings
from tests.conftest import byte_tokenizer, tiny_llama


@given(st.lists(st.integers(0, 12), max_size=20))
def test_children_take_the_first_places_and_what_is_copied_is_what_they_continue(parents):
    order, moves = arrange(parents)
    assert sorted(order) == list(range(len(parents)))
    sources, places = {a for a, _ in moves}, [b for _, b in moves]
    assert not sources & set(places)
    assert len(set(places)) == len(places)
    rows = {place: place for place in range(13)}  # what each place holds
    after = {**rows, **{place: rows[source] for source, place in moves}}
    assert [after[place] for place in range(len(order))] == [parents[child] for child in order]


def test_little_is_moved():
    assert arrange(list(range(100)))[1] == []
    assert len(arrange([*range(50), *range(51, 100)])[1]) == 1


@pytest.mark.parametrize("kind", [SharedPrompt, GatheredCache])
def test_rows_grow_as_whole_rows_would_and_start_again(kind):
    model, prompt = tiny_llama(seed=1).double(), (5, 6, 7)
    if kind is SharedPrompt:
        assert choose_rows(model).make is SharedPrompt
    rows = kind(model, prompt)
    with torch.inference_mode():
        for _ in range(2):
            rows.start()
            whole = [()]
            for step in range(12):  # beyond the room to begin with
                parents = [row for row in range(len(whole)) for _ in range(2 if len(whole) < 40 else 1)]
                tokens = [(7 * step + 3 * child) % 50 for child in range(len(parents))]
                order, logits = rows.extend(parents, tokens)
                whole = [(*whole[parents[child]], tokens[child]) for child in order]
            expected = model(input_ids=torch.tensor([[*prompt, *prefix] for prefix in whole])).logits[:, -1]
            torch.testing.assert_close(logits, expected)


def test_a_window_that_rows_outgrow_takes_the_models_own_cache():
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        sliding_window=8, bos_token_id=None, eos_token_id=2,
    )).eval()  # fmt: skip
    kind = choose_rows(model)
    assert isinstance(kind.rows(model, (5, 6, 7), 5), SharedPrompt)
    assert isinstance(kind.rows(model, (5, 6, 7), 6), GatheredCache)
    rows = kind.rows(model, (5, 6, 7), 20)
    assert isinstance(rows, GatheredCache)
    with torch.inference_mode():
        rows.start()
        whole = [(), ()]
        for step in range(20):
            parents = [0, 1] if step else [0, 0]
            _, logits = rows.extend(parents, [step, step + 3])
            whole = [(*whole[0], step), (*whole[1], step + 3)]
        expected = model(input_ids=torch.tensor([[5, 6, 7, *prefix] for prefix in whole]), use_cache=False).logits[:, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_model_with_attention_of_its_own_keeps_its_own_cache():
    model = tiny_llama()
    model.set_attn_implementation("eager")
    assert choose_rows(model).make is GatheredCache


def test_rows_that_are_no_numbers_agree_with_nothing(monkeypatch):
    model = tiny_llama()
    model.model.norm.weight.data[:] = torch.nan
    assert choose_rows(model) is None


def test_a_recurrent_model_is_sampled_by_generate():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=60, hidden_size=32, state_size=4, num_hidden_layers=2, bos_token_id=None, eos_token_id=2)
    base = LoadedModel("mamba", MambaForCausalLM(config).eval(), byte_tokenizer(), "r")
    base.model.resize_token_embeddings(259)
    engine = LocalEngine(base, SamplingSettings(70, 3))
    assert engine.about["engine"] == "generate"
    assert drawn(engine, Prompt(request="x", targets=(), alias="p"))[0].total() == 70
