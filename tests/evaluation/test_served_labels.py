"""Samples from a server in tables: the model is named as the server does, because the server does not say whether it is tuned."""

import json

import pytest

from diffusecli.evaluation.names import labels
from diffusecli.verbs.evaluate import evaluate


@pytest.fixture
def sampled(prompt_file):
    prompt = str(prompt_file("p.json"))

    def write(file, **meta):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({prompt: ["{a}"] * 9}))
        file.with_suffix(".meta.json").write_text(json.dumps({"mode": "untuned", "engine": "openai", "prompts": {}, **meta}))
        return file

    return write


def named(*paths):
    rows = evaluate(paths).rows
    return {row.mode: label for row, label in zip(rows, labels(rows).values(), strict=True)}


def test_a_model_that_only_the_server_knows_is_named(sampled, tmp_path):
    one = sampled(tmp_path / "one.json", model="dice")
    assert named(one) == {"served": "model dice"}
    assert named(sampled(tmp_path / "gpt" / "gen.untuned.json", model="own/gpt").parent) == {"served": "model own/gpt"}
    two = sampled(tmp_path / "two.json", model="gpt")
    assert list(labels(evaluate([one, two]).rows).values()) == ["one (model dice)", "two (model gpt)"]


def test_a_loaded_model_and_the_base_of_a_run_are_untuned(sampled, tmp_path):
    assert named(sampled(tmp_path / "one.json", engine="counting", model="gpt")) == {"untuned": "untuned"}
    run = sampled(tmp_path / "run" / "gen.untuned.json", model="gpt").parent
    (run / "run.json").write_text("{}")
    assert named(run) == {"untuned": "untuned"}
    assert named(run / "gen.untuned.json") == {"untuned": "untuned"}
    assert named(sampled(run / "other.json", model="gpt")) == {"served": "model gpt"}


def test_answers_that_name_another_model_carry_both_names(sampled, tmp_path):
    one = sampled(tmp_path / "one.json", model="gpt", answered_as=["dice"])
    assert named(one) == {"served": "model dice (requested as gpt)"}
    assert named(sampled(tmp_path / "two.json", model="gpt", answered_as=["own/gpt", "gpt-2024-08-06"])) == {"served": "model gpt"}


def test_answers_of_a_run_that_name_another_model_give_a_warning(sampled, tmp_path):
    run, notices = sampled(tmp_path / "run" / "gen.untuned.json", model="gpt", answered_as=["dice"]).parent, []
    (run / "run.json").write_text("{}")
    evaluate([run], notice=notices.append)
    expected = f"warning: {run} (untuned): the server was asked for gpt, and its answers name dice. They may be of another model"
    assert expected in notices


@pytest.mark.parametrize(("targets", "missing"), [([], False), (["{a}"], True)])
def test_a_run_is_only_missed_for_prompts_with_targets(tmp_path, targets, missing):
    """Exact KL needs targets."""
    (tmp_path / "s.json").write_text(json.dumps({"p.json": ["{a}"] * 9}))
    meta = {"mode": "lora", "adapter_sha256": "0" * 64, "prompts": {"p.json": {"request": "x", "targets": targets}}}
    (tmp_path / "s.meta.json").write_text(json.dumps(meta))
    notices = []
    evaluate([tmp_path / "s.json"], notice=notices.append)
    assert any("no exact KL" in notice for notice in notices) == missing
