"""`python -m benchmarks gpu` on the pretended accelerator: packed and in rows, samples, and no part that fails."""

import json

import torch

from benchmarks import gpu


def test_the_benchmark_runs_on_an_accelerator(tmp_path, monkeypatch, device, capsys):
    device.free.update({0: 10**10})
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda _=None: None)  # its computations are done when they return
    monkeypatch.setattr(
        gpu, "SHARES", {name: share for name, share in gpu.SHARES.items() if name != "two processes"}
    )  # those have no such device
    gpu.main(["--tiny", "--device", "gpu:0", "--seconds", "100000", "--json", str(tmp_path / "f.json")])
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["device"] == "gpu:0"
    assert "failed" not in capsys.readouterr().out
    for step in found["steps"][:2]:
        assert step["why"].startswith("packed: ")
        assert step["packed"]["tokens"] < step["rows"]["tokens"] / 10
    assert found["sampling"]["counting"]["tokens_fed"] < 50 * 45
