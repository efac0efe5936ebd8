"""From a model folder to a merged model, for every architecture: train, load the adapter in plain PEFT, sample, export."""

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from diffusecli.verbs.export import export
from diffusecli.verbs.train import train
from tests.models.architectures import CLASSES, RECURRENT, configured
from tests.sampling.test_counting import PROMPT, TOKENIZER, assert_follows, exact_law, few
from tests.tiny import byte_tokenizer

pytestmark = pytest.mark.slow  # half a second each, but for every architecture

OF_BYTES = {"vocab_size": 259, "max_position_embeddings": 256}
WINDOW = {"sliding_window": 8}  # shorter than any prompt here
TRAINED_ONLY = {
    "KimiLinear",
    "BailingHybrid",
    "xLSTM",
    "MiniMax",
    "Zaya",
    "Lfm3",
}  # by tests of the pass; the first three sample slowly
MODELS = {
    "LlamaForCausalLM": ("Llama", {}),
    "MistralForCausalLM (window)": ("Mistral", WINDOW),
    "Gemma2ForCausalLM (window)": ("Gemma2", WINDOW),
    "Gemma3ForCausalLM (window)": ("Gemma3Text", {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "Gemma3ForConditionalGeneration": ("Gemma3", {}),
    "Qwen2ForCausalLM": ("Qwen2", {}),
    "Qwen3ForCausalLM": ("Qwen3", {}),
    "Qwen3MoeForCausalLM": ("Qwen3Moe", {}),
    "Phi3ForCausalLM (window)": ("Phi3", WINDOW),
    "Olmo2ForCausalLM": ("Olmo2", {}),
    "GraniteForCausalLM": ("Granite", {}),
    "CohereForCausalLM": ("Cohere", {}),
    "GPT2LMHeadModel": ("GPT2", {}),
    "GPTNeoXForCausalLM": ("GPTNeoX", {}),
    **{CLASSES.get(name, f"{name}ForCausalLM"): (name, {}) for name in RECURRENT if name not in TRAINED_ONLY},
}
FROM_STATES = {architecture for architecture, (name, _) in MODELS.items() if name in RECURRENT}


def class_and_config(architecture):
    name, more = MODELS[architecture]
    if name != "Gemma3":
        return configured(name, **OF_BYTES, **more)
    text = configured("Gemma3Text", **OF_BYTES)[1].to_dict()
    eyes = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration, config


def tiny(architecture, change=lambda kind: kind):
    torch.manual_seed(0)
    kind, config = class_and_config(architecture)
    return change(kind)(config).eval()


@pytest.fixture(scope="module", params=MODELS)
def architecture(request):
    return request.param


@pytest.fixture(scope="module")
def journey(architecture, tmp_path_factory):
    """A trained run, and the folder with all that it was made of."""
    place = tmp_path_factory.mktemp("journey")
    tiny(architecture).save_pretrained(place / "model")
    byte_tokenizer().save_pretrained(place / "model")
    (place / "p.json").write_text('{"request": "Say.", "targets": ["{a}", "{bc}", "{bd}"], "weights": [0.5, 0.3, 0.2]}')
    config = Config.model_validate({
        "model": str(place / "model"), "train_prompts": [str(place / "p.json")], "output_dir": str(place / "run"), "device": "cpu",
        "generate": False, "retain": False, "alg_config": {"n_iters": 3, "learning_rate": 0.01},
    })  # fmt: skip
    done = train(config, report=lambda _: None, notice=lambda _: None)
    return place, done


def log_probs(place, model):
    chat = load_model(ModelSource(str(place / "model"), device="cpu"), print).chat
    return score(model.eval(), encode_prompt(read_prompt(place / "p.json"), chat), RowsPass()).log_probs


def base_of(place):
    return AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)


@pytest.mark.matrix("packed")
def test_training_takes_the_pass_the_architecture_allows_and_lowers_the_loss(architecture, journey, record_property):
    _, done = journey
    why = done.run.read_manifest()["loss_pass"]
    assert why.startswith("states" if architecture in FROM_STATES else "packed"), why
    record_property("packed", why.split(": log-prob")[0])
    assert next(iter(done.after.kl.values())) < next(iter(done.before.kl.values())) - 0.1


@pytest.mark.matrix("LoRA")
def test_the_adapter_gives_the_same_in_plain_peft_and_touches_neither_output_nor_embedding(architecture, journey):
    place, done = journey
    untuned = log_probs(place, base_of(place))
    plain = PeftModel.from_pretrained(base_of(place), done.run.path)
    adapted = [name for name, _ in plain.named_modules() if name.endswith("lora_A")]
    assert adapted
    assert not any(part in name for name in adapted for part in ("lm_head", "embed", "wte", "vision", "head."))
    ours = load_model(ModelSource(str(place / "model"), device="cpu"), print)
    load_adapter(ours, done.run.path)
    found = log_probs(place, plain)
    np.testing.assert_allclose(found, log_probs(place, ours.model), atol=1e-4)
    kl = sum(p * (np.log(p) - q) for p, q in zip((0.5, 0.3, 0.2), found, strict=True))
    assert kl == pytest.approx(next(iter(done.after.kl.values())), abs=1e-4)
    assert np.abs(found - untuned).max() > 0.1


@pytest.mark.matrix("merge")
def test_the_exported_model_gives_the_adapters_log_probabilities(architecture, journey, tmp_path):
    place, done = journey
    export(done.run, tmp_path / "merged", precision=None, force=False, notice=print)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base_of(place), done.run.path)
    np.testing.assert_allclose(log_probs(place, merged), log_probs(place, adapted), atol=1e-4)


@pytest.mark.matrix("sampling")
def test_counts_follow_the_exact_law(architecture, record_property, monkeypatch):
    monkeypatch.setattr("diffusecli.sampling.local_engine._BATCH_ROWS", 1000)
    base = LoadedModel(architecture, tiny(architecture, few), TOKENIZER, "r")
    n = 1_200 if architecture in FROM_STATES else 50_000
    engine = LocalEngine(base, SamplingSettings(n, max_new_tokens=3))
    assert engine.counting is (architecture not in FROM_STATES)
    record_property("sampling", "counting" if engine.counting else "generate")
    counts = drawn(engine, PROMPT)[0]
    assert counts.total() == n
    assert_follows(counts, exact_law(3, base=base))
