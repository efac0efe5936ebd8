"""The memory that `train --dry-run` states, compared with accelerate's estimator and with states counted by hand."""

import json

import pytest
import torch
import yaml
from accelerate.utils import calculate_maximum_sizes
from transformers import AutoModelForCausalLM, LlamaConfig

from diffusecli.models.architecture import ModelShape
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.training.budget import estimated_memory
from diffusecli.verbs.train import plan
from tests import ROOT
from tests.tiny import byte_tokenizer

LLAMA_3 = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
RANK = 16


def folder(tmp_path, size):
    """A model folder without weights."""
    place = tmp_path / size
    LlamaConfig(
        **LLAMA_3[size], num_key_value_heads=8, vocab_size=128_256, max_position_embeddings=8192, rope_theta=500_000.0, bos_token_id=None,
        eos_token_id=2, pad_token_id=0, architectures=["LlamaForCausalLM"],
    ).save_pretrained(place)  # fmt: skip
    byte_tokenizer().save_pretrained(place)
    return place


def states(size):
    """Bytes of a rank-16 adapter on the seven linear layers of each block, counted by hand: weight, gradient and two moments."""
    hidden, inner, layers = (LLAMA_3[size][name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = 8 * 128
    sides = 2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + inner)  # q and o, k and v, the MLP
    return 4 * 4 * RANK * sides * layers


@pytest.mark.parametrize("size", LLAMA_3)
def test_a_dry_run_states_the_memory_of_large_models(tmp_path, prompt_file, in_process, size):
    model = folder(tmp_path, size)
    settings = {
        "model": str(model), "train_prompts": [str(prompt_file("p.json"))], "output_dir": "results/r", "precision": "bf16", "lora": {"r": RANK},
        "device": "cpu",
    }  # fmt: skip
    with torch.device("meta"):
        hollow = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(model))
    in_float32, _ = calculate_maximum_sizes(hollow)  # what `accelerate estimate-memory` divides by two for 16 bits
    expected = (in_float32 / 2 + states(size)) / 1e9
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    done = in_process("train", "c.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    stated = float(" ".join(done.stdout.split()).split("estimated peak memory ")[1].split()[0])
    assert stated == pytest.approx(expected, rel=0.15)
    assert expected == pytest.approx({"8B": 16.7, "70B": 144.4}[size], rel=0.01)  # the figures in docs/how-to/gpu.md
    assert not (tmp_path / "results").exists()


def test_the_estimate_grows_with_the_adapter_and_the_precision(tmp_path, tiny_model_folder, prompt_file):
    def stated(**more):
        config = {
            "model": str(tiny_model_folder),
            "train_prompts": [str(prompt_file("p.json"))],
            "output_dir": str(tmp_path / "r"),
            **more,
        }
        return plan(Config.model_validate(config), lambda _: None).memory_gb

    inner = json.loads((tiny_model_folder / "config.json").read_text())
    hidden, wide, keys = inner["hidden_size"], inner["intermediate_size"], inner["hidden_size"] // 2
    per_rank = inner["num_hidden_layers"] * (4 * hidden + 2 * (hidden + keys) + 3 * (hidden + wide))
    assert stated(lora={"r": 20}) - stated(lora={"r": 10}) == pytest.approx(10 * per_rank * 16 / 1e9)
    assert stated(precision="bf16") < stated(precision="auto", device="cpu") == stated(precision="fp32")


def test_the_page_on_gpus_states_what_the_formula_gives():
    small = {"1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}}
    parameters = {"1B": 1_235_814_400, "8B": 8_030_261_248, "70B": 70_553_706_496}
    columns = [("fp32", None, False), ("bf16", None, False), ("bf16", None, True), ("bf16", "nf4", False), ("bf16", "nf4", True)]
    page = (ROOT / "docs" / "how-to" / "gpu.md").read_text(encoding="utf-8")
    for size, about in (small | LLAMA_3).items():
        hidden, inner, layers = (about[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
        keys = 512 if size == "1B" else 1024
        adapter = RANK * layers * (2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + inner))
        shape = ModelShape(parameters[size], layers, hidden, inner, 128_256, 8192)
        cells = []
        for precision, quantize, checkpointing in columns:
            source = ModelSource("m", device="cpu", precision=precision, quantize=quantize)
            settings = AlgConfig(gradient_checkpointing=checkpointing)
            cells.append(f"{(estimated_memory(shape, source, settings, 1000, 1000) + 16 * adapter) / 1e9:.1f}")
        assert f"| {size} | {' | '.join(cells)} |" in page
