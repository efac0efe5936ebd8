"""Every pass gives on the accelerator what it gives on the CPU, without waiting for the device more than once per step."""

import json
import os
import signal
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.integrations import accelerate as placing

from diffusecli.api.evaluation import evaluate
from diffusecli.api.sampling import sample
from diffusecli.evaluation.exact import measure
from diffusecli.models import block_attention, states
from diffusecli.models.architecture import trainable
from diffusecli.models.attention import enable
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Config, Retain
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InterruptedRun
from diffusecli.training import answers as answers_module
from diffusecli.training import layout, packed_pass
from diffusecli.training.answers import Answer, summary
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.processes import Processes
from diffusecli.training.retention import Retention
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from diffusecli.training.state_pass import StatePass
from diffusecli.verbs.train import train
from tests.accelerator import counting
from tests.models.architectures import build
from tests.tiny import byte_tokenizer, tiny_llama
from tests.training.test_loss import encoded

NUMBERS = [(*(3 + int(digit) for digit in str(number)), 2) for number in range(1, 41)]
WEIGHTS = np.arange(1, 41) / 820
PROMPTS = [encoded(NUMBERS, WEIGHTS), encoded([(4, 2), (5, 6, 2)], [0.5, 0.5], prompt_ids=(5, 6, 9))]


def held(count=2):
    """Answers of another model."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for place in range(count):
        logits = torch.randn(3, 24, generator=generator)
        likeliest = logits.topk(5).indices
        found.append(Answer((7, 8, 9 + place), (3, 4, 5), likeliest.int(), *summary(logits, likeliest)))
    return found


def scored(base, way, prompts=PROMPTS, answers=()):
    """Log-probabilities, divergences and the gradient."""
    for weight in trainable(base.model):
        weight.grad = None
    scores = Scorer(base.model, way, Retention(0.7, (), (), 0), Processes("cpu"), print).score(prompts, answers, backward=True)
    gradients = [weight.new_zeros(()) if weight.grad is None else weight.grad for weight in trainable(base.model)]
    return scores, torch.cat([gradient.flatten().cpu() for gradient in gradients])


def assert_same(found, expected, tolerance=1e-4):
    """Log-probabilities and divergences; gradients relative to their norm. Attention has other kernels on a CPU, so rounding differs."""
    (scores, gradient), (wanted, wanted_gradient) = found, expected
    for one, other in zip([*scores.log_probs, *scores.divergences], [*wanted.log_probs, *wanted.divergences], strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    assert float(wanted_gradient.norm()) > 0.01
    assert float((gradient - wanted_gradient).norm()) < 10 * tolerance * float(wanted_gradient.norm())


PACKED = [PackedPass(size, tree, head) for size in (None, 30) for tree in (True, False) for head in (True, False)]


@pytest.mark.parametrize("way", [*PACKED, RowsPass(8)], ids=str)
def test_a_pass_gives_what_it_gives_on_the_cpu(tiny, on_gpu, way, monkeypatch):
    monkeypatch.setattr(layout, "SLICE_ROWS", 16)
    base = tiny()
    assert enable(base.model)
    assert_same(scored(on_gpu(base), way, answers=held()), scored(base, way, answers=held()))


@pytest.mark.parametrize("way", [StatePass(None, sliced_head=True), StatePass(None), RowsPass(8)], ids=str)
@pytest.mark.parametrize("name", ["Rwkv", "Mamba", "Qwen3_5Text"])
def test_a_pass_with_states_gives_what_it_gives_on_the_cpu(tiny, on_gpu, name, way):
    """A list of states, states alone, and states next to attention."""
    base = tiny(build(name))
    assert_same(scored(on_gpu(base), way, answers=held()), scored(base, way, answers=held()))


def test_a_model_with_states_on_the_device_takes_their_pass(tiny, on_gpu):
    way, why = choose_pass(on_gpu(tiny(build("Mamba"))).model, PROMPTS[0])
    assert isinstance(way, StatePass), why


def test_a_state_that_goes_to_the_cpu_is_found(tiny, on_gpu, monkeypatch):
    """So the tests above can fail."""
    base = on_gpu(tiny(build("Mamba")))
    kept = states._Replaceable.put
    monkeypatch.setattr(states._Replaceable, "put", lambda value, box, key: kept(value.cpu(), box, key))
    with pytest.raises(RuntimeError, match="same device"):
        scored(base, StatePass(None, sliced_head=True))


@pytest.mark.parametrize("way", [PACKED[0], PACKED[3], RowsPass(8)], ids=str)
def test_a_device_without_float64_is_enough(tiny, on_gpu, way, no_float64):
    base = tiny()
    enable(base.model)
    assert_same(scored(on_gpu(base), way, answers=held()), scored(base, way, answers=held()))


@pytest.mark.parametrize(
    "lora",
    [{"dora": True}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}, {"fused": False}],
    ids=lambda lora: str(*lora.items()),
)
def test_other_layers_give_what_they_give_on_the_cpu(tiny, on_gpu, lora):
    base = tiny(**lora)
    enable(base.model)
    assert_same(scored(on_gpu(base), PACKED[0]), scored(base, PACKED[0]), 1e-4 if base.model.dtype == torch.float32 else 0.02)


def test_the_backward_pass_may_run_in_another_thread(tiny, on_gpu):
    base = tiny()
    enable(base.model)
    expected = scored(base, PACKED[0])
    with torch.autograd.set_multithreading_enabled(True):
        assert_same(scored(on_gpu(base), PACKED[0]), expected)


def test_a_step_waits_once_however_many_slices_it_has(tiny, on_gpu, monkeypatch):
    monkeypatch.setattr(layout, "SLICE_ROWS", 8)
    base = on_gpu(tiny())
    enable(base.model)
    (batch,) = PACKED[0].batches(PROMPTS, held())
    scored(base, PACKED[0], answers=held())
    with counting() as counts:
        scored(base, PACKED[0], answers=held())
    slices = len(layout.pack([(PROMPTS[i], part) for i, part in batch.parts], held(), torch.device("cpu")).slices)
    assert slices > 5
    assert counts.own("waits").total() == 1, counts.own("waits")
    assert counts.own("uploads").total() <= 5, counts.own("uploads")  # one per dtype of the layout, and of its attention


def test_layers_on_two_gpus_take_the_packed_pass_too(tiny, on_gpu):
    base = tiny(tiny_llama(vocabulary=400, tie_word_embeddings=False))
    spread = on_gpu(base, spread=True)
    assert {str(weight.device) for weight in trainable(spread.model)} == {"gpu:0", "gpu:1"}
    way, why = choose_pass(spread.model, PROMPTS[0])
    assert isinstance(way, PackedPass), why
    assert way.tree
    enable(base.model)
    assert_same(scored(spread, way, answers=held()), scored(base, way, answers=held()))
    for other in (replace(way, tree=False), RowsPass(8)):
        assert_same(scored(spread, other, answers=held()), scored(base, other, answers=held()))


@pytest.mark.parametrize("spread", [False, True], ids=["one GPU", "two GPUs"])
@pytest.mark.parametrize("way", [PACKED[0], RowsPass(8)], ids=str)
def test_logits_of_answers_are_those_of_the_cpu(tiny, on_gpu, way, spread):
    base = tiny(tiny_llama(vocabulary=400, tie_word_embeddings=False))
    enable(base.model)
    moved = on_gpu(base, spread=spread)
    with torch.no_grad():
        found, expected = (way.answer_logits(one.model, held()) for one in (moved, base))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def config(tiny_model_folder, tmp_path, monkeypatch):
    """A training with dropout, checkpoints and retention. Its answers for retention are not cached yet."""
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    for name in ("p", "q", *"123456"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"request": f"Say {name}.", "targets": ["{a}", "{b}", "{cd}"]}))

    def make(name, **fields):
        settings = {"n_iters": 3, "learning_rate": 0.01, **fields.pop("alg_config", {})}
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": [str(tmp_path / "p.json"), str(tmp_path / "q.json")], "test_prompts": [],
            "alg_config": settings, "device": "gpu", "output_dir": str(tmp_path / name), "lora": {"dropout": 0.1}, "save_every": 1,
            "retain": {"prompts": [str(tmp_path / f"{number}.json") for number in "123456"]}, **fields,
        })  # fmt: skip

    return make


def quietly(config, **more):
    return train(config, report=lambda _: None, notice=lambda _: None, **more)


def adapter(config):
    return Path(config.output_dir, "adapter_model.safetensors").read_bytes()


def test_training_resumes_to_the_bit_and_measures_what_it_would_on_the_cpu(config, monkeypatch, device):
    device.free.update({0: 10**9})
    device.peak.update({0: 123 * 10**6})
    quietly(config("whole"))
    passes, run = iter(range(100)), PackedPass.run

    def interrupted(self, *args, **options):
        if options.get("loss") and next(passes) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return run(self, *args, **options)

    with monkeypatch.context() as during:
        during.setattr(PackedPass, "run", interrupted)
        with pytest.raises(InterruptedRun):
            quietly(config("cut"))
    quietly(config("cut"))
    assert adapter(config("cut")) == adapter(config("whole"))
    done = RunDir(Path(config("whole").output_dir))
    manifest = done.read_manifest()
    assert (manifest["device"], manifest["peak_memory_mb"]) == ("gpu:0", 123)
    assert manifest["loss_pass"].startswith("packed:")
    prompts, retain = [read_prompt(path) for path in config("whole").train_prompts], Retain(**config("whole").retain.model_dump())
    found, expected = (
        measure(done, ModelSource(config("whole").model, device=where), AlgConfig(), retain, 0, prompts, print)
        for where in ("gpu", "cpu")
    )
    assert found.drift == pytest.approx(expected.drift, rel=1e-4)
    for key, log_q in expected.log_q.items():
        np.testing.assert_allclose(found.log_q[key], log_q, rtol=1e-5)


def test_a_training_ends_where_it_ends_on_the_cpu_and_a_step_waits_twice(config, no_float64, device):
    """With checkpointed layers, on a device without float64. A step waits for the results of its pass and for the norm of the gradient."""
    device.free.update({0: 10**9})
    fields = {"lora": {"dropout": 0.0}, "alg_config": {"gradient_checkpointing": True, "n_iters": 3}}
    waits = {}
    with counting() as counts:
        quietly(config("gpu", **deepcopy(fields)), watch=lambda step: waits.update({step.step: counts.own("waits")}))
    assert (waits[2] - waits[1]).total() == 2, waits[2] - waits[1]  # both in the first iteration
    quietly(config("cpu", device="cpu", **deepcopy(fields)))
    found, expected = (load_file(Path(config(name).output_dir, "adapter_model.safetensors")) for name in ("gpu", "cpu"))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


@pytest.fixture
def two_gpus(monkeypatch, device, tmp_path):
    """Two GPUs for `device_map: auto`, and a model that fits on them. accelerate finds memory only of the kinds of GPUs that it knows."""
    device.free.update({0: 10**9, 1: 10**9})
    device.peak.update({0: 100 * 10**6, 1: 50 * 10**6})
    monkeypatch.setattr(placing, "accelerate_max_memory", lambda _=None: {0: 10**9, 1: 10**9, "cpu": 10**10})
    folder = tmp_path / "untied"
    tiny_llama(tie_word_embeddings=False).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_model_spread_by_device_map_trains_samples_and_is_measured_as_on_the_cpu(config, two_gpus, tmp_path):
    def of(name, **fields):
        return config(name, model=str(two_gpus), lora={"dropout": 0.0}, alg_config={"n_iters": 2}, generate=False, **fields)

    quietly(of("two", device_map="auto"))
    quietly(of("cpu", device="cpu"))
    two, cpu = (RunDir(tmp_path / name) for name in ("two", "cpu"))
    assert two.read_manifest()["loss_pass"].startswith("packed, whole logits:")
    assert two.read_manifest()["peak_memory_mb"] == 150
    expected = load_file(cpu.path / "adapter_model.safetensors")
    for name, weight in load_file(two.path / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)

    prompts = [tmp_path / "p.json"]
    (found,), (wanted,) = (sample(run.path, prompts=prompts, n=50, max_new_tokens=4).counts.values() for run in (two, cpu))
    assert (Counter(found) & Counter(wanted)).total() >= 45

    measured, by_cpu = (evaluate(run.path, exact=True).document.rows for run in (two, cpu))
    assert len(measured) == len(by_cpu) > 0
    for one, other in zip(measured, by_cpu, strict=True):
        assert one.exact.kl == pytest.approx(other.exact.kl, rel=1e-3)


def left_on_the_cpu(monkeypatch, module, which):
    """The given tensors of every upload in a module stay on the CPU."""
    moved = module.uploaded

    def forgetful(tensors, device):
        found = moved(tensors, device)
        return [tensor if which(place) else own for place, (tensor, own) in enumerate(zip(tensors, found, strict=True))]

    monkeypatch.setattr(module, "uploaded", forgetful)


@pytest.mark.parametrize(
    ("module", "place"),
    [(layout, 0), (layout, 5), (layout, 6), (block_attention, 2), (answers_module, 1)],
    ids=["ids of tokens", "masses of edges", "likeliest tokens of answers", "rows of attention", "answers fed as rows"],
)
def test_a_tensor_that_stays_on_the_cpu_is_found(tiny, on_gpu, monkeypatch, module, place):
    """So the tests above can fail."""
    base = on_gpu(tiny())
    enable(base.model)
    left_on_the_cpu(monkeypatch, module, lambda number: number == place)
    with pytest.raises(RuntimeError, match="same device"):
        scored(base, RowsPass(8) if module is answers_module else PACKED[0], answers=held())


def test_a_tensor_of_rows_to_keep_is_found_on_two_gpus(tiny, on_gpu, monkeypatch):
    """The hooks of `device_map` move it to the first GPU, and the last hidden states are on the second."""
    base = on_gpu(tiny(tiny_llama(vocabulary=400, tie_word_embeddings=False)), spread=True)
    monkeypatch.setattr(packed_pass, "is_spread", lambda _: False)
    way, why = choose_pass(base.model, PROMPTS[0])
    assert isinstance(way, RowsPass)
    assert "does not accept packed input" in why
    with pytest.raises(RuntimeError, match="same device"), torch.no_grad():
        PACKED[3].answer_logits(base.model, held())


def test_a_search_on_the_device_is_counted_as_a_wait(tiny, on_gpu, monkeypatch):
    """What a slice of logits did before the host knew its edges."""
    base = on_gpu(tiny())
    enable(base.model)
    by_part = layout.Packed.by_part

    def searching(packed, values):
        (packed.edge_rows == 0).nonzero()
        return by_part(packed, values)

    monkeypatch.setattr(layout.Packed, "by_part", searching)
    with counting() as counts:
        scored(base, PACKED[0])
    assert counts.waits[f"tests/accelerator_checks/check_training.py:{searching.__code__.co_firstlineno + 1}"] == 1
