"""Merged models: the adapter's probabilities, a generation config that bends nothing, a folder that is whole or absent."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import load_model
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from diffusecli.verbs.export import MARK, export
from diffusecli.verbs.train import train


@pytest.fixture
def run(trained):
    return RunDir(Path(trained.output_dir))


def exported(run, to, **more):
    return export(run, to, **{"precision": None, "force": False, "notice": print, **more})


def logits(model):
    ids = torch.arange(20)[None] % 13 + 3
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_the_merged_model_is_the_base_with_its_adapter(run, tiny_model_folder, tmp_path):
    exported(run, tmp_path / "m")
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    untuned = logits(base)
    expected = logits(PeftModel.from_pretrained(base, run.path))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    assert (logits(merged) - untuned).abs().max() > 1e-3, "the adapter does something"


def test_the_gap_that_is_told_is_measured(run, tmp_path, monkeypatch):
    done = exported(run, tmp_path / "m")
    assert done.answers == 2
    assert done.gap < 1e-4
    assert json.loads((tmp_path / "m" / MARK).read_text())["gap"] == done.gap
    rounded = exported(run, tmp_path / "half", precision="bf16")
    assert 1e-4 < rounded.gap < 1
    merged = load_model(ModelSource(str(tmp_path / "half"), device="cpu"), print)
    adapted = load_model(ModelSource(str(tmp_path / "m"), device="cpu"), print)
    encoded = encode_prompt(read_prompt(tmp_path / "p.json"), merged.chat)
    far = score(adapted.model, encoded, RowsPass()).log_probs - score(merged.model, encoded, RowsPass()).log_probs
    assert np.abs(far).max() == pytest.approx(
        rounded.gap, rel=0.5
    )  # rows round 16-bit products otherwise than the pass that measures


def test_a_model_that_does_not_merge_is_not_written(run, tmp_path, monkeypatch):
    from peft import PeftModelForCausalLM

    monkeypatch.setattr(PeftModelForCausalLM, "merge_and_unload", lambda self, safe_merge: self.unload(), raising=False)
    train_more(run)
    with pytest.raises(MachineError, match=r"differs from the adapter by .* nats\. Nothing was written"):
        exported(run, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert list(tmp_path.glob(".m.*")) == []


def train_more(run):
    """One iteration leaves an adapter that is hardly more than nothing."""
    config = Config.model_validate(yaml.safe_load(run.config.read_text()))
    config = config.model_copy(update={"alg_config": config.alg_config.model_copy(update={"n_iters": 5})})
    train(config, force=True, report=lambda _: None, notice=lambda _: None)


def test_the_generation_config_bends_nothing_and_stops_where_answers_end(run, tmp_path):
    exported(run, tmp_path / "m")
    config = GenerationConfig.from_pretrained(tmp_path / "m")
    assert (config.do_sample, config.temperature, config.top_k, config.top_p, config.eos_token_id) == (True, 1.0, 0, 1.0, [2])
    assert config.repetition_penalty in (None, 1.0)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m").generation_config.top_k == 0


def test_what_the_template_was_told_is_in_the_template(run, tmp_path, prompt_file, tiny_model_folder):
    template = tmp_path / "own.jinja"
    template.write_text("\n{% for m in messages %}<|im_start|>{{ m['content'] }}{{ sign }}<|im_end|>{% endfor %}")
    config = Config.model_validate({
        "model": str(tiny_model_folder), "train_prompts": [str(prompt_file("q.json"))], "system": "S.", "alg_config": {"n_iters": 1},
        "output_dir": str(tmp_path / "results" / "own"), "device": "cpu", "generate": False, "retain": False,
        "chat_template": str(template), "chat_template_kwargs": {"sign": "'!\n"},
    })  # fmt: skip
    train(config, report=lambda _: None, notice=lambda _: None)
    template.unlink()
    exported(RunDir(tmp_path / "results" / "own"), tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    asked = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "\n<|im_start|>S.'!\n<|im_end|><|im_start|>x'!\n<|im_end|>"


def test_a_system_text_that_goes_into_the_request_is_put_there_by_the_template(tmp_path, prompt_file, tiny_model_folder):
    template = tmp_path / "deaf.jinja"
    template.write_text("{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    config = Config.model_validate({
        "model": str(tiny_model_folder), "train_prompts": [str(prompt_file("q.json"))], "system": "It's \"S\".", "alg_config": {"n_iters": 1},
        "output_dir": str(tmp_path / "run"), "device": "cpu", "generate": False, "retain": False, "chat_template": str(template),
    })  # fmt: skip
    train(config, report=lambda _: None, notice=lambda _: None)
    exported(RunDir(tmp_path / "run"), tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert shown == '<|im_start|>It\'s "S".\n\nx<|im_end|>'
    card = (tmp_path / "m" / "README.md").read_text()
    assert "does not support a system prompt" in card
    assert "system: `\"It's" in card


def test_the_card_says_what_was_merged_and_how_exactly(run, tmp_path, tiny_model_folder):
    exported(run, tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["base_model"] == str(tiny_model_folder)
    assert metadata["base_model_relation"] == "finetune"
    assert "with a LoRA adapter merged into its weights (float32)" in card
    assert "p.json | Say a letter. | 2 | 0.693" in card


def test_a_quantised_base_is_refused_with_the_way_out(run, tmp_path):
    run.config.write_text(run.config.read_text().replace("quantize: null", "quantize: nf4"))
    with pytest.raises(InputError, match=r"trained on a quantised base.*load_model: true, ckpt_dir: .*r1"):
        exported(run, tmp_path / "m")


def test_a_base_that_comes_quantised_is_refused(run, tmp_path, monkeypatch):
    def quantised(*args, **more):
        base = load_model(*args, **more)
        base.model.config.quantization_config = SimpleNamespace(quant_method="gptq")
        return base

    monkeypatch.setattr("diffusecli.verbs.export.load_model", quantised)
    with pytest.raises(InputError, match="trained on a quantised base"):
        exported(run, tmp_path / "m")


def test_nothing_but_an_exported_model_is_ever_replaced(run, tmp_path):
    for place in (run.path, tmp_path):
        with pytest.raises(InputError, match="was not written by `diffuse export`"):
            exported(run, place, force=True)
    (tmp_path / "m").mkdir()
    exported(run, tmp_path / "m")
    with pytest.raises(InputError, match=r"already holds an exported model\. Replace it with --force"):
        exported(run, tmp_path / "m")
    (tmp_path / "m" / "old").touch()
    exported(run, tmp_path / "m", force=True)
    assert not (tmp_path / "m" / "old").exists()
    assert list(tmp_path.glob(".m.*")) == []


def test_what_a_killed_export_left_goes_with_the_next(run, tmp_path):
    (tmp_path / ".m.export.x" / "model").mkdir(parents=True)
    exported(run, tmp_path / "m")
    assert not (tmp_path / ".m.export.x").exists()


@pytest.mark.slow
def test_the_command_tells_what_it_made_and_what_is_missing(in_process, run, tmp_path):
    done = in_process("export", run.path, "-o", "m")
    assert done.returncode == 0
    assert "(float32); log-probabilities of 2 answers differ from the adapter's by" in done.stdout
    done = in_process("export", tmp_path, "-o", "n")
    assert (done.returncode, "config.yaml is missing" in done.stderr) == (2, True)


@pytest.mark.parametrize("place", ["/", ".", ".."])
def test_the_folder_one_stands_in_is_never_replaced(trained, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is the current folder"):
        export(RunDir(Path(trained.output_dir)), Path(place), precision=None, force=True, notice=print)


def test_an_exported_model_is_not_exported_again(run, tmp_path):
    exported(run, tmp_path / "m")
    with pytest.raises(InputError, match=r"m: this is already an exported model\. Use it as it is"):
        exported(RunDir(tmp_path / "m"), tmp_path / "again")
    with pytest.raises(InputError, match="none: does not exist"):
        exported(RunDir(tmp_path / "none"), tmp_path / "again")
