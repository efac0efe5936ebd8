"""`precision: auto`, and what a run on a 16-bit base model states about rounding."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from diffusecli.evaluation.gates import failures
from diffusecli.evaluation.metrics import ExactFigures
from diffusecli.models import devices
from diffusecli.prompts.config import Config
from diffusecli.system.errors import InputError, InterruptedRun
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.train import plan, train
from tests.verbs.test_evaluate import run_with
from tests.verbs.test_resume import interrupt_at


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    def make(**fields):
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": [str(prompt_file("p.json", targets=["{a}", "{b}", "{cd}"]))], "device": "cpu",
            "output_dir": str(tmp_path / "run"), "alg_config": {"n_iters": 4, "learning_rate": 0.02}, "retain": False, "generate": False,
            "save_every": 1, **fields,
        })  # fmt: skip

    return make


@pytest.fixture
def a_bf16_machine(monkeypatch):
    """`auto` is bf16, as on a GPU; returns a function that makes it another machine."""

    def become(precision):
        monkeypatch.setattr(devices, "precision_on", lambda name, _: precision if name == "auto" else name)
        monkeypatch.setattr("diffusecli.verbs.train.precision_on", devices.precision_on)

    become("bf16")
    return become


def quietly(config, **more):
    return train(config, report=lambda _: None, notice=lambda _: None, **more)


def recorded(run):
    manifest = json.loads(Path(run, "run.json").read_text())
    return yaml.safe_load(Path(run, "config.yaml").read_text())["precision"], manifest["dtype"], manifest["kl_rounding"]


def test_a_run_records_what_auto_was(config, tmp_path):
    assert config().precision == "auto"
    quietly(config())
    assert recorded(tmp_path / "run") == ("fp32", "float32", {})


@pytest.mark.parametrize(("first", "then"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_an_interrupted_training_resumes_in_its_precision_on_another_machine(
    config, tmp_path, a_bf16_machine, monkeypatch, first, then
):
    a_bf16_machine(first)
    with monkeypatch.context() as patched, pytest.raises(InterruptedRun):
        interrupt_at(patched, 2)
        quietly(config())
    a_bf16_machine(then)
    plan(config(), lambda _: None)  # does not refuse it either
    with pytest.raises(InputError, match="different settings: precision"):
        quietly(config(precision=then))
    done = quietly(config())
    assert recorded(tmp_path / "run")[0] == first
    assert recorded(tmp_path / "run")[1] == {"bf16": "bfloat16", "fp32": "float32"}[first]
    assert len(done.run.metrics.read_text().splitlines()) == 4
    quietly(config(), more=1)
    assert recorded(tmp_path / "run")[0] == first


def test_a_run_on_16_bits_states_its_rounding_everywhere(config, tmp_path, in_process):
    done = quietly(config(precision="bf16"))
    (limit,) = done.after.rounded.values()
    assert 0 < limit < 0.2
    assert list(recorded(tmp_path / "run")[2].values()) == [limit]
    assert "± " in (tmp_path / "run" / "README.md").read_text()
    shown = in_process("evaluate", "run", "--exact", "--html", "r.html", "--json")
    assert shown.returncode == 0, shown.stderr
    said = " ".join(in_process("evaluate", "run", "--exact").stdout.split())
    assert "(16-bit rounding)" in said
    assert "(16-bit rounding)" in (tmp_path / "r.html").read_text()
    exact = [row["exact"] for row in json.loads(shown.stdout)["rows"]]
    assert all(one["rounding"] > 0 and one["tvd_rounding"] > 0 for one in exact)
    tuned, kl = min(exact, key=lambda one: one["kl"]), next(iter(done.after.kl.values()))
    assert abs(tuned["kl"] - kl) <= tuned["rounding"] + limit  # without fused layers it rounds differently
    again = in_process("evaluate", "run")  # from what the training recorded
    assert "(16-bit rounding)" in " ".join(again.stdout.split())


def test_figures_with_their_rounding_are_those_of_the_same_weights_in_32_bits(config, tmp_path):
    """The run's adapter on a base whose weights are rounded to 16 bits but stored in 32."""
    from transformers import AutoModelForCausalLM

    done = quietly(config(precision="bf16"))
    (kl,), (limit,) = done.after.kl.values(), done.after.rounded.values()
    base = AutoModelForCausalLM.from_pretrained(config().model, dtype=torch.bfloat16).float()
    base.save_pretrained(tmp_path / "wide")
    from tests.tiny import byte_tokenizer

    byte_tokenizer().save_pretrained(tmp_path / "wide")
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in ("model_revision", "model_fingerprint"):  # other weights by name; the same numbers
        manifest.pop(name)
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    text = (tmp_path / "run" / "config.yaml").read_text().replace("precision: bf16", "precision: fp32")
    (tmp_path / "run" / "config.yaml").write_text(text)
    found = evaluate([tmp_path / "run"], Question(exact=True, model=str(tmp_path / "wide")))
    true = next(row.exact.kl for row in found.rows if row.mode == "lora")
    assert abs(kl - true) == pytest.approx(limit, rel=0.02, abs=1e-5)


@pytest.mark.parametrize(
    ("rounding", "limit", "missed"),
    [
        (0.0, 0.1, []),
        (0.02, 0.1201, []),
        (0.02, 0.11, ["p.json (tuned): exact KL 0.12 > 0.11, with 0.02 of 16-bit rounding"]),
        (math.nan, 9.0, ["p.json (tuned): exact KL is not known because of 16-bit rounding (add --exact)"]),
    ],
)
def test_a_limit_is_met_only_with_the_rounding(tmp_path, rounding, limit, missed):
    found = evaluate([run_with(tmp_path / "run", ["a"]).path])
    (row,) = found.rows
    found = replace(found, rows=(replace(row, exact=ExactFigures(0.1, 1.0, tvd=0.1, rounding=rounding, tvd_rounding=rounding)),))
    assert failures(found, {"--max-kl": limit}) == missed
    assert bool(failures(found, {"--max-wording-tvd": min(limit, 1.0)})) == bool(missed)
    assert bool(failures(found, {"--max-median-tvd": min(limit, 1.0)})) == bool(missed)
