"""Logits that are not numbers: every command says whether fp16 overflowed or the weights are damaged, and what helps."""

import json

import pytest
import torch
import yaml

from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import NotNumbersError, cause, require_numbers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.batched import choose_cache, generate_rows
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.training.packed_pass import PackedPass
from tests.counting import spoiled
from tests.models.architectures import build
from tests.tiny import byte_tokenizer, tiny_llama

FP16 = "fp16 overflowed"
REMEDY = "Use precision bf16 or fp32 (`precision` in the config, or --precision)"


def overflowing():
    """Its weights fit into fp16, what it computes does not: 100 times 1000."""
    model = tiny_llama()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1000)
            layer.mlp.up_proj.weight.mul_(100)
    return model


def with_large_weights():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    return model


def damaged():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    return model


def write(tmp_path, model, **fields):
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "p.json").write_text(json.dumps({"request": "Say a letter.", "targets": ["{a}", "{b}"]}))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({
        "model": "model", "train_prompts": ["p.json"], "test_prompts": ["p.json"], "output_dir": "results/r", "retain": False,
        "alg_config": {"n_iters": 2}, "device": "cpu", **fields,
    }))  # fmt: skip


@pytest.mark.parametrize("retain", [False, {"weight": 1.0}])
@pytest.mark.parametrize(
    ("make", "precision", "told"),
    [
        (overflowing, "fp16", f"model: {FP16}: the model computes numbers above 65504. {REMEDY}"),
        (with_large_weights, "fp16", f"model: {FP16} already in its weights (model.layers.1.mlp.down_proj.weight): "),
        (damaged, "fp16", "model: weights of the model are NaN (model.layers.0.mlp.down_proj.weight). Fetch"),
        (damaged, "fp32", "model: weights of the model are NaN ("),
        (damaged, "bf16", "model: weights of the model are NaN ("),
    ],
)
def test_sample_and_train_say_the_cause(tmp_path, in_process, make, precision, told, retain):
    write(tmp_path, make(), precision=precision, retain=retain)
    drawn = in_process("sample", "--model", "model", "--precision", precision, "--request", "Say it.", "-n", 5)
    tuned = in_process("train", "c.yaml")
    for done in (drawn, tuned):
        assert done.returncode == 2
        assert told in done.stderr.replace("base_model.model.", "").replace("base_layer.", "")
        for wrong in ("transformers", "learning_rate", "Traceback", "cannot be kept by rows"):
            assert wrong not in done.stderr
    assert not (tmp_path / "results" / "r" / "config.yaml").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_remedy_helps(tmp_path, in_process, precision):
    write(tmp_path, overflowing())
    done = in_process("sample", "--model", "model", "--precision", precision, "--request", "Say it.", "-n", 5)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run_that_overflows_in_fp16(tmp_path, in_process):
    write(tmp_path, overflowing(), generate=False)
    assert in_process("train", "c.yaml").returncode == 0
    assert in_process("sample", "results/r", "-n", 3).returncode == 0


def test_export_in_fp16_says_so_and_writes_nothing(run_that_overflows_in_fp16, tmp_path, in_process):
    done = in_process("export", "results/r", "-o", "merged", "--precision", "fp16")
    assert done.returncode == 2
    assert f"{FP16}: the model computes numbers above 65504. {REMEDY}" in done.stderr
    assert not (tmp_path / "merged").exists()
    assert in_process("export", "results/r", "-o", "merged", "--precision", "bf16").returncode == 0


def test_exact_figures_in_fp16_say_so(run_that_overflows_in_fp16, tmp_path, in_process):
    config = tmp_path / "results" / "r" / "config.yaml"
    config.write_text(config.read_text().replace("precision: fp32", "precision: fp16"))
    done = in_process("evaluate", "results/r", "--exact")
    assert done.returncode == 2
    assert FP16 in done.stderr


def test_figures_that_stop_being_numbers_after_the_probe_are_explained_too(tmp_path, in_process, monkeypatch):
    """A prompt may overflow where the short probe of the model (in float32, then in its own format) did not."""
    write(tmp_path, tiny_llama().half(), precision="fp16")
    whole, calls = PackedPass.run, iter(range(1000))
    monkeypatch.setattr(PackedPass, "run", lambda *a, **k: spoiled(whole(*a, **k)) if next(calls) > 1 else whole(*a, **k))
    done = in_process("train", "c.yaml")
    assert done.returncode == 2
    assert FP16 in done.stderr
    assert "learning_rate" not in done.stderr


@pytest.mark.parametrize(("precision", "named"), [("fp16", True), ("fp32", False)])
def test_a_training_in_fp16_that_diverges_names_both_causes(tmp_path, in_process, monkeypatch, precision, named):
    write(tmp_path, tiny_llama(), precision=precision, alg_config={"n_iters": 9, "max_tokens_per_pass": 500})
    whole, calls = PackedPass.run, iter(range(1000))

    def run(*given, **more):
        found = whole(*given, **more)
        return spoiled(found) if more.get("loss") and next(calls) == 3 else found

    monkeypatch.setattr(PackedPass, "run", run)
    done = in_process("train", "c.yaml")
    assert done.returncode == 2
    assert "the loss is NaN or infinite after 3 steps" in done.stderr
    assert ("fp16 overflowed or the learning rate is too high. Set precision to bf16 or fp32" in done.stderr) == named
    assert f"{'or lower' if named else 'Lower'} alg_config.learning_rate and restart with --force" in done.stderr


@pytest.mark.parametrize("name", ["Llama", "Mamba"])
def test_numbers_that_overflow_only_later_are_explained_by_both_ways_to_sample(name):
    """The probe of the model is sound; an answer is not."""
    model = tiny_llama() if name == "Llama" else build("Mamba", state_size=4, vocab_size=259)
    base = LoadedModel("m", model, byte_tokenizer(), "r")
    engine = LocalEngine(base, SamplingSettings(20, 3))
    assert engine.counting == (name == "Llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[byte_tokenizer()("S")["input_ids"][0]] = torch.nan  # of a token of the request only
    with pytest.raises(InputError, match="weights of the model are NaN"):
        drawn(engine, Prompt(request="S", targets=(), alias="p"))


def test_plain_generate_and_its_probe_notice():
    model = damaged()
    with pytest.raises(NotNumbersError):
        choose_cache(model)
    with pytest.raises(NotNumbersError):
        generate_rows(model, [(5, 6)], [2], settings=SamplingSettings(1, 2), seed=0)


def test_single_logits_of_minus_infinity_are_a_distribution_and_nothing_else_is():
    inf, nan = float("inf"), float("nan")
    require_numbers(torch.tensor([[0.0, -inf], [1.0, 2.0]]))
    for row in ([nan, 0.0], [inf, 0.0], [-inf, -inf]):
        with pytest.raises(NotNumbersError):
            require_numbers(torch.tensor([[1.0, 2.0], row]))


def test_sound_weights_are_not_blamed():
    assert "NaN in float32, although its weights are finite. Fetch" in str(cause(tiny_llama(), "m"))
    assert "NaN in bfloat16, although its weights are finite. Use precision fp32" in str(cause(tiny_llama().bfloat16(), "m"))
