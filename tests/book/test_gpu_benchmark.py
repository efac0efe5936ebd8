"""`python -m benchmarks gpu`: it runs on any device with a tiny model, and says what it leaves out."""

import json
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_models import TINY, random_model, targets


def figures(tmp_path, *words):
    gpu.main(["--tiny", "--device", "cpu", "--json", str(tmp_path / "f.json"), *words])
    return json.loads((tmp_path / "f.json").read_text())


def leave_out(monkeypatch, *parts):
    monkeypatch.setattr(gpu, "SHARES", {name: share for name, share in gpu.SHARES.items() if name not in parts})


def test_a_tiny_run_measures_steps_and_samplers(tmp_path, monkeypatch, capsys):
    leave_out(monkeypatch, "two processes")  # it starts Python three times
    found = figures(tmp_path, "--seconds", "100000")
    assert [step["targets"] for step in found["steps"]] == ["100 numbers", "200 names", "20 000 numbers, 64 drawn"]
    for step in found["steps"][:2]:
        assert step["why"].startswith("packed: ")
        assert step["packed"]["tokens"] < step["rows"]["tokens"] / 10
        assert step["difference"] < 0.2
    assert found["sampling"]["counting"]["tokens_fed"] < 50 * 45  # fewer than the prompts of separate answers alone
    assert found["rate"].keys() == {"bf16", "fp32"}
    assert found["demo"] == {"left_out": "left out with --tiny"}
    out = capsys.readouterr().out
    assert "| tiny | 200 names | " in out
    assert "NaN" not in json.dumps(found)


def test_a_compiled_step_is_compared_with_an_eager_one_on_request(tmp_path, monkeypatch):
    """Here without the compiler, which takes a minute on some machines."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda step, **_: compiled.append(step) or step)
    leave_out(monkeypatch, "rate", "steps", "demo", "two processes")
    found = figures(tmp_path, "--compile", "--seconds", "100000")["sampling"]
    assert found["eager step"]["rows"] == found["compiled step"]["rows"] == 64
    assert found["compiled step"]["seconds_per_step"] > 0
    assert len(compiled) == 1
    assert "eager step" not in figures(tmp_path)["sampling"]


def test_without_time_every_part_says_that_it_is_left_out(tmp_path, capsys):
    found = figures(tmp_path, "--seconds", "0")
    assert found["steps"] == [{"left_out": "tiny"}]
    assert found["sampling"]["counting"] == found["sampling"]["generate"] | {"left_out": "counting"}
    assert found["two processes"] == {"alone": {"left_out": "alone"}}
    assert capsys.readouterr().out.count("because the time of this part is spent") == 5


def test_a_part_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(gpu.PARTS, "steps", fails)
    leave_out(monkeypatch, "sampling", "demo", "two processes")
    found = figures(tmp_path)
    assert found["steps"] == {"error": "OutOfMemoryError: CUDA out of memory"}
    assert found["rate"]["fp32"] > 0


def test_a_part_that_cannot_be_left_out_in_pieces_is_stopped():
    part = gpu.Part(torch.device("cpu"), {}, True, time.monotonic() - 1)
    with pytest.raises(RuntimeError, match="the time of this part is spent"):
        part.require_time()


def test_without_a_gpu_it_says_how_to_run(capsys):
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    gpu.main([])
    assert "no GPU found. Run it on the CPU with --tiny" in capsys.readouterr().out


def test_the_random_model_and_the_targets_are_what_they_are_called():
    base = random_model(TINY["tiny"], torch.device("cpu"))
    assert base.model.dtype == torch.bfloat16
    assert base.model(torch.tensor([[1, 2]])).logits.dtype == torch.float32
    numbers, names, many = targets().values()
    assert numbers.trie.path(9) == (11, 10, 2)  # 10
    assert len(names.trie.leaves) == 200
    lengths = [len(names.trie.path(place)) - 1 for place in range(200)]
    assert set(lengths) == {1, 2, 3, 4}
    assert len(many.owners) == 20_000
    assert len(many.trie.drawn) == 64
