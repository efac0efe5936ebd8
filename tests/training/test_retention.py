"""Holding the model to its old answers: the measure is right, the answers are the base's own, training keeps to them."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffusecli.models.attention import enable
from diffusecli.models.loading import load_model
from diffusecli.models.lora import attach_lora
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config, LoraSettings, Retain
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.sampling.batched import generate_rows
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.training import retention
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import Processes
from diffusecli.training.retention import prepare, read_instructions
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from diffusecli.verbs.train import train
from tests.tiny import tiny_llama


@pytest.fixture
def base(tiny_model_folder):
    loaded = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    torch.manual_seed(0)
    attach_lora(loaded, LoraSettings(r=2, alpha=4))
    return loaded


def drifted(base, by=0.05):
    torch.manual_seed(2)
    for name, weight in base.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=by)


def asked(base, count=9, notice=lambda _: None, **more):
    way = PackedPass(tree=enable(base.model))
    return prepare(base, Retain(), read_instructions(Retain())[:count], **{"seed": 0, "strategy": way, "notice": notice, **more})


BY_TREE = PackedPass(tree=True)


def answer_kl(model, answers, way=BY_TREE):
    """KL of each token of the answers, as a pass finds it."""
    found = {}
    for batch in way.batches([], answers):
        found |= zip(batch.answers, way.run(model, [], answers, batch).answers, strict=True)
    return torch.cat([torch.from_numpy(found[place]) for place in range(len(answers))])


def drift(base, held, way=BY_TREE):
    return Scorer(base.model, way, held, Processes("cpu"), print).drift(held.held_out)


def full_kl(base, answer):
    """KL over the whole vocabulary, from two ordinary forward passes."""
    ids = torch.tensor([[*answer.prompt_ids, *answer.answer_ids[:-1]]])
    with torch.no_grad():
        tuned = base.model(ids).logits[0, len(answer.prompt_ids) - 1 :].double().log_softmax(-1)
        with base.model.disable_adapter():
            old = base.model(ids).logits[0, len(answer.prompt_ids) - 1 :].double().log_softmax(-1)
    return (old.exp() * (old - tuned)).sum(-1)


def test_sixty_instructions_serve_short_trainings_and_long_ones_hold_on_to_the_rest_too(base):
    instructions = read_instructions(Retain())
    assert len({prompt.request for prompt in instructions}) == len(instructions) == 240
    short, long = asked(base, 240, steps=120), asked(base, 240, steps=121)
    assert (len(short.kept), len(short.held_out)) == (40, 20)
    assert (len(long.kept), len(long.held_out)) == (220, 20)
    assert [a.prompt_ids for a in long.held_out] == [a.prompt_ids for a in short.held_out]
    assert not {a.prompt_ids for a in long.kept} & {a.prompt_ids for a in long.held_out}


def test_a_model_that_has_not_moved_has_no_drift(base):
    assert abs(drift(base, asked(base))) < 1e-6


def test_the_likeliest_tokens_and_the_rest_give_the_kl_of_the_whole_vocabulary(base, monkeypatch):
    monkeypatch.setattr(retention, "LIKELIEST", 10_000)  # all but one of the 259
    held = asked(base)
    drifted(base)
    for answer in held.kept:
        with torch.no_grad():
            np.testing.assert_allclose(answer_kl(base.model, [answer]), full_kl(base, answer), rtol=1e-3, atol=1e-5)


def test_lumping_the_unlikely_tokens_only_lowers_the_kl_and_not_by_much(base):
    held = asked(base)
    drifted(base)
    with torch.no_grad():
        lumped = torch.cat([answer_kl(base.model, [answer]) for answer in held.kept])
    whole = torch.cat([full_kl(base, answer) for answer in held.kept])
    assert (lumped <= whole + 1e-5).all()
    assert float(lumped.mean()) > 0.9 * float(whole.mean())


@pytest.mark.model
def test_on_the_built_in_model_lumping_loses_a_tenth_at_most():
    loaded = load_model(ModelSource("smollm2-135m-instruct", device="cpu"), print)
    torch.manual_seed(0)
    attach_lora(loaded, LoraSettings(r=4, alpha=8))
    held = asked(loaded, 60)
    drifted(loaded, by=0.04)
    some = held.held_out[:4]
    with torch.no_grad():
        lumped = torch.cat([answer_kl(loaded.model, [answer]) for answer in some])
    whole = torch.cat([full_kl(loaded, answer) for answer in some])
    assert float(whole.mean()) > 0.01
    assert 0.9 * float(whole.mean()) <= float(lumped.mean()) <= float(whole.mean()) + 1e-5


def test_answers_packed_into_one_sequence_do_not_see_each_other(base):
    held = asked(base)
    drifted(base)
    with torch.no_grad():
        together = answer_kl(base.model, held.held_out)
        alone = torch.cat([answer_kl(base.model, [answer]) for answer in held.held_out])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
    assert drift(base, held, RowsPass()) == pytest.approx(drift(base, held), rel=1e-3)


def test_every_instruction_has_its_turn_before_any_comes_again(base):
    held = asked(base)
    turns = [answer.prompt_ids for step in range(12) for answer in held.answers(step)]
    assert len(turns) == 12
    assert len(set(turns[:6])) == len(set(turns[6:])) == 6
    assert turns[:6] != turns[6:]


def test_the_answers_are_cached_and_a_broken_cache_is_replaced(base, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path))
    told = []
    first = asked(base, notice=told.append)
    again = asked(base, notice=told.append)
    assert len(told) == 1
    assert [a.answer_ids for a in first.kept] == [a.answer_ids for a in again.kept]
    next((tmp_path / "retention").iterdir()).write_bytes(b"junk")
    asked(base, notice=told.append)
    assert len(told) == 2


def test_a_drifted_adapter_is_off_while_the_base_answers(base, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "a"))
    untouched = asked(base)
    drifted(base, by=0.5)
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "b"))
    assert [a.answer_ids for a in asked(base).kept] == [a.answer_ids for a in untouched.kept]


def test_batched_answers_follow_the_models_own_softmax_whatever_its_generation_config_says(base):
    prompts = [(5, 6, 7)] * 3000 + [(9,)] * 3000  # of different lengths: the shorter are padded
    rows = generate_rows(base.model, prompts, {2}, settings=SamplingSettings(max_new_tokens=1), seed=0)
    for prompt, part in (((5, 6, 7), rows[:3000]), ((9,), rows[3000:])):
        with torch.no_grad():
            expected = base.model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy() * 3000
        counts = np.bincount([row[0] for row in part], minlength=len(expected))
        likely = expected >= 5
        pooled = [*expected[likely], expected[~likely].sum()]
        assert stats.chisquare([*counts[likely], counts[~likely].sum()], pooled).pvalue > 1e-4
    assert base.model.get_base_model().generation_config.top_k == 2  # put back


def test_batched_answers_end_with_the_terminator():
    rows = generate_rows(tiny_llama(vocabulary=4), [(1,)] * 50, {2, 3}, settings=SamplingSettings(max_new_tokens=20), seed=0)
    assert all(not {2, 3} & set(row[:-1]) for row in rows)
    assert any(row[-1] in (2, 3) for row in rows)


def run(tiny_model_folder, prompt_file, folder, **fields):
    config = Config.model_validate({
        "model": str(tiny_model_folder), "train_prompts": [str(prompt_file("p.json"))], "device": "cpu", "output_dir": str(folder),
        "alg_config": {"n_iters": 25, "learning_rate": 0.02}, **fields,
    })  # fmt: skip
    return train(config, report=lambda _: None, notice=lambda _: None)


def test_training_with_retention_drifts_less_and_still_learns(tiny_model_folder, prompt_file, tmp_path):
    firm = run(tiny_model_folder, prompt_file, tmp_path / "firm", retain={"weight": 1.0})
    loose = run(tiny_model_folder, prompt_file, tmp_path / "loose", retain={"weight": 1e-9})
    assert firm.retention_kl < 0.6 * loose.retention_kl
    assert max(firm.after.kl.values()) < 0.3
    assert firm.run.read_manifest()["retention_kl"] == firm.retention_kl


def test_retention_can_be_switched_off(tiny_model_folder, prompt_file, tmp_path):
    found = run(tiny_model_folder, prompt_file, tmp_path / "off", retain="off")
    assert found.retention_kl is None
    assert found.run.read_manifest()["retention"] is None


def test_own_instructions_need_to_be_three(prompt_file):
    path = str(prompt_file("one.json", targets=[]))
    with pytest.raises(InputError, match=r"retain\.prompts: has 1 instruction\. At least 3 are needed"):
        read_instructions(Retain(prompts=(path,)))


def test_an_instruction_beyond_the_models_context_is_refused(base, prompt_file):
    long = [read_prompt(prompt_file(f"{n}.json", request="x" * 1000, targets=[])) for n in range(3)]
    with pytest.raises(InputError, match=r"the instruction with its answer has \d+ tokens, but the model's context is 1024"):
        prepare(base, Retain(), long, seed=0, strategy=RowsPass(), notice=print)
