"""The installed command: exit codes, stdout and stderr as a user or a script sees them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import HANG
from tests.tiny import CHATML

BINOMIAL_WEIGHTS = [
    0.107374182, 0.268435456, 0.301989888, 0.201326592, 0.088080384, 0.0264241152,
    0.005505024, 0.000786432, 7.3728e-05, 4.096e-06, 1.024e-07,
]  # fmt: skip


def config_text(model, prompt, **algorithm):
    settings = json.dumps({"n_iters": 3, **algorithm})
    return (
        f"model: {model}\ntrain_prompts: [{prompt}]\ntest_prompts: [{prompt}]\nalg_config: {settings}\noutput_dir: results/tiny\n"
    )


def test_help_and_version(diffuse):
    assert "init-prompt" in diffuse("--help").stdout
    assert diffuse("--version").stdout.startswith("diffuse 0.")


def test_without_arguments_it_says_what_to_type_first_and_ends_as_wrong_usage_does(diffuse):
    done = diffuse()
    assert (done.returncode, done.stdout) == (2, "")
    assert "First steps:\n" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_python_m_diffusecli_is_the_same_command(diffuse):
    def module(*words):
        return subprocess.run(
            [sys.executable, "-m", "diffusecli", *words], capture_output=True, text=True, check=False, timeout=HANG
        )

    assert module("--version").stdout == diffuse("--version").stdout
    wrong, known = module("validate", "nowhere.json"), diffuse("validate", "nowhere.json")
    assert (wrong.returncode, wrong.stderr) == (known.returncode, known.stderr)


HEAVY = ("torch", "transformers", "peft", "accelerate", "pandas", "scipy")


def loaded_by(*words):
    """The heavy modules that a command imports, asked in a process of its own."""
    code = f"import sys; sys.argv = ['diffuse', *{words!r}]\ntry:\n from diffusecli.cli import main; main()\nexcept SystemExit: pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG)
    return done.stdout.splitlines()[-1]


def test_help_and_validate_never_import_heavy_packages():
    assert loaded_by("--help") == "[]"
    assert loaded_by("validate", "prompts") == "[]"


def test_the_test_for_heavy_imports_can_fail():
    assert "torch" in loaded_by("sample", "--mode", "lora", "--config", "missing.yaml") or "scipy" in loaded_by(
        "init-prompt", "--binomial", "10", "0.2"
    )


def test_init_prompt_gives_the_very_prompt_of_the_originals_readme(diffuse):
    done = diffuse("init-prompt", "--binomial", 10, 0.2)
    prompt = json.loads(done.stdout)
    assert done.returncode == 0
    assert prompt == {
        "request": "Generate a random number between 0 and 10 drawn from the binomial distribution B(10, 0.2). "
        "Output only the number between two curly braces, like this: {number}. Don't output code.",
        "response": [""],
        "targets": [f"{{{k}}}" for k in range(11)],
        "weights": BINOMIAL_WEIGHTS,
    }
    assert "30.2 %" in done.stderr


def test_init_prompt_writes_a_file_once_and_replaces_it_only_when_forced(in_process, tmp_path):
    assert in_process("init-prompt", "--binomial", 2, 0.5, "-o", "b.json").returncode == 0
    before = (tmp_path / "b.json").read_text()
    refused = in_process("init-prompt", "--binomial", 3, 0.5, "-o", "b.json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "b.json: exists already" in refused.stderr
    assert (tmp_path / "b.json").read_text() == before
    assert in_process("init-prompt", "--binomial", 3, 0.5, "-o", "b.json", "--force", "--no-preview").returncode == 0
    assert len(json.loads((tmp_path / "b.json").read_text())["targets"]) == 4


def test_validate_accepts_prompts_configs_and_folders(in_process, prompt_file, tmp_path):
    prompt_file("p.json")
    (tmp_path / "c.yaml").write_text(config_text("owner/m", "p.json"))
    for words in (["p.json"], ["c.yaml"], ["."]):
        done = in_process("validate", *words)
        assert done.returncode == 0, done.stderr
    assert "sound: 1 prompt, 1 config; 0 errors" in in_process("validate", "p.json", "c.yaml").stdout


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"load_model": True, "ckpt_dir": "r/a"}, 1, "r/a is in the output_dir, which is emptied first"),
        ({"load_model": True, "ckpt_dir": "odd"}, 1, "odd/adapter_config.json:1:"),
        ({"load_model": True, "ckpt_dir": "later"}, 0, "later does not exist yet, train what makes it first"),
        ({"load_model": True, "ckpt_dir": "p"}, 1, "p holds no adapter, name the folder of a trained run"),
        ({"device": "gpu"}, 1, "the device 'gpu' is unknown, use auto, cpu, cuda"),
        ({"device": "cuda:1"}, 0, ""),
        ({"tracker": "clearml"}, 0, "clearml is not installed here, run `pip install clearml` where you train"),
        ({"output_dir": "p/0.json/x"}, 1, "p/0.json/x: cannot be written: Not a directory"),
        ({"retain": {"prompts": ["p/0.json", "p/1.json"]}}, 1, "names 2 instructions, at least 3 are needed"),
        ({"retain": {"prompts": ["p"]}}, 0, ""),
    ],
)
def test_validate_finds_what_train_would_refuse_before_it_loads_a_model(in_process, tmp_path, fields, code, told):
    (tmp_path / "p").mkdir()
    for number in range(3):
        (tmp_path / "p" / f"{number}.json").write_text(json.dumps({"request": f"Say {number}.", "targets": ["{a}", "{b}"]}))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    (tmp_path / "odd" / "adapter_model.safetensors").write_bytes(b"")
    settings = {"model": "owner/name", "train_prompts": ["p/0.json"], "output_dir": "r", **fields}
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    done = in_process("validate", "c.yaml")
    assert done.returncode == code, done.stderr
    assert told in done.stderr


def test_validate_tells_every_problem_and_exits_1(in_process, prompt_file, tmp_path):
    prompt_file("a.json", weights=[1])
    prompt_file("b.json", weights=[1, -1])
    done = in_process("validate", ".")
    assert done.returncode == 1
    assert "a.json:1:" in done.stderr
    assert "the weight -1 is not a probability" in done.stderr
    assert done.stdout == "failed: 2 errors, 2 warnings, 0 notices; passed: 0 prompts, 0 configs\n"
    prompt_file("c.json")
    assert in_process("validate", ".").stdout.endswith("failed: 2 errors, 3 warnings, 0 notices; passed: 1 prompt, 0 configs\n")


def test_what_a_tokenizer_refuses_is_not_sound_and_its_warnings_count_as_errors_when_strict(
    in_process, prompt_file, tiny_model_folder, tmp_path
):
    prompt_file("a.json", request="Say a letter, like this: {letter}.")
    (tmp_path / "t.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + CHATML)
    dated = ("--model", tiny_model_folder, "--chat-template", "t.jinja")
    (tmp_path / "r.jinja").write_text("{{ raise_exception('no') }}")
    refusing = ("--model", tiny_model_folder, "--chat-template", "r.jinja")
    done = in_process("validate", "a.json", *refusing)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "failed: 1 error, 0 warnings, 0 notices; passed: 0 prompts, 0 configs",
    )
    for strict, code, line in (
        ((), 0, "sound: 1 prompt, 0 configs; 0 errors, 1 warning, 0 notices"),
        (("--strict",), 1, "failed: 1 error, 0 warnings, 0 notices; passed: 0 prompts, 0 configs"),
    ):
        done = in_process("validate", "a.json", *dated, *strict)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, line), done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["validate", "nowhere.json"], 2, "nowhere.json: does not exist"),
        (["train", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
        (["train", "."], 2, ".: is a folder, name one file in it"),
        (["train", "broken.yaml"], 2, "broken.yaml:1:2: is not YAML"),
        (["train", "unknown.yaml"], 2, "unknown key 'modle', did you mean 'model'?"),
        (["train", "no-prompt.yaml"], 2, "missing.json: does not exist"),
        (["train", "no-model.yaml"], 2, "unknown model 'smollm2-135m', did you mean 'smollm2-135m-instruct'? (or name a folder"),
        (["sample", "--mode", "tuned"], 2, "--mode tuned: must be one of untuned, lora"),
        (["sample"], 2, "results: no such file or folder"),
        (["sample", "--temperature", "0"], 2, "--temperature 0: must be above 0"),
        (["evaluate", "."], 2, ".: no run there"),
        (["evaluate"], 2, "Missing argument"),
        (["init-prompt"], 2, "name a distribution"),
        (["init-prompt", "--binomial", "0", "0.5"], 2, "N must be 1 or more"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_mistakes_are_one_sentence_on_stderr_with_their_exit_code(in_process, prompt_file, tmp_path, words, code, message):
    prompt_file("p.json")
    (tmp_path / "broken.yaml").write_text("{")
    (tmp_path / "unknown.yaml").write_text("modle: x\noutput_dir: o\n")
    (tmp_path / "no-prompt.yaml").write_text(config_text("owner/m", "missing.json"))
    (tmp_path / "no-model.yaml").write_text(config_text("smollm2-135m", "p.json"))
    before = sorted(tmp_path.rglob("*"))
    done = in_process(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []


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
    assert "lora" in evaluated.stdout
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
