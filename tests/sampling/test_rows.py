"""Rows of a prompt: where children go, room that grows, models that keep their own cache."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import NotNumbersError
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.row_choice import choose_rows
from diffusecli.sampling.rows import GatheredCache, SharedPrompt, arrange
from diffusecli.sampling.settings import SamplingSettings
from tests.models.architectures import SLIDING, build
from tests.tiny import byte_tokenizer, tiny_llama


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


def grown(rows, steps):
    """Rows that branch, end and move, each with the logits that follow, step by step."""
    rows.start()
    whole = [()]
    for step in range(steps):
        parents = [row for row in range(len(whole)) for _ in range(2 if len(whole) < 4 else 1)]
        if step % 3 == 2:
            parents = [*parents[1:], parents[-1]]  # the first row ends, the last branches
        tokens = [(7 * step + 5 * child) % 20 + 3 for child in range(len(parents))]
        order, logits = rows.extend(parents, tokens)
        whole = [(*whole[parents[child]], tokens[child]) for child in order]
        yield whole, logits


@pytest.mark.parametrize("name", SLIDING)
@pytest.mark.parametrize("kind", [SharedPrompt, GatheredCache])
@pytest.mark.parametrize(("prompt_length", "window"), [(12, 5), (4, 5), (5, 5), (3, 8)])
def test_rows_grow_out_of_a_window_as_whole_rows_would(name, kind, prompt_length, window):
    """Windows that end within the prompt or among a row's own tokens; the prompt's memory is used twice."""
    model, prompt = build(name, **SLIDING[name], sliding_window=window), tuple(range(3, 3 + prompt_length))
    chosen = choose_rows(model).rows(prompt, 10)
    assert type(chosen) is (GatheredCache if name == "Gemma2" else SharedPrompt)  # Gemma 2 does not attend by sdpa
    rows = kind(model, prompt) if name != "Gemma2" else chosen
    unbound = build(name, **SLIDING[name], sliding_window=64)
    with torch.inference_mode():
        for _ in range(2):
            for whole, logits in grown(rows, 10):
                input_ids = torch.tensor([[*prompt, *prefix] for prefix in whole])
                expected = model(input_ids=input_ids, use_cache=False).logits[:, -1]
                torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert (unbound(input_ids=input_ids, use_cache=False).logits[:, -1] - expected).abs().max() > 0.01


def test_a_window_that_layers_do_not_pass_on_takes_the_models_own_cache_when_rows_outgrow_it(monkeypatch):
    attend = SharedPrompt.attend
    monkeypatch.setattr(SharedPrompt, "attend", lambda rows, *given: attend(rows, *given[:-1], None))
    kind = choose_rows(build("Mistral", sliding_window=8))
    assert kind.make is SharedPrompt
    assert isinstance(kind.rows((5, 6, 7), 5), SharedPrompt)
    assert isinstance(kind.rows((5, 6, 7), 6), GatheredCache)


def test_long_rows_that_no_kind_keeps_are_sampled_by_generate(monkeypatch):
    """And the probe that finds so runs once."""
    probed = []

    def gap(model, make, length):
        probed.append((make, length))
        return float(length > 3)

    monkeypatch.setattr("diffusecli.sampling.row_choice._gap", gap)
    model = build("Mistral", sliding_window=20, vocab_size=259)
    notices = []
    engine = LocalEngine(LoadedModel("m", model, byte_tokenizer(), "r"), SamplingSettings(70, 3), notice=notices.append)
    assert engine.counting
    for _ in range(2):
        assert drawn(engine, Prompt(request="x", targets=(), alias="p"))[0].total() == 70
    assert "become too long to be kept by rows" in notices[0]
    assert probed == [(SharedPrompt, 3), (SharedPrompt, 19), (SharedPrompt, 30), (GatheredCache, 19), (GatheredCache, 30)]


def test_rows_that_outgrow_a_window_are_proved_no_longer_than_the_context_lets_them(monkeypatch):
    lengths = []
    monkeypatch.setattr("diffusecli.sampling.row_choice._gap", lambda _model, _make, length: lengths.append(length) or 0.0)
    kind = choose_rows(build("Mistral", sliding_window=20, max_position_embeddings=28))
    assert isinstance(kind.rows((5,), 27), SharedPrompt)
    assert lengths == [3, 19, 25]


def test_a_model_with_attention_of_its_own_keeps_its_own_cache():
    model = tiny_llama()
    model.set_attn_implementation("eager")
    assert choose_rows(model).make is GatheredCache


def test_rows_that_are_no_numbers_agree_with_nothing():
    model = tiny_llama()
    model.model.norm.weight.data[:] = torch.nan
    with pytest.raises(NotNumbersError):
        choose_rows(model)


def test_a_recurrent_model_is_sampled_by_generate():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=60, hidden_size=32, state_size=4, num_hidden_layers=2, bos_token_id=None, eos_token_id=2)
    base = LoadedModel("mamba", MambaForCausalLM(config).eval(), byte_tokenizer(), "r")
    base.model.resize_token_embeddings(259)
    engine = LocalEngine(base, SamplingSettings(70, 3))
    assert engine.about["engine"] == "generate"
    assert drawn(engine, Prompt(request="x", targets=(), alias="p"))[0].total() == 70


@pytest.mark.parametrize("name", ["MiniMax", "Gemma2"])
def test_rows_that_grew_leave_the_prompts_cache_as_it_was(name):
    """A list that a cache keeps beside its layers belongs to the rows, too."""
    model = build(name)

    def second(rows):
        rows.start()
        return rows.extend([0, 0], [5, 6])[1]

    with torch.no_grad():
        rows = GatheredCache(model, (7, 8, 9))
        first = second(rows)
        rows.extend([1, 0], [4, 3])
        torch.testing.assert_close(second(rows), first)
