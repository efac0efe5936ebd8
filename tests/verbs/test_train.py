"""The training loop on a tiny model: it learns, stops when told to, repeats itself, and loads in plain PEFT."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter, merged
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, InterruptedRun, MachineError
from diffusecli.training import loop
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.schedule import auto_learning_rate
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.train import plan, train
from tests.verbs.test_resume import interrupt_at


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    def make(prompt_fields=None, **fields):
        prompt = str(prompt_file("p.json", **(prompt_fields or {})))
        settings = {"n_iters": 30, "learning_rate": 0.02, **fields.pop("alg_config", {})}
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": [prompt], "test_prompts": [], "alg_config": settings,
            "output_dir": str(tmp_path / "run"), "device": "cpu", "retain": False, **fields,
        })  # fmt: skip

    return make


def quietly(config):
    seen = []
    return train(config, report=seen.append, notice=lambda _: None), seen


def test_training_moves_the_model_to_the_weights(config):
    trained, seen = quietly(config({"targets": ["{a}", "{b}", "{c}"], "weights": [5, 3, 2]}, alg_config={"n_iters": 60}))
    assert seen[0].kl[str(trained.run.path.parent / "p.json")] > 5
    assert next(iter(trained.after.kl.values())) < 0.05
    assert next(iter(trained.after.on_target.values())) > 0.95


def test_the_logged_loss_is_kl_plus_entropy(config):
    _, seen = quietly(config(alg_config={"n_iters": 2}))
    for iteration in seen:
        assert iteration.loss == pytest.approx(sum(iteration.kl.values()) + iteration.optimal)


def test_the_on_target_mass_is_that_of_the_models_own_samples(config, tiny_model_folder):
    from diffusecli.sampling.engine import drawn
    from diffusecli.sampling.local_engine import LocalEngine
    from diffusecli.sampling.settings import SamplingSettings

    trained, _ = quietly(config(alg_config={"n_iters": 12}))
    base = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    load_adapter(base, trained.run.path)
    prompt = read_prompt(next(iter(trained.after.kl)))
    counts, _ = drawn(LocalEngine(base, SamplingSettings(4000, 8)), prompt)
    share = sum(counts[target] for target in prompt.targets) / 4000
    exact = next(iter(trained.after.on_target.values()))
    assert 0.01 < exact < 0.99
    assert share == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4000) ** 0.5)


def test_the_learning_rate_falls_along_the_schedule_after_the_warm_up(config):
    _, seen = quietly(config(alg_config={"n_iters": 10, "warmup": 0.2, "learning_rate": 0.02}))
    rates = [iteration.learning_rate for iteration in seen]
    assert rates[0] == pytest.approx(0.02 / 3)
    assert max(rates) == pytest.approx(0.02) == pytest.approx(rates[2])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.2 * 0.02


def test_several_prompts_in_one_step_are_summed(config, prompt_file):
    second = str(prompt_file("q.json", request="Say another letter.", targets=["{c}", "{d}"]))
    made = config(alg_config={"n_iters": 2, "prompts_per_step": 2})
    both = made.model_copy(update={"train_prompts": (*made.train_prompts, second)})
    _, seen = quietly(both)
    assert len(seen[0].kl) == 2
    assert seen[0].loss == pytest.approx(sum(seen[0].kl.values()) + seen[0].optimal)


@pytest.mark.parametrize(("prompts", "shape", "steps"), [(32, (4, 8.0), 32), (33, (32, 32.0), 9)])
def test_many_prompts_get_a_larger_adapter_and_several_a_step(config, prompt_file, prompts, shape, steps):
    letters = [str(prompt_file(f"letter-{n}.json", request=f"Say letter {n}.", targets=["{a}", "{b}"])) for n in range(prompts)]
    made = config(alg_config={"n_iters": 1}, generate=False).model_copy(
        update={"train_prompts": tuple(letters), "test_prompts": ()}
    )
    trained, seen = quietly(made)
    adapter = json.loads((trained.run.path / "adapter_config.json").read_text())
    assert ((adapter["r"], adapter["lora_alpha"]), seen[-1].step) == (shape, steps)
    saved = read_config(trained.run.config)
    assert saved.lora == made.lora, "auto, so that a larger rank gets a larger alpha"
    assert train(saved, report=lambda _: None, notice=lambda _: None, more=1).run.read_manifest()["iterations"] == 2


def test_of_many_prompts_those_measured_before_are_among_those_measured_in_the_end(config, prompt_file, monkeypatch):
    monkeypatch.setattr(loop, "_WORDINGS_BEFORE", 3)
    monkeypatch.setattr(loop, "_WORDINGS_AFTER", 6)
    letters = [str(prompt_file(f"letter-{n}.json", request=f"Say letter {n}.", targets=["{a}", "{b}"])) for n in range(12)]
    made = config(alg_config={"n_iters": 1}, generate=False).model_copy(
        update={"train_prompts": tuple(letters), "test_prompts": ()}
    )
    manifest = quietly(made)[0].run.read_manifest()
    assert (len(manifest["exact_kl_before"]), len(manifest["exact_kl"])) == (3, 6)
    assert manifest["exact_kl_before"].keys() <= manifest["exact_kl"].keys()


def test_a_run_goes_on_with_other_test_prompts_by_the_same_pass(config, prompt_file):
    long = str(prompt_file("long.json", request="Say a letter. " * 20, targets=[]))
    made = config(alg_config={"n_iters": 1}, generate=False)
    passes = []
    for number, tests in enumerate(((), (long,))):
        folder = f"{made.output_dir}-{number}"
        trained, _ = quietly(made.model_copy(update={"test_prompts": tests, "output_dir": folder}))
        manifest = trained.run.read_manifest()
        passes.append((manifest["loss_pass"], manifest["pass_size"]))
    assert passes[0] == passes[1]


def test_missing_prompts_are_told_with_the_command_that_makes_them(config):
    made = config().model_copy(update={"train_prompts": ("mix/train",), "made_by": "diffuse init-prompt --mixture 60 -o mix"})
    with pytest.raises(
        InputError, match=r"mix/train: does not exist yet. Create it with `diffuse init-prompt --mixture 60 -o mix`"
    ):
        quietly(made)


SPELLED = {"targets": [["{a}", "a"], ["{b}", "b"], ["{c}", "c"]], "weights": [5, 3, 2]}


def test_the_logged_loss_of_spellings_is_the_kl_of_outcomes_plus_their_entropy(config):
    trained, seen = quietly(config(SPELLED, alg_config={"n_iters": 3}))
    for iteration in seen:
        assert iteration.optimal == pytest.approx(-sum(p * np.log(p) for p in (0.5, 0.3, 0.2)))
        assert iteration.loss == pytest.approx(sum(iteration.kl.values()) + iteration.optimal)
    recorded = json.loads((trained.run.path / "run.json").read_text())
    asked = Question(prompts=tuple(map(Path, recorded["exact_kl"])), exact=True)
    (row,) = (row for row in evaluate([trained.run.path], asked).rows if row.mode == "lora")
    assert row.exact.kl == pytest.approx(next(iter(recorded["exact_kl"].values())), abs=1e-4)
    assert len(row.exact.q) == 3


def test_spellings_are_trained_to_their_outcomes(config):
    trained, seen = quietly(config(SPELLED, alg_config={"n_iters": 60}))
    assert next(iter(trained.after.kl.values())) < 0.05
    assert next(iter(trained.after.on_target.values())) > 0.95
    assert seen[-1].loss >= seen[-1].optimal


def test_a_target_kl_ends_training(config):
    trained, seen = quietly(config(alg_config={"target_kl": 0.5}))
    assert trained.reason.startswith("target reached")
    assert next(iter(seen[-1].kl.values())) <= 0.5
    assert len(seen) < 30


def test_response_variants_reach_their_own_optimum(config):
    trained, seen = quietly(config({"targets": ["{a}", "{b}"], "response": ["", "So: "]}))
    assert seen[0].optimal == pytest.approx(np.log(4))
    assert next(iter(trained.after.kl.values())) < 0.1 * next(iter(seen[0].kl.values()))
    assert all(i.loss >= i.optimal for i in seen)


def test_a_finished_run_is_replaced_only_when_forced_and_its_samples_go_with_it(config):
    first, _ = quietly(config(alg_config={"n_iters": 1}))
    (first.run.path / "gen.json").write_text("{}")
    with pytest.raises(InputError, match=r"already contains a finished run\. Add --more N to train it further, --force"):
        quietly(config(alg_config={"n_iters": 1}))
    train(config(alg_config={"n_iters": 1}), force=True, report=lambda _: None, notice=lambda _: None)
    assert not (first.run.path / "gen.json").exists()


def test_a_training_that_breaks_while_saving_leaves_no_manifest(config, monkeypatch):
    first, _ = quietly(config(alg_config={"n_iters": 1}))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusecli.training.record.save_adapter", full)
    with pytest.raises(MachineError, match=r"No space left on device\. Free some space"):
        train(config(alg_config={"n_iters": 1}), force=True, report=lambda _: None, notice=lambda _: None)
    assert first.run.read_manifest() == {}


def test_lora_targets_that_do_not_exist_are_named(config):
    with pytest.raises(InputError, match=r"lora\.targets foo"):
        quietly(config(lora={"targets": "foo"}))


@pytest.mark.parametrize("lora", [{"rslora": True}, {"dora": True}, {"dropout": 0.1}, {"targets": ["q_proj", "v_proj"]}])
def test_every_kind_of_adapter_learns(config, lora):
    trained, seen = quietly(config(lora=lora))
    assert next(iter(trained.after.kl.values())) < 0.2 * next(iter(seen[0].kl.values()))


def test_an_adapter_file_that_is_broken_is_told(config, tmp_path):
    first, _ = quietly(config(alg_config={"n_iters": 1}))
    (first.run.path / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"adapter_model.safetensors: cannot be read"):
        quietly(config(load_model=True, ckpt_dir=str(first.run.path), output_dir=str(tmp_path / "more")))


def test_early_stop_follows_the_originals_rule(config):
    trained, seen = quietly(config(alg_config={"early_stop": True, "gamma": 0.5}))
    assert trained.reason.startswith("early stop")
    assert seen[-1].loss <= seen[-1].optimal * 1.5
    assert all(earlier.loss > earlier.optimal * 1.5 for earlier in seen[:-1])
    assert len(seen) < 30


def test_the_same_seed_gives_the_same_adapter(config, tmp_path):
    weights = []
    for name in ("one", "two"):
        trained, _ = quietly(config(alg_config={"n_iters": 3}, output_dir=str(tmp_path / name)))
        weights.append((trained.run.path / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_adapter_loads_in_plain_peft_and_gives_the_recorded_kl(config, tiny_model_folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trained, _ = quietly(config())
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, trained.run.path).eval()
    chat = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print).chat
    encoded = encode_prompt(read_prompt(next(iter(trained.after.kl))), chat)
    log_q = score(plain, encoded, PackedPass()).log_probs
    assert float(np.log(0.5) - log_q.mean()) == pytest.approx(next(iter(trained.after.kl.values())), abs=1e-5)


def test_folding_the_adapter_in_changes_nothing_and_is_undone(config, tiny_model_folder):
    trained, _ = quietly(config(alg_config={"n_iters": 5}))
    base = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    load_adapter(base, trained.run.path)
    encoded = encode_prompt(read_prompt(next(iter(trained.after.kl))), base.chat)
    before = score(base.model, encoded, PackedPass()).log_probs
    with merged(base.model) as model:
        np.testing.assert_allclose(score(model, encoded, PackedPass()).log_probs, before, atol=1e-4)
    np.testing.assert_allclose(score(base.model, encoded, PackedPass()).log_probs, before, atol=1e-4)


def test_continuing_from_an_adapter_starts_where_it_was(config, tmp_path):
    first, _ = quietly(config())
    _, seen = quietly(
        config(load_model=True, ckpt_dir=str(first.run.path), output_dir=str(tmp_path / "more"), alg_config={"n_iters": 1})
    )
    assert next(iter(seen[0].kl.values())) == pytest.approx(next(iter(first.after.kl.values())), abs=1e-5)


@pytest.mark.parametrize("base", [None, "other/model"])
def test_an_adapter_goes_on_the_model_that_the_config_names_whatever_its_own_config_says(config, tmp_path, base):
    first, _ = quietly(config(alg_config={"n_iters": 1}))
    path = first.run.path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
    wanted, notices = (
        config(load_model=True, ckpt_dir=str(first.run.path), output_dir=str(tmp_path / "more"), alg_config={"n_iters": 1}),
        [],
    )
    more = train(wanted, report=lambda _: None, notice=notices.append)
    assert any("made for other/model" in notice for notice in notices) == (base is not None)
    assert json.loads((more.run.path / "adapter_config.json").read_text())["base_model_name_or_path"] == wanted.model


def test_a_loss_that_is_no_number_stops_with_the_remedy(config):
    with pytest.raises(InputError, match=r"Lower alg_config\.learning_rate"):
        quietly(config(alg_config={"learning_rate": 1e30, "schedule": "constant", "n_iters": 30}))


def test_a_prompt_without_targets_cannot_be_trained_on(config):
    with pytest.raises(InputError, match=r"p\.json: has no targets to train on"):
        quietly(config({"targets": []}))


def test_the_automatic_learning_rate_falls_with_width():
    assert auto_learning_rate(576) == pytest.approx(1.32e-3, rel=0.01)
    assert auto_learning_rate(5120) == pytest.approx(2.4e-4, rel=0.02)


def test_the_manifest_names_what_is_needed_to_repeat_the_run(config):
    trained, seen = quietly(config(alg_config={"n_iters": 2}))
    manifest = trained.run.read_manifest()
    assert manifest["tokens_fed"] == seen[-1].tokens > 0
    assert set(manifest["versions"]) >= {"torch", "transformers", "peft"}
    assert manifest["exact_kl"] == trained.after.kl
    assert {"model_revision", "seed", "device", "dtype", "prompt_sha256", "peak_memory_mb", "git", "time"} <= set(manifest)


def test_test_prompts_are_measured_every_so_often_and_at_the_end(config, prompt_file):
    other = str(prompt_file("other.json", request="Say another letter.", targets=["{a}", "{c}"]))
    free = str(prompt_file("free.json", request="Tell me.", targets=[]))
    made = config(alg_config={"n_iters": 5}, eval_every=2, generate=False)
    with_tests = made.model_copy(update={"test_prompts": (*made.train_prompts, other, free)})
    trained, seen = quietly(with_tests)
    assert [list(i.test_kl) for i in seen] == [[], [other], [], [other], []]  # not what is trained on, not what has no targets
    assert trained.test.kl[other] > trained.after.kl[made.train_prompts[0]]
    assert trained.run.read_manifest()["exact_kl_test"] == trained.test.kl
    assert "other.json (not trained on)" in trained.run.card.read_text()


def test_the_card_tells_before_and_after(config):
    trained, seen = quietly(config())
    alias = next(iter(trained.after.kl))
    assert trained.before.kl[alias] == pytest.approx(seen[0].kl[alias], rel=1e-5)
    assert f"| {trained.before.kl[alias]:.3f} | {trained.after.kl[alias]:.4f} |" in trained.run.card.read_text()


def test_a_target_that_leaves_the_models_context_is_refused(config):
    with pytest.raises(
        InputError, match=r"p\.json: the request with its longest target has \d+ tokens, but the model's context is 1024"
    ):
        quietly(config({"targets": ["{" + "a" * 1100 + "}", "{b}"]}))


def test_an_adapter_that_came_without_a_manifest_is_not_replaced_unasked(config, tmp_path):
    first, _ = quietly(config(alg_config={"n_iters": 1}))
    first.run.manifest.unlink()  # as a run of the original
    with pytest.raises(InputError, match=r"already contains a finished run\. Add --more N to train it further, --force"):
        quietly(config(alg_config={"n_iters": 1}))


def test_a_plan_tells_what_training_would_meet_in_the_output_folder(config, monkeypatch):
    made, told = config(alg_config={"n_iters": 5}), []
    run = RunDir(Path(made.output_dir))
    assert plan(made, told.append).steps == 5
    with monkeypatch.context() as during:
        interrupt_at(during, 1)
        with pytest.raises(InterruptedRun):
            quietly(made)
    plan(made, told.append)
    plan(made, told.append, force=True)
    shutil.rmtree(run.path / "checkpoint-2")
    run.manifest.write_text("{}")
    plan(made, told.append)
    plan(made, told.append, force=True)
    assert [line.removeprefix(f"{run.path}: ") for line in told] == [
        "contains an interrupted training. `diffuse train` resumes it from step 2; --force restarts it",
        "contains a run that would be replaced",
        "already contains a finished run. Add --more N to train it further, --force to replace it, or choose another output_dir",
        "contains a run that would be replaced",
    ]


def test_one_of_a_thing_is_told_in_the_singular(config):
    made, told = config({"targets": ["{a}"]}, alg_config={"n_iters": 1}, generate=False), []
    trained = train(made, report=lambda _: None, notice=told.append)
    assert any(line == "1 prompt, 1 target" for line in told)
    assert trained.reason == "finished 1 iteration"
    assert "Training: 1 step, " in trained.run.card.read_text()


def test_a_disk_that_is_too_full_is_found_before_training(config, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("diffusecli.files.writing.shutil.disk_usage", lambda _: usage(1, 1, 5_000_000))
    with pytest.raises(MachineError, match=r"5 MB free, 10 MB needed\. Free some space or choose another folder"):
        quietly(config())


def test_a_four_bit_base_learns(tiny_model_folder, config, tmp_path):
    pytest.importorskip("bitsandbytes")
    from tests.tiny import byte_tokenizer, tiny_llama

    tiny_llama(hidden_size=128, intermediate_size=256).save_pretrained(tmp_path / "wide")
    byte_tokenizer().save_pretrained(tmp_path / "wide")
    trained, _ = quietly(config(model=str(tmp_path / "wide"), quantize="nf4"))
    assert next(iter(trained.after.kl.values())) < next(iter(trained.before.kl.values()))


def test_a_16_bit_base_learns_with_a_32_bit_adapter(config):
    from safetensors.torch import load_file

    trained, _ = quietly(config(precision="bf16"))
    assert next(iter(trained.after.kl.values())) < 0.2 * next(iter(trained.before.kl.values()))
    assert all(w.dtype == torch.float32 for w in load_file(trained.run.path / "adapter_model.safetensors").values())


def test_a_tied_output_layer_is_no_target(config):
    with pytest.raises(InputError, match=r"output layer is tied to its embedding\. Remove the output layer"):
        quietly(config(lora={"targets": ["q_proj", "lm_head"]}))


def test_an_untied_output_layer_can_be_adapted(config, tmp_path):
    from tests.tiny import byte_tokenizer, tiny_llama

    tiny_llama(tie_word_embeddings=False).save_pretrained(tmp_path / "untied")
    byte_tokenizer().save_pretrained(tmp_path / "untied")
    trained, _ = quietly(config(model=str(tmp_path / "untied"), lora={"targets": ["q_proj", "lm_head"]}))
    assert next(iter(trained.after.kl.values())) < 0.2 * next(iter(trained.before.kl.values()))


def test_figures_of_test_prompts_are_exact_with_dropout_too(config, prompt_file):
    other = str(prompt_file("other.json", request="Say another letter."))
    made = config(alg_config={"n_iters": 1, "learning_rate": 0.05}, eval_every=1, lora={"dropout": 0.5})
    trained, seen = quietly(made.model_copy(update={"test_prompts": (other,), "generate": False}))
    assert seen[-1].test_kl[other] == pytest.approx(trained.test.kl[other], rel=1e-6)


REFUSED_STARTS = {
    "a missing ckpt_dir": ({"ckpt_dir": "results/none"}, None, "results/none: ckpt_dir contains no adapter. First train the run that creates it"),
    "a ckpt_dir in the output folder": ({"ckpt_dir": "results/new/x"}, "results/new/x", "results/new/x: ckpt_dir is in the output_dir"),
    "an adapter of another shape": ({}, "wide", "size mismatch for base_model.model.model.layers.0"),
    "an adapter that is damaged": ({}, "nan", "contains NaN or infinite numbers"),
    "an adapter that is not plain": ({}, "dora", "'use_qalora' asks for more than plain LoRA"),
    "other weights than the run's": ({}, "other weights", "was trained on other weights"),
    "an unknown device": ({"load_model": False, "device": "gpu"}, None, "the device 'gpu' is unknown or not available"),
    "a tracker": ({"load_model": False, "tracker": "clearml"}, None, "tracker: clearml is not installed"),
    "unknown modules": ({"load_model": False, "lora": {"targets": "nothing"}}, None, "lora.targets nothing:"),
    "a file in place of the output folder": ({"load_model": False, "output_dir": "p.json/x"}, None, "p.json/x: cannot be written: Not a directory"),
    "too few instructions": ({"load_model": False, "retain": {"prompts": ["p.json"]}}, None, "has 1 instruction, but at least 3 are needed"),
    "a long test prompt": ({"load_model": False, "test_prompts": ["long.json"]}, None, "long.json: the request with its longest target has"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_STARTS)
def test_a_dry_run_refuses_what_train_refuses_with_the_same_sentence(trained, tmp_path, in_process, monkeypatch, case):
    fields, kind, told = REFUSED_STARTS[case]
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "results" / "r1"
    if kind is not None:
        start = shutil.copytree(run, tmp_path / fields.get("ckpt_dir", "results/other"))
        fields = {"ckpt_dir": str(start.relative_to(tmp_path)), **fields}
        spoil(start, kind)
    (tmp_path / "long.json").write_text(json.dumps({"request": "x" * 2000, "targets": ["{a}"]}))
    settings = {**trained.model_dump(mode="json"), "output_dir": "results/new", "load_model": True, "test_prompts": [], **fields}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    dry = in_process("train", "c.yaml", "--dry-run")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
    real = in_process("train", "c.yaml")
    assert told in dry.stderr, dry.stderr
    assert dry.returncode == real.returncode != 0
    assert dry.stderr.splitlines()[-1] == real.stderr.splitlines()[-1]


def spoil(adapter, kind):
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if kind == "wide":
        save_file(
            {name: torch.zeros(*weight.shape[:-1], weight.shape[-1] + 1) for name, weight in load_file(weights).items()}, weights
        )
    elif kind == "nan":
        save_file({name: weight * float("nan") for name, weight in load_file(weights).items()}, weights)
    elif kind == "dora":
        config.write_text(json.dumps({**json.loads(config.read_text()), "use_qalora": True}))
    elif kind == "other weights":
        manifest = adapter / "run.json"
        other = {"model_revision": "fingerprint sha256 0", "model_fingerprint": "sha256 0"}
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **other}))


def test_a_dry_run_refuses_an_interrupted_run_of_other_settings(trained, tmp_path, in_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**trained.model_dump(mode="json"), "output_dir": "results/new", "alg_config": {"n_iters": 3}, "save_every": 1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    with monkeypatch.context() as during:
        during.setattr("diffusecli.verbs.train.save_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = in_process("train", "c.yaml")
    assert stopped.returncode == 130
    assert (
        "results/new: interrupted. The training is complete and its last checkpoint is saved. The same command resumes from there"
        in stopped.stderr
    )
    assert in_process("train", "c.yaml", "--dry-run").returncode == 0
    for words in [("--dry-run",), ()]:
        done = in_process("train", "c.yaml", "--set", "seed=8", *words)
        assert done.returncode == 2
        assert "contains an interrupted run with different settings: seed (was 7, now 8)" in done.stderr
