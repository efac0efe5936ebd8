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
