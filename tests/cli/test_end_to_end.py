"""Train, sample and evaluate with the installed command."""

import json
from pathlib import Path

import pytest

from tests.cli.configs import config_text


@pytest.mark.slow
def test_train_sample_and_evaluate_a_tiny_model_end_to_end(diffuse, in_process, prompt_file, tiny_model_folder, tmp_path):
    prompt_file("p.json")
    (tmp_path / "c.yaml").write_text(config_text(tiny_model_folder, "p.json", n_iters=40, learning_rate=0.05))
    trained = diffuse("train", "c.yaml")
    assert trained.returncode == 0, trained.stderr
    assert "p.json: exact KL" in trained.stdout
    assert "iteration 40/40" in trained.stderr
    run = tmp_path / "results" / "tiny"
    expected = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.yaml",
        "prompts.json",
        "gen.json",
        "gen.meta.json",
        "run.json",
        "metrics.jsonl",
        "state.safetensors",
        "README.md",
    }
    assert {path.name for path in run.iterdir()} == expected
    assert len(json.loads((run / "gen.json").read_text())["p.json"]) == 1000
    assert [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().splitlines()] == list(range(1, 41))

    sampled = in_process("sample", "--mode", "lora", "-n", 50)
    assert sampled.returncode == 0, sampled.stderr
    assert "newest run results/tiny" in sampled.stderr
    untuned = in_process("sample", "--config", "c.yaml", "--mode", "untuned", "-n", 50, "--max-new-tokens", 4)
    assert untuned.returncode == 0, untuned.stderr

    evaluated = diffuse("evaluate", "results/", NO_COLOR="1")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "untuned" in evaluated.stdout
    assert "tuned: " in evaluated.stdout
    assert max(map(len, evaluated.stdout.splitlines())) <= 80
    assert "\x1b" not in evaluated.stdout


@pytest.mark.model
def test_training_the_built_in_model_brings_the_exact_kl_below_a_tenth(diffuse, tmp_path):
    prompt = Path("prompts/numbers/rng-0.json").resolve()
    (tmp_path / "c.yaml").write_text(config_text("smollm2-135m-instruct", prompt, n_iters=14))
    trained = diffuse("train", "c.yaml")
    assert trained.returncode == 0, trained.stderr
    manifest = json.loads((tmp_path / "results" / "tiny" / "run.json").read_text())
    first = json.loads((tmp_path / "results" / "tiny" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kl"][str(prompt)] > 1
    assert manifest["exact_kl"][str(prompt)] < 0.1
    assert manifest["loss_pass"].startswith("packed")
    evaluated = diffuse("evaluate", "results/")
    assert "valid" in evaluated.stdout
